"""Drift is seen where there is some, in scores and in embeddings, and nowhere else."""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from operators.findings import Embedding, Findings
from operators.frame import Frame, Origin
from sinks.clickhouse.connection import connect
from sinks.clickhouse.projections import COUNT, PROJECTION, projected, signs
from sinks.clickhouse.reader import ClickHouseReader
from sinks.clickhouse.settings import ClickHouseSettings
from sinks.clickhouse.sink import ClickHouseSink

HOUR = 3_600_000
DIMENSION = 64
IMAGES = 1500
RANDOM = np.random.RandomState(7)


def frames(feed: str, hours_ago: int, scores: Sequence[float], vectors: Any) -> list[Frame]:
    """Images that were taken within one hour."""
    began = (time.time_ns() // 1_000_000 // HOUR - hours_ago) * HOUR
    made = []
    for number, (score, vector) in enumerate(zip(scores, vectors, strict=True)):
        at = began + number
        name = f"{feed}-{hours_ago}-{number}"
        frame = Frame(
            name, feed, at, Origin("images", 0, number, at), id_given=True, captured_at_given=True
        )
        frame.findings = Findings(
            scores={"nsfw": float(score)},
            embedding=Embedding("lite0@1", vector.tolist()),
            models={"scores": "open-nsfw@1", "embedding": "lite0@1"},
        )
        made.append(frame)
    return made


def unit_vectors(count: int, towards: int | None = None) -> Any:
    vectors = RANDOM.standard_normal((count, DIMENSION))
    if towards is not None:
        vectors[:, towards] += 10
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def database(clickhouse_front: Any) -> tuple[ClickHouseSettings, dict[str, Any]]:
    """Feeds whose last day is as the week before (`same`), whose scores have shifted (`scores`),
    whose pictures have (`pictures`), that always score the same (`constant`), and one that is new.
    """
    settings = ClickHouseSettings(
        host=clickhouse_front.host,
        port=clickhouse_front.port,
        username="writer",
        password=clickhouse_front.writer_password,
        database=f"drift_{secrets.token_hex(5)}",
    )
    was = RANDOM.beta(1, 30, IMAGES)
    shifted = RANDOM.beta(2, 20, IMAGES)
    written = [
        *frames("same", 100, was, unit_vectors(IMAGES)),
        *frames("same", 5, RANDOM.beta(1, 30, IMAGES), unit_vectors(IMAGES)),
        *frames("scores", 100, was, unit_vectors(IMAGES)),
        *frames("scores", 5, shifted, unit_vectors(IMAGES)),
        *frames("pictures", 100, [0.5] * IMAGES, unit_vectors(IMAGES)),
        *frames("pictures", 5, [0.5] * IMAGES, unit_vectors(IMAGES, towards=3)),
        *frames("constant", 100, [0.0] * 40, unit_vectors(40)),
        *frames("constant", 5, [1.0] * 40, unit_vectors(40)),
        *frames("new", 5, was[:40], unit_vectors(40)),
        *frames("old", 400, was[:40], unit_vectors(40)),
    ]

    async def write() -> None:
        sink = ClickHouseSink(settings)
        await sink.open()
        for _ in range(2):  # a replay changes nothing
            await sink.write(written)
        await sink.close()

    asyncio.run(write())
    return settings, {"was": was, "shifted": shifted}


@pytest.fixture(scope="module")
def drift(database: tuple[ClickHouseSettings, Any]) -> dict[tuple[str, str, str], dict[str, Any]]:
    with ClickHouseReader(database[0]) as reader:
        rows = reader.query("SELECT * FROM drift").to_pylist()
    return {(row["feed"], row["kind"], row["name"]): row for row in rows}


def expected_index(was: Any, shifted: Any) -> float:
    """By the book: tenths of the reference, half an image added to each."""
    edges = np.quantile(was, np.arange(0.1, 1, 0.1))
    shares = []
    for values in (was, shifted):
        counts = np.bincount(np.searchsorted(edges, values), minlength=10) + 0.5
        shares.append(counts / counts.sum())
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())


def test_the_index_is_that_of_the_books(database: Any, drift: dict[Any, dict[str, Any]]) -> None:
    row = drift["scores", "score", "nsfw"]
    assert row["model"] == "open-nsfw@1"
    assert (row["reference_images"], row["current_images"]) == (IMAGES, IMAGES)
    assert row["psi"] > 0.25
    assert row["psi"] == pytest.approx(expected_index(**database[1]), rel=0.1)
    assert row["by_chance"] == pytest.approx(27.877 * 2 / IMAGES, rel=0.01)
    assert row["current_mean"] > 2 * row["reference_mean"]


def test_the_query_of_the_page_names_what_drifted(database: Any) -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text("utf-8")
    (sql,) = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    with ClickHouseReader(database[0]) as reader:
        found = reader.query(sql).to_pylist()
    assert {row["feed"] for row in found} == {"scores", "pictures", "constant"}
    assert found[0]["psi"] > 0.25


def test_what_did_not_change_stays_below_what_chance_does(drift: dict[Any, dict[str, Any]]) -> None:
    calm = [row for (feed, *_), row in drift.items() if feed == "same"]
    assert len(calm) == 1 + COUNT
    for row in calm:
        assert 0 <= row["psi"] < row["by_chance"] < 0.1, row


def test_pictures_that_changed_show_in_the_projections_alone(
    drift: dict[Any, dict[str, Any]],
) -> None:
    moved = [
        drift["pictures", "embedding", f"{PROJECTION}/{number + 1}"]["psi"]
        for number in range(COUNT)
    ]
    assert min(moved) > 0.25
    assert drift["pictures", "score", "nsfw"]["psi"] == pytest.approx(0)
    assert drift["pictures", "embedding", f"{PROJECTION}/1"]["model"] == "lite0@1"


def test_scores_that_are_all_alike_have_an_index_too(drift: dict[Any, dict[str, Any]]) -> None:
    """All in one tenth, and then all in another."""
    row = drift["constant", "score", "nsfw"]
    assert row["psi"] > 5
    assert row["psi"] > row["by_chance"] > 0


def test_without_two_windows_there_is_nothing_to_compare(drift: dict[Any, dict[str, Any]]) -> None:
    assert {feed for feed, *_ in drift} == {"same", "scores", "pictures", "constant"}


def test_the_projection_is_the_same_everywhere_and_for_ever() -> None:
    """Its values of years are compared: a change needs another name."""
    assert PROJECTION == "signs-v1-seed1"
    drawn = signs(1280)
    assert drawn.shape == (COUNT, 1280)
    assert set(np.unique(drawn)) == {-1.0, 1.0}
    packed = np.packbits(drawn.ravel() > 0).tobytes()
    assert packed == hashlib.shake_256(b"signs-v1-seed1/1280").digest(COUNT * 160)
    assert projected([]) == []
    values = np.array([projected(vector) for vector in unit_vectors(200).tolist()])
    assert abs(values.mean()) < 0.1
    assert values.std() == pytest.approx(1, rel=0.1)


def test_reliability_counts_what_people_said_of_each_tenth(
    database: tuple[ClickHouseSettings, dict[str, Any]],
) -> None:
    """Three decisions on pictures that score 0.5: one names the label, one does not, and one blocks
    without a reason that the model could have seen."""
    settings = database[0]
    at = time.time_ns() // 1_000_000
    rows = [
        [f"pictures-5-{number}", "pictures", decision, labels, at, str(number), audited]
        for number, (decision, labels, audited) in enumerate(
            [
                ("block", ["nsfw"], ["r"]),
                ("allow", [], ["r"]),
                ("block", [], ["r"]),
                ("allow", [], []),
            ]
        )
    ]
    client = connect(settings)
    client.insert(
        f"{settings.database}.reviews_raw",
        rows,
        column_names=[
            *("image_id", "feed", "decision", "labels", "decided_at", "decision_id"),
            "audited_rules",
        ],
        column_type_names=[
            *("String", "LowCardinality(String)", "Enum8('allow' = 1, 'block' = 3)"),
            *("Array(LowCardinality(String))", "DateTime64(3, 'UTC')", "String"),
            "Array(LowCardinality(String))",
        ],
    )
    client.close()
    with ClickHouseReader(settings) as reader:
        found = reader.query("SELECT * FROM reliability ORDER BY audited").to_pylist()
    shared = {"model": "open-nsfw@1", "name": "nsfw", "tenth": 5, "mean_score": 0.5}
    assert found == [
        shared | {"audited": 0, "images": 1, "true_share": 0.0},
        shared | {"audited": 1, "images": 2, "true_share": 0.5},
    ]
