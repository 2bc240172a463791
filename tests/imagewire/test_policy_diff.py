"""What evaluating a policy over stored findings promises."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from imagewire.policy_diff import OTHER_FEEDS, Bounds, compare
from operators.findings import (
    Detection,
    Face,
    Fingerprint,
    HashMatch,
    ImageInfo,
    SimilarMatch,
    TermMatch,
    TextLine,
)
from operators.frame import Frame, Origin
from operators.policy import Policy
from sinks.clickhouse.reader import ClickHouseReader
from sinks.clickhouse.settings import ClickHouseSettings
from sinks.clickhouse.sink import ClickHouseSink

NOW = time.time_ns() // 1_000_000
DAY = 86_400_000
QUAD = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))


def policy(*conditions: str, action: str = "review") -> Policy:
    text = "".join(
        f"[[rules]]\nname = 'rule-{n}'\nwhen = '''{when}'''\naction = '{action}'\n"
        for n, when in enumerate(conditions)
    )
    return Policy.read(text.encode(), "mine", "mine.toml")


def picture(number: int, feed: str, age_ms: int = 0) -> Frame:
    frame = Frame(
        f"id-{number}", feed, NOW - age_ms, Origin("images", 0, number, NOW),
        metadata={"shop": str(number), "tags": ["a", 1, None]},
    )  # fmt: skip
    findings = frame.findings
    findings.image = ImageInfo(640, 480, "jpeg", 1000 + number)
    findings.fingerprint = Fingerprint(f"{number:064x}", "cd" * 32, 90)
    findings.objects = [Detection("CAT", 0.5, (0.0, 0.0, 320.0, 240.0))]
    findings.texts = [TextLine("Fr33 money", 0.9, QUAD, "free money")]
    findings.terms = [TermMatch("spam", "free money", "en")]
    findings.hashes = [HashMatch("ours", "pdq", 7, "known", "review")]
    findings.similar = [SimilarMatch("e1", "logos", 0.125)]
    findings.faces = [Face(0.75, (0.0, 0.0, 10.0, 10.0))]
    findings.scores = {"nsfw": number / 16}
    findings.models = {"scores": "open-nsfw@1.0.0"}
    frame.findings.verdict = policy("'nsfw' in scores && scores.nsfw >= 0.5").evaluate(frame)
    return frame


@pytest.fixture
def settings(clickhouse_front: Any) -> ClickHouseSettings:
    return ClickHouseSettings(
        host=clickhouse_front.host,
        port=clickhouse_front.port,
        username="writer",
        password=clickhouse_front.writer_password,
        database=f"diff_{secrets.token_hex(5)}",
    )


@pytest.fixture
async def reader(settings: ClickHouseSettings) -> AsyncIterator[ClickHouseReader]:
    """Eight pictures each of the feeds `door` and `gate`, and an old one."""
    sink = ClickHouseSink(settings)
    await sink.open()
    frames = [picture(n, "door" if n < 8 else "gate") for n in range(16)]
    await sink.write([*frames, picture(99, "door", 30 * DAY)])
    await sink.close()
    with ClickHouseReader(settings) as reader:
        yield reader


def test_verdicts_that_change_are_counted_by_feed_with_examples(reader: ClickHouseReader) -> None:
    steps: list[tuple[int, int]] = []
    found = compare(
        reader,
        policy("scores.nsfw >= 0.875"),
        None,
        NOW - DAY,
        progress=lambda done, total: steps.append((done, total)),
        block=3,
    )
    assert (found.images, found.changed) == (16, 6)
    assert {key: change.images for key, change in found.changes.items()} == {
        ("gate", "review", "allow"): 6
    }
    assert set(found.changes["gate", "review", "allow"].examples) <= {f"id-{n}" for n in range(16)}
    assert len(found.changes["gate", "review", "allow"].examples) == 5
    count = found.rules["rule-0", "gate"]
    assert (count.before, count.after, count.examples) == (8, 2, [])
    assert steps[-1] == (16, 16)


def test_only_the_feeds_and_days_that_are_asked_for_are_read(reader: ClickHouseReader) -> None:
    everything = policy("true")
    assert compare(reader, everything, None, NOW - DAY, ["door"]).images == 8
    assert compare(reader, everything, None, NOW - 60 * DAY, ["door"]).images == 9
    assert compare(reader, everything, None, NOW - DAY, ["nowhere"]).images == 0


def test_each_block_is_looked_up_in_the_index_and_not_read_past(reader: ClickHouseReader) -> None:
    class Explains:
        """Reads, and keeps how ClickHouse means to find what it is asked for."""

        def __init__(self) -> None:
            self.plans: list[str] = []

        def query(self, sql: str, params: dict[str, Any] | None = None) -> Any:
            plan = reader.query(f"EXPLAIN indexes = 1 {sql}", params)
            self.plans.append("\n".join(plan.column(0).to_pylist()))
            return reader.query(sql, params)

    explains = Explains()
    assert compare(explains, policy("true"), None, 0, block=2).images > 2
    keys = explains.plans[-1].partition("PrimaryKey")[2].partition("Condition")[0]
    assert {"feed", "event_time"} <= set(keys.split())


def test_two_policies_are_compared_over_the_same_findings(reader: ClickHouseReader) -> None:
    found = compare(reader, policy("true", action="block"), policy("true"), NOW - DAY)
    assert {key: change.images for key, change in found.changes.items()} == {
        ("door", "review", "block"): 8,
        ("gate", "review", "block"): 8,
    }
    assert found.before.startswith("mine-")


CONDITIONS = (
    "objects.exists(o, o.label == 'CAT' && o.score == 0.5 && o.area == 0.25)",
    "text == 'Fr33 money' && texts[0].normal == 'free money' && words == ' fr33 money '",
    "terms[0].list == 'spam' && terms[0].language == 'en'",
    "hashes[0].list == 'ours' && hashes[0].kind == 'pdq' && hashes[0].distance == 7",
    "hashes[0].reason == 'known' && hashes[0].action == 'review'",
    "similar[0].exemplar == 'e1' && similar[0].distance == 0.125",
    "faces[0].score == 0.75 && faces[0].box.x2 == 10.0",
    "fingerprint.pdq_quality == 90 && fingerprint.content_id.endsWith(metadata.shop) || true",
    "image.width == 640 && image.height == 480 && image.format == 'jpeg' && image.bytes < 2000",
    "metadata.tags[1] == 1 && has(metadata.shop)",
    "models.scores == 'open-nsfw@1.0.0' && 'nsfw' in scores",
    "feed == 'door' || feed == 'gate'",
)


def test_every_variable_is_read_back_as_it_was(reader: ClickHouseReader) -> None:
    found = compare(reader, policy(*CONDITIONS), None, NOW - DAY)
    fired = {
        condition: sum(
            count.after for (rule, _), count in found.rules.items() if rule == f"rule-{number}"
        )
        for number, condition in enumerate(CONDITIONS)
    }
    assert fired == dict.fromkeys(CONDITIONS, 16)


def test_shadow_rules_are_counted_apart_and_change_no_verdict(reader: ClickHouseReader) -> None:
    text = "[[rules]]\nname='new'\nwhen='true'\naction='block'\nshadow=true\n"
    found = compare(
        reader, Policy.read(text.encode(), "m", "m"), policy("false"), NOW - DAY, ["door"]
    )
    assert found.changes == {}
    assert found.rules["new (shadow)", "door"].after == 8


def test_a_comparison_ends_within_its_bounds(reader: ClickHouseReader) -> None:
    sample = compare(reader, policy("true"), None, NOW - DAY, bounds=Bounds(8, 10))
    assert (sample.stored, sample.one_in, sample.complete) == (16, 2, True)
    assert 0 < sample.images < 16
    again = compare(reader, policy("true"), None, NOW - DAY, bounds=Bounds(8, 10))
    assert again.fields() == sample.fields()
    one_feed = compare(reader, policy("true"), None, NOW - DAY, bounds=Bounds(100, 1))
    assert {feed for _, feed in one_feed.rules} == {"door", OTHER_FEEDS}
    stopped = compare(reader, policy("true"), None, NOW - DAY, bounds=Bounds(9, 9, lambda: True))
    assert (stopped.images, stopped.complete) == (0, False)
    assert "took too long" in stopped.notes[-1]


def test_a_reader_is_told_what_is_stored_in_another_form(reader: ClickHouseReader) -> None:
    found = compare(reader, policy("words == '' || hashes == []"), None, NOW - DAY)
    assert any("redacted" in note for note in found.notes)
    assert any("matches of lists" in note for note in found.notes)
    assert compare(reader, policy("feed == 'x'"), None, NOW - DAY).notes == []


async def test_the_command_asks_the_server_that_the_settings_name(
    reader: ClickHouseReader,
    settings: ClickHouseSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from imagewire.cli import run

    monkeypatch.chdir(tmp_path)
    password = settings.password
    assert password is not None
    for name, value in {
        "HOST": settings.host,
        "PORT": str(settings.port),
        "USERNAME": settings.username,
        "PASSWORD": password.get_secret_value(),
        "DATABASE": settings.database,
    }.items():
        monkeypatch.setenv(f"IMAGEWIRE_CLICKHOUSE__{name}", value)
    (tmp_path / "new.toml").write_text("[[rules]]\nname = 'all'\nwhen = 'true'\naction = 'block'\n")
    assert run(["policy", "diff", "new.toml", "--since", "1d", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["images"], found["changed"]) == (16, 16)
    assert run(["policy", "diff", "new.toml", "--since", "1d", "--feed", "door"]) == 0
    shown = capsys.readouterr()
    assert "8 of 8 verdicts change" in shown.err
    assert "verdicts that change" in shown.out
