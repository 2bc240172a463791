"""Decode JPEGs on an NVIDIA GPU with DALI, which shares the work between host and device.

The encoded bytes go to the GPU and the pixels stay there, which saves the largest copy of the whole
path. DALI cannot skip an image: one that it cannot decode makes the whole batch raise (DALI issue
3913). So every image is screened before, and when a batch raises all the same, its images are
decoded one by one on the processor, which finds the guilty one. Formats other than ordinary JPEG
go to the processor at once: DALI would decode those there too. So do JPEGs with invalid tables,
since DALI runs in this process and nothing contains what they might do to it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch.utils.dlpack import from_dlpack

from operators.decoder import DecodeLimits, Decoder, Encoded
from operators.jpeg_tables import is_well_formed

log = logging.getLogger(__name__)

MAX_BATCH = 64
"""Images in one DALI run; larger batches are cut. DALI reserves memory by this number."""


def dali_is_installed() -> bool:
    """Whether `nvidia.dali` can be imported; it comes with the extra `gpu`."""
    try:
        return find_spec("nvidia.dali") is not None
    except ModuleNotFoundError:
        return False


class DaliDecoder(Decoder):
    """Decodes ordinary JPEGs with a DALI pipeline and everything else with another decoder.

    On a CUDA device the pipeline is DALI's `mixed` one; on the CPU it runs without a GPU, which is
    slower than OpenCV and is there for tests.
    """

    def __init__(
        self,
        device: torch.device,
        limits: DecodeLimits,
        others: Decoder,
        threads: int | None = None,
    ) -> None:
        """Build the pipeline.

        Args:
            others: decodes what is no ordinary JPEG and what DALI refuses; closed with this one.

        Raises:
            ImportError: DALI is not installed.
        """
        super().__init__(device, limits, threads)
        self._others = others
        self._pipeline = self._build()
        # DALI's dynamic executor gives its buffers away for as long as a tensor needs them; the
        # older one writes the next batch into them, so that pixels must be copied out.
        self._keeps = bool(getattr(self._pipeline, "exec_dynamic", False))

    def decode_screened(self, images: Sequence[Encoded]) -> None:
        jpegs = [image for image in images if _is_ordinary(image)]
        others = [image for image in images if not _is_ordinary(image)]
        for start in range(0, len(jpegs), MAX_BATCH):
            batch = jpegs[start : start + MAX_BATCH]
            try:
                decoded = self._run(batch)
            except RuntimeError as error:
                log.warning(
                    "DALI refused a batch of %d JPEGs, which are now decoded one by one: %s",
                    len(batch),
                    str(error).splitlines()[0] if str(error) else type(error).__name__,
                )
                others.extend(batch)
                # A pipeline that raised cannot be run again.
                self._pipeline = self._build()
                continue
            for image, pixels in zip(batch, decoded, strict=True):
                image.finish(pixels)
        if others:
            self._others.decode_screened(others)

    def close(self) -> None:
        super().close()
        self._others.close()
        self._pipeline = None

    def _build(self) -> Any:
        from nvidia.dali import fn, types
        from nvidia.dali.pipeline import Pipeline

        on_gpu = self.device.type == "cuda"
        pipeline = Pipeline(
            batch_size=MAX_BATCH,
            num_threads=self.threads,
            device_id=(self.device.index or 0) if on_gpu else None,
            prefetch_queue_depth=1,
        )
        with pipeline:
            encoded = fn.external_source(name="encoded", device="cpu", dtype=types.UINT8, ndim=1)
            pixels = fn.decoders.image(
                encoded,
                device="mixed" if on_gpu else "cpu",
                output_type=types.RGB,
                # The orientation is read from the Exif block and applied here and by the CPU
                # decoder alike, rather than by each library in its own way.
                adjust_orientation=False,
            )
            pipeline.set_outputs(pixels)
        pipeline.build()
        return pipeline

    def _run(self, batch: Sequence[Encoded]) -> list[torch.Tensor]:
        self._pipeline.feed_input(
            "encoded", [np.frombuffer(image.content, np.uint8) for image in batch]
        )
        # Without a stream of ours the pixels are there when this returns, on every stream.
        (outputs,) = self._pipeline.run()
        taken = []
        # Handing over asks for the current stream of the pixels' device, which must be current.
        on_gpu = self.device.type == "cuda"
        with torch.cuda.device(self.device) if on_gpu else contextlib.nullcontext():
            for i, image in enumerate(batch):
                pixels = _upright(from_dlpack(outputs[i]), image.header.orientation)
                taken.append(pixels.contiguous() if self._keeps else _copied(pixels))
        return taken


def _is_ordinary(image: Encoded) -> bool:
    header = image.header
    return header.plain and not header.truncated and is_well_formed(image.content)


def _copied(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.clone(memory_format=torch.contiguous_format)


def _upright(pixels: torch.Tensor, orientation: int) -> torch.Tensor:
    """Apply an Exif orientation (1 to 8) to a tensor of shape (height, width, 3)."""
    if orientation >= 5:
        pixels = pixels.transpose(0, 1)
    flips = {2: [1], 3: [0, 1], 4: [0], 6: [1], 7: [0, 1], 8: [0]}.get(orientation)
    return pixels.flip(flips) if flips else pixels
