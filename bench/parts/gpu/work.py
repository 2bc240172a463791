"""Encoded and decoded photos for the measurements on a GPU, and the loops that are timed."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from bench.photos import Photos
from models.catalog import load_catalog
from models.device import Device
from operators.chain import OperatorChain
from operators.decode_cpu import CpuDecoder
from operators.decoder import DecodeLimits, Decoder
from operators.frame import Frame, Origin
from operators.policy import Policy
from operators.registry import BUILT_IN, build_operators

IN_HAND = 2
"""Decoded batches between the decoder and the operators."""


def chain_of(device: Device, only: Sequence[str] = BUILT_IN) -> OperatorChain:
    """The named operators and the policy that is shipped, ready to run."""
    config: Mapping[str, Mapping[str, Any]] = {name: {"enabled": name in only} for name in BUILT_IN}
    chain = OperatorChain(build_operators(config, device, load_catalog()), Policy.load(None))
    chain.setup()
    return chain


def encoded(photos: Photos, numbers: Sequence[int]) -> list[Frame]:
    """Frames with the bytes of photos."""
    frames = []
    for number in numbers:
        frame = Frame(f"photo-{number}", "bench", 0, Origin("images", 0, number, 0))
        frame.content = photos.content(number)
        frames.append(frame)
    return frames


def decoded(photos: Photos, count: int, device: torch.device) -> list[torch.Tensor]:
    """Pixels of `count` photos on `device`."""
    decoder = CpuDecoder(device, DecodeLimits())
    try:
        frames = encoded(photos, range(count))
        decoder.decode(frames)
    finally:
        decoder.close()
    pixels = [frame.pixels for frame in frames]
    assert all(one is not None for one in pixels)
    return [one for one in pixels if one is not None]


def preloaded(pixels: Sequence[torch.Tensor], start: int, size: int) -> list[Frame]:
    """A batch of frames that were decoded before; batches begin at different photos."""
    frames = []
    for number in range(start, start + size):
        frame = Frame(f"photo-{number}", "bench", 0, Origin("images", 0, number, 0))
        frame.pixels = pixels[number % len(pixels)]
        frames.append(frame)
    return frames


def chain_rate(
    chain: OperatorChain, pixels: Sequence[torch.Tensor], batch: int, seconds: float
) -> float:
    """Images a second, back to back, for about `seconds`."""
    done, number, began = 0, 0, time.perf_counter()
    while True:
        frames = preloaded(pixels, number, batch)
        chain.process(frames)
        failed = [frame.failure for frame in frames if frame.failure is not None]
        if failed:
            raise RuntimeError(f"an operator failed: {failed[0]}")
        done += batch
        number = (number + batch) % len(pixels)
        elapsed = time.perf_counter() - began
        if elapsed >= seconds:
            return done / elapsed


def warm(chain: OperatorChain, pixels: Sequence[torch.Tensor], batch: int, seconds: float) -> None:
    """Every photo twice in this batch size, so that what is recorded or compiled once is."""
    for start in range(0, 3 * len(pixels), batch):
        chain.process(preloaded(pixels, start, batch))
    chain_rate(chain, pixels, batch, seconds / 2)


def decode_rate(decoder: Decoder, photos: Photos, batch: int, seconds: float) -> float:
    """Images a second that `decoder` decodes in batches, screening included."""
    done, began = 0, time.perf_counter()
    while True:
        frames = encoded(photos, range(done, done + batch))
        decoder.decode(frames)
        failed = [frame.failure for frame in frames if frame.failure is not None]
        if failed:
            raise RuntimeError(f"a photo was not decoded: {failed[0]}")
        done += batch
        elapsed = time.perf_counter() - began
        if elapsed >= seconds:
            if decoder.device.type == "cuda":
                torch.cuda.synchronize(decoder.device)
            return done / (time.perf_counter() - began)


def pipeline_rate(
    decoder: Decoder, chain: OperatorChain, photos: Photos, batch: int, seconds: float
) -> float:
    """Images a second from encoded bytes to findings, decoding and operators each in a thread."""
    decoded_batches: queue.Queue[list[Frame]] = queue.Queue(IN_HAND)
    stop = threading.Event()
    errors: list[BaseException] = []

    def decode() -> None:
        try:
            for start in _counting(batch):
                if stop.is_set():
                    return
                frames = encoded(photos, range(start, start + batch))
                decoder.decode(frames)
                while not stop.is_set():
                    try:
                        decoded_batches.put(frames, timeout=0.1)
                        break
                    except queue.Full:
                        continue
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
            errors.append(error)

    thread = threading.Thread(target=decode, daemon=True)
    thread.start()
    done, began = 0, 0.0
    try:
        while True:
            try:
                frames = decoded_batches.get(timeout=1)
            except queue.Empty:
                if errors:
                    raise errors[0] from None
                continue
            # The first batch fills the pipeline and is not counted.
            if not began:
                chain.process(frames)
                began = time.perf_counter()
                continue
            chain.process(frames)
            done += batch
            elapsed = time.perf_counter() - began
            if elapsed >= seconds:
                return done / elapsed
    finally:
        stop.set()
        thread.join()


def _counting(step: int) -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += step
