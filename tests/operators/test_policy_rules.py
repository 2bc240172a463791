"""What priorities, shadow rules, samples, expiry dates and explanations of rules promise."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest

from operators.calibration import Calibration, LabelCalibration
from operators.findings import (
    Detection,
    Face,
    Fingerprint,
    HashMatch,
    ImageInfo,
    SimilarMatch,
    TermMatch,
    TextLine,
    Verdict,
)
from operators.frame import Frame, Origin
from operators.policy import Policy

QUAD = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))


def policy(*rules: str, calibrations: Any = ()) -> Policy:
    text = "".join(
        f"[[rules]]\nname = 'rule-{number}'\n"
        + ("" if "when = " in rule else "when = 'true'\n")
        + ("" if "action = " in rule else "action = 'review'\n")
        + rule
        + "\n"
        for number, rule in enumerate(rules)
    )
    return Policy.read(text.encode(), "test", "test.toml", calibrations)


def frame(identity: str = "image", **findings: Any) -> Frame:
    made = Frame(identity, "camera-7", 0, Origin("images", 0, 0, 0))
    made.findings.image = ImageInfo(200, 100, "jpeg", 12345)
    for name, value in findings.items():
        setattr(made.findings, name, value)
    return made


def verdict(*rules: str, **findings: Any) -> Verdict:
    return policy(*rules).evaluate(frame(**findings))


def test_an_allow_rule_of_a_higher_priority_overrules_a_block() -> None:
    found = verdict("action = 'block'", "action = 'allow'\npriority = 10")
    assert found.action == "allow"
    assert [(hit.rule, hit.priority) for hit in found.rules] == [("rule-0", 0), ("rule-1", 10)]


def test_among_rules_of_one_priority_the_strictest_decides() -> None:
    rules = ("action = 'allow'\npriority = 5", "action = 'block'\npriority = 5")
    assert verdict(*rules, "action = 'review'").action == "block"


def test_a_shadow_rule_is_recorded_and_has_no_part_in_the_verdict() -> None:
    found = verdict("action = 'block'\nshadow = true\npriority = 10", "action = 'review'")
    assert found.action == "review"
    assert [(hit.rule, hit.shadow) for hit in found.rules] == [("rule-0", True), ("rule-1", False)]


def test_a_rule_that_fails_never_makes_a_verdict_milder() -> None:
    failing = "when = 'metadata.absent == 1'\npriority = 10"
    assert verdict(failing, "action = 'block'").action == "block"
    assert verdict(failing, "action = 'allow'\npriority = 5").action == "review"
    assert verdict(failing, "action = 'allow'\npriority = 20").action == "allow"
    assert verdict(failing + "\nshadow = true", "action = 'allow'").action == "allow"


def test_a_hit_carries_what_the_rule_says_of_itself() -> None:
    rule = (
        "priority = 3\nseverity = 'high'\ncategory = 'violence/threat'\n"
        "explanation = '{objects.size()} objects in {feed}, the first: {objects[0].label}'"
    )
    (hit,) = verdict(rule, objects=[Detection("CAT", 0.5, (0, 0, 1, 1))]).rules
    assert (hit.priority, hit.severity, hit.category) == (3, "high", "violence/threat")
    assert hit.explanation == "1 objects in camera-7, the first: CAT"


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("{metadata.absent} and {objects[7].label}", "? and ?"),
        ("{{not CEL}} {scores}", "{not CEL} nsfw: 0.123"),
        ("{texts.map(t, t.text)}", "a, b"),
        ("{hashes}", "none"),
        ("{scores.nsfw > 0.1}", "yes"),
        ("{1.0 / 3.0}", "0.333"),
    ],
)
def test_an_explanation_cannot_fail_the_image(template: str, filled: str) -> None:
    lines = [TextLine("a", 0.9, QUAD), TextLine("b", 0.9, QUAD)]
    found = verdict(f"explanation = '{template}'", texts=lines, scores={"nsfw": 0.1234567})
    assert found.rules[0].explanation == filled


def test_a_long_text_does_not_make_a_long_explanation() -> None:
    rule = "explanation = '" + "{text} " * 20 + "'"
    (hit,) = verdict(rule, texts=[TextLine("long " * 1000, 0.9, QUAD)]).rules
    assert len(hit.explanation) == 1_000


def test_a_rule_is_in_force_through_the_day_it_expires_on() -> None:
    today = datetime.datetime.now(datetime.UTC).date()
    yesterday, tomorrow = (today + datetime.timedelta(days=days) for days in (-1, 1))
    rules = [f"expires = {day.isoformat()}" for day in (yesterday, today, tomorrow)]
    assert {"rule-0"} & {hit.rule for hit in verdict(*rules).rules} == set()
    assert "rule-2" in {hit.rule for hit in verdict(*rules).rules}


def test_a_sample_is_a_share_of_the_content_and_always_the_same_one() -> None:
    sampled = policy("sample = 0.25", "sample = 0.25")
    chosen: list[set[str]] = []
    for _ in range(2):
        chosen.append(
            {
                f"{hit.rule} {number}"
                for number in range(2000)
                for hit in sampled.evaluate(
                    frame(f"any-{len(chosen)}", fingerprint=Fingerprint(f"{number:064x}"))
                ).rules
            }
        )
    assert chosen[0] == chosen[1]
    assert 800 < len(chosen[0]) < 1200
    numbers = [{entry.split()[1] for entry in chosen[0] if rule in entry} for rule in
               ("rule-0", "rule-1")]  # fmt: skip
    assert numbers[0] != numbers[1]


@pytest.mark.parametrize(
    "condition",
    [
        "hashes.exists(h, h.list == 'own' && h.kind == 'pdq' && h.distance <= 31)",
        "hashes.exists(h, h.action == 'block' && h.reason.contains('known'))",
        "similar.exists(s, s.exemplar == 'e1' && s.list == 'logos' && s.distance < 0.2)",
        "terms.exists(t, t.list == 'threats' && t.term == 'x' && t.language == 'en')",
        "terms.filter(t, t.list == 'threats').size() == 1 && terms[0].line == 0",
        "faces.exists(f, f.score > 0.5 && f.area > 0.2 && f.box.x2 == 100.0)",
        "texts.exists(t, t.normal.contains('free'))",
        "models['objects'] == 'nudenet@1' && models.objects.startsWith('nudenet')",
        "'nsfw' in calibrated && calibrated['nsfw'] > 0.74 && calibrated['nsfw'] < 0.76",
        "calibrated['CAT'] == 0.5",
        "!('dog' in calibrated)",
    ],
)
def test_a_condition_reads_what_moderation_found(condition: str) -> None:
    calibration = Calibration(
        format=1,
        model="nudenet",
        weights_sha256="ab" * 32,
        labels={
            "nsfw": LabelCalibration(method="temperature", temperature=2.0),
            "CAT": LabelCalibration(method="isotonic", points=[(0.0, 0.0), (1.0, 1.0)]),
            "dog": LabelCalibration(method="temperature"),
        },
    )
    seen = frame(
        hashes=[HashMatch("own", "pdq", 12, "known thing")],
        similar=[SimilarMatch("e1", "logos", 0.1)],
        terms=[TermMatch("threats", "x", "en")],
        faces=[Face(0.9, (0.0, 0.0, 100.0, 50.0))],
        texts=[TextLine("Fr33", 0.9, QUAD, "free")],
        objects=[Detection("CAT", 0.5, (0, 0, 1, 1)), Detection("CAT", 0.2, (0, 0, 1, 1))],
        scores={"nsfw": 0.9},
        models={"objects": "nudenet@1"},
    )
    made = policy(f"when = '''{condition}'''", calibrations=[calibration])
    assert [hit.rule for hit in made.evaluate(seen).rules] == ["rule-0"]


def test_the_version_changes_with_the_calibrations(tmp_path: Path) -> None:
    calibration = Calibration(format=1, model="m", weights_sha256="", labels={})
    plain, calibrated = policy(""), policy("", calibrations=[calibration])
    assert calibrated.version.startswith(plain.version + "+")
