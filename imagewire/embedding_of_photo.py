"""The embedding of a photo that is not in the feed, made the way the worker makes it."""

from __future__ import annotations

from pathlib import Path

from imagewire.settings import ConfigurationError, Settings
from models.catalog import load_catalog
from models.device import choose_device
from operators.decode import make_decoder
from operators.embedding import EmbeddingOperator
from operators.findings import Embedding
from operators.frame import Frame, Origin


class UnusablePhotoError(Exception):
    """The photo cannot be read, decoded or embedded; the message says why."""


def embedding_of_photo(path: Path, settings: Settings) -> Embedding:
    """Decode and embed one photo with the embedder that `settings` name.

    Raises:
        UnusablePhotoError
        ConfigurationError: embeddings are switched off, so there is nothing to compare with.
    """
    options = dict(settings.operators.get("embedding", {}))
    if not options.pop("enabled", True):
        raise ConfigurationError(
            "operators.embedding is switched off, so no image can be searched by picture"
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnusablePhotoError(f"{path} cannot be read: {error.strerror}") from error
    frame = Frame(
        image_id="query",
        feed="query",
        event_time_ms=0,
        origin=Origin("", 0, 0, 0),
        content=content,
    )
    # One photo: the CPU decodes it sooner than a device pipeline starts.
    device = choose_device("cpu", settings.models.precision)
    limits = settings.decode.limits(settings.fetch.max_bytes)
    # And it is the user's own, so there is nothing to contain.
    decoder = make_decoder(device, limits, threads=1, isolation="thread")
    operator = EmbeddingOperator(options, device, load_catalog(settings.models.catalogs))
    try:
        decoder.decode([frame])
        if not frame.failed:
            operator.setup()
            operator.process([frame])
    finally:
        operator.close()
        decoder.close()
    if frame.failure is not None:
        raise UnusablePhotoError(f"{path}: {frame.failure.detail}")
    if frame.findings.embedding is None:
        raise UnusablePhotoError(f"{path}: the embedder gave no embedding")
    return frame.findings.embedding
