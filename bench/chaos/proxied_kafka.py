"""Apache Kafka with a second listener that advertises a proxy's port.

A Kafka client connects where the broker's metadata says, not where it was pointed; so a proxy in
front of the only listener is passed by. Workers use the second listener and stay behind the proxy,
while the producer and the account use the first and do not notice.
"""

from __future__ import annotations

from pathlib import Path

from imagewire.embedded.kafka import ApacheKafka
from imagewire.embedded.ports import LOOPBACK, free_port

_SECOND_LISTENER = """
# For the workers of bench.chaos, through a proxy. Later lines win.
listeners=CLIENTS://{host}:{port},WORKERS://{host}:{second},CONTROLLER://{host}:{controller}
advertised.listeners=CLIENTS://{host}:{port},WORKERS://{host}:{proxy}
listener.security.protocol.map=CLIENTS:PLAINTEXT,WORKERS:PLAINTEXT,CONTROLLER:PLAINTEXT
"""


class ProxiedKafka(ApacheKafka):
    """An `ApacheKafka` whose `second_port` is to be reached through the proxy at `proxy_port`.

    It is not restarted when it dies: `start` brings it back.
    """

    def __init__(self, directory: Path, *, log_directory: Path, second_port: int) -> None:
        port, controller_port = free_port(), free_port()
        super().__init__(
            directory, port=port, controller_port=controller_port, log_directory=log_directory
        )
        self._client_port = port
        self._own_controller_port = controller_port
        self.second_port = second_port
        self.proxy_port = second_port

    def _write_properties(self) -> None:
        super()._write_properties()
        with self._properties.open("a") as properties:
            properties.write(
                _SECOND_LISTENER.format(
                    host=LOOPBACK,
                    port=self._client_port,
                    second=self.second_port,
                    proxy=self.proxy_port,
                    controller=self._own_controller_port,
                )
            )
