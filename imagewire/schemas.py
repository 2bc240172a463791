"""JSON Schemas of the records on Kafka, made from the definitions that encode and decode them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from operators.ban_records import BanRecord
from sinks.kafka.records import FindingsRecord, ReviewRecord, VerdictRecord
from streams.records import ImageReference
from streams.reviews import ReviewDecision

_RECORDS: dict[str, Any] = {
    "image-reference": ImageReference,
    "findings": FindingsRecord,
    "verdict": VerdictRecord,
    "review": ReviewRecord,
    "review-decision": ReviewDecision,
    "ban": BanRecord,
}


def json_schemas() -> dict[str, dict[str, Any]]:
    """File name to JSON Schema (draft 2020-12)."""
    found = {}
    for name, record in _RECORDS.items():
        schema = msgspec.json.schema(record)
        found[f"{name}.schema.json"] = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": getattr(record, "__name__", "BanRecord"),
            **schema,
        }
    return found


def write_schemas(directory: Path) -> list[Path]:
    """Write every schema below `directory`; returns the files."""
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name, content in _files().items():
        path = directory / name
        path.write_bytes(content)
        written.append(path)
    return written


def outdated_schemas(directory: Path) -> list[Path]:
    """The files below `directory` that are missing or differ from what the code says."""
    return [
        directory / name
        for name, content in _files().items()
        if not (directory / name).is_file() or (directory / name).read_bytes() != content
    ]


def _files() -> dict[str, bytes]:
    return {
        name: msgspec.json.format(msgspec.json.encode(schema), indent=2) + b"\n"
        for name, schema in json_schemas().items()
    }
