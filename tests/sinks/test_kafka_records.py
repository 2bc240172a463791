"""What is written about an image shows nobody who is in it."""

from __future__ import annotations

import pytest

from operators.findings import Findings, Verdict
from operators.frame import Frame, Origin
from sinks.kafka.records import findings_record, review_record, verdict_record


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("https://example.org/a.jpg", "https://example.org/a.jpg"),
        ("data:image/jpeg;base64,/9j/4AAQ", None),
        ("DATA:image/jpeg;base64,/9j/4AAQ", None),
        (None, None),
    ],
)
def test_the_picture_in_a_data_address_goes_to_nobody(uri: str | None, told: str | None) -> None:
    verdict = Verdict("review", "p-1")
    frame = Frame("a", "gate", 0, Origin("images", 0, 0, 0), uri=uri)
    frame.findings = Findings(verdict=verdict)
    assert verdict_record(frame, verdict).uri == told
    assert review_record(frame, verdict).uri == told
    assert findings_record(frame).uri == told
