"""Apache Kafka on one machine: a single node that is broker and controller (KRaft), loopback only.

It is the reference implementation, and it keeps its log on disk, so that `imagewire up` loses
nothing when it is stopped, killed or upgraded.
"""

from __future__ import annotations

import asyncio
import base64
import os
import subprocess
import uuid
from pathlib import Path

from imagewire.embedded.broker import Broker, BrokerError, answers
from imagewire.embedded.kafka_jars import KafkaJars, require_java, resolve_jars
from imagewire.embedded.ports import LOOPBACK, free_port
from imagewire.embedded.process import STANDING_BACK, ManagedProcess, RestartPolicy

_LOG_SETTINGS = Path(__file__).with_name("kafka_log4j2.xml")

# An inline image is at most this large; ClickHouse and the fetcher have limits of their own.
MESSAGE_LIMIT_BYTES = 48 * 1024 * 1024

# A single node with small topics needs no more; Kafka's own default is 1 GiB.
_HEAP = ("-Xms128m", "-Xmx512m")

# 5 s alone, and a minute was seen beside others that wanted the processor.
_START_TIMEOUT = 180.0
# A clean shutdown flushes and writes the markers that make the next start quick.
_STOP_TIMEOUT = 30.0

_SERVER_PROPERTIES = """\
# Written by imagewire at every start; changes are overwritten.
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
listeners=CLIENTS://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=CLIENTS://{host}:{port}
listener.security.protocol.map=CLIENTS:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=CLIENTS
log.dirs={log_dir}

# One node: every internal topic has one replica. Eight partitions instead of fifty keep the first
# start quick.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4

# A node that was killed is a stranger to its own controller until its old session ends: with the
# default of 9 s a restart took 12 s.
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=1000

# Topics are created with the partitions of the settings; a mistyped name is an error.
auto.create.topics.enable=false
# The only group has few members: nobody else is worth waiting for.
group.initial.rebalance.delay.ms=0
# Workers may ask for a shorter session than Kafka's floor of 6 s.
group.min.session.timeout.ms=1000

# Images may come inline.
message.max.bytes={message_limit}
replica.fetch.max.bytes={message_limit}

# A week, in files of 256 MiB so that old ones can go. flush is left to the operating system
# (Kafka's default): acknowledged records survive the death of the broker, not a power cut.
log.retention.hours=168
log.segment.bytes=268435456
log.cleaner.dedupe.buffer.size=16777216
"""


class ApacheKafka(Broker):
    """A single-node Apache Kafka whose data lives below one directory.

    Started again on the same directory it has the same cluster id, topics, records and group
    offsets, whatever the port.

    Args:
        directory: for `log/` (the data) and `server.properties`.
        port: where clients connect.
        controller_port: where the node talks to itself; by default a free one at every start.
        log_directory: where `kafka.log` goes.
        restart: what to do when it dies.
        jars: by default those that `resolve_jars` finds or fetches.
    """

    name = "apache"
    durable = True
    supports_idempotence = True

    def __init__(
        self,
        directory: Path,
        *,
        port: int,
        log_directory: Path,
        controller_port: int | None = None,
        restart: RestartPolicy | None = None,
        jars: KafkaJars | None = None,
    ) -> None:
        self._directory = directory.absolute()
        self._port = port
        self._controller_port = controller_port or free_port()
        self._log_directory = log_directory
        self._restart = restart
        self._jars = jars

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self._port}"

    @property
    def version(self) -> str | None:
        """Kafka's version, known after the first start."""
        return self._jars.version if self._jars is not None else None

    async def start(self) -> None:
        java = await asyncio.to_thread(require_java)
        if self._jars is None:
            self._jars = await resolve_jars()
        if self.process is None:
            self.process = ManagedProcess(
                "kafka",
                self._command(java, "kafka.Kafka", str(self._properties)),
                log_directory=self._log_directory,
                ready=lambda: answers(self.address),
                start_timeout=_START_TIMEOUT,
                stop_timeout=_STOP_TIMEOUT,
                restart=self._restart,
                niceness=STANDING_BACK,
            )
        self._write_properties()
        if not (self._data / "meta.properties").exists():
            await asyncio.to_thread(self._format, java)
        await self.process.start()

    @property
    def _properties(self) -> Path:
        return self._directory / "server.properties"

    @property
    def _data(self) -> Path:
        return self._directory / "log"

    def _command(self, java: str, main_class: str, *arguments: str) -> list[str]:
        assert self._jars is not None
        return [
            java,
            *_HEAP,
            # A small heap on few cores: the serial collector starts fastest and holds least.
            "-XX:+UseSerialGC",
            # Compilers took half of a broker's processor time in its first minutes beside a worker,
            # the optimising one most of that, and its code gave no higher rate there.
            "-XX:TieredStopAtLevel=1",
            "-XX:+ExitOnOutOfMemoryError",
            "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={_LOG_SETTINGS}",
            "-cp",
            f"{self._jars.directory}{os.sep}*",
            main_class,
            *arguments,
        ]

    def _write_properties(self) -> None:
        # A backslash or a line break in the path would end or change the property.
        if any(character in str(self._data) for character in "\\\n\r,"):
            raise BrokerError(
                f"Kafka cannot keep its log in {self._data}: the path has a comma, a backslash or "
                "a line break; choose another directory"
            )
        self._data.mkdir(parents=True, exist_ok=True)
        self._properties.write_text(
            _SERVER_PROPERTIES.format(
                host=LOOPBACK,
                port=self._port,
                controller_port=self._controller_port,
                log_dir=self._data,
                message_limit=MESSAGE_LIMIT_BYTES,
            )
        )

    def _format(self, java: str) -> None:
        """Give the empty directory its cluster id, which `meta.properties` keeps from then on."""
        # Kafka's own form of an id: 16 random bytes in URL-safe base64, not starting with a dash.
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        answer = subprocess.run(  # noqa: S603 - our own command
            self._command(
                java,
                "kafka.tools.StorageTool",
                *("format", "--cluster-id", cluster_id.replace("-", "_")),
                *("--config", str(self._properties), "--ignore-formatted"),
            ),
            capture_output=True,
            text=True,
            timeout=_START_TIMEOUT,
            check=False,
        )
        if answer.returncode != 0:
            raise BrokerError(
                f"Kafka's storage tool cannot prepare {self._data} "
                f"(exit code {answer.returncode}): {(answer.stderr or answer.stdout).strip()}"
            )
