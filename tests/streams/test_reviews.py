"""What is promised of people's decisions before any broker is asked: checked, ordered, applied."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from operators.findings import Findings, Fingerprint, RuleHit, Verdict
from operators.frame import Frame, Origin
from streams.record_fields import RecordError
from streams.reviews import Decision, decision_from_record, failed_decision
from streams.reviews_audit import NO_RULE, AuditSampling
from streams.reviews_first import PeopleFirst
from streams.reviews_overrides import Overrides, override_keys, override_records

NOW = 1_790_000_000_000


def record(fields: Any, timestamp_ms: int = NOW) -> Origin:
    value = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return Origin("images.reviews", 1, 7, timestamp_ms, None, value)


def decision(
    choice: Any = "block",
    at: int = NOW,
    id: str = "d1",
    image: str = "a",
    content: str | None = None,
) -> Decision:
    return Decision(image, choice, "ann", at, id, content)


def frame(image: str = "a", content: str | None = None, action: Any = "allow") -> Frame:
    made = Frame(image, "gate", NOW, Origin("images", 0, 0, NOW))
    made.findings = Findings(
        fingerprint=None if content is None else Fingerprint(content),
        verdict=Verdict(action, "p-1", [RuleHit("nude", "block")] if action == "block" else []),
    )
    return made


def known(*decisions: Decision) -> Overrides:
    overrides = Overrides(1000)
    for each in decisions:
        for key, value in override_records(each):
            overrides.apply(key, value)
    return overrides


def verdict_over(overrides: Overrides, a_frame: Frame) -> Verdict:
    assert a_frame.findings.verdict is not None
    return overrides.decided(a_frame.findings.verdict, a_frame)


# decisions as records


def test_a_decision_needs_an_image_a_choice_and_a_reviewer_and_nothing_else() -> None:
    origin = record({"image_id": "a", "decision": "block", "reviewer": "ann"})
    found = decision_from_record(origin, now_ms=NOW)
    assert (found.image_id, found.choice, found.reviewer) == ("a", "block", "ann")
    assert found.decided_at_ms == NOW
    assert found.decision_id == origin.derived_id()
    assert decision_from_record(origin, now_ms=NOW) == found


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "empty-record"),
        (b"hello", "not-a-decision"),
        (b"[1]", "not-a-decision"),
        (b"\xff\xfe", "not-a-decision"),
        (b"[" * 60_000, "not-a-decision"),
        (b'"' + b"x" * 70_000 + b'"', "too-long"),
        ({"image_id": "a", "decision": "maybe", "reviewer": "ann"}, "not-a-decision"),
        ({"image_id": "a", "decision": "block"}, "not-a-decision"),
        ({"image_id": "x" * 300, "decision": "block", "reviewer": "ann"}, "not-a-decision"),
        ({"image_id": "a\x1b[2J", "decision": "block", "reviewer": "ann"}, "bad-characters"),
        ({"image_id": "a", "decision": "block", "reviewer": "\u202enna"}, "bad-characters"),
        (
            {"image_id": "a", "decision": "block", "reviewer": "ann", "content_id": "ABC"},
            "not-a-decision",
        ),
        (
            {"image_id": "a", "decision": "block", "reviewer": "ann", "labels": ["x"] * 51},
            "not-a-decision",
        ),
        (
            {"image_id": "a", "decision": "block", "reviewer": "ann", "decided_at": "soon"},
            "bad-decided-at",
        ),
        (
            {"image_id": "a", "decision": "block", "reviewer": "a", "decided_at": "2099-01-01"},
            "bad-decided-at",
        ),
        (
            {"image_id": "a", "decision": "block", "reviewer": "a", "decided_at": "0001-01-01"},
            "bad-decided-at",
        ),
    ],
)
def test_what_is_no_decision_is_refused_with_a_reason(value: Any, reason: str) -> None:
    origin = record(value)
    with pytest.raises(RecordError) as caught:
        decision_from_record(origin, now_ms=NOW)
    assert caught.value.reason == reason
    letter = failed_decision(origin, caught.value.reason, str(caught.value))
    assert letter.failure is not None
    assert (letter.failure.stage, letter.failure.reason) == ("review", reason)


@pytest.mark.parametrize("ahead_ms", [4_200_000, 10**17])
def test_a_producer_that_dates_its_record_ahead_does_not_outrank_everybody(ahead_ms: int) -> None:
    fields = {"image_id": "a", "decision": "allow", "reviewer": "ann"}
    with pytest.raises(RecordError, match="Kafka lies in the future"):
        decision_from_record(record(fields, NOW + ahead_ms), now_ms=NOW)
    late = record(fields, NOW + 3_000_000)
    assert decision_from_record(late, now_ms=NOW).decided_at_ms == NOW + 3_000_000


# whose word stands


def test_a_person_outranks_the_policy_for_the_image_and_the_policys_action_is_kept() -> None:
    found = verdict_over(known(decision("block")), frame(action="allow"))
    assert (found.action, found.decided_by, found.machine_action) == ("block", "person", "allow")
    assert (found.decision_id, found.policy) == ("d1", "p-1")
    assert verdict_over(known(decision("block")), frame("other")).decided_by == "policy"


def test_other_images_with_the_same_bytes_get_the_same_decision() -> None:
    overrides = known(decision("allow", content="ab" * 32))
    assert verdict_over(overrides, frame("other", "ab" * 32, "block")).action == "allow"
    assert verdict_over(overrides, frame("other", "cd" * 32, "block")).action == "block"


def test_the_latest_decision_stands_in_whatever_order_they_arrive() -> None:
    early, late = decision("block", NOW, "d9"), decision("allow", NOW + 1, "d1")
    for overrides in (known(early, late), known(late, early)):
        assert verdict_over(overrides, frame(action="block")).action == "allow"


def test_of_two_decisions_of_one_moment_the_higher_id_stands() -> None:
    for overrides in (
        known(decision("block", id="b"), decision("allow", id="a")),
        known(decision("allow", id="a"), decision("block", id="b")),
    ):
        assert verdict_over(overrides, frame()).action == "block"


def test_a_later_decision_on_the_content_outranks_an_earlier_one_on_the_image() -> None:
    content = "ab" * 32
    overrides = known(
        decision("block", NOW, content=content),
        decision("allow", NOW + 1, image="b", content=content),
    )
    assert verdict_over(overrides, frame("a", content)).action == "allow"


def test_a_withdrawn_decision_leaves_the_policys_verdict() -> None:
    found = verdict_over(
        known(decision("block"), decision("withdraw", NOW + 1, "d2")), frame(action="allow")
    )
    assert (found.action, found.decided_by, found.machine_action) == ("allow", "policy", None)


def test_a_frame_that_is_decided_again_after_a_withdrawal_gets_the_policys_verdict_back() -> None:
    a_frame = frame(action="allow")
    a_frame.findings.verdict = verdict_over(known(decision("block")), a_frame)
    found = verdict_over(known(decision("withdraw", NOW + 1)), a_frame)
    assert (found.action, found.decided_by) == ("allow", "policy")


def test_a_decision_that_compaction_would_lose_is_written_again() -> None:
    written: list[tuple[bytes, bytes]] = []
    overrides = Overrides(1000, lambda key, value: written.append((key, value)))
    [late] = override_records(decision("allow", NOW + 1, "d2"))
    [early] = override_records(decision("block", NOW, "d1"))
    overrides.apply(*late)
    overrides.apply(*early)
    assert written == [late]
    overrides.apply(*late)  # and comes back
    assert written == [late]


def test_a_key_that_is_taken_away_is_forgotten() -> None:
    content = "ab" * 32
    overrides = known(decision("block", content=content))
    for key in override_keys("a", content):
        overrides.apply(key, None)
    assert verdict_over(overrides, frame("a", content)).decided_by == "policy"
    assert len(overrides) == 0


def test_records_that_are_no_overrides_are_passed_over() -> None:
    overrides = Overrides(10)
    for key, value in (
        (None, b"{}"), (b"x", b"{}"), (b"image:a", b"{}"), (b"image:a", b"\xff"),
        (b"image:a", b'{"decision":"block","decided_at":99999999999999999,"decision_id":"x"}'),
        (b"content:" + b"z" * 64, None),
    ):  # fmt: skip
        overrides.apply(key, value)
    assert len(overrides) == 0


def test_memory_is_bounded_and_what_came_first_goes_first() -> None:
    overrides = Overrides(100)
    for number in range(150):
        for key, value in override_records(decision(image=f"i{number}", id=f"d{number}")):
            overrides.apply(key, value)
    assert (len(overrides), overrides.dropped) == (100, 50)
    assert overrides.standing("i149", None) is not None
    assert overrides.standing("i0", None) is None


def test_a_look_up_takes_microseconds() -> None:
    overrides = Overrides(200_000)
    for number in range(20_000):
        each = decision(image=f"i{number}", content=f"{number:064x}")
        for key, value in override_records(each):
            overrides.apply(key, value)
    frames = [frame(f"i{number}", f"{number:064x}") for number in range(0, 20_000, 10)]
    began = time.process_time()
    for a_frame in frames:
        verdict_over(overrides, a_frame)
    each_us = (time.process_time() - began) / len(frames) * 1e6
    assert each_us < 100  # 5 on a quiet machine


def test_what_a_person_decided_is_drawn_for_no_audit() -> None:
    people_first = PeopleFirst(known(decision("allow")), AuditSampling(1.0, 1.0))
    frames = [frame("a", action="block"), frame("b", action="block")]
    people_first(frames)
    ours, other = (each.findings.verdict for each in frames)
    assert ours is not None
    assert other is not None
    assert (ours.action, ours.audit) == ("allow", [])
    assert (other.action, other.audit) == ("block", ["nude"])


# audits


def drawn(sampling: AuditSampling, verdict: Verdict, count: int = 20_000) -> dict[str, int]:
    found: dict[str, int] = {}
    for number in range(count):
        for rule in sampling.drawn(f"image-{number}", verdict):
            found[rule] = found.get(rule, 0) + 1
    return found


def test_as_many_are_drawn_as_the_rates_say_and_always_the_same() -> None:
    sampling = AuditSampling(0.01, 0.05, {"gore": 0.2})
    hits = [RuleHit("nude", "block"), RuleHit("gore", "block")]
    found = drawn(sampling, Verdict("block", "p", hits))
    assert 850 < found["nude"] < 1150  # 1000 expected, five standard deviations
    assert 3700 < found["gore"] < 4300
    assert drawn(sampling, Verdict("block", "p", hits)) == found
    assert 130 < drawn(sampling, Verdict("allow", "p"))[NO_RULE] < 270


def test_an_image_drawn_for_one_rule_is_no_sample_of_another_with_a_lower_rate() -> None:
    sampling = AuditSampling(0, 0.01, {"gore": 1.0})
    hits = [RuleHit("nude", "block"), RuleHit("gore", "block")]
    found = drawn(sampling, Verdict("block", "p", hits))
    assert found["gore"] == 20_000
    assert found["nude"] < 300


def test_rules_that_did_not_carry_the_verdict_are_not_judged_by_it() -> None:
    hits = [
        RuleHit("nude", "block"),
        RuleHit("doubt", "review"),
        RuleHit("trial", "block", shadow=True),
    ]
    assert set(drawn(AuditSampling(1, 1), Verdict("block", "p", hits), 10)) == {"nude"}


def test_verdicts_that_people_see_anyway_are_not_drawn() -> None:
    assert not drawn(AuditSampling(1, 1), Verdict("review", "p"), 100)
    assert not drawn(AuditSampling(0, 0), Verdict("block", "p"), 100)
