"""What leaves the chain holds no personal data, whichever way it leaves; rules saw all of it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest

from models.catalog import load_catalog
from models.device import choose_device
from operators.chain import OperatorChain
from operators.findings import TextLine
from operators.frame import Frame, Origin
from operators.near_identical import NearIdentical
from operators.operator import Operator
from operators.policy import Policy
from operators.redact import Redactor
from operators.redact_options import RedactionOptions
from operators.terms import TermLists
from operators.terms_options import TermListOptions, TermsOptions
from sinks.clickhouse.rows import IMAGE_COLUMNS, Row, as_columns
from sinks.kafka.records import dead_letter_headers, findings_record, review_record, verdict_record
from sinks.qdrant.points import _payload
from streams.reuse import Reuse

QUAD = ((0.0, 0.0), (9.0, 0.0), (9.0, 9.0), (0.0, 9.0))
LINES = ["CALL J0HN 0171 1234567", "john.smith@example.com", "4111 1111 1111", "1111 now"]
SECRETS = ("0171", "1234567", "john.smith", "johnsmith", "4111", "1111")
POLICY = """
[[rules]]
name = "mail"
when = "texts.exists(t, t.text.contains('john.smith@example.com'))"
action = "review"
explanation = "Reads {texts[1].text}, {texts[2].text} and {texts[0].normal}."

[[rules]]
name = "term"
when = "terms.exists(t, t.list == 'people')"
action = "review"

[[rules]]
name = "broken"
when = "text.matches('(' + text)"
action = "block"
"""


class Reader(Operator):
    """Reads the same in every picture."""

    name = "text"
    depends_on_content_only = True
    fails = False

    def process(self, frames: Any) -> None:
        for frame in frames:
            frame.findings.texts = [TextLine(line, 0.9, QUAD) for line in LINES]
            if self.fails:
                raise ValueError(f"cannot make sense of {LINES}")


def chain_of(tmp_path: Path, *, near: bool = False, **options: Any) -> OperatorChain:
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY)
    people = tmp_path / "people.txt"
    people.write_text("john\n")
    return OperatorChain(
        [Reader({}, choose_device("cpu", "fp32"), load_catalog())],
        Policy.load(policy),
        near_identical=NearIdentical(8, 10) if near else None,
        terms=TermLists(TermsOptions(lists={"people": TermListOptions(file=people)})),
        redactor=Redactor(RedactionOptions(**options)),
    )


def frame_of(number: int, feed: str = "shop") -> Frame:
    frame = Frame(f"image-{number}", feed, 0, Origin("images", 0, number, 0))
    frame.content = b"the same picture"
    return frame


def everything_stored(frame: Frame) -> str:
    """All that any sink writes of a frame, as text."""
    verdict = frame.findings.verdict
    assert verdict is not None
    records = [
        findings_record(frame),
        review_record(frame, verdict),
        verdict_record(frame, verdict),
    ]
    columns = as_columns([Row(frame, 0, 0)], IMAGE_COLUMNS)
    return msgspec.json.encode(records).decode() + str(columns) + str(_payload(frame, 1000))


def assert_clean(written: str) -> None:
    for secret in SECRETS:
        assert secret not in written


def test_rules_and_term_lists_read_everything_and_stores_get_nothing_personal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frame = frame_of(1)
    with caplog.at_level(logging.DEBUG):
        chain_of(tmp_path).process([frame])
    verdict = frame.findings.verdict
    assert verdict is not None
    assert {hit.rule for hit in verdict.rules} == {"mail", "term", "rule-error"}
    assert [line.text for line in frame.findings.texts] == [
        *("CALL J0HN [phone]", "[email]", "[card]", "[card] now")
    ]
    assert [(r.kind, r.line, r.start, r.end) for r in frame.findings.redactions] == [
        *(("phone", 0, 10, 17), ("email", 1, 0, 7), ("card", 2, 0, 6), ("card", 3, 0, 6))
    ]
    (term,) = [match for match in frame.findings.terms if match.line == 0]
    assert frame.findings.texts[0].text[term.start : term.end] == "J0HN"
    assert_clean(everything_stored(frame))
    assert_clean(caplog.text)


def test_a_failure_quotes_nothing_personal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chain = chain_of(tmp_path)
    chain.operators[0].fails = True  # type: ignore[attr-defined]
    frame = frame_of(1)
    chain.analyse([frame])
    assert frame.failed
    assert_clean(caplog.text)
    assert_clean(str(dead_letter_headers(frame)) + str(frame.findings))


def test_text_that_cannot_be_redacted_is_thrown_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise ValueError(" ".join(LINES))

    monkeypatch.setattr(Redactor, "lines", fail)
    frame = frame_of(1)
    chain_of(tmp_path).process([frame])
    assert frame.failure is not None
    assert frame.failure.stage == "redaction"
    assert_clean(str(dead_letter_headers(frame)) + str(frame.findings))


def test_reused_findings_are_decided_by_what_was_read_and_stored_without(tmp_path: Path) -> None:
    chain, reuse = chain_of(tmp_path), Reuse(10, 10**6)
    leader, twin, later = (frame_of(number) for number in range(3))
    assert reuse.sort([leader, twin])["new"] == [leader]
    chain.analyse([leader])
    waiting = reuse.finish(leader)
    assert waiting == [twin]
    chain.decide([leader, twin])
    assert reuse.sort([later])["cached"] == [later]
    chain.decide([later])
    for frame in (leader, twin, later):
        verdict = frame.findings.verdict
        assert verdict is not None
        assert "mail" in [hit.rule for hit in verdict.rules]
        assert len(frame.findings.redactions) == 4
        assert_clean(everything_stored(frame))


def test_raw_text_is_kept_for_the_feeds_that_are_named_and_no_other(tmp_path: Path) -> None:
    chain = chain_of(tmp_path, keep_raw_text=True, raw_feeds=("legal-*",))
    kept, stripped = frame_of(1, "legal-hold"), frame_of(2, "shop")
    chain.process([kept, stripped])
    assert [line.text for line in kept.findings.texts] == LINES
    assert (first := kept.findings.redactions[0]).kind == "phone"
    assert LINES[0][first.start : first.end] == "0171 1234567"
    assert_clean(str(kept.findings.verdict))
    assert_clean(everything_stored(stripped))


def test_raw_text_needs_both_settings() -> None:
    with pytest.raises(ValueError, match="raw_feeds"):
        RedactionOptions(keep_raw_text=True)
    with pytest.raises(ValueError, match="raw_feeds"):
        RedactionOptions(raw_feeds=("*",))
