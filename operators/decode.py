"""Choose the decoder for a device: DALI on an NVIDIA GPU where it is installed, else the processor.

On a processor OpenCV decodes about three times as many JPEGs a second as DALI does (336 against
106 at 1280 x 720), so DALI is only for GPUs.
"""

from __future__ import annotations

import logging

from models.device import Device
from operators.decode_contained import ContainedDecoder, containment_is_possible
from operators.decode_cpu import CpuDecoder
from operators.decode_dali import DaliDecoder, dali_is_installed
from operators.decode_limits import Isolation
from operators.decoder import DecodeLimits, Decoder
from operators.least_size import LeastSize

__all__ = ["DecodeLimits", "Decoder", "Isolation", "make_decoder"]

log = logging.getLogger(__name__)


def make_decoder(
    device: Device,
    limits: DecodeLimits,
    threads: int | None = None,
    isolation: Isolation = "process",
    least: LeastSize | None = None,
) -> Decoder:
    """The fastest decoder for `device`; pixels arrive on `device.torch_device`.

    Args:
        threads: images decoded at once; by default the number of processors available.
        isolation: `process` decodes in child processes, which no image can take the caller down
            with; `thread` in this one, for a few images that are trusted. On systems other than
            Linux there is only `thread`.

        least: the picture that is large enough for all who look at it
            (`OperatorChain.least_size`); ordinary JPEGs that are much larger are decoded at a half,
            a quarter or an eighth of their sides. `None` decodes everything in full, and so does
            DALI, for which the smaller work is not worth a second way.

    Raises:
        decode_nursery.NurseryError: child processes cannot be started.
    """
    if isolation == "process" and not containment_is_possible():
        log.warning(
            "child processes for decoding need Linux; images are decoded in this process, which a "
            "hostile image may bring down"
        )
        isolation = "thread"
    cpu_decoder = ContainedDecoder if isolation == "process" else CpuDecoder
    decoder: Decoder = cpu_decoder(device.torch_device, limits, threads, least=least)
    if device.is_cuda:
        if dali_is_installed():
            return DaliDecoder(device.torch_device, limits, decoder, threads)
        log.info(
            "DALI is not installed; images are decoded on the processor. "
            "pip install 'imagewire[gpu]' moves that to the GPU"
        )
    return decoder
