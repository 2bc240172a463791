"""The console's files as they lie there: nothing of strangers becomes markup, nothing is fetched
from elsewhere, and every file that is named exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import imagewire

CONSOLE = Path(imagewire.__file__).parent / "console"
SCRIPTS = sorted(CONSOLE.rglob("*.js"))
STYLES = sorted(CONSOLE.rglob("*.css"))


def test_no_script_makes_markup_of_a_string_or_runs_one() -> None:
    forbidden = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment"
        r"|setHTML|\beval\(|new Function"
    )
    found = [str(path) for path in SCRIPTS if forbidden.search(path.read_text("utf-8"))]
    assert SCRIPTS and found == []


def test_no_other_address_is_named() -> None:
    allowed = ("http://www.w3.org/2000/svg",)
    addresses = {
        (path.name, address)
        for path in (*SCRIPTS, *STYLES, CONSOLE / "index.html", CONSOLE / "icon.svg")
        for address in re.findall(r"(?:https?:)?//[a-z0-9-]+\.[a-z0-9.-]+[^\s\"'`)]*", _code(path))
        if address not in allowed
    }
    assert addresses == set()


def test_nothing_is_inline_that_the_security_policy_forbids() -> None:
    page = (CONSOLE / "index.html").read_text("utf-8")
    assert re.findall(r"<script(?![^>]*\bsrc=)", page) == []
    assert re.findall(r"<style|\sstyle=|\son[a-z]+=", page) == []


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(CONSOLE)))
def test_every_module_that_is_imported_exists(path: Path) -> None:
    named = re.findall(r"(?:from|import\()\s*\"(\.[^\"]+)\"", path.read_text("utf-8"))
    assert [each for each in named if not (path.parent / each).is_file()] == []


def test_every_file_that_the_page_names_exists_and_every_style_is_named() -> None:
    page = (CONSOLE / "index.html").read_text("utf-8")
    named = set(re.findall(r"(?:src|href)=\"([^\"#]+)\"", page))
    assert [each for each in named if not (CONSOLE / each).is_file()] == []
    assert {str(path.relative_to(CONSOLE)) for path in STYLES} <= named


def test_what_the_shell_imports_is_asked_for_at_once() -> None:
    page = (CONSOLE / "index.html").read_text("utf-8")
    preloaded = set(re.findall(r"rel=\"modulepreload\" href=\"([^\"]+)\"", page))
    imported: set[Path] = set()
    left = [CONSOLE / "app.js"]
    while left:
        path = left.pop()
        named = re.findall(r"^import[^\"]*\"(\.[^\"]+)\"", path.read_text("utf-8"), re.MULTILINE)
        found = {(path.parent / each).resolve() for each in named} - imported
        imported |= found
        left += found
    assert preloaded == {str(path.relative_to(CONSOLE.resolve())) for path in imported}


def test_colours_are_named_once() -> None:
    """Themes hold only as long as no view has colours of its own, but for black and white over
    pictures."""
    own = [
        f"{path.name}: {line.strip()}"
        for path in STYLES
        if path.name != "tokens.css"
        for line in path.read_text("utf-8").splitlines()
        if re.search(
            r"#(?!(000000|17181a)[0-9a-f]{0,2}\b|fff(fff)?([0-9a-f]{2})?\b)[0-9a-f]{3,8}\b", line
        )
        and "light-dark(" not in line
    ]
    assert own == []


def _code(path: Path) -> str:
    """Without comments, which may cite."""
    text = path.read_text("utf-8")
    return re.sub(r"/\*.*?\*/|^\s*//.*?$", "", text, flags=re.DOTALL | re.MULTILINE)
