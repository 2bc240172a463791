"""What `imagewire up` can know to be wrong before it makes a directory or starts a child.

A worker refuses the same settings, but only after a broker and two stores have come up, and its
words then stand at the end of a log.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from imagewire.embedded.datadir import DataDirectoryError, find_running
from imagewire.embedded.ports import is_free
from imagewire.policy_check import mistake_in_policy
from imagewire.settings import ConfigurationError, Settings
from imagewire.webhooks_settings import WebhookSecretError
from models.catalog import load_catalog

# `operators.registry` has it too, but importing that brings torch along.
_OPERATORS = "imagewire.operators"


def check_settings(settings: Settings) -> None:
    """Refuse what a worker would refuse of operators' names, model catalogues, the policy, term
    lists, calibrations and the secrets of webhooks.

    Options of operators are left to the worker: only the operator's class, with all that it
    imports, knows them.

    Raises:
        ConfigurationError: one of these is wrong.
        models.errors.ModelError: a model catalogue is wrong.
    """
    _check_operators(settings.operators)
    load_catalog(settings.models.catalogs)
    if settings.policy.file is not None and (mistake := mistake_in_policy(settings.policy.file)):
        raise ConfigurationError(mistake)
    _check_lists(settings)
    try:
        for webhook in settings.webhooks:
            webhook.key()
    except WebhookSecretError as error:
        raise ConfigurationError(str(error)) from error


def _check_lists(settings: Settings) -> None:
    # What reads them is imported only if there are any: most settings name none.
    if settings.terms.lists:
        from operators.terms_file import TermsError, read_terms

        try:
            read_terms(settings.terms)
        except TermsError as error:
            raise ConfigurationError(f"terms: {error}") from error
    if settings.policy.calibrations or settings.policy.calibrations_folder:
        from operators.calibration import CalibrationError, read_calibration

        try:
            for file in settings.policy.calibration_files():
                read_calibration(file)
        except CalibrationError as error:
            raise ConfigurationError(f"policy.calibrations: {error}") from error


def check_ports(ports: Mapping[str, int | None], data: Path) -> None:
    """Refuse ports that cannot be had.

    Args:
        ports: option, such as `--broker-port`, to its value; `None` for those not given, and 0 for
            any free port.
        data: the data directory; a stack that runs on it may hold the ports, and is told of later.

    Raises:
        ConfigurationError: a number is no port, or two options name the same.
        DataDirectoryError: another program listens there.
    """
    given = {option: port for option, port in ports.items() if port}
    options: dict[int, str] = {}
    for option, port in given.items():
        if not 1 <= port <= 65_535:
            raise ConfigurationError(
                f"{option} {port} is no port; name one from 1 to 65535, or 0 for any free one"
            )
        other = options.setdefault(port, option)
        if other != option:
            raise ConfigurationError(
                f"{other} and {option} are both {port}; each part needs a port of its own"
            )
    if not given or find_running(data) is not None:
        return
    for option, port in given.items():
        if not is_free(port):
            raise DataDirectoryError(
                f"{option} {port} cannot be used: another program has that port (`ss -ltnp` shows "
                "which), or it needs rights that you do not have; name another port, or none to "
                "have one chosen"
            )


def _check_operators(tables: Mapping[str, Mapping[str, Any]]) -> None:
    installed = sorted({entry.name for entry in entry_points(group=_OPERATORS)})
    for name, table in tables.items():
        if name not in installed:
            near = difflib.get_close_matches(name, installed, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ConfigurationError(
                f"[operators.{name}]: there is no operator '{name}'{hint} "
                f"(installed: {', '.join(installed)})"
            )
        if not isinstance(table.get("enabled", True), bool):
            raise ConfigurationError(f"operators.{name}.enabled must be true or false")
