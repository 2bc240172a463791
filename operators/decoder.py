"""The interface of a decoder, and the screening that every image passes before being decoded.

A decoder turns the encoded bytes of a batch into upright RGB pixels. Images come from strangers,
so each is hashed, recognised from its content and measured from its header first; one that cannot
be decoded fails alone, with a stable reason, and its neighbours never notice.
"""

from __future__ import annotations

import hashlib
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch

from models.processors import available_processors
from operators.decode_limits import DecodeLimits
from operators.findings import Fingerprint, ImageInfo
from operators.frame import Frame, Stage
from operators.image_header import ImageHeader, Undecodable, read_header
from operators.least_size import LeastSize, reduction_for

__all__ = ["DecodeLimits", "Decoder", "Encoded"]

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Encoded:
    """A frame that passed the screening, with its bytes and what its header says.

    `reduction`: what its sides are to be divided by while it is decoded; 1, 2, 4 or 8. A decoder
    that cannot do so may decode it in full.
    """

    frame: Frame
    content: bytes
    header: ImageHeader
    reduction: int = 1

    def fail(self, problem: Undecodable) -> None:
        self.frame.fail(Stage.DECODE, problem.reason, problem.detail)

    def finish(self, pixels: torch.Tensor, truncated: bool = False) -> None:
        """Hand the frame its pixels, uint8 (height, width, 3), and release the encoded bytes.

        The findings have the size of the original, which that of the pixels is a fraction of if
        there was a `reduction`.
        """
        height, width = int(pixels.shape[0]), int(pixels.shape[1])
        if self.reduction > 1:
            width, height = self.header.upright_size
        self.frame.findings.image = ImageInfo(
            width, height, self.header.format, len(self.content), truncated
        )
        self.frame.pixels = pixels
        self.frame.content = None


class Decoder(ABC):
    """Decodes batches of frames. One instance belongs to one thread; it has threads of its own.

    Pixels are RGB as stored: embedded ICC profiles are ignored, since nearly all feeds are sRGB and
    the models were trained on pictures read in the same way. Transparent pixels are laid on white.
    """

    def __init__(
        self,
        device: torch.device,
        limits: DecodeLimits,
        threads: int | None = None,
        least: LeastSize | None = None,
    ) -> None:
        """
        Args:
            threads: how many images are worked on at once; the processors available by default.
            least: the picture that is large enough for all who look at it. Larger ones may be
                reduced to it, never below; `None` decodes everything in full.
        """
        self.device = device
        self.limits = limits
        self.least = least
        self.threads = threads or available_processors()
        self.pool = ThreadPoolExecutor(self.threads, thread_name_prefix="decode")

    def decode(self, frames: Sequence[Frame]) -> None:
        """Fill `pixels`, `findings.image` and `findings.fingerprint` of every frame that has not
        failed, or mark it as failed at stage `decode`; `content` is released.

        The fingerprint's `content_id` is set even when decoding fails, so that a dead letter can be
        traced to the bytes. Never raises for a bad image.
        """
        for _ in self.decode_parts(frames):
            pass

    def decode_parts(self, frames: Sequence[Frame]) -> Iterator[list[Frame]]:
        """Decode as `decode` does, in parts that each stay within `limits.max_memory`.

        What the caller does with one part, it does before the next is decoded: one who lets go of
        pixels, or waits until there is room for more, bounds the memory of any batch.

        Yields:
            The frames that are done with: first those refused by the screening and those that had
            failed before, if there are any, then each part. Together they are `frames`.
        """
        waiting = [frame for frame in frames if not frame.failed]
        passed: dict[int, Encoded] = {}

        def screen(numbered: tuple[int, Frame]) -> None:
            number, frame = numbered
            encoded = self._screen(frame)
            if encoded is not None:
                passed[number] = encoded

        self.spread(screen, list(enumerate(waiting)))
        screened = [passed[number] for number in sorted(passed)]
        for frame in waiting:
            if frame.failed:
                frame.content = None
        if len(screened) < len(frames):
            yield [frame for frame in frames if frame.failed]
        for part in self._parts(screened):
            self.decode_screened(part)
            for image in part:
                image.frame.content = None
            yield [image.frame for image in part]

    @abstractmethod
    def decode_screened(self, images: Sequence[Encoded]) -> None:
        """Call `finish` or `fail` of every image."""

    def spread(self, work: Callable[[T], None], items: Sequence[T]) -> None:
        """Do `work` to every item, on all threads at once.

        A thread takes one item after the other by itself: a future for each would cost as much as
        a tenth of decoding a small picture. What `work` raises is raised here.
        """
        left = deque(items)

        def take() -> None:
            while left:
                try:
                    item = left.popleft()
                except IndexError:  # another thread took the last
                    return
                work(item)

        running = [self.pool.submit(take) for _ in range(min(self.threads, len(left)))]
        for future in running:
            future.result()

    def close(self) -> None:
        """End the threads. Decoding is not possible afterwards."""
        self.pool.shutdown(wait=True, cancel_futures=True)

    def _parts(self, images: Sequence[Encoded]) -> Iterator[list[Encoded]]:
        part: list[Encoded] = []
        memory = 0
        for image in images:
            needed = self.limits.memory(image.header, image.reduction)
            if part and memory + needed > self.limits.max_memory:
                yield part
                part, memory = [], 0
            part.append(image)
            memory += needed
        if part:
            yield part

    def _screen(self, frame: Frame) -> Encoded | None:
        content = frame.content if frame.content is not None else b""
        if frame.findings.fingerprint is None:
            digest = hashlib.sha256(content).hexdigest()
            frame.findings.fingerprint = Fingerprint(content_id=digest)
        try:
            if not content:
                raise Undecodable("empty", "the image has 0 bytes; check the producer or the link")
            if len(content) > self.limits.max_bytes:
                raise Undecodable(
                    "too-many-bytes",
                    f"the image has {len(content)} bytes, and {self.limits.max_bytes} are allowed "
                    "(max_bytes)",
                )
            header = read_header(content, self.limits.max_frames)
            self.limits.check(header)
        except Undecodable as problem:
            frame.fail(Stage.DECODE, problem.reason, problem.detail)
            return None
        except Exception as error:
            # A defect in reading headers must not cost the other frames of the batch.
            log.exception("the header of image %r cannot be read", frame.image_id)
            detail = f"reading the header failed with {type(error).__name__}: {error}; see the log"
            frame.fail(Stage.DECODE, "decoder-crash", detail)
            return None
        return Encoded(frame, content, header, reduction_for(header, self.least))
