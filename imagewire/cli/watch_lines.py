"""One line of text for each kind of record that `imagewire watch` shows."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.text import Text

from imagewire.cli.terminal import printable
from sinks.kafka.records import DeadLetterHeader

_STYLES = {"allow": "green", "review": "yellow", "block": "bold red"}
_PREFIX = "imagewire-"


def dead_letter_fields(message: Any) -> dict[str, Any]:
    """A dead letter's headers as fields; the original value is shown only by its size."""
    headers = {
        name: (value or b"").decode("utf-8", errors="replace") for name, value in message.headers
    }
    fields: dict[str, Any] = {
        header.value.removeprefix(_PREFIX).replace("-", "_"): headers[header.value]
        for header in DeadLetterHeader
        if header.value in headers
    }
    for number in ("source_partition", "source_offset", "timestamp", "attempt"):
        if fields.get(number, "").lstrip("-").isdigit():
            fields[number] = int(fields[number])
    fields["value_bytes"] = len(message.value or b"")
    return fields


def line_for(what: str, fields: dict[str, Any]) -> Text:
    """The record as one line."""
    start = Text(
        printable(f"{fields.get('event_time', '')} {fields.get('feed', '')} ").lstrip(),
        style="dim",
    )
    start.append(printable(str(fields.get("image_id", ""))), style="default not dim")
    start.append("  ")
    if what == "failed":
        start.append(
            printable(f"{fields.get('stage')}: {fields.get('reason')}"), style="red not dim"
        )
        start.append(printable(f"  {fields.get('detail', '')}"))
        return start
    verdict = fields if what in ("verdicts", "review") else fields.get("verdict") or {}
    action = str(verdict.get("action", "none"))
    start.append(action, style=f"{_STYLES.get(action, '')} not dim")
    rules = ", ".join(str(rule.get("rule")) for rule in verdict.get("rules", []))
    if rules:
        start.append(printable(f"  [{rules}]"))
    if what == "findings":
        labels = Counter(str(item.get("label")) for item in fields.get("objects", []))
        counted = ", ".join(f"{n} × {label}" if n > 1 else label for label, n in labels.items())
        texts = " / ".join(str(line.get("text")) for line in fields.get("texts", []))
        start.append(printable(f"  {counted}"), style="cyan not dim")
        if texts:
            start.append(printable(f"  “{texts[:200]}”"))
    return start
