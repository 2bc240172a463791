"""A picture in a file, looked at once by one operator, the way a worker looks at images."""

from __future__ import annotations

from pathlib import Path

from imagewire.settings import ConfigurationError, Settings
from models.catalog import load_catalog
from models.device import choose_device
from operators.decode import make_decoder
from operators.decode_limits import Isolation
from operators.embedding import EmbeddingOperator
from operators.findings import Embedding, Findings
from operators.fingerprint import FingerprintOperator
from operators.frame import Frame, Origin
from operators.operator import Operator


class UnusablePictureError(Exception):
    """A picture cannot be read, decoded or analysed; the message says why."""


def embedding_of(path: Path, settings: Settings, isolation: Isolation) -> tuple[Embedding, str]:
    """What the embedder that `settings` name makes of a picture, and the SHA-256 of its file.

    Args:
        isolation: "process" for pictures of strangers.

    Raises:
        UnusablePictureError
        ConfigurationError: embeddings are switched off.
    """
    options = dict(settings.operators.get("embedding", {}))
    if not options.pop("enabled", True):
        raise ConfigurationError(
            "operators.embedding is switched off, so no picture can be compared with others"
        )
    options.pop("when", None)
    # One picture: the processor has it done before a device has started.
    device = choose_device("cpu", settings.models.precision)
    operator = EmbeddingOperator(options, device, load_catalog(settings.models.catalogs))
    found = _findings(path, settings, operator, isolation)
    if found.embedding is None:
        raise UnusablePictureError(f"{path}: the embedder gave no embedding")
    if found.fingerprint is None:
        raise UnusablePictureError(f"{path}: the decoder gave no content id")
    return found.embedding, found.fingerprint.content_id


def hashes_of(path: Path, settings: Settings) -> tuple[str, str, int]:
    """The SHA-256 of a stranger's file, and the PDQ hash of the picture with its quality.

    Raises:
        UnusablePictureError
    """
    device = choose_device("cpu", settings.models.precision)
    operator = FingerprintOperator({}, device, load_catalog(settings.models.catalogs))
    prints = _findings(path, settings, operator, "process").fingerprint
    if prints is None:
        raise UnusablePictureError(f"{path}: the decoder gave no content id")
    return prints.content_id, prints.pdq, prints.pdq_quality


def _findings(path: Path, settings: Settings, operator: Operator, isolation: Isolation) -> Findings:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnusablePictureError(f"{path} cannot be read: {error.strerror}") from error
    frame = Frame("picture", "picture", 0, Origin("", 0, 0, 0), content=content)
    decoder = make_decoder(
        choose_device("cpu", settings.models.precision),
        settings.decode.limits(settings.fetch.max_bytes),
        threads=1,
        isolation=isolation,
    )
    try:
        decoder.decode([frame])
        if not frame.failed:
            operator.setup()
            operator.process([frame])
    finally:
        operator.close()
        decoder.close()
    if frame.failure is not None:
        raise UnusablePictureError(f"{path}: {frame.failure.detail}")
    return frame.findings
