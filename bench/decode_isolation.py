"""What containment costs: images a second decoded in child processes and in threads.

    python bench/decode_isolation.py [ROUNDS]

Both decoders take the same batches in turns, first one and then the other first, so that what else
the machine does falls on both alike; the ratio is the median over the rounds.
"""

from __future__ import annotations

import io
import statistics
import sys
import time

import torch
from PIL import Image
from skimage import data

from models.device import Device
from operators.decode import DecodeLimits, Decoder, make_decoder
from operators.frame import Frame, Origin

BATCH = 32
SIZES = ((640, 480), (1280, 720))


def jpeg(width: int, height: int) -> bytes:
    """A photo as a camera or a website would send it."""
    buffer = io.BytesIO()
    photo = Image.fromarray(data.astronaut()).resize((width, height), Image.Resampling.LANCZOS)
    photo.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def rate(decoder: Decoder, content: bytes, batches: int) -> float:
    """Images a second; pixels are let go after each batch, as the pipeline does."""
    started = time.perf_counter()
    for _ in range(batches):
        frames = [
            Frame("id", "feed", 0, Origin("images", 0, 0, 0), content=content) for _ in range(BATCH)
        ]
        decoder.decode(frames)
        assert all(frame.pixels is not None for frame in frames)
    return batches * BATCH / (time.perf_counter() - started)


def main(rounds: int) -> None:
    cpu = Device(torch.device("cpu"), torch.float32)
    decoders = {
        "thread": make_decoder(cpu, DecodeLimits(), isolation="thread"),
        "process": make_decoder(cpu, DecodeLimits(), isolation="process"),
    }
    for width, height in SIZES:
        content = jpeg(width, height)
        rates: dict[str, list[float]] = {name: [] for name in decoders}
        for decoder in decoders.values():
            rate(decoder, content, 2)
        for number in range(rounds):
            order = list(decoders) if number % 2 else list(reversed(decoders))
            for name in order:
                rates[name].append(rate(decoders[name], content, 4))
        ratios = [a / b for a, b in zip(rates["process"], rates["thread"], strict=True)]
        print(
            f"{width} x {height} ({len(content) // 1024} KiB): "
            + ", ".join(f"{name} {statistics.median(found):.0f}/s" for name, found in rates.items())
            + f", ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )
    for decoder in decoders.values():
        decoder.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 12)
