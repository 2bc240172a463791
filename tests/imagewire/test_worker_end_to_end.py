"""The whole path with real models on both brokers: every record ends once, as findings or as a
dead letter, whatever is killed meanwhile.

Starting everything takes a while, so one `imagewire up` for each broker serves the tests here, one
after the other and on one test process. Each test keeps to a feed of its own.
"""

from __future__ import annotations

import asyncio
import io
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from running_up import RunningUp, Story, until

from imagewire.one_picture import embedding_of
from imagewire.publishing import Publication
from sinks.qdrant.reader import VectorReader

pytestmark = [pytest.mark.xdist_group("end-to-end"), pytest.mark.timeout(600)]


def test_every_good_record_has_one_verdict_and_one_findings_record(
    up: RunningUp, story: Story
) -> None:
    verdicts = Counter(record.fields["image_id"] for record in up.records("images.verdicts"))
    findings = {record.fields["image_id"]: record for record in up.records("images.findings")}
    assert {name for name in verdicts if name in findings} >= story.good
    assert all(verdicts[name] == 1 for name in story.good)
    assert not verdicts.keys() & story.dead.keys()
    assert not findings.keys() & story.dead.keys()
    sign = findings["sign"].fields
    assert "Platform 9 to Leeds" in " ".join(line["text"] for line in sign["texts"])
    assert any("FACE" in item["label"] for item in findings["zidane"].fields["objects"])
    assert findings["zidane"].fields["metadata"] == {"floor": 3}
    assert findings["coffee"].fields["metadata"] == {"camera": "north"}
    for name in story.good:
        record = findings[name]
        assert record.key == name.encode()
        assert record.headers["source-topic"] == "images"


def test_every_good_record_has_one_row_and_one_point(up: RunningUp, story: Story) -> None:
    rows = up.rows("SELECT image_id, verdict, labels, scores FROM images WHERE feed = 'story'")
    assert sorted(row["image_id"] for row in rows) == sorted(story.good)
    assert all(row["verdict"] in ("allow", "review", "block") for row in rows)
    assert up.points("story") == len(story.good)
    texts = up.rows("SELECT text FROM texts WHERE image_id = 'sign'")
    assert "Platform 9" in " ".join(row["text"] for row in texts)


def test_every_bad_record_is_one_dead_letter_that_says_where_and_why(
    up: RunningUp, story: Story
) -> None:
    # A record that Kafka delivered twice has the same letter twice, which says whence it came.
    letters = {
        (
            *(record.headers[f"imagewire-source-{name}"] for name in ("partition", "offset")),
            record.headers["imagewire-image-id"],
            (record.headers["imagewire-stage"], record.headers["imagewire-reason"]),
        )
        for record in up.records("images.failed")
        if record.headers["imagewire-feed"] == "story"
    }
    assert {image_id: why for *_, image_id, why in letters} == story.dead
    assert len(letters) == len(story.dead)
    rows = up.rows("SELECT image_id, stage, reason, detail FROM failures WHERE feed = 'story'")
    assert {row["image_id"]: (row["stage"], row["reason"]) for row in rows} == story.dead
    assert len(rows) == len(story.dead)
    assert all(len(row["detail"]) > 10 for row in rows)


def test_a_dead_letter_keeps_the_record_as_it_came(
    up: RunningUp, story: Story, photos: Path
) -> None:
    letters = {
        record.headers["imagewire-image-id"]: record for record in up.records("images.failed")
    }
    broken = letters["broken"]
    assert broken.value == (photos / "truncated.jpg").read_bytes()
    assert broken.key == b"story"
    assert broken.headers["content-type"] == "image/jpeg"
    assert broken.headers["imagewire-source-topic"] == "images"


def test_a_cropped_recompressed_copy_finds_its_original_first(
    up: RunningUp, story: Story, photos: Path, tmp_path: Path
) -> None:
    with Image.open(photos / "bus.jpg") as photo:
        width, height = photo.size
        crop = photo.crop((width // 12, height // 12, width - width // 12, height - height // 12))
        crop.convert("RGB").save(tmp_path / "copy.jpg", quality=40)
    vector = embedding_of(tmp_path / "copy.jpg", up.settings, "thread")[0].vector

    async def search() -> list[str]:
        async with VectorReader(up.settings.qdrant) as reader:
            found = await reader.search(vector=list(vector), limit=2, feed="story")
            assert found[0].score > 0.7 > found[1].score
            return [similar.image_id for similar in found]

    assert asyncio.run(search())[0] == "bus"


def test_publishing_the_same_ids_again_leaves_as_many_rows_and_points(
    up: RunningUp, photos: Path
) -> None:
    names = ["bus.jpg", "zidane.jpg", "cat.png"]
    again = [Publication(name, "again", path=photos / name) for name in names]
    up.publish(again)
    up.wait_for("again", len(names))
    before = up.rows("SELECT image_id, max(ingested_at) AS at FROM images WHERE feed = 'again' "
                     "GROUP BY image_id ORDER BY image_id")  # fmt: skip
    up.publish(again)

    def all_written_again() -> bool:
        now = up.rows("SELECT image_id, max(ingested_at) AS at FROM images WHERE feed = 'again' "
                      "GROUP BY image_id ORDER BY image_id")  # fmt: skip
        return all(new["at"] > old["at"] for new, old in zip(now, before, strict=True))

    until("the second findings are written", all_written_again, 180)
    (counted,) = up.rows("SELECT count() AS n FROM images WHERE feed = 'again'")
    assert counted["n"] == len(names)
    assert up.points("again") == len(names)


def lags(up: RunningUp) -> set[float]:
    """What the lag of each partition is said to be."""
    families = text_string_to_metric_families(up.get("/metrics").text)
    return {
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == "imagewire_consumer_lag"
    }


def test_prometheus_reads_sensible_values(up: RunningUp, story: Story) -> None:
    # What is in the stores is counted when every sink has it.
    until("nothing is in flight", lambda: up.health().get("in_flight") == 0, 180)
    exposed = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(up.get("/metrics").text)
        for sample in family.samples
    }

    def total(name: str, **labels: str) -> float:
        return sum(
            value
            for (found, given), value in exposed.items()
            if found == name and labels.items() <= dict(given).items()
        )

    entered, good, dead = len(story.good) + len(story.dead), len(story.good), len(story.dead)
    # A record counts each time that Kafka delivers it, which it does once unless the group changes.
    again = total("imagewire_frames_in_total", feed="story") - entered
    assert again >= 0
    assert good <= total("imagewire_frames_out_total", feed="story") <= good + again
    assert dead <= total("imagewire_frames_failed_total", feed="story") <= dead + again
    assert 3 <= total("imagewire_frames_failed_total", feed="story", stage="parse") <= 3 + again
    assert total("imagewire_latency_seconds_count") >= good
    assert total("imagewire_batch_size_sum") >= good
    for stage in ("decode", "objects", "text", "embedding", "scores", "fingerprint"):
        assert total("imagewire_stage_seconds_count", stage=stage) >= 1, stage
    until("nothing lags", lambda: lags(up) == {0.0}, 180)
    assert total("imagewire_model_info") >= 5
    assert total("process_resident_memory_bytes") > 100e6


def test_health_names_a_store_that_is_away_and_is_ok_again_when_it_is_back(
    up: RunningUp, photos: Path
) -> None:
    until("the worker is well", lambda: up.health().get("status") == "ok", 180)
    assert up.health()["models"].keys() >= {"objects", "text", "embedding", "scores"}
    assert up.health()["policy"].startswith("default-")

    health: dict[str, Any] = {}
    # Each time it is killed it stays away for longer; the first times it may be back before
    # anything has to be written.
    for seconds in (1, 2, 3, 5, 8, 15, 30):
        until("the store runs", lambda: up.child("clickhouse_front"), 180).kill()
        up.publish([Publication("while-away", "away", path=photos / "coffee.png")])
        deadline = time.monotonic() + seconds
        while (health := up.health()).get("status") != "degraded" and time.monotonic() < deadline:
            time.sleep(0.05)
        if health.get("status") == "degraded":
            break
    assert health["status"] == "degraded"
    assert "clickhouse" in health["detail"]
    assert up.get("/healthz").status_code == 200
    # The verdict does not wait for the store, but it may come after the first try to reach it.
    until(
        "the verdict is there",
        lambda: any(
            record.fields["image_id"] == "while-away" for record in up.records("images.verdicts")
        ),
        120,
    )
    until("the worker is well again", lambda: up.health().get("status") == "ok", 180)
    up.wait_for("away", 1)


def test_a_worker_killed_in_mid_stream_loses_nothing_and_doubles_no_row(
    up: RunningUp, photos: Path
) -> None:
    publications = []
    for number in range(16):
        content = io.BytesIO()
        with Image.open(photos / "zidane.jpg") as photo:
            photo.convert("RGB").resize((480 + number, 320)).save(content, "JPEG")
        path = photos / f"stream-{number}.jpg"
        path.write_bytes(content.getvalue())
        publications.append(Publication(f"stream-{number}", "killed", path=path))
    up.publish(publications)
    until("some are done", lambda: up.rows("SELECT 1 FROM images WHERE feed = 'killed'"), 180)
    worker = up.child("imagewire worker")
    assert worker is not None
    worker.kill()
    until("another worker runs", lambda: up.child("imagewire worker") not in (None, worker), 180)
    up.wait_for("killed", len(publications))
    rows = up.rows("SELECT image_id, count() AS n FROM images WHERE feed = 'killed' GROUP BY 1")
    assert {row["image_id"] for row in rows} == {item.image_id for item in publications}
    assert {row["n"] for row in rows} == {1}
    assert up.points("killed") == len(publications)
    assert not up.rows("SELECT * FROM failures WHERE feed = 'killed'")
    verdicts = Counter(record.fields["image_id"] for record in up.records("images.verdicts"))
    assert all(verdicts[item.image_id or ""] >= 1 for item in publications)


def test_stopping_and_starting_keeps_everything_and_repeats_nothing(
    up: RunningUp, story: Story
) -> None:
    until("nothing is in flight", lambda: up.health().get("in_flight") == 0, 180)

    def all_committed() -> bool:
        offsets = up.committed().values()
        return sum(offset or 0 for offset in offsets) == len(up.records("images"))

    until("everything is committed", all_committed, 180)
    durable = "apache" in up.arguments
    before = snapshot(up)
    letters = sorted(map(repr, up.records("images.failed"))) if durable else []
    assert up.stop() == 0
    up.start()
    until("the worker is well", lambda: up.health().get("status") == "ok", 180)
    time.sleep(2)  # whatever would be repeated would be under way by now
    after = snapshot(up)
    assert after["rows"] == before["rows"]
    assert after["points"] == before["points"]
    if durable:
        assert sorted(map(repr, up.records("images.failed"))) == letters
        assert after["records"] == before["records"]
        assert after["committed"] == before["committed"]
        assert "imagewire_frames_in_total{" not in up.get("/metrics").text


def snapshot(up: RunningUp) -> dict[str, object]:
    return {
        "rows": up.rows("SELECT image_id, feed, ingested_at FROM images ORDER BY 1, 2"),
        "points": {feed: up.points(feed) for feed in ("story", "again")},
        "records": {
            topic: len(up.records(topic))
            for topic in ("images", "images.verdicts", "images.findings")
        },
        "committed": up.committed(),
    }


def test_a_clean_stop_leaves_no_process(up: RunningUp) -> None:
    assert up.process is not None
    family = psutil.Process(up.process.pid).children(recursive=True)
    assert len(family) >= 4
    assert up.stop() == 0
    gone, alive = psutil.wait_procs(family, timeout=30)
    assert not alive, [process.cmdline() for process in alive]
    assert len(gone) == len(family)
