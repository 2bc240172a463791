"""Decode images in threads of this process.

OpenCV and Pillow release the interpreter lock, so the images of a batch are decoded in parallel.
Nothing stands between hostile bytes and this process here: a fault in a library's native code ends
it, and no time limit is kept. Workers decode in child processes instead (`decode_contained`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from operators.decode_pixels import decode_pixels, prepare
from operators.decoder import DecodeLimits, Decoder, Encoded
from operators.image_header import Undecodable
from operators.least_size import LeastSize


class CpuDecoder(Decoder):
    """Decodes in threads on the processor and moves the pixels to the device."""

    def __init__(
        self,
        device: torch.device,
        limits: DecodeLimits,
        threads: int | None = None,
        least: LeastSize | None = None,
    ) -> None:
        super().__init__(device, limits, threads, least)
        prepare()

    def decode_screened(self, images: Sequence[Encoded]) -> None:
        self.spread(self._decode, images)

    def _decode(self, image: Encoded) -> None:
        try:
            found = decode_pixels(image.content, image.header, self.limits, image.reduction)
        except Undecodable as problem:
            image.fail(problem)
        except MemoryError:
            image.fail(out_of_memory(image))
        else:
            pixels = torch.from_numpy(found.pixels).to(self.device, non_blocking=True)
            image.finish(pixels, found.truncated)


def out_of_memory(image: Encoded) -> Undecodable:
    """Why an image is refused that there was no memory for."""
    header = image.header
    return Undecodable(
        "out-of-memory",
        f"there was no memory to decode the {header.format}, whose header says {header.width} x "
        f"{header.height}; either the header lies or the machine has too little memory",
    )
