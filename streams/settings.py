"""Settings of the stream: what is fetched from where, how frames are batched and delivered.

Each field's description is its documentation: `imagewire config` prints it and docs/settings.md is
made from it.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

MEBIBYTE = 1024 * 1024


class Section(BaseModel):
    """A table of the settings file: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class FetchSettings(Section):
    """Where image references may point, and how much fetching may cost."""

    concurrency: int = Field(32, ge=1, le=1024, description="References fetched at the same time.")
    per_host: int = Field(8, ge=1, le=256, description="Connections to one host at the same time.")
    timeout: float = Field(
        10.0,
        gt=0,
        le=600,
        description="Seconds for one reference, redirects, retries and body included.",
    )
    attempts: int = Field(
        3,
        ge=1,
        le=20,
        description="Tries for a reference that is refused, reset or answered with 429 or 5xx, "
        "all within the same timeout.",
    )
    max_bytes: int = Field(
        32 * MEBIBYTE, ge=1, description="Largest encoded image, in bytes, inline or fetched."
    )
    max_redirects: int = Field(5, ge=0, le=20, description="Redirects followed; each is checked.")
    schemes: frozenset[Literal["http", "https", "file", "data", "s3", "gs", "az"]] = Field(
        frozenset({"http", "https", "file", "data", "s3", "gs", "az"}),
        description="URI schemes that references may use.",
    )
    ports: frozenset[int] = Field(
        frozenset({80, 443}), description="Ports that http and https references may name."
    )
    allow_networks: tuple[IPv4Network | IPv6Network, ...] = Field(
        (),
        description="Networks reachable although they are not global unicast, such as "
        "'10.1.0.0/16'. Empty: public addresses only.",
    )
    file_roots: tuple[Path, ...] = Field(
        (), description="Folders below which file: references may point. Empty: none may."
    )
    buckets: tuple[str, ...] = Field(
        (), description="Buckets of object stores that may be read, such as 's3://photos'."
    )

    @field_validator("file_roots")
    @classmethod
    def _roots_are_absolute(cls, roots: tuple[Path, ...]) -> tuple[Path, ...]:
        for root in roots:
            if not root.is_absolute():
                raise ValueError(f"'{root}' is not an absolute path; write it from the root")
        return tuple(root.resolve() for root in roots)


class BatchSettings(Section):
    """How frames are gathered for the device."""

    max_batch: int = Field(16, ge=1, le=1024, description="Most frames in one batch.")
    max_batch_bytes: int = Field(
        512 * MEBIBYTE, ge=1, description="Most decoded bytes in one batch (3 a pixel)."
    )
    max_wait: float = Field(
        0.2,
        ge=0,
        le=60,
        description="Seconds after its arrival at which the oldest frame's batch closes, "
        "less the service time predicted for it.",
    )
    work_conserving: bool = Field(
        True,
        description="A free device takes what is ready at once. Off: it waits for a full batch "
        "or max_wait, for devices that need full batches.",
    )


class ReuseSettings(Section):
    """Which images are not analysed because an analysis of the same, or nearly the same, is known.
    docs/deploy.md says how to measure what the second loses."""

    identical: bool = Field(
        True,
        description="Images with the same bytes as an earlier one take over its findings; their "
        "verdicts are given anew.",
    )
    entries: int = Field(
        10_000, ge=1, le=10_000_000, description="Most findings kept for that, by worker."
    )
    max_bytes: int = Field(
        256 * MEBIBYTE,
        ge=MEBIBYTE,
        description="Most memory that the findings kept may take; with an embedding of 1280 "
        "numbers one image's are about 15 KB.",
    )
    near_distance: int = Field(
        0,
        ge=0,
        le=64,
        description="Text, embedding and scores of a frame are taken over from the last frame "
        "of its feed that was analysed if the PDQ hashes of the two differ in at most so many of "
        "256 bits. 0: never.",
    )
    near_frames: int = Field(
        30,
        ge=1,
        le=100_000,
        description="How many frames in a row may take over the findings of one.",
    )


class BanSettings(Section):
    """Banned images, which `imagewire ban` lists. docs/moderation/known-images.md says more."""

    enabled: bool = Field(
        True,
        description="Compare images with the banlists. No image is taken before they were read.",
    )
    turned: bool = Field(
        True,
        description="Also recognise pictures that were mirrored or turned by quarters, by their "
        "PDQ hash. Off: a comparison costs a fifth.",
    )
    banned_skip_models: bool = Field(
        True,
        description="An image that the policy blocks for its hash alone gets its verdict at once "
        "and is not looked at further: its findings have no objects, texts, embedding and scores.",
    )


class StreamSettings(Section):
    """The Faust side: consumer group, intake and shutdown."""

    group: str = Field(
        "imagewire", min_length=1, max_length=200, description="Kafka consumer group."
    )
    max_in_flight: int = Field(
        512,
        ge=1,
        le=100_000,
        description="Frames taken from Kafka and not yet safe in every sink, for each lane. Sinks "
        "write blocks of half as many at most times, and large blocks are what they are good at.",
    )
    max_in_flight_bytes: int = Field(
        1024 * MEBIBYTE,
        ge=MEBIBYTE,
        description="Bytes of records taken from Kafka and not yet safe in every sink, for each "
        "lane; likewise decoded bytes that wait for the device.",
    )
    session_timeout: float = Field(
        10.0,
        ge=1,
        le=300,
        description="Seconds without a heartbeat after which Kafka gives a worker's partitions "
        "to another.",
    )
    drain_timeout: float = Field(
        30.0,
        ge=0,
        le=600,
        description="Seconds that frames in flight may take to finish at a stop or a rebalance; "
        "the rest are delivered again.",
    )
    commit_interval: float = Field(
        1.0, gt=0, le=60, description="Seconds between commits of acknowledged offsets."
    )
    fetch_max_wait: float = Field(
        0.5,
        gt=0,
        le=5,
        description="Seconds a broker may hold an empty fetch while no records come; waits are "
        "shorter, down to 0.02, after some came. Apache Kafka answers a held fetch at once when "
        "there is a record. A broker that does not, such as tansu, needs 0.02 here.",
    )
    clickhouse_linger: float = Field(
        0.5,
        ge=0,
        le=30,
        description="Seconds for which rows gather before an insert, unless half of max_in_flight "
        "has gathered before: few large blocks are what ClickHouse wants. Verdicts do not wait for "
        "it.",
    )
    qdrant_linger: float = Field(
        0.1, ge=0, le=30, description="Seconds for which points gather before an upsert."
    )
    block_rows: int = Field(
        1000, ge=1, le=100_000, description="Most frames in one write to a sink."
    )
    max_attempts: int = Field(
        5,
        ge=1,
        le=1000,
        description="How often an image may become a dead letter: `imagewire replay` refuses it "
        "from then on.",
    )
