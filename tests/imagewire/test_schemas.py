"""The published JSON Schemas are those of the code, and real records keep to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator, ValidationError

from imagewire.cli import run
from imagewire.schemas import json_schemas, outdated_schemas
from operators.findings import (
    Detection,
    Embedding,
    Findings,
    Fingerprint,
    ImageInfo,
    RuleHit,
    TextLine,
    Verdict,
)
from operators.frame import Frame, Origin
from sinks.kafka.records import findings_record, review_record, verdict_record

PUBLISHED = Path(__file__).parents[2] / "docs" / "schemas"


def validator(name: str) -> Draft202012Validator:
    schema = json.loads((PUBLISHED / f"{name}.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def frame(**changes: Any) -> Frame:
    made = Frame(
        image_id="a-1",
        feed="gate",
        event_time_ms=1_700_000_000_123,
        origin=Origin("images", 0, 7, 1_700_000_000_000),
        uri="https://example.org/a.jpg",
        metadata={"camera": {"floor": 3}, "tags": ["x", None, 1.5]},
    )
    made.findings = Findings(
        image=ImageInfo(width=640, height=480, format="jpeg", bytes=1234),
        objects=[Detection(label="FACE_MALE", score=0.5, box=(1.0, 2.0, 3.0, 4.0))],
        texts=[TextLine(text="Sale", score=0.9, quad=((0.0, 0.0),) * 4)],
        scores={"nsfw": 0.25},
        fingerprint=Fingerprint(content_id="ab" * 32, pdq="cd" * 32, pdq_quality=100),
        embedding=Embedding(vector=[0.6, 0.8], model="net@1"),
        verdict=Verdict(
            action="review",
            rules=[RuleHit(rule="sale", action="review", explanation="says sale")],
            policy="default-1",
        ),
        models={"objects": "net@1"},
    )
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def encoded(record: msgspec.Struct) -> Any:
    return json.loads(msgspec.json.encode(record))


def test_the_published_schemas_are_current() -> None:
    assert outdated_schemas(PUBLISHED) == [], "run: imagewire schemas"
    assert {path.name for path in PUBLISHED.glob("*.json")} == set(json_schemas())


def test_records_as_they_are_written_keep_to_their_schemas() -> None:
    full = frame()
    verdict = full.findings.verdict
    assert verdict is not None
    validator("findings").validate(encoded(findings_record(full)))
    validator("findings").validate(encoded(findings_record(full, include_embedding=True)))
    validator("verdict").validate(encoded(verdict_record(full, verdict)))
    validator("review").validate(encoded(review_record(full, verdict)))


def test_a_record_of_which_nothing_is_known_keeps_to_its_schema() -> None:
    empty = frame(findings=Findings(), uri=None, metadata={})
    validator("findings").validate(encoded(findings_record(empty)))


@pytest.mark.parametrize(
    "reference",
    [
        {"uri": "https://example.org/a.jpg"},
        {"uri": "data:,", "id": "1", "feed": "f", "captured_at": "2026-01-31T12:00:00Z"},
        {"uri": "s3://photos/a.jpg", "captured_at": 1_700_000_000_000, "lane": "bulk"},
        {"uri": "file:///a.jpg", "metadata": {"deep": {"er": []}}, "unknown": "is kept"},
    ],
)
def test_references_that_a_worker_takes_keep_to_the_schema(reference: dict[str, Any]) -> None:
    validator("image-reference").validate(reference)


@pytest.mark.parametrize(
    "reference",
    [{}, {"uri": ""}, {"uri": 3}, {"uri": "a", "lane": "express"}, {"uri": "a", "id": "x" * 257}],
)
def test_references_that_a_worker_refuses_do_not(reference: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        validator("image-reference").validate(reference)


def test_every_schema_says_what_its_fields_mean() -> None:
    for name, schema in json_schemas().items():
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        definitions = schema["$defs"]
        # A record of one of several kinds has a definition for each.
        whole = definitions.get(schema["title"])
        for definition in definitions.values() if whole is None else (whole,):
            assert definition["description"], name
            if name not in ("image-reference.schema.json", "review-decision.schema.json"):
                fields = definition["properties"] | {"record": {"description": ""}}
                assert all("description" in field for field in fields.values()), name


def test_the_command_writes_them_and_checks_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "schemas")
    assert run(["schemas", "--check", "--out", out]) == 1
    assert (
        f"is missing or out of date; run: imagewire schemas --out {out}" in capsys.readouterr().err
    )
    assert run(["schemas", "--out", out]) == 0
    assert run(["schemas", "--check", "--out", out]) == 0
    (tmp_path / "schemas" / "verdict.schema.json").write_text("{}")
    capsys.readouterr()
    assert run(["schemas", "--check", "--out", out]) == 1
    assert "verdict.schema.json is missing or out of date" in capsys.readouterr().err
