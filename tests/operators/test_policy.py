"""What a policy promises about verdicts."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from operators.findings import Detection, Fingerprint, ImageInfo, TextLine
from operators.frame import Frame, Origin
from operators.policy import Policy

QUAD = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))


def frame_with(
    *,
    objects: list[Detection] | None = None,
    lines: list[str] | None = None,
    scores: dict[str, float] | None = None,
    metadata: dict[str, Any] | None = None,
    feed: str = "camera-7",
) -> Frame:
    frame = Frame("image", feed, 0, Origin("images", 0, 0, 0), metadata=metadata or {})
    frame.findings.image = ImageInfo(200, 100, "jpeg", 12345)
    frame.findings.fingerprint = Fingerprint("ab" * 32, "cd" * 32, 90)
    frame.findings.objects = objects or []
    frame.findings.texts = [TextLine(line, 0.9, QUAD) for line in lines or []]
    frame.findings.scores = scores or {}
    return frame


@pytest.fixture
def policy_of(tmp_path: Path) -> Any:
    def build(*conditions: str, action: str = "review", extra: str = "") -> Policy:
        file = tmp_path / "mine.toml"
        file.write_text(
            "".join(
                f"[[rules]]\nname = 'rule-{index}'\nwhen = '''{when}'''\n"
                f"action = '{action}'\n{extra}\n"
                for index, when in enumerate(conditions)
            )
        )
        return Policy.load(file)

    return build


def fired(policy: Policy, frame: Frame) -> list[str]:
    return [hit.rule for hit in policy.evaluate(frame).rules]


@pytest.mark.parametrize(
    "condition",
    [
        "objects.exists(o, o.label == 'CAT' && o.score > 0.8)",
        "objects.exists(o, o.box.x2 - o.box.x1 == 100.0)",
        "objects.exists(o, o.area == 0.25)",
        "objects.filter(o, o.score > 0.5).size() == 1",
        "texts.exists(t, t.text.startsWith('Free') && t.score > 0.5)",
        "text.contains('Free\\nMONEY')",
        "words.contains(' free money ')",
        "text.lowerAscii().matches('free\\\\s+money')",
        "'nsfw' in scores && scores['nsfw'] > 0.8",
        "scores.nsfw > 0.8",
        f"fingerprint.content_id == '{'ab' * 32}' && fingerprint.pdq_quality >= 50",
        "image.width > image.height && image.format == 'jpeg' && image.bytes < 20000",
        "has(metadata.site) && metadata.site == 'Oslo'",
        "feed.startsWith('camera-')",
    ],
)
def test_a_condition_reads_everything_that_was_found(policy_of: Any, condition: str) -> None:
    frame = frame_with(
        objects=[Detection("CAT", 0.9, (0.0, 0.0, 100.0, 50.0))],
        lines=["Free", "MONEY!"],
        scores={"nsfw": 0.9},
        metadata={"site": "Oslo"},
    )
    assert fired(policy_of(condition), frame) == ["rule-0"]


def test_the_strictest_action_wins_and_every_rule_that_fired_is_named(tmp_path: Path) -> None:
    file = tmp_path / "three rules.toml"
    file.write_text(
        "[[rules]]\nname='a'\nwhen='true'\naction='review'\nexplanation='because'\n"
        "[[rules]]\nname='b'\nwhen='true'\naction='block'\n"
        "[[rules]]\nname='c'\nwhen='false'\naction='block'\n"
        "[[rules]]\nname='d'\nwhen='true'\naction='allow'\n"
    )
    verdict = Policy.load(file).evaluate(frame_with())
    assert verdict.action == "block"
    assert [(hit.rule, hit.action, hit.explanation) for hit in verdict.rules] == [
        ("a", "review", "because"),
        ("b", "block", ""),
        ("d", "allow", ""),
    ]


def test_an_image_that_no_rule_mentions_is_allowed(policy_of: Any) -> None:
    verdict = policy_of("false").evaluate(frame_with())
    assert verdict.action == "allow"
    assert verdict.rules == []


def test_the_version_changes_with_the_content_and_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "house rules.toml"
    file.write_text("[[rules]]\nname='a'\nwhen='true'\naction='review'\n")
    first = Policy.load(file).version
    assert Policy.load(file).version == first
    file.write_text("[[rules]]\nname='a'\nwhen='true'\naction='block'\n")
    assert Policy.load(file).version != first
    assert first.startswith("house-rules-")
    assert len(first.removeprefix("house-rules-")) == 12


def test_a_rule_for_some_feeds_leaves_the_others_alone(policy_of: Any) -> None:
    policy = policy_of("true", extra="feeds = ['camera-*', 'upload']")
    assert fired(policy, frame_with(feed="camera-7")) == ["rule-0"]
    assert fired(policy, frame_with(feed="upload")) == ["rule-0"]
    assert fired(policy, frame_with(feed="uploads")) == []


def test_a_disabled_rule_does_not_fire(policy_of: Any) -> None:
    assert fired(policy_of("true", extra="enabled = false"), frame_with()) == []


def test_a_rule_that_cannot_be_evaluated_sends_the_image_to_review(
    policy_of: Any, caplog: pytest.LogCaptureFixture
) -> None:
    policy = policy_of("metadata.site == 'Oslo'", "true", action="allow")
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            verdict = policy.evaluate(frame_with())
    assert verdict.action == "review"
    assert [hit.rule for hit in verdict.rules] == ["rule-error", "rule-1"]
    assert "rule-0" in verdict.rules[0].explanation
    assert "site" in verdict.rules[0].explanation
    assert len(caplog.records) == 1, "a failing rule is logged once a minute, not once a frame"


@pytest.mark.parametrize("condition", ["metadata.n", "1 + metadata.n", "objects[3].score > 0.1"])
def test_a_condition_that_gives_no_truth_value_is_a_rule_error(
    policy_of: Any, condition: str
) -> None:
    assert fired(policy_of(condition), frame_with(metadata={"n": 1})) == ["rule-error"]


def test_metadata_that_cel_has_no_type_for_disturbs_only_the_rules_that_read_it(
    policy_of: Any,
) -> None:
    policy = policy_of("metadata.a == 1", "feed == 'camera-7'")
    frame = frame_with(metadata={"a": object()})
    assert fired(policy, frame) == ["rule-error", "rule-1"]


def test_fields_of_operators_that_are_switched_off_are_empty(policy_of: Any) -> None:
    bare = Frame("image", "feed", 0, Origin("images", 0, 0, 0))
    policy = policy_of(
        "fingerprint.pdq == '' && image.width == 0 && text == '' && words == '' && objects == []"
    )
    assert fired(policy, bare) == ["rule-0"]


def test_threads_share_a_policy_without_mixing_frames(policy_of: Any) -> None:
    policy = policy_of("scores.n > 0.5", "objects.exists(o, o.label == 'L1')")

    def one(index: int) -> bool:
        odd = index % 2
        frame = frame_with(
            objects=[Detection(f"L{odd}", 0.9, (0, 0, 1, 1))], scores={"n": float(odd)}
        )
        return fired(policy, frame) == (["rule-0", "rule-1"] if odd else [])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(2000)))


def test_ten_rules_cost_about_a_tenth_of_a_millisecond(policy_of: Any) -> None:
    policy = policy_of(
        *(f"objects.exists(o, o.label == 'X{n}' && o.score > 0.5)" for n in range(5)),
        *(f"words.contains(' phrase {n} ')" for n in range(4)),
        "'nsfw' in scores && scores['nsfw'] > 0.8",
    )
    frame = frame_with(
        objects=[Detection("FACE", 0.9, (0, 0, 10, 10))] * 3,
        lines=["some words of a sign"] * 5,
        scores={"nsfw": 0.1},
    )
    best = min(_seconds_for_a_hundred(policy, frame) for _ in range(5)) / 100
    # Measured 45 µs; the margin is for a machine that runs other tests beside this one.
    assert best < 500e-6


def _seconds_for_a_hundred(policy: Policy, frame: Frame) -> float:
    start = time.perf_counter()
    for _ in range(100):
        policy.evaluate(frame)
    return time.perf_counter() - start


def test_the_explanation_of_a_rule_error_names_the_value_at_fault(policy_of: Any) -> None:
    policy = policy_of("metadata.a == 1")
    verdict = policy.evaluate(frame_with(metadata={"a": {1, 2}}))
    assert "'metadata' cannot be used" in verdict.rules[0].explanation


def test_a_function_that_fails_writes_no_values_to_the_log(
    policy_of: Any, caplog: pytest.LogCaptureFixture
) -> None:
    policy = policy_of("metadata.tags.split(',').size() > 1")
    with caplog.at_level(logging.DEBUG):
        assert fired(policy, frame_with(metadata={"tags": ["secret"]})) == ["rule-error"]
    assert [record.name for record in caplog.records] == ["operators.policy"]
