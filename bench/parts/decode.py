"""Decoding: images a second by size, for the libraries there are, for ours contained and at a
reduced size.

All decode the same photos in batches, by turns, with one thread (or process) and with one for each
processor. What a library is called with is what a user would write: bytes in, RGB array out.
"""

from __future__ import annotations

import io
import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import cv2
import numpy as np
import simplejpeg
import torch
from PIL import Image

from bench.figures import Options, Report, figure
from bench.photos import load_photos
from bench.processor_time import cpu_seconds
from models.catalog import load_catalog
from models.device import Device
from models.processors import available_processors
from operators.decode import DecodeLimits, Decoder, make_decoder
from operators.decode_dali import DaliDecoder, dali_is_installed
from operators.frame import Frame, Origin
from operators.least_size import LeastSize, largest
from operators.registry import build_operators

SIZES = {(640, 480): 192, (1920, 1080): 48, (4000, 3000): 12}
"""Images in one measurement, about half a second of work for one thread and OpenCV."""
QUALITY = 90
DIFFERENT = 8
BATCH = 32
OPENCV, PILLOW, SIMPLEJPEG, DALI = "OpenCV", "Pillow", "simplejpeg", "DALI on the processor"
THREADS, CONTAINED, REDUCED = "ours, in threads", "ours, contained", "ours, contained, reduced"
CONTAINED_TARGET = 0.9

Decode = Callable[[list[bytes]], None]
Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Lap:
    """`rate` in images a second; `milliseconds` of processor time an image, children included."""

    rate: float
    milliseconds: float


@dataclass(slots=True)
class Measured:
    """Laps of each decoder by size and number of threads, one for each repeat."""

    threads: tuple[int, ...]
    least: LeastSize
    laps: dict[tuple[Size, int, str], list[Lap]] = field(default_factory=dict)

    def rates(self, size: Size, threads: int, name: str) -> list[float]:
        return [lap.rate for lap in self.laps[size, threads, name]]

    def ratios(self, size: Size, above: str, below: str) -> list[float]:
        """With all threads, each within a repeat."""
        pairs = zip(
            self.rates(size, self.threads[-1], above),
            self.rates(size, self.threads[-1], below),
            strict=True,
        )
        return [a / b for a, b in pairs]


def run(options: Options) -> Report:
    """Decode by turns, `options.repeats` times."""
    counts = {(320, 240): 4, (1600, 1200): 4} if options.quick else SIZES
    photos = {
        size: load_photos([size], quality=QUALITY, different=2 if options.quick else DIFFERENT)
        for size in counts
    }
    measured = Measured(tuple(sorted({1, available_processors()})), _least_size())
    with ExitStack() as stack:
        contestants = {
            threads: stack.enter_context(_contestants(threads, measured.least))
            for threads in measured.threads
        }
        for repeat in range(-1, options.repeats):  # the first is to warm up
            for (size, count), threads in (
                (item, threads) for item in counts.items() for threads in measured.threads
            ):
                images = [photos[size].content(number) for number in range(count)]
                for name, decode in _rotated(contestants[threads], repeat):
                    lap = _lap(decode, images[: max(2, count // 4)] if repeat < 0 else images)
                    if repeat >= 0:
                        measured.laps.setdefault((size, threads, name), []).append(lap)
            done = "warmed up" if repeat < 0 else f"{repeat + 1} of {options.repeats}"
            options.report(f"{done}: every size, every decoder")
    return _report(measured, tuple(counts), options.quick)


def _least_size() -> LeastSize:
    """What the operators need that need not the full size, which are all but text."""
    device = Device(torch.device("cpu"), torch.float32)
    chosen = build_operators({"text": {"enabled": False}}, device, load_catalog())
    for operator in chosen:
        operator.setup()
    least = largest(operator.least_size() for operator in chosen)
    for operator in chosen:
        operator.close()
    assert least is not None
    return least


def _rotated(contestants: dict[str, Decode], by: int) -> list[tuple[str, Decode]]:
    """Every repeat begins with another, so that none always follows the same one."""
    items = list(contestants.items())
    by %= len(items)
    return items[by:] + items[:by]


def _lap(decode: Decode, images: list[bytes]) -> Lap:
    busy, started = cpu_seconds(os.getpid()), time.perf_counter()
    for start in range(0, len(images), BATCH):
        decode(images[start : start + BATCH])
    seconds = time.perf_counter() - started
    busy = cpu_seconds(os.getpid()) - busy
    return Lap(len(images) / seconds, 1000 * busy / len(images))


@contextmanager
def _contestants(threads: int, least: LeastSize) -> Iterator[dict[str, Decode]]:
    device, limits = Device(torch.device("cpu"), torch.float32), DecodeLimits()
    with ThreadPoolExecutor(threads) as pool:

        def in_threads(one: Callable[[bytes], object]) -> Decode:
            # The list holds the pixels of a batch until all of it is decoded, as ours does.
            return lambda images: list(pool.map(one, images)).clear()

        decoders: dict[str, Decoder] = {
            THREADS: make_decoder(device, limits, threads, isolation="thread"),
            CONTAINED: make_decoder(device, limits, threads),
            REDUCED: make_decoder(device, limits, threads, least=least),
        }
        if dali_is_installed():
            others = make_decoder(device, limits, threads, isolation="thread")
            decoders[DALI] = DaliDecoder(device.torch_device, limits, others, threads)
        try:
            yield {
                OPENCV: in_threads(_with_opencv),
                PILLOW: in_threads(_with_pillow),
                SIMPLEJPEG: in_threads(simplejpeg.decode_jpeg),
            } | {name: _with_ours(decoder) for name, decoder in decoders.items()}
        finally:
            for decoder in decoders.values():
                decoder.close()


def _with_opencv(content: bytes) -> object:
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)


def _with_pillow(content: bytes) -> object:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def _with_ours(decoder: Decoder) -> Decode:
    """Hashing, recognising and checking each image included, as the worker does it."""

    def decode(images: list[bytes]) -> None:
        origin = Origin("images", 0, 0, 0)
        frames = [Frame("id", "feed", 0, origin, content=content) for content in images]
        decoder.decode(frames)
        failures = [frame.failure for frame in frames if frame.pixels is None]
        if failures:
            raise RuntimeError(f"a photo of the bench was not decoded: {failures[0]}")

    return decode


def _report(measured: Measured, sizes: tuple[Size, ...], quick: bool) -> Report:
    middle, last = (sizes[0], sizes[-1]) if quick else (sizes[1], sizes[2])
    over_opencv = figure(
        "decode_contained_over_opencv",
        measured.ratios(middle, CONTAINED, OPENCV),
        target=CONTAINED_TARGET,
        note=f"{_words(middle)}, {measured.threads[-1]} processes against as many threads; ours "
        "hashes each image and checks its header, too, and hands the pixels over from a process "
        "that may crash",
    )
    over_full = figure(
        "decode_reduced_over_full",
        measured.ratios(last, REDUCED, CONTAINED),
        note=f"{_words(last)}, to no less than {measured.least.shorter} pixels on the shorter side "
        f"and {measured.least.longer} on the longer",
    )
    dali = "" if dali_is_installed() else " DALI is not installed here, so it is not in the table."
    lines = [
        f"Real photos, cropped and resized, JPEG quality {QUALITY}, 4:2:0, in batches of {BATCH}. "
        "The libraries only decode, in a pool of threads; ours also hashes each image, recognises "
        "it and checks its header, and when contained decodes in child processes. With one thread, "
        "contained decoding may use a second processor for what the worker does meanwhile. Images "
        "a second, median of the repeats (lowest to highest), and milliseconds of processor time "
        f"an image, child processes included.{dali}",
        "",
        "Reduced is what the default operators without `text` need: "
        f"{measured.least.shorter} pixels on the shorter side, {measured.least.longer} on the "
        "longer.",
    ]
    for size in sizes:
        lines += _table(measured, size)
    return Report(
        "Decoding: by size and decoder",
        "make bench ONLY=decode",
        "\n".join(lines),
        [over_opencv, over_full],
    )


def _table(measured: Measured, size: Size) -> list[str]:
    threads = measured.threads
    names = [name for found, count, name in measured.laps if (found, count) == (size, threads[0])]
    head = [f"{count} thread{'s' * (count > 1)}: images/s | CPU ms" for count in threads]
    lines = ["", f"| {_words(size)} | {' | '.join(head)} |", "|---" + "|---" * 2 * len(head) + "|"]
    for name in sorted(names, key=list(_ORDER).index):
        cells = [name]
        for count in threads:
            laps = measured.laps[size, count, name]
            rates = [lap.rate for lap in laps]
            cells.append(f"{statistics.median(rates):.0f} ({min(rates):.0f} to {max(rates):.0f})")
            cells.append(f"{statistics.median(lap.milliseconds for lap in laps):.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


_ORDER = (OPENCV, PILLOW, SIMPLEJPEG, DALI, THREADS, CONTAINED, REDUCED)


def _words(size: Size) -> str:
    return f"{size[0]} × {size[1]}"
