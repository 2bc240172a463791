"""The interface of a decoder, and the screening that every image passes before being decoded.

A decoder turns the encoded bytes of a batch into upright RGB pixels. Images come from strangers,
so each is hashed, recognised from its content and measured from its header first; one that cannot
be decoded fails alone, with a stable reason, and its neighbours never notice.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from operators.findings import Fingerprint, ImageInfo
from operators.frame import Frame, Stage
from operators.image_header import ImageHeader, Undecodable, read_header


@dataclass(frozen=True)
class DecodeLimits:
    """What is refused before decoding.

    Attributes:
        max_bytes: size of the encoded image. 32 MiB is more than a 50-megapixel camera JPEG.
        max_pixels: width times height. 80 megapixels take 240 MB as RGB, and each decoding
            thread may hold one.
        max_side: the longer side in pixels; guards against strips that no model can use.
    """

    max_bytes: int = 32 * 1024 * 1024
    max_pixels: int = 80_000_000
    max_side: int = 30_000

    def check_size(self, width: int, height: int) -> None:
        """Raise `Undecodable` if a picture of this size is too large."""
        if max(width, height) > self.max_side:
            raise Undecodable(
                "too-large-side",
                f"the picture is {width} x {height}; the longest side allowed is {self.max_side} "
                "pixels (max_side)",
            )
        if width * height > self.max_pixels:
            raise Undecodable(
                "too-many-pixels",
                f"the picture is {width} x {height}, which is more than {self.max_pixels} pixels "
                "(max_pixels)",
            )


@dataclass(slots=True)
class Encoded:
    """A frame that passed the screening, with its bytes and what its header says."""

    frame: Frame
    content: bytes
    header: ImageHeader

    def fail(self, problem: Undecodable) -> None:
        self.frame.fail(Stage.DECODE, problem.reason, problem.detail)

    def finish(self, pixels: torch.Tensor) -> None:
        """Hand the frame its pixels, uint8 (height, width, 3), and release the encoded bytes."""
        height, width = int(pixels.shape[0]), int(pixels.shape[1])
        self.frame.findings.image = ImageInfo(width, height, self.header.format, len(self.content))
        self.frame.pixels = pixels
        self.frame.content = None


class Decoder(ABC):
    """Decodes batches of frames. One instance belongs to one thread; it has threads of its own.

    Pixels are RGB as stored: embedded ICC profiles are ignored, since nearly all feeds are sRGB and
    the models were trained on pictures read in the same way. Transparent pixels are laid on white.
    """

    def __init__(
        self, device: torch.device, limits: DecodeLimits, threads: int | None = None
    ) -> None:
        """`threads`: how many images are worked on at once; the processors available by default."""
        self.device = device
        self.limits = limits
        self.threads = threads or len(os.sched_getaffinity(0))
        self.pool = ThreadPoolExecutor(self.threads, thread_name_prefix="decode")

    def decode(self, frames: Sequence[Frame]) -> None:
        """Fill `pixels`, `findings.image` and `findings.fingerprint` of every frame that has not
        failed, or mark it as failed at stage `decode`; `content` is released.

        The fingerprint's `content_id` is set even when decoding fails, so that a dead letter can be
        traced to the bytes. Never raises for a bad image.
        """
        waiting = [frame for frame in frames if not frame.failed]
        screened = [item for item in self.pool.map(self._screen, waiting) if item is not None]
        self.decode_screened(screened)
        for frame in waiting:
            if frame.failed:
                frame.content = None

    @abstractmethod
    def decode_screened(self, images: Sequence[Encoded]) -> None:
        """Call `finish` or `fail` of every image."""

    def close(self) -> None:
        """End the threads. Decoding is not possible afterwards."""
        self.pool.shutdown(wait=True, cancel_futures=True)

    def _screen(self, frame: Frame) -> Encoded | None:
        content = frame.content if frame.content is not None else b""
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
            header = read_header(content)
            self.limits.check_size(header.width, header.height)
        except Undecodable as problem:
            frame.fail(Stage.DECODE, problem.reason, problem.detail)
            return None
        return Encoded(frame, content, header)
