"""How to reach Kafka, and the names of the topics.

One set of settings serves every client that Imagewire opens (producer, consumers, administration),
so that security is described once. The defaults fit the broker that `imagewire up` starts.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any, Literal

from aiokafka.abc import AbstractTokenProvider
from aiokafka.codec import has_gzip, has_lz4, has_snappy, has_zstd
from aiokafka.helpers import create_ssl_context
from pydantic import BaseModel, Field, SecretStr, model_validator

Compression = Literal["none", "gzip", "lz4", "zstd", "snappy"]
SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]

_CODEC_INSTALLED = {
    "none": lambda: True,
    "gzip": has_gzip,
    "lz4": has_lz4,
    "zstd": has_zstd,
    "snappy": has_snappy,
}


class TopicNames(BaseModel, extra="forbid"):
    """The topics that Imagewire reads and writes."""

    images: str = Field(
        default="images",
        min_length=1,
        description="Where producers put image references or image bytes.",
    )
    bulk: str = Field(
        default="images.bulk",
        min_length=1,
        description="Like images, for back-fills: served only when no live image waits.",
    )
    findings: str = Field(
        default="images.findings",
        min_length=1,
        description="Everything that was found, one record an image.",
    )
    verdicts: str = Field(
        default="images.verdicts",
        min_length=1,
        description="The small record that moderation consumers read, one an image.",
    )
    review: str = Field(
        default="images.review", min_length=1, description="Verdicts that ask for a person to look."
    )
    failed: str = Field(
        default="images.failed",
        min_length=1,
        description="Dead letters: the original record plus why it failed.",
    )
    reviews: str = Field(
        default="images.reviews",
        min_length=1,
        description="Where reviewers' decisions are put: allow, block, or withdraw.",
    )
    overrides: str = Field(
        default="images.overrides",
        min_length=1,
        description="What people decided, by image and by content, for every worker to know. "
        "Compacted: the last record of each key is kept for ever.",
    )
    claims: str = Field(
        default="images.claims",
        min_length=1,
        description="Which reviewer looks at which image at the moment.",
    )
    forgotten: str = Field(
        default="images.forgotten",
        min_length=1,
        description="Tombstones of images that were erased, as hashes of their ids. Compacted: "
        "kept for ever.",
    )
    bans: str = Field(
        default="images.bans",
        min_length=1,
        description="Banlists and their entries, for every worker to know. Compacted: the last "
        "record of each key is kept for ever.",
    )

    policy: str = Field(
        default="images.policy",
        min_length=1,
        description="Policies that workers take over while they run, by name. Compacted: the last "
        "record of each key is kept for ever.",
    )

    @model_validator(mode="after")
    def _names_differ(self) -> TopicNames:
        names = self.all()
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(
                f"topic {', '.join(doubled)} is named for more than one purpose; "
                "give every topic a name of its own"
            )
        return self

    def all(self) -> list[str]:
        """Every topic, inputs first."""
        return [
            self.images,
            self.bulk,
            self.findings,
            self.verdicts,
            self.review,
            self.failed,
            self.reviews,
            self.overrides,
            self.claims,
            self.forgotten,
            self.bans,
            self.policy,
        ]

    def configuration(self, name: str) -> dict[str, str]:
        """How the topic called `name` is configured when it is created."""
        if name == self.policy:
            # Where the last policy cannot be used, the one before it is wanted: compaction leaves
            # 30 days alone, in which somebody will have heard the alarm.
            return {"cleanup.policy": "compact", "min.compaction.lag.ms": "2592000000"}
        if name == self.forgotten:
            # Whoever writes a tombstone learns the broker's time from it.
            return {"cleanup.policy": "compact", "message.timestamp.type": "LogAppendTime"}
        if name in (self.overrides, self.bans):
            return {"cleanup.policy": "compact"}
        if name == self.claims:
            # Leases last minutes; old ones are of no use to anybody.
            return {"retention.ms": "86400000"}
        return {}


class FileTokenProvider(AbstractTokenProvider):  # type: ignore[misc]
    """Reads an OAuth bearer token from a file each time a connection asks for one.

    Tokens expire; whatever refreshes them (a Kubernetes projected volume, a side-car) only has to
    rewrite the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    async def token(self) -> str:
        text = await asyncio.to_thread(self._path.read_text, encoding="utf-8")
        return text.strip()


class KafkaSettings(BaseModel, extra="forbid"):
    """Connection, security, topics and producer behaviour."""

    bootstrap_servers: str = Field(
        default="127.0.0.1:9092",
        min_length=1,
        description="HOST:PORT of one or more brokers, separated by commas.",
    )
    security_protocol: SecurityProtocol = Field(
        default="PLAINTEXT", description="How connections are secured and authenticated."
    )
    ssl_cafile: Path | None = Field(
        default=None,
        description="PEM file with the authorities to trust; the system's own when not set.",
    )
    ssl_certfile: Path | None = Field(
        default=None,
        description="PEM file with the client's certificate, if the broker asks for one.",
    )
    ssl_keyfile: Path | None = Field(
        default=None, description="PEM file with the private key of ssl_certfile."
    )
    sasl_mechanism: SaslMechanism = Field(
        default="PLAIN", description="Used with SASL_PLAINTEXT and SASL_SSL."
    )
    sasl_username: str | None = Field(default=None, description="User name for PLAIN and SCRAM.")
    sasl_password: SecretStr | None = Field(
        default=None, description="Password for PLAIN and SCRAM."
    )
    sasl_token_file: Path | None = Field(
        default=None,
        description="File with the bearer token for OAUTHBEARER, read anew for each connection.",
    )
    client_id: str = Field(
        default="imagewire", description="Name under which brokers log this client."
    )
    topics: TopicNames = Field(
        default_factory=TopicNames,
        description="The names of the topics.",
    )
    partitions: int = Field(
        default=4,
        ge=1,
        description="Partitions of topics that Imagewire creates; the most workers useful.",
    )
    replication_factor: int = Field(
        default=1, ge=1, description="Replicas of topics that Imagewire creates; 3 on a cluster."
    )
    compression: Compression = Field(
        default="none",
        description="Compression of records written: none and gzip always work; "
        "lz4, zstd and snappy need the package cramjam.",
    )
    idempotence: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Let the broker drop repeats caused by network retries. auto: where it can.",
    )
    linger_ms: int = Field(
        default=2, ge=0, le=1000, description="Milliseconds that a record may wait for company."
    )
    request_timeout_ms: int = Field(
        default=15_000,
        ge=1000,
        description="Milliseconds after which an unanswered request has failed.",
    )
    max_record_bytes: int = Field(
        default=64 * 1024 * 1024,
        ge=1024,
        description="Records larger than this are not even offered to the broker, which has its "
        "own limit (message.max.bytes, 1 MB unless raised).",
    )
    include_embedding: bool = Field(
        default=False,
        description="Put the embedding into findings records. It is some 25 kB of JSON an image "
        "and stands in Qdrant anyway.",
    )

    @model_validator(mode="after")
    def _is_consistent(self) -> KafkaSettings:
        if not _CODEC_INSTALLED[self.compression]():
            raise ValueError(
                f"compression '{self.compression}' needs the package cramjam, which is not "
                "installed; install it or choose 'gzip' or 'none'"
            )
        if (self.ssl_certfile is None) != (self.ssl_keyfile is None):
            raise ValueError("ssl_certfile and ssl_keyfile belong together; set both or neither")
        if self.security_protocol.startswith("SASL"):
            if self.sasl_mechanism == "OAUTHBEARER":
                if self.sasl_token_file is None:
                    raise ValueError("sasl_mechanism OAUTHBEARER needs sasl_token_file")
            elif self.sasl_username is None or self.sasl_password is None:
                raise ValueError(
                    f"security_protocol {self.security_protocol} with {self.sasl_mechanism} needs "
                    "sasl_username and sasl_password"
                )
        return self

    def client_options(self) -> dict[str, Any]:
        """Keyword arguments for any aiokafka client.

        Raises:
            OSError, ssl.SSLError: a certificate file cannot be read or is not PEM.
        """
        options: dict[str, Any] = {
            "bootstrap_servers": [
                server.strip() for server in self.bootstrap_servers.split(",") if server.strip()
            ],
            "client_id": self.client_id,
            "request_timeout_ms": self.request_timeout_ms,
            "security_protocol": self.security_protocol,
        }
        if self.security_protocol in ("SSL", "SASL_SSL"):
            options["ssl_context"] = self._ssl_context()
        if self.security_protocol.startswith("SASL"):
            options["sasl_mechanism"] = self.sasl_mechanism
            if self.sasl_token_file is not None and self.sasl_mechanism == "OAUTHBEARER":
                options["sasl_oauth_token_provider"] = FileTokenProvider(self.sasl_token_file)
            elif self.sasl_password is not None:
                options["sasl_plain_username"] = self.sasl_username
                options["sasl_plain_password"] = self.sasl_password.get_secret_value()
        return options

    def producer_options(self) -> dict[str, Any]:
        """Keyword arguments for an aiokafka producer that waits for every replica."""
        return self.client_options() | {
            "acks": "all",
            "compression_type": None if self.compression == "none" else self.compression,
            "linger_ms": self.linger_ms,
            "max_request_size": self.max_record_bytes,
            # A batch of findings should leave in one request a partition; well below the 1 MB that
            # brokers accept, since their limit holds for the batch and not for the record.
            "max_batch_size": 256 * 1024,
        }

    def _ssl_context(self) -> ssl.SSLContext:
        context: ssl.SSLContext = create_ssl_context(
            cafile=None if self.ssl_cafile is None else str(self.ssl_cafile),
            certfile=None if self.ssl_certfile is None else str(self.ssl_certfile),
            keyfile=None if self.ssl_keyfile is None else str(self.ssl_keyfile),
        )
        return context
