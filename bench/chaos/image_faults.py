"""One image in ten is malformed and one in fifty a bomb: do their neighbours notice?"""

from __future__ import annotations

import time

from bench.chaos import memory, pictures
from bench.chaos.producer import Load, Publication, inline
from bench.chaos.report import Row
from bench.chaos.stage import Stage

_UNDECODABLE = ("truncated", "corrupt", "not-an-image", "unsupported-format")
_TOO_LARGE = ("too-many-pixels", "too-large-side")


async def malformed(stage: Stage, count: int) -> list[Row]:
    """A clean run and a mixed one of the same number of images, published at once."""
    clean = await _run(stage, "clean run of images", count, spoiled=False)
    mixed = await _run(stage, "1 in 10 malformed, 1 in 50 a bomb", count, spoiled=True)
    assert clean.images_per_second and mixed.images_per_second
    share = mixed.images_per_second / clean.images_per_second
    mixed.note += f", {share:.0%} of the clean run's speed"
    return [clean, mixed]


async def _run(stage: Stage, fault: str, count: int, *, spoiled: bool) -> Row:
    feed = stage.new_feed("spoiled" if spoiled else "clean")
    stage.report(f"{fault}: {count} images")
    load = Load(feed)
    publications = _publications(feed, count, spoiled)
    began = time.monotonic()
    async with memory.watching(stage.worker_pids) as peak:
        await stage.producer.publish_all(load, publications)
        account = await stage.settle(load)
    seconds = time.monotonic() - began
    row = Row.of(fault, account, peak.mib, seconds)
    row.images_per_second = round(count / seconds, 1)
    good = sum(not publication.expected_reasons for publication in publications)
    row.note = f"{account.stored} of {good} good ones stored, {row.images_per_second:g} images/s"
    return row


def _publications(feed: str, count: int, spoiled: bool) -> list[Publication]:
    bomb = pictures.bomb()
    found = []
    for number in range(count):
        image_id = f"{feed}-{number:06d}"
        if spoiled and number % 50 == 25:
            found.append(inline(image_id, feed, bomb, expected_reasons=_TOO_LARGE))
        elif spoiled and number % 10 == 3:
            content = pictures.malformed(number // 10)
            found.append(inline(image_id, feed, content, expected_reasons=_UNDECODABLE))
        else:
            found.append(inline(image_id, feed, pictures.jpeg(number)))
    return found
