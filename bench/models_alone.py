"""What the models can do by themselves: the product's decoder and operators, back to back, without
Kafka, stores, queues or an event loop in between.

The process assembles a worker as the product does, with its settings, and stops short of joining
Kafka: so the decoder, the operators, their threads and their precision are the product's, whatever
they become. Photos are made and, where decoding is not what is measured, decoded beforehand.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import torch
import uvloop

from bench.laps import Contestant, serve_laps
from bench.no_sink import NoSink
from bench.photos import Photos, load_photos
from imagewire.settings import load_settings
from imagewire.worker import Worker
from models.processors import available_processors
from operators.decoder import Decoder
from operators.frame import Frame, Origin
from sinks.sink import Sink
from streams.pipeline import Pipeline

_ORIGIN = Origin("bench", 0, 0, 0)


def models_alone(
    log_directory: Path, settings: Mapping[str, str], *, different: int = 60
) -> Contestant:
    """The contestant; `settings` by their variables' names, as a worker gets them."""
    return Contestant(
        "models-alone",
        ["-m", "bench.models_alone", "--different", str(different)],
        log_directory=log_directory,
        environment={"IMAGEWIRE_HTTP__ENABLED": "false", "IMAGEWIRE_LOG__LEVEL": "WARNING"}
        | dict(settings),
    )


class ModelsAlone(Worker):
    """A worker that runs laps where it would join Kafka.

    A lap's order has `first` and `count` (numbers of photos), `batch`, and `what`:

    - `operators`: the whole chain over decoded photos, in one copy with every core;
    - `operators side by side`: the same with every copy of the models on a batch of its own;
    - `operator NAME`: one operator;
    - `in turn`: each batch is decoded, then goes through the chain, likewise;
    - `overlapped`: while a batch is in the chain, likewise, a thread decodes the next;
    - `side by side`: the same with every copy of the models.

    The answer has `times`, one for each photo: when its batch was done, in seconds.
    """

    def __init__(self, photos: Photos) -> None:
        super().__init__(load_settings().settings)
        self._photos = photos
        self._decoder: Decoder | None = None

    def _sinks(self) -> list[Sink]:
        return [NoSink()]

    async def _follow_topics(self, stack: AsyncExitStack) -> bool:
        return True  # there is no Kafka

    async def _stream(self, pipeline: Pipeline) -> None:
        decoder = pipeline._decoder
        assert isinstance(decoder, Decoder)
        self._decoder = decoder
        # The operators' thread, as in the product.
        with ThreadPoolExecutor(1, "device") as thread:
            loop = asyncio.get_running_loop()

            async def lap(order: dict[str, Any]) -> dict[str, Any]:
                return await loop.run_in_executor(thread, self._lap, order)

            await serve_laps(lap)

    def _lap(self, order: dict[str, Any]) -> dict[str, Any]:
        what, batch = order["what"], order["batch"]
        numbers = range(order["first"], order["first"] + order["count"])
        frames = [_frame(number, self._photos.content(number)) for number in numbers]
        batches = [frames[start : start + batch] for start in range(0, len(frames), batch)]
        match what.split():
            case ["operators"]:
                self._decode(frames)
                ends = list(self._back_to_back(batches))
            case ["operators", "side", "by", "side"]:
                self._decode(frames)
                with ThreadPoolExecutor(self._chain.count) as models:
                    ends = sorted(models.map(self._process, batches))
            case ["operator", name]:
                self._decode(frames)
                ends = list(self._alone(batches, name))
            case ["in", "turn"]:
                ends = list(self._in_turn(batches))
            case ["overlapped"]:
                ends = list(self._overlapped(batches))
            case ["side", "by", "side"]:
                ends = self._side_by_side(batches)
            case _:
                raise ValueError(f"there is no way to run models called {what!r}")
        failed = [frame.failure for frame in frames if frame.failure is not None]
        if failed:
            raise RuntimeError(f"{len(failed)} photos failed, such as: {failed[0]}")
        times = [end for end, frames in zip(ends, batches, strict=True) for _ in frames]
        return {"times": times}

    def _decode(self, frames: Sequence[Frame]) -> None:
        assert self._decoder is not None
        self._decoder.decode(frames)

    def _process(self, batch: list[Frame]) -> float:
        self._chain.analyse(batch)
        self._chain.decide(batch)
        return time.perf_counter()

    def _with_every_core(self, batch: list[Frame]) -> float:
        """In one copy, which among several would keep to its share of the cores."""
        torch.set_num_threads(self._settings.models.threads or available_processors())
        copy = self._chain._chains[0]
        copy.analyse(batch)
        copy.decide(batch)
        return time.perf_counter()

    def _back_to_back(self, batches: Sequence[list[Frame]]) -> Iterator[float]:
        for batch in batches:
            yield self._with_every_core(batch)

    def _alone(self, batches: Sequence[list[Frame]], name: str) -> Iterator[float]:
        (operator,) = (one for one in self._chain.operators if one.name == name)
        for batch in batches:
            operator.process(batch)
            yield time.perf_counter()

    def _in_turn(self, batches: Sequence[list[Frame]]) -> Iterator[float]:
        for batch in batches:
            self._decode(batch)
            yield self._with_every_core(batch)

    def _overlapped(self, batches: Sequence[list[Frame]]) -> Iterator[float]:
        with ThreadPoolExecutor(1, "decode") as thread:
            next_one = thread.submit(self._decode, batches[0])
            for number, batch in enumerate(batches):
                next_one.result()
                if number + 1 < len(batches):
                    next_one = thread.submit(self._decode, batches[number + 1])
                yield self._with_every_core(batch)

    def _side_by_side(self, batches: Sequence[list[Frame]]) -> list[float]:
        copies = self._chain.count
        # Decoded batches: as many as wait in the product, one for each copy and one more.
        room = threading.Semaphore(copies + 1)

        def decode(batch: list[Frame]) -> None:
            room.acquire()
            self._decode(batch)

        def process(batch: list[Frame], decoded: Future[None]) -> float:
            decoded.result()
            room.release()
            return self._process(batch)

        with ThreadPoolExecutor(1, "decode") as decoder, ThreadPoolExecutor(copies) as models:
            decoding = [decoder.submit(decode, batch) for batch in batches]
            pairs = zip(batches, decoding, strict=True)
            return sorted(future.result() for future in [models.submit(process, *p) for p in pairs])


def _frame(number: int, content: bytes) -> Frame:
    return Frame(f"photo-{number}", "bench", 0, _ORIGIN, content=content)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.models_alone", description=__doc__)
    parser.add_argument("--different", type=int, default=60)
    alone = ModelsAlone(load_photos(different=parser.parse_args().different))
    sys.exit(uvloop.run(alone.run()))
