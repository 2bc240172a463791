"""Apache Kafka that lets in only who proves to be somebody, over TLS."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from certificates import Certificates

from imagewire.embedded.kafka import ApacheKafka
from imagewire.embedded.ports import LOOPBACK, free_port

USER = "imagewire"
_LOGIN = "org.apache.kafka.common.security"


class SecureKafka(ApacheKafka):
    """`secure_address` speaks SASL_SSL with PLAIN, SCRAM and OAUTHBEARER (unsigned tokens).

    The listener of the base class stays open for the broker itself.
    """

    def __init__(self, directory: Path, certificates: Certificates, password: str) -> None:
        super().__init__(directory, port=free_port(), log_directory=directory / "logs")
        self._certificates = certificates
        self._password = password
        self._secure_port = free_port()
        self._elsewhere_port = free_port()

    @property
    def secure_address(self) -> str:
        return f"{LOOPBACK}:{self._secure_port}"

    @property
    def elsewhere_address(self) -> str:
        """Shows a certificate that was made out for another host."""
        return f"{LOOPBACK}:{self._elsewhere_port}"

    def _write_properties(self) -> None:
        super()._write_properties()
        text = self._properties.read_text()
        for name in ("listeners", "advertised.listeners"):
            [line] = [line for line in text.splitlines() if line.startswith(f"{name}=")]
            more = (
                f"SECURE://{LOOPBACK}:{self._secure_port},"
                f"ELSEWHERE://{LOOPBACK}:{self._elsewhere_port}"
            )
            text = text.replace(line, f"{line},{more}")
        text = text.replace(
            "CLIENTS:PLAINTEXT,", "CLIENTS:PLAINTEXT,SECURE:SASL_SSL,ELSEWHERE:SSL,"
        )
        directory = self._properties.parent
        for listener, certificate, key in (
            ("secure", self._certificates.server, self._certificates.key),
            ("elsewhere", self._certificates.elsewhere, self._certificates.elsewhere_key),
        ):
            store = directory / f"{listener}.pem"
            store.write_text(key.read_text() + certificate.read_text())
            prefix = f"listener.name.{listener}"
            text += f"{prefix}.ssl.keystore.type=PEM\n{prefix}.ssl.keystore.location={store}\n"
        prefix = "listener.name.secure"
        text += f"{prefix}.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER\n"
        text += (
            f"{prefix}.plain.sasl.jaas.config={_LOGIN}.plain.PlainLoginModule required "
            f'user_{USER}="{self._password}";\n'
        )
        for mechanism in ("scram-sha-256", "scram-sha-512"):
            text += (
                f"{prefix}.{mechanism}.sasl.jaas.config={_LOGIN}.scram.ScramLoginModule required;\n"
            )
        text += (
            f"{prefix}.oauthbearer.sasl.jaas.config="
            f"{_LOGIN}.oauthbearer.OAuthBearerLoginModule required "
            'unsecuredLoginStringClaim_sub="broker";\n'
        )
        # Java reads properties as Latin-1, with escapes for everything else.
        self._properties.write_text("".join(c if c.isascii() else f"\\u{ord(c):04x}" for c in text))

    def _command(self, java: str, main_class: str, *arguments: str) -> list[str]:
        if arguments[0] == "format":
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
                user = f"{mechanism}=[name={USER},password={self._password}]"
                arguments = (*arguments, "--add-scram", user)
        return super()._command(java, main_class, *arguments)


@contextmanager
def secure_kafka(
    directory: Path, certificates: Certificates, password: str
) -> Iterator[SecureKafka]:
    """Runs one on an event loop of its own, so that it outlives those of single tests."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="secure-kafka")
    thread.start()
    broker = SecureKafka(directory, certificates, password)
    try:
        asyncio.run_coroutine_threadsafe(broker.start(), loop).result(150)
        yield broker
    finally:
        asyncio.run_coroutine_threadsafe(broker.stop(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
