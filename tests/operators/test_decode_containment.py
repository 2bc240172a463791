"""What an image does to its decoder stays in the process that decodes it."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch
from PIL import Image
from skimage import data

from operators.decode_contained import ContainedDecoder, containment_is_possible
from operators.decode_limits import MEBIBYTE
from operators.decode_process import SLACK
from operators.decoder import DecodeLimits
from operators.frame import Frame, Origin

pytestmark = pytest.mark.skipif(
    not containment_is_possible(), reason="processes that decode need Linux"
)
MISBEHAVING = "misbehaving_decoder:decode"


def png(width: int, height: int, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(data.astronaut()).resize((width, height)).convert(mode).save(
        buffer, "PNG", compress_level=1
    )
    return buffer.getvalue()


@pytest.fixture(scope="module")
def photo() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(data.astronaut()).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def make() -> Iterator[Callable[..., ContainedDecoder]]:
    made: list[ContainedDecoder] = []

    def new(function: str = MISBEHAVING, threads: int = 2, **limits: float) -> ContainedDecoder:
        decoder = ContainedDecoder(
            torch.device("cpu"),
            DecodeLimits(**limits),  # type: ignore[arg-type]
            threads,
            function,
        )
        made.append(decoder)
        return decoder

    yield new
    for decoder in made:
        decoder.close()


def decode(decoder: ContainedDecoder, *contents: bytes) -> list[Frame]:
    frames = [Frame("id", "feed", 0, Origin("t", 0, 0, 0), content=item) for item in contents]
    decoder.decode(frames)
    return frames


def nursery_of(decoder: ContainedDecoder) -> psutil.Process:
    return psutil.Process(decoder._nursery.pid)


def eventually(holds: Callable[[], bool], seconds: float = 60.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if holds():
            return True
        time.sleep(0.02)
    return holds()


@pytest.mark.parametrize(
    ("deed", "reason"),
    [
        (b"segfault", "decoder-crash"),
        (b"abort!!!", "decoder-crash"),
        (b"hangs!!!", "timeout"),
        (b"floods!!", "out-of-memory"),
        (b"raises!!", "decoder-crash"),
        (b"lies!!!!", "decoder-crash"),
    ],
)
def test_an_image_that_breaks_its_decoder_fails_alone_and_the_next_batch_works(
    make: Callable[..., ContainedDecoder], photo: bytes, deed: bytes, reason: str
) -> None:
    # Long enough for the good images, and for what breaks otherwise than by hanging, on a machine
    # that is busy with other tests.
    decoder = make(timeout=6.0 if reason == "timeout" else 60.0)
    frames = decode(decoder, *[photo] * 5, photo + deed, *[photo] * 5)
    for index, frame in enumerate(frames):
        if index == 5:
            assert frame.failure is not None
            assert (frame.failure.stage, frame.failure.reason) == ("decode", reason)
            assert frame.pixels is None
            assert frame.content is None
        else:
            assert frame.failure is None
            assert frame.pixels is not None
    assert not any(frame.failed for frame in decode(decoder, *[photo] * 8))


def test_a_batch_full_of_breaking_images_still_yields_every_other_one(
    make: Callable[..., ContainedDecoder], photo: bytes
) -> None:
    frames = decode(make(), *[photo, photo + b"segfault"] * 20)
    assert [frame.failed for frame in frames] == [False, True] * 20


def test_a_decoder_killed_from_outside_costs_no_image(
    make: Callable[..., ContainedDecoder], photo: bytes
) -> None:
    decoder = make()
    decode(decoder, photo, photo)

    def kill() -> None:
        time.sleep(0.5)
        for child in nursery_of(decoder).children():
            child.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    frames = decode(decoder, photo + b"slowly!!", photo, photo + b"slowly!!")
    killer.join()
    assert not any(frame.failed for frame in frames)


def test_the_nursery_killed_costs_no_image(
    make: Callable[..., ContainedDecoder], photo: bytes
) -> None:
    decoder = make()
    decode(decoder, photo, photo)
    children = nursery_of(decoder).children()
    nursery_of(decoder).kill()
    assert not any(frame.failed for frame in decode(decoder, *[photo] * 6))
    assert eventually(lambda: not any(child.is_running() for child in children))


def test_ctrl_c_and_sigterm_leave_the_decoders_to_finish_what_is_in_flight(
    make: Callable[..., ContainedDecoder], photo: bytes
) -> None:
    decoder = make()
    decode(decoder, photo, photo)
    nursery = nursery_of(decoder)
    processes = [nursery, *nursery.children()]
    for process in processes:
        assert os.getpgid(process.pid) != os.getpgid(0)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
    assert not any(frame.failed for frame in decode(decoder, *[photo] * 4))
    assert all(process.is_running() for process in processes)


def test_closing_ends_every_process_however_busy(
    make: Callable[..., ContainedDecoder], photo: bytes
) -> None:
    decoder = make()
    decode(decoder, photo, photo)
    nursery = nursery_of(decoder)
    processes = [nursery, *nursery.children()]
    for process in processes:
        process.suspend()  # nothing that they would have to do themselves is waited for
    decoder.close()
    assert eventually(lambda: not any(process.is_running() for process in processes))


def test_no_process_outlives_a_worker_that_is_killed_even_in_an_endless_loop(
    photo: bytes, tmp_path: Path
) -> None:
    image = tmp_path / "photo"
    image.write_bytes(photo + b"hangs!!!")
    script = f"""
        import pathlib, sys, threading, time, torch
        sys.path.append({str(Path(__file__).parent)!r})
        from operators.decode_contained import ContainedDecoder
        from operators.decoder import DecodeLimits
        from operators.frame import Frame, Origin
        decoder = ContainedDecoder(
            torch.device("cpu"), DecodeLimits(timeout=600), 2, "{MISBEHAVING}"
        )
        content = pathlib.Path({str(image)!r}).read_bytes()
        frames = [Frame("id", "feed", 0, Origin("t", 0, 0, 0), content=content) for _ in range(2)]
        threading.Thread(target=decoder.decode, args=(frames,), daemon=True).start()
        while True:
            print(decoder._nursery.pid, flush=True)
            time.sleep(0.2)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True
    ) as worker:
        try:
            assert worker.stdout is not None
            nursery = psutil.Process(int(worker.stdout.readline()))
            assert eventually(lambda: len(nursery.children()) == 2, 60)
            processes = [nursery, *nursery.children()]
            busy = processes[1]
            assert eventually(lambda: busy.cpu_times().user > 0.3, 60)
        finally:
            worker.kill()
        assert eventually(lambda: not any(process.is_running() for process in processes))


def test_decoders_see_no_secrets_and_load_no_torch(
    make: Callable[..., ContainedDecoder], photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGEWIRE_CLICKHOUSE__PASSWORD", "very-secret")
    decoder = make()
    decode(decoder, photo, photo)
    nursery = nursery_of(decoder)
    for process in (nursery, *nursery.children()):
        assert not any("very-secret" in value for value in process.environ().values())
        assert not any("torch" in region.path for region in process.memory_maps())
        assert process.memory_info().rss < 150 * MEBIBYTE


def test_starting_does_not_hold_up_the_worker(
    make: Callable[..., ContainedDecoder], photo: bytes
) -> None:
    began = time.monotonic()
    decoder = make(threads=8)
    held_up = time.monotonic() - began
    decode(decoder, photo)
    # Beside how long it takes here until the processes can decode.
    assert held_up < 0.5 * (time.monotonic() - began)


def peak_memory(process: psutil.Process) -> int:
    """The most resident memory that the process ever had, in bytes."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel tells no peak")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16"])
def test_the_largest_image_allowed_stays_within_the_memory_foreseen(
    make: Callable[..., ContainedDecoder], mode: str
) -> None:
    side = 3000
    content = png(side, side, "RGB" if mode == "I;16" else mode)
    if mode == "I;16":
        buffer = io.BytesIO()
        Image.new("I;16", (side, side), 40_000).save(buffer, "PNG")
        content = buffer.getvalue()
    limits = DecodeLimits(max_pixels=side * side)
    decoder = make("operators.decode_pixels:decode_pixels", threads=1, max_pixels=side * side)
    assert not any(frame.failed for frame in decode(decoder, png(64, 64)))
    (child,) = nursery_of(decoder).children()
    before = peak_memory(child)
    (frame,) = decode(decoder, content)
    assert frame.failure is None
    assert peak_memory(child) - before < limits.largest_memory + SLACK
    # What it took is given back: the next image finds a process as small as before.
    assert not any(frame.failed for frame in decode(decoder, png(64, 64)))
    (child,) = nursery_of(decoder).children()
    assert child.memory_info().rss < 250 * MEBIBYTE


def test_a_batch_is_decoded_in_parts_that_fit_the_memory_allowed(
    make: Callable[..., ContainedDecoder],
) -> None:
    content = png(512, 512)
    decoder = make(
        "operators.decode_pixels:decode_pixels", max_pixels=512 * 512, max_memory=20 * MEBIBYTE
    )
    frames = [Frame("id", "feed", 0, Origin("t", 0, 0, 0), content=content) for _ in range(7)]
    frames.append(Frame("id", "feed", 0, Origin("t", 0, 0, 0), content=b"no image"))
    parts = []
    for part in decoder.decode_parts(frames):
        parts.append(len(part))
        assert all(frame.failed or frame.pixels is not None for frame in part)
        waiting = [frame for frame in frames if not frame.failed and frame.pixels is None]
        assert len(waiting) == 7 - (sum(parts) - 1)
    # 512 x 512 may need 8 MiB.
    assert parts == [1, 2, 2, 2, 1]
