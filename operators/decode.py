"""Choose the decoder for a device: DALI on an NVIDIA GPU where it is installed, else the processor.

On a processor OpenCV decodes about three times as many JPEGs a second as DALI does (336 against
106 at 1280 x 720), so DALI is only for GPUs.
"""

from __future__ import annotations

import logging

from models.device import Device
from operators.decode_cpu import CpuDecoder
from operators.decode_dali import DaliDecoder, dali_is_installed
from operators.decoder import DecodeLimits, Decoder

__all__ = ["DecodeLimits", "Decoder", "make_decoder"]

log = logging.getLogger(__name__)


def make_decoder(device: Device, limits: DecodeLimits, threads: int | None = None) -> Decoder:
    """The fastest decoder for `device`; pixels arrive on `device.torch_device`.

    Args:
        threads: images decoded at once; by default the number of processors available.
    """
    if device.is_cuda:
        if dali_is_installed():
            return DaliDecoder(device.torch_device, limits, threads)
        log.info(
            "DALI is not installed; images are decoded on the processor. "
            "pip install 'imagewire[gpu]' moves that to the GPU"
        )
    return CpuDecoder(device.torch_device, limits, threads)
