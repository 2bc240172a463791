"""Which broker the embedded stack runs, and the reason in words.

Apache Kafka is the default because it keeps what it acknowledged; tansu stands in where there is
neither Java nor a Kafka. The user is told which one it became, why, and what that means.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from imagewire.embedded.broker import Broker, BrokerError, ExternalBroker
from imagewire.embedded.kafka import ApacheKafka
from imagewire.embedded.kafka_jars import (
    cached_jars,
    installed_jars,
    pinned_version,
    require_java,
)
from imagewire.embedded.ports import free_port
from imagewire.embedded.process import RestartPolicy
from imagewire.embedded.tansu import Tansu

_ADDRESS = re.compile(
    r"(?:\[[0-9a-fA-F:.]+\]|[^\s:,/\[\]]+):\d{1,5}(?:,(?:\[[0-9a-fA-F:.]+\]|[^\s:,/\[\]]+):\d{1,5})*"
)

_LARGEST_PORT = 65_535

_KEPT = "records are kept on disk and survive restarts and kill -9, not a power cut of the host"
_LOST = "records are held in memory only: what it holds is gone when it stops"


class BrokerSpecError(BrokerError):
    """What was asked for is no broker, whatever this machine has."""


@dataclass(frozen=True, slots=True)
class BrokerChoice:
    """A broker, not yet started, and why it is this one.

    Attributes:
        reason: one sentence for the user: which broker, why, and what becomes of the records.
    """

    broker: Broker
    reason: str


def choose_broker(
    spec: str | None,
    *,
    directory: Path,
    log_directory: Path,
    port: int | Callable[[], int] = free_port,
    controller_port: int | None = None,
    restart: RestartPolicy | None = None,
) -> BrokerChoice:
    """The broker for `spec`: "apache", "tansu", "HOST:PORT", or None or "auto" to choose.

    Auto takes Apache Kafka where Java 17 or later is found together with a named installation,
    jars cached from earlier, or Maven; else tansu.

    Args:
        directory: Apache Kafka's data.
        log_directory: where the broker's log goes.
        port: of the clients' listener, or a function that chooses one when it is needed.
        controller_port: of Apache Kafka's controller.
        restart: for Apache Kafka; tansu is never restarted, as it would come back empty.

    Raises:
        BrokerSpecError: the spec is none of these.
        BrokerError: what it names cannot run here.
    """
    check_spec(spec)
    logs = log_directory

    def apache() -> ApacheKafka:
        return ApacheKafka(
            directory,
            port=port if isinstance(port, int) else port(),
            controller_port=controller_port,
            log_directory=logs,
            restart=restart,
        )

    def tansu() -> Tansu:
        return Tansu(port=port if isinstance(port, int) else port(), log_directory=logs)

    if spec is None or spec == "auto":
        try:
            how = apache_available()
        except BrokerError as error:
            return BrokerChoice(
                tansu(), f"tansu, because Apache Kafka cannot run: {error}; {_LOST}"
            )
        return BrokerChoice(apache(), f"Apache Kafka from {how}; {_KEPT}")
    if spec == "apache":
        return BrokerChoice(apache(), f"Apache Kafka from {apache_available()}, as asked; {_KEPT}")
    if spec == "tansu":
        return BrokerChoice(tansu(), f"tansu, as asked; {_LOST}")
    return BrokerChoice(
        ExternalBroker(spec),
        f"the broker at {spec}, as asked; what it keeps is up to its own settings",
    )


def check_spec(spec: str | None) -> None:
    """Refuse what names no broker, without looking for one.

    Raises:
        BrokerSpecError
    """
    if spec in (None, "auto", "apache", "tansu"):
        return
    assert spec is not None
    if not _ADDRESS.fullmatch(spec):
        raise BrokerSpecError(
            f"--broker {spec!r} is none of: apache, tansu, auto, HOST:PORT (such as localhost:9092)"
        )
    for address in spec.split(","):
        port = address.rpartition(":")[2]
        if not 1 <= int(port) <= _LARGEST_PORT:
            raise BrokerSpecError(
                f"--broker {spec!r}: {port} is no port; ports are 1 to {_LARGEST_PORT}"
            )


def fetches_jars(spec: str | None) -> bool:
    """Whether starting the broker for `spec` would have Maven bring Kafka's jars first."""
    if spec not in (None, "auto", "apache") or shutil.which("mvn") is None:
        return False
    try:
        require_java()
        return installed_jars() is None and cached_jars() is None
    except BrokerError:  # Apache Kafka does not start, and `choose_broker` says why
        return False


def apache_available() -> str:
    """Where Apache Kafka would come from, in words, without fetching anything.

    Raises:
        BrokerError: it cannot run here; the message says what is missing.
    """
    require_java()
    found = installed_jars() or cached_jars()
    if found is not None:
        return f"{found.origin} (version {found.version})"
    if shutil.which("mvn") is not None:
        return f"Maven, which brings version {pinned_version()} now, once"
    raise BrokerError(
        "there is no Maven to bring Kafka's jars, none are cached, and no installation is named "
        "in IMAGEWIRE_KAFKA_HOME"
    )
