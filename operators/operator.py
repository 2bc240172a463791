"""The interface of an operator: something done to a batch of decoded frames.

A third party adds one by subclassing `Operator` and naming the class in the entry point group
`imagewire.operators`; it is then listed in the settings under its entry point's name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from models.catalog import Catalog
from models.device import Device
from operators.frame import Frame
from operators.least_size import LeastSize


class OperatorError(Exception):
    """An operator cannot start: the message says which one, why, and what to do."""


class Operator(ABC):
    """Looks at batches of frames and writes what it sees into their findings.

    `setup` runs once before the first batch and is the place to load models; `process` runs once a
    batch, one at a time and in the thread of `setup`; `close` releases what `setup` took. Where all
    operators depend on content only, several instances may share the work (`models.replicas`).

    Attributes:
        name: the name under which the operator stands in settings, metrics and dead letters.
        depends_on_content_only: what it finds depends on the image's bytes and on nothing else of
            the frame (feed, metadata, time, earlier frames), so that another image with the same
            bytes may be given the same findings. Only where all operators say so, that is done.
        options: the operator's own table in the settings, already free of `enabled`.
        device: where its networks run, and in what precision.
        catalog: the models that may be named in `options`.
    """

    name: ClassVar[str]
    depends_on_content_only: ClassVar[bool] = False

    def __init__(self, options: Mapping[str, Any], device: Device, catalog: Catalog) -> None:
        self.options = options
        self.device = device
        self.catalog = catalog

    def setup(self) -> None:  # noqa: B027 - optional hook
        """Load models. Raises `OperatorError` or `models.ModelError` if it cannot."""

    @abstractmethod
    def process(self, frames: Sequence[Frame]) -> None:
        """Analyse `frames` in one go and fill `frame.findings`.

        Every frame has `pixels` and no failure. A frame that cannot be analysed is marked with
        `frame.fail(self.name, reason, detail)`; raising fails the batch, which is then retried
        frame by frame so that only the guilty one becomes a dead letter.
        """

    def model_versions(self) -> dict[str, str]:
        """Role to `name@version` for each model in use; kept with every finding and metered."""
        return {}

    def least_size(self) -> LeastSize | None:
        """The size from which on a larger picture changes nothing that matters to this operator,
        asked for after `setup`; `None`, the default, if it needs every pixel that there is.

        If every operator names one, JPEGs that are much larger are decoded at a half, a quarter or
        an eighth of their sides, never below it. An operator that names one has to expect `pixels`
        smaller than the picture is, and reports places in pixels of the original:
        `operators.frame_pixels.original_size` tells its size.
        """
        return None

    def close(self) -> None:  # noqa: B027 - optional hook
        """Release what `setup` took."""
