"""What `imagewire policy check` and `test` promise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from imagewire.cli import run

RULES = """
[[rules]]
name = "crowd"
when = "objects.filter(o, o.label == 'FACE').size() >= 3"
action = "review"

[[rules]]
name = "free-money"
when = "words.contains(' free money ')"
action = "block"

[[rules]]
name = "new-idea"
when = "image.width < 64"
action = "block"
shadow = true
sample = 0.001
"""


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)

    def write(text: str = RULES) -> str:
        (tmp_path / "house.toml").write_text(text)
        return "house.toml"

    return write


def answer(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def rule(name: str, when: str, more: str = "") -> str:
    return f'[[rules]]\nname = "{name}"\nwhen = """{when}"""\naction = "review"\n{more}\n'


def test_a_good_policy_is_listed_rule_by_rule(
    policy: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["policy", "check", policy(), "--json"]) == 0
    checked = answer(capsys)
    assert checked["usable"]
    assert checked["warnings"] == []
    assert checked["version"].startswith("house-")
    assert [(one["name"], one["reads"]) for one in checked["rules"]] == [
        ("crowd", ["objects"]),
        ("free-money", ["words"]),
        ("new-idea", ["image"]),
    ]


def test_a_policy_that_no_worker_would_take_fails_the_check(
    policy: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["policy", "check", policy(rule("a", "imge.width > 3")), "--json"]) == 1
    error = answer(capsys)["error"]
    assert error.startswith("house.toml:3:11: rule 'a'")
    assert "did you mean 'image'" in error
    assert run(["policy", "check", policy(rule("a", "imge.width > 3"))]) == 1
    assert "did you mean 'image'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (rule("a", "objects.exists(o, o.score > 80)"), "80 is out of range"),
        (rule("a", "'nsfw' in scores && scores.nsfw >= -0.5"), "out of range"),
        (rule("a", "objects.exists(o, o.score > 0.8 && o.score < 0.3)"), "unreachable"),
        (rule("a", "feed == 'x' && feed == 'y'"), "unreachable"),
        (rule("a", "false && feed == 'x'"), "unreachable"),
        (rule("a", "image.width == 'wide'"), "never equals"),
        (rule("a", "true", "expires = 2020-01-31"), "expired after 2020-01-31"),
        (rule("a", "calibrated.x > 0.5"), "no calibration file"),
        (rule("a", "feed=='x'") + rule("b", "feed == 'x' // again"), "same condition"),
        (
            rule("a", "feed == 'x'") + rule("b", "feed == 'x'").replace("review", "block"),
            "rule 'b' has the same condition",
        ),
        (rule("a", "true", "priority = 1") + rule("b", "feed == 'x'"), "fires on every image"),
    ],
)
def test_what_can_hardly_be_meant_is_a_warning(
    policy: Any, capsys: pytest.CaptureFixture[str], text: str, warning: str
) -> None:
    file = policy(text)
    assert run(["policy", "check", file, "--json"]) == 0
    assert any(warning in found["message"] for found in answer(capsys)["warnings"])
    assert run(["policy", "check", file, "--strict"]) == 1
    assert warning in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        rule("a", "feed == 'x'", "feeds = ['one']") + rule("b", "feed == 'x'", "feeds = ['two']"),
        rule("a", "feed == 'x'", "shadow = true") + rule("b", "feed == 'x'"),
        rule("a", "feed == 'x'", "sample = 0.5") + rule("b", "feed == 'x'"),
        rule("a", "true") + rule("b", "feed == 'x'"),
        rule("a", "objects.exists(o, o.score >= 0.0 && o.score <= 1.0)"),
        rule("a", "objects.exists(o, o.score > 0.5) && objects.exists(o, o.score < 0.2)"),
    ],
)
def test_what_makes_sense_is_no_warning(
    policy: Any, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    assert run(["policy", "check", policy(text), "--json"]) == 0
    assert answer(capsys)["warnings"] == []


CASES = """
[[cases]]
name = "two faces"
objects = [{ label = "FACE", score = 0.9 }, { label = "FACE", score = 0.8, box = [0, 0, 9, 9] }]
expect = { action = "allow", rules = [] }

[[cases]]
name = "an offer"
texts = ["FREE", { text = "money!", normal = "money" }]
image = { width = 32, height = 32 }
expect = { action = "block", rules = ["free-money"], shadow = ["new-idea"] }
"""


def test_cases_that_hold_pass(
    policy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cases.toml").write_text(CASES)
    assert run(["policy", "test", policy(), "cases.toml"]) == 0
    assert "2 of 2 cases as expected" in capsys.readouterr().err


def test_cases_that_fail_are_shown_with_what_is_wrong(
    policy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = CASES.replace('"allow", rules = []', '"review", rules = ["crowd"]')
    (tmp_path / "cases.toml").write_text(wrong)
    assert run(["policy", "test", policy(), "cases.toml", "--json"]) == 1
    found = answer(capsys)
    assert (found["passed"], found["failed"]) == (1, 1)
    assert found["cases"][0]["mistakes"] == [
        "allow instead of review",
        "rule 'crowd' did not fire",
    ]
    assert run(["policy", "test", policy(), "cases.toml"]) == 1
    shown = capsys.readouterr().out
    assert "two faces" in shown
    assert "an offer" not in shown


@pytest.mark.parametrize(
    ("cases", "complaint"),
    [
        ("", "cases"),
        ("[[cases]]\nname = 'x'\n", "expect"),
        (CASES.replace("objects", "object"), "object"),
        (CASES.replace("box = [0", "box = ['0'"), "cases[0].objects[1].box[0]"),
        ("[[cases]", "TOML"),
    ],
)
def test_cases_that_cannot_be_read_are_refused(
    policy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], cases: str, complaint: str
) -> None:
    (tmp_path / "cases.toml").write_text(cases)
    assert run(["policy", "test", policy(), "cases.toml"]) == 2
    error = capsys.readouterr().err
    assert "cases.toml" in error
    assert complaint in error
