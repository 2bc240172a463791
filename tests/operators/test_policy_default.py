"""What the shipped policy does with plain cases. The photos themselves are tested with the
models, in the demo."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import onnx
import pytest

from operators.findings import Detection, HashMatch, TextLine
from operators.frame import Frame, Origin
from operators.policy import Policy

QUAD = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy.load(None)


def seen(
    *objects: tuple[str, float], lines: tuple[str, ...] = (), nsfw: float | None = 0.01
) -> Frame:
    frame = Frame("image", "feed", 0, Origin("images", 0, 0, 0))
    frame.findings.objects = [Detection(label, score, (0, 0, 9, 9)) for label, score in objects]
    frame.findings.texts = [TextLine(line, 0.9, QUAD) for line in lines]
    frame.findings.scores = {} if nsfw is None else {"nsfw": nsfw}
    return frame


@pytest.mark.parametrize(
    ("frame", "action", "rules"),
    [
        (seen(), "allow", []),
        (seen(("FACE_FEMALE", 0.9), ("ARMPITS_EXPOSED", 0.8), ("FEET_EXPOSED", 0.9)), "allow", []),
        (seen(("FEMALE_BREAST_COVERED", 0.95), ("BELLY_EXPOSED", 0.9)), "allow", []),
        (seen(("MALE_GENITALIA_EXPOSED", 0.6)), "block", ["exposed-genitalia"]),
        (seen(("FEMALE_GENITALIA_EXPOSED", 0.4)), "review", ["possible-genitalia"]),
        (seen(("BUTTOCKS_EXPOSED", 0.83), nsfw=0.01), "allow", []),
        (seen(("BUTTOCKS_EXPOSED", 0.83), nsfw=0.5), "review", ["partial-nudity"]),
        (seen(("BUTTOCKS_EXPOSED", 0.83), nsfw=None), "review", ["partial-nudity"]),
        (seen(nsfw=0.15), "allow", []),
        (seen(nsfw=0.8), "review", ["suggestive-picture"]),
        (seen(nsfw=0.97), "block", ["explicit-picture"]),
        (seen(lines=("Get FREE", "money now!")), "review", ["spam-offer"]),
        (seen(lines=("carefree moneybags",)), "allow", []),
        (seen(lines=("just kill yourself",)), "review", ["threat-or-self-harm"]),
        (seen(lines=("WhatsApp me: +47 555 01 234",)), "review", ["contact-solicitation"]),
        (seen(lines=("Tel. +47 555 01 234", "Open daily 9-17")), "allow", []),
    ],
)
def test_the_default_policy_decides(
    policy: Policy, frame: Frame, action: str, rules: list[str]
) -> None:
    verdict = policy.evaluate(frame)
    assert (verdict.action, [hit.rule for hit in verdict.rules]) == (action, rules)
    assert all(hit.explanation for hit in verdict.rules)
    assert verdict.policy.startswith("default-")


def test_every_label_in_the_default_policy_is_one_the_default_detector_gives() -> None:
    model = onnx.load(Path(str(files("nudenet") / "320n.onnx")))
    labels = next(p.value for p in model.metadata_props if p.key == "names")
    named = {
        word
        for rule in Policy.load(None).rules
        for word in rule.condition.source.replace("'", " ").split()
        if word.isupper() and "_" in word
    }
    assert named
    assert all(f"'{label}'" in labels for label in named)


def test_a_banned_picture_is_blocked_whatever_else_it_is() -> None:
    frame = Frame("image", "feed", 0, Origin("images", 0, 0, 0))
    frame.findings.hashes = [HashMatch("ours", "pdq", 4, "known", "block")]
    verdict = Policy.load().evaluate(frame)
    assert verdict.action == "block"
    assert [hit.explanation for hit in verdict.rules] == ["On a banlist: ours."]
