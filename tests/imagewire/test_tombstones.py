"""What is promised of tombstones: what was erased is dropped wherever it turns up, namelessly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
from prometheus_client import CollectorRegistry

from imagewire.forgetting_in_worker import ForgettingInWorker
from operators.findings import Findings, Fingerprint
from operators.frame import Frame, Origin
from sinks.kafka.settings import KafkaSettings
from sinks.sink import Sink
from streams.ledger import Ledger
from streams.metrics import Metrics
from streams.reuse import Reuse
from streams.tombstones import Tombstones, tombstone_key, tombstone_record
from streams.tombstones_sink import WithoutForgotten

NOW = 1_790_000_000_000
CONTENT = "ab" * 32


def frame(image: str, content: str | None = None, feed: str = "gate", at: int = NOW) -> Frame:
    made = Frame(image, feed, at, Origin("images", 0, 0, at))
    if content is not None:
        made.findings = Findings(fingerprint=Fingerprint(content))
    return made


def forgotten(**names: str) -> Tombstones:
    tombstones = Tombstones()
    for kind, name in names.items():
        tombstones.apply(*tombstone_record(kind, name, NOW))  # type: ignore[arg-type]
    return tombstones


def test_an_image_is_covered_by_its_id_its_content_or_its_feed() -> None:
    assert forgotten(image="a").covers_frame(frame("a"))
    assert not forgotten(image="a").covers_frame(frame("b"))
    assert forgotten(content=CONTENT).covers_frame(frame("b", CONTENT))
    assert not forgotten(content=CONTENT).covers_frame(frame("b", "cd" * 32))
    assert forgotten(feed="gate").covers_frame(frame("b"))
    assert not forgotten(feed="gate").covers_frame(frame("b", feed="door"))
    assert not Tombstones().covers_frame(frame("a", CONTENT))


def test_a_feed_covers_what_is_said_of_its_images_until_then() -> None:
    erased = forgotten(feed="gate")
    assert erased.covers("b", None, "gate", NOW)
    assert not erased.covers("b", None, "gate", NOW + 1)
    assert not erased.covers("b", None, "door", NOW)
    assert not erased.covers("b", CONTENT, "gate")


def test_what_a_feed_brings_after_it_was_erased_is_taken() -> None:
    assert not forgotten(feed="gate").covers_frame(frame("b", at=NOW + 1))


def test_names_of_different_kinds_are_not_mistaken_for_each_other() -> None:
    assert not forgotten(image="gate").covers_frame(frame("b"))
    assert not forgotten(feed="a").covers("a")


def test_a_tombstone_names_nobody() -> None:
    key, value = tombstone_record("image", "anna-meier-passport", NOW)
    assert b"anna" not in key + value
    assert key == tombstone_key("image", "anna-meier-passport")


def test_a_tombstone_that_is_taken_away_covers_nothing_any_more() -> None:
    tombstones = forgotten(image="a", feed="gate")
    tombstones.apply(tombstone_key("image", "a"), None)
    tombstones.apply(tombstone_key("feed", "gate"), None)
    assert not tombstones.covers_frame(frame("a"))
    assert len(tombstones) == 0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (None, b"{}"),
        (b"image:zz", b'{"forgotten_at":1}'),
        (b"image:abcd", b'{"forgotten_at":1}'),
        (b"planet:" + b"ab" * 32, b'{"forgotten_at":1}'),
        (b"image:" + b"ab" * 32, b"{}"),
        (b"\xff\xfe", None),
    ],
)
def test_records_that_are_no_tombstones_are_passed_over(key: Any, value: Any) -> None:
    tombstones = Tombstones()
    tombstones.apply(key, value)
    assert len(tombstones) == 0


class Store(Sink):
    """Keeps what was written; tombstones come while it writes if it is told so."""

    name: ClassVar[str] = "store"

    def __init__(self) -> None:
        self.kept: list[str] = []
        self.meanwhile: Any = lambda: None

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def write(self, frames: Sequence[Frame]) -> None:
        self.kept += [each.image_id for each in frames]
        self.meanwhile()

    async def erase(self, frames: Sequence[Frame]) -> None:
        gone = {each.image_id for each in frames}
        self.kept = [each for each in self.kept if each not in gone]


async def test_what_was_erased_is_never_written_and_its_neighbours_are() -> None:
    store, dropped = Store(), []  # type: ignore[var-annotated]
    sink = WithoutForgotten(store, forgotten(image="a"), dropped.extend)
    await sink.write([frame("a"), frame("b")])
    assert store.kept == ["b"]
    assert [each.image_id for each in dropped] == ["a"]
    assert sink.name == "store"


async def test_what_is_erased_while_it_is_written_is_taken_back() -> None:
    store, tombstones, dropped = Store(), Tombstones(), []  # type: ignore[var-annotated]
    store.meanwhile = lambda: tombstones.apply(*tombstone_record("image", "a", NOW))
    await WithoutForgotten(store, tombstones, dropped.extend).write([frame("a"), frame("b")])
    assert store.kept == ["b"]
    assert [each.image_id for each in dropped] == ["a"]


async def test_a_frame_that_is_delivered_again_is_dropped_acknowledged_and_counted() -> None:
    metrics = Metrics(CollectorRegistry())
    forgetting = ForgettingInWorker(KafkaSettings(), metrics)
    forgetting.tombstones.apply(*tombstone_record("image", "a", NOW))
    ledger, acknowledged = Ledger(), []  # type: ignore[var-annotated]
    first = ledger.begin(("images", 0), 0, lambda: acknowledged.append(0))
    again = frame("a")
    assert forgetting.dropped(again, ledger, lambda: acknowledged.append(1))
    assert not forgetting.dropped(frame("b"), ledger, lambda: acknowledged.append(2))
    assert acknowledged == []  # in the order of offsets
    ledger.finish(first)
    assert acknowledged == [0, 1]
    value = metrics.registry.get_sample_value("imagewire_frames_forgotten_total", {"feed": "gate"})
    assert value == 1


def test_findings_that_are_kept_for_reuse_go_too() -> None:
    reuse = Reuse(10, 1 << 20)
    for name in ("a", "b"):
        made = frame(name)
        made.content = name.encode()
        reuse.sort([made])
        reuse.finish(made)
    assert reuse.size[0] == 2
    assert reuse.forget(forgotten(image="a").covers) == 1
    copy = frame("c")
    copy.content = b"a"
    assert reuse.sort([copy])["new"] == [copy]
