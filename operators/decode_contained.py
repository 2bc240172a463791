"""Decode images in child processes, so that no image can harm more than itself.

A fault in the native code of a decoder, an endless loop or a flood of memory ends the child that
met it: that frame fails with what happened, a new child is forked within milliseconds, and the
other frames of the batch never notice. Pixels come back through shared memory.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import sys
import threading
import time
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from operators.decode_cpu import out_of_memory
from operators.decode_nursery import Nursery, NurseryError
from operators.decode_process import DecodeProcess, ProcessDiedError
from operators.decoder import DecodeLimits, Decoder, Encoded
from operators.image_header import Undecodable
from operators.least_size import LeastSize

log = logging.getLogger(__name__)

DEFAULT_FUNCTION = "operators.decode_pixels:decode_pixels"
RETRY_SECONDS = (0.0, 0.5, 2.0, 5.0)
"""Pauses before the nursery is started anew."""
ATTEMPTS = 2
"""How often an image is tried whose process was killed from outside, which is not its fault."""


def containment_is_possible() -> bool:
    """Whether this system has what the processes need: sealed memory and death signals (Linux)."""
    return sys.platform == "linux"


class ContainedDecoder(Decoder):
    """Decodes in `threads` child processes and moves the pixels to the device."""

    def __init__(
        self,
        device: torch.device,
        limits: DecodeLimits,
        threads: int | None = None,
        function: str = DEFAULT_FUNCTION,
        least: LeastSize | None = None,
    ) -> None:
        """Start the processes, without waiting until they are ready.

        Args:
            threads: child processes, each with a thread here that serves it.
            function: `module:name` of what decodes one image, found on this process's `sys.path`;
                its signature is that of `operators.decode_pixels.decode_pixels`.

        Raises:
            NurseryError: no process can be started.
        """
        super().__init__(device, limits, threads, least)
        self._function = function
        self._lock = threading.Lock()
        self._nursery = Nursery(function)
        # Empty places are filled when an image needs one. The last used comes first: its memory
        # is warm, and places that nobody needs stay empty.
        self._places: queue.LifoQueue[DecodeProcess | None] = queue.LifoQueue()
        for _ in range(self.threads):
            self._places.put(None)

    def decode_screened(self, images: Sequence[Encoded]) -> None:
        self.spread(self._decode, images)

    def close(self) -> None:
        super().close()
        with self._lock:
            self._nursery.close()

    def _decode(self, image: Encoded) -> None:
        place: DecodeProcess | None = self._places.get()
        try:
            for attempt in range(ATTEMPTS):
                try:
                    if place is None:
                        place = self._process()
                    pixels, truncated = place.decode(
                        image.content, image.header, image.reduction, self._take
                    )
                    image.finish(pixels, truncated)
                except Undecodable as problem:
                    if problem.reason == "decoder-crash":
                        log.warning("an image is given up: %s", problem.detail)
                    image.fail(
                        out_of_memory(image) if problem.reason == "out-of-memory" else problem
                    )
                except ProcessDiedError as death:
                    if place is not None:
                        place.close()
                    place = None
                    if death.by_hand and attempt + 1 < ATTEMPTS:
                        log.warning("an image is tried once more: %s", death.detail)
                        continue
                    log.warning("an image is given up, its process replaced: %s", death.detail)
                    image.fail(Undecodable(death.reason, death.detail))
                return
        finally:
            if place is not None and place.worn:
                place.close()
                place = None
            self._places.put(place)

    def _take(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        if self.device.type == "cpu":
            return torch.from_numpy(pixels.copy())
        # Not asynchronous: the shared memory is written again as soon as this returns.
        return torch.from_numpy(pixels).to(self.device)

    def _process(self) -> DecodeProcess:
        """A new process; from a new nursery if the old one has died.

        A machine that is short of processes or memory for a while is waited for, because the images
        are not at fault.

        Raises:
            NurseryError: neither will start.
        """
        for pause in RETRY_SECONDS:
            with self._lock:
                nursery = self._nursery
            try:
                return DecodeProcess(nursery, self.limits)
            except (NurseryError, OSError) as error:
                log.warning("the decoders are started anew in %g s: %s", pause, error)
                time.sleep(pause)
                self._renew(nursery)
        return DecodeProcess(self._nursery, self.limits)

    def _renew(self, old: Nursery) -> None:
        """Put a new nursery in the place of `old`, unless another thread has done so."""
        with self._lock:
            if self._nursery is old:
                self._nursery.close()
                with contextlib.suppress(NurseryError):
                    self._nursery = Nursery(self._function)
