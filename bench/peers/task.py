"""What every peer has to do with an image, so that all do the same work.

Fetching and the order of things differ and stand in each peer's own program; decoding, looking,
deciding and storing are the same, and are called one after the other.
"""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import cv2
import msgspec
import numpy as np
import torch

from imagewire.settings import Settings, load_settings
from models.catalog import load_catalog
from models.device import choose_device
from operators.chain import OperatorChain
from operators.embedding import EmbeddingOperator
from operators.findings import Fingerprint, ImageInfo
from operators.frame import Frame, Origin, Stage
from operators.policy import Policy
from operators.registry import build_operators
from sinks.clickhouse.sink import ClickHouseSink
from sinks.kafka.sink import KafkaSink
from sinks.qdrant.sink import QdrantSink
from sinks.sink import Sink

BATCH = 16
"""Images that a peer gives to its operators at once: Imagewire's own default."""
WITHIN = 0.2
"""Seconds that a peer waits for a full batch: Imagewire's own default."""
SESSION_TIMEOUT = 6.0
"""Seconds after which the broker gives up a killed peer; Kafka's least, as for the worker."""


class Reference(msgspec.Struct):
    """The record on the topic of images."""

    id: str
    uri: str
    feed: str
    captured_at: int


_REFERENCE = msgspec.json.Decoder(Reference)


def read_settings() -> Settings:
    """The settings of the environment; called first, as it also sets logging up."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    return load_settings().settings


def frame_of(topic: str, partition: int, offset: int, timestamp_ms: int, value: bytes) -> Frame:
    """A frame for a Kafka record."""
    reference = _REFERENCE.decode(value)
    return Frame(
        image_id=reference.id,
        feed=reference.feed,
        event_time_ms=reference.captured_at,
        origin=Origin(topic, partition, offset, timestamp_ms, value=value),
        id_given=True,
        captured_at_given=True,
        uri=reference.uri,
    )


class Eyes:
    """Decodes and looks at pictures. Belongs to one thread."""

    def __init__(self, settings: Settings) -> None:
        device = choose_device(settings.models.device, settings.models.precision)
        self._device = device.torch_device
        catalog = load_catalog(settings.models.catalogs)
        self._chain = OperatorChain(
            build_operators(settings.operators, device, catalog),
            Policy.load(settings.policy.file),
        )
        self._chain.setup()

    def look(self, frames: Sequence[Frame]) -> None:
        """Decode `frames`, run every operator over them, and decide."""
        for frame in frames:
            decode(frame, self._device)
        self._chain.process(frames)

    def embedding_model(self) -> tuple[str, int] | None:
        """`name@version` and dimension of the embedder, if there is one."""
        for operator in self._chain.operators:
            if isinstance(operator, EmbeddingOperator):
                return operator.model_versions()[operator.name], operator.dimension
        return None


def decode(frame: Frame, device: torch.device) -> None:
    """Fill the pixels of a frame from its bytes, as a user of OpenCV does."""
    content = frame.content or b""
    frame.findings.fingerprint = Fingerprint(hashlib.sha256(content).hexdigest())
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        frame.fail(Stage.DECODE, "not-an-image", "OpenCV cannot read it")
        return
    height, width = pixels.shape[:2]
    frame.findings.image = ImageInfo(width, height, "jpeg", len(content))
    frame.pixels = torch.from_numpy(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)).to(device)
    frame.content = None


class Stores:
    """Kafka's output topics, ClickHouse and Qdrant, written one after the other.

    An async context manager.
    """

    def __init__(self, settings: Settings, embedding: tuple[str, int] | None) -> None:
        self._sinks: list[Sink] = [KafkaSink(settings.kafka), ClickHouseSink(settings.clickhouse)]
        if embedding is not None:
            self._sinks.append(QdrantSink(settings.qdrant, *embedding))

    async def __aenter__(self) -> Self:
        for sink in self._sinks:
            await sink.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for sink in self._sinks:
            await sink.close()

    async def write(self, frames: Sequence[Frame]) -> None:
        """Return when every store has confirmed `frames`."""
        for sink in self._sinks:
            await sink.write(frames)
