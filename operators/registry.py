"""The registry: from the operators that packages offer and the settings name, to a running list.

Operators are found through the entry point group `imagewire.operators`, the built-in ones like
those of third parties, so an operator of one's own needs no change to Imagewire.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from models.catalog import Catalog
from models.device import Device
from models.errors import ModelError
from operators.operator import Operator, OperatorError
from operators.run_conditions import WHEN

GROUP = "imagewire.operators"

BUILT_IN = ("fingerprint", "objects", "text", "embedding", "scores")
"""Imagewire's own operators in the order in which they run; on unless switched off."""


def available_operators() -> dict[str, EntryPoint]:
    """Every installed operator by its name, the built-in ones first.

    Raises:
        OperatorError: two distributions offer different operators under one name.
    """
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        other = found.setdefault(entry.name, entry)
        # A checkout on the path beside its installed self lists the same operators twice.
        if other.value != entry.value:
            raise OperatorError(
                f"two operators are called '{entry.name}': {other.value} from "
                f"{_distribution(other)} and {entry.value} from {_distribution(entry)}; "
                "uninstall one of the two or rename its entry point"
            )
    ordered = [name for name in BUILT_IN if name in found]
    ordered += sorted(found.keys() - set(BUILT_IN))
    return {name: found[name] for name in ordered}


def build_operators(
    config: Mapping[str, Mapping[str, Any]], device: Device, catalog: Catalog
) -> list[Operator]:
    """The operators that `config` asks for, not yet set up.

    Built-in operators come first, in their own order, whether listed or not; others follow in the
    order in which they are listed. Each table goes to its operator as `options`, less `enabled`
    and `when`.

    Raises:
        OperatorError: a name is unknown, a table is malformed, or an operator cannot be imported
            or constructed.
        models.errors.ModelError: an operator names a model that cannot be used.
    """
    available = available_operators()
    for name, table in config.items():
        if name not in available:
            near = difflib.get_close_matches(name, available, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise OperatorError(
                f"unknown operator '{name}'{hint} Installed: {', '.join(available)}. "
                f"An operator of your own needs an entry point in the group '{GROUP}'"
            )
        if not isinstance(table, Mapping):
            raise OperatorError(f"operators.{name} must be a table of options, not {table!r}")
        if not isinstance(table.get("enabled", True), bool):
            raise OperatorError(
                f"operators.{name}.enabled is {table['enabled']!r}; it must be true or false"
            )
    names = [name for name in BUILT_IN if name in available]
    names += [name for name in config if name not in BUILT_IN]
    return [
        _build(name, available[name], config.get(name, {}), device, catalog)
        for name in names
        if config.get(name, {}).get("enabled", True)
    ]


def _build(
    name: str, entry: EntryPoint, table: Mapping[str, Any], device: Device, catalog: Catalog
) -> Operator:
    # `when` is about whether it runs, which the chain knows; see operators.run_conditions.
    options = {key: value for key, value in table.items() if key not in ("enabled", WHEN)}
    operator_class = _load(name, entry)
    try:
        return operator_class(options, device, catalog)
    except (OperatorError, ModelError):
        raise
    except Exception as error:
        raise OperatorError(
            f"operator '{name}' from {_distribution(entry)} does not accept its options "
            f"{options!r}: {type(error).__name__}: {error}; correct the table operators.{name}"
        ) from error


def _load(name: str, entry: EntryPoint) -> type[Operator]:
    where = f"operator '{name}' ({entry.value} from {_distribution(entry)})"
    try:
        loaded = entry.load()
    except Exception as error:
        raise OperatorError(
            f"{where} cannot be imported: {type(error).__name__}: {error}; "
            f"reinstall the distribution, or switch it off with operators.{name}.enabled = false"
        ) from error
    if not (isinstance(loaded, type) and issubclass(loaded, Operator)):
        raise OperatorError(f"{where} is no subclass of operators.operator.Operator")
    if getattr(loaded, "name", None) != name:
        raise OperatorError(
            f"{where} calls itself {getattr(loaded, 'name', None)!r}; its attribute 'name' must be "
            "the name of its entry point, because settings, metrics and dead letters use both"
        )
    return loaded


def _distribution(entry: EntryPoint) -> str:
    """The distribution that offers `entry`, for people who have to mend it."""
    distribution = entry.dist
    if distribution is None:
        return "an unknown distribution"
    return f"{distribution.name} {distribution.version}"
