"""The bench's own parts do what the figures rely on: photos differ, the bed runs real workers."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from bench.photo_server import PhotoServer
from bench.photos import SIZES, load_photos
from bench.rates import steady_rate
from bench.testbed import Route, Testbed, inline, reference

CHEAP = {
    f"IMAGEWIRE_OPERATORS__{name.upper()}__ENABLED": "false"
    for name in ("objects", "text", "embedding", "scores")
}


def test_photos_have_the_stated_sizes_and_no_two_the_same_bytes() -> None:
    photos = load_photos(different=len(SIZES))

    contents = [photos.content(number) for number in range(3 * len(SIZES))]

    assert len(set(contents)) == len(contents)
    sizes = [Image.open(io.BytesIO(content)).size for content in contents[: len(SIZES)]]
    assert sizes == list(SIZES)


def test_the_rate_counts_from_the_end_of_the_warm_up_to_the_last_verdict() -> None:
    batches = [0.0] * 4 + [1.0] * 4 + [2.0] * 4 + [3.0] * 4

    assert steady_rate(batches, warm_up=2) == pytest.approx(4.0)
    assert steady_rate(batches, warm_up=4) == pytest.approx(4.0)


def test_the_rate_leaves_out_the_last_batches_when_asked_to() -> None:
    slow_end = [0.0] * 4 + [1.0] * 4 + [2.0] * 4 + [9.0] * 4

    assert steady_rate(slow_end, warm_up=2, cool_down=4) == pytest.approx(4.0)
    assert steady_rate(slow_end, warm_up=2, cool_down=6) == pytest.approx(4.0)
    with pytest.raises(ValueError, match="too few"):
        steady_rate(slow_end, warm_up=2, cool_down=12)


async def test_a_worker_takes_photos_that_were_published_before_it_started(tmp_path: Path) -> None:
    photos = load_photos(different=4)
    folder = tmp_path / "photos"
    paths = photos.write(folder, range(4))
    async with (
        Testbed(tmp_path / "bed", file_roots=[folder], broker="tansu") as bed,
        PhotoServer(bed.logs, different=4) as server,
    ):
        route = Route.new("run")
        await bed.create_topics(route.images)
        records = [
            *[reference(f"file-{number}", path.as_uri()) for number, path in enumerate(paths)],
            *[reference(f"http-{number}", server.uri(number)) for number in range(4)],
            *[inline(f"inline-{number}", photos.content(number)) for number in range(4)],
        ]
        assert await bed.fill(route.images, records) == 12

        async with bed.worker(route, CHEAP | server.environment()) as worker:
            await worker.wait_until_finished(12)
            assert worker.cpu_seconds() > 0
            verdicts = await bed.verdicts(route.verdicts, 12)
        assert set(bed.cpu_seconds()) == {"tansu", "clickhouse", "qdrant"}

    assert {verdict.image_id for verdict in verdicts} == {
        f"{way}-{number}" for way in ("file", "http", "inline") for number in range(4)
    }
