"""`imagewire terms`: lists are checked and tried without a worker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from imagewire.cli import run


def test_a_list_with_mistakes_is_told_and_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.csv").write_text("term,kind\n(a,regex\n")
    assert run(["terms", "check", str(tmp_path / "broken.csv"), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert not told["usable"]
    assert "broken.csv:2" in told["errors"][0]


def test_matches_tell_list_term_and_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "house.txt").write_text("free money\n")
    settings = tmp_path / "imagewire.toml"
    settings.write_text(f"[terms.lists.house]\nfile = '{tmp_path / 'house.txt'}'\nseverity='low'\n")
    assert run(["terms", "match", "fr33\nMONEY!", "--json", "--config", str(settings)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["normal"] == ["free", "money!"]
    (match,) = told["matches"]
    assert match["list"] == "house"
    assert match["severity"] == "low"
    assert (match["line"], match["start"], match["end"]) == (0, 0, 4)


def test_without_lists_the_command_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tmp_path / "imagewire.toml"
    settings.write_text("")
    assert run(["terms", "check", "--config", str(settings)]) == 2
    assert "terms.lists" in capsys.readouterr().err
