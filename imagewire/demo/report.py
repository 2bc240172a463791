"""The demonstration's report for the terminal: tables and summary lines, from data to renderables.

Nothing here prints. What images said is untrusted, so every cell is plain text, never markup, with
control characters removed: a terminal obeys them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from imagewire.demo.outcome import (
    DeadLetter,
    SqlAnswer,
    Summary,
    Tile,
    humanised,
    shown,
    verdict_counts,
)
from operators.findings import Action

_STYLES: dict[Action, str] = {"allow": "green", "review": "yellow", "block": "bold red"}

_TEXT_CHARACTERS = 48
"""How much of the text read is shown: two lines in a terminal of 120 columns."""


def findings_table(tiles: Sequence[Tile]) -> Table:
    """Image, objects, text read, verdict with the rules that fired, nearest other image."""
    table = _table("What was found")
    table.add_column("image", no_wrap=True)
    table.add_column("objects", ratio=3)
    table.add_column("text read", ratio=3)
    table.add_column("verdict", ratio=2)
    table.add_column("nearest other image", ratio=2)
    for tile in tiles:
        table.add_row(
            _plain(tile.name), _objects(tile), _text(tile), _verdict(tile), _nearest(tile)
        )
    return table


def dead_letters_table(dead_letters: Sequence[DeadLetter]) -> Table:
    """Image, stage, reason, and the sentence that says what happened."""
    table = _table("Dead letters")
    table.add_column("image", no_wrap=True)
    table.add_column("stage", no_wrap=True)
    table.add_column("reason", no_wrap=True, style="red")
    table.add_column("what happened", ratio=1)
    for letter in dead_letters:
        table.add_row(*map(_plain, (letter.name, letter.stage, letter.reason, letter.detail)))
    return table


def answer_table(answer: SqlAnswer) -> Group:
    """The question, its SQL, and the rows."""
    table = _table("")
    for index, column in enumerate(answer.columns):
        numeric = bool(answer.rows) and _is_figure(answer.rows[0][index])
        table.add_column(_plain(column), justify="right" if numeric else "left")
    for row in answer.rows:
        table.add_row(*(_plain(shown(value)) for value in row))
    return Group(
        Text(_clean(answer.question), style="bold"), Text(answer.sql.strip(), style="dim"), table
    )


def summary_lines(summary: Summary, tiles: Sequence[Tile]) -> Group:
    """What was accounted for, how fast, and by which broker, policy and models."""
    whole = summary.lost == 0 and summary.doubled == 0
    counts = ", ".join(f"{count} {action}" for action, count in verdict_counts(tiles).items())
    account = Text.assemble(
        f"{summary.published} published: {summary.findings} with findings ({counts}), "
        f"{summary.dead_letters} dead letters, ",
        (f"{summary.lost} lost, {summary.doubled} doubled", "green" if whole else "bold red"),
    )
    speed = Text(
        f"{summary.images_per_second:.1f} images/s; latency to the verdict: "
        f"median {summary.latency_p50_ms:,.0f} ms, 99 % {summary.latency_p99_ms:,.0f} ms"
    )
    facts = [f"broker: {summary.broker}"]
    facts += [f"device: {summary.device}"] if summary.device else []
    facts += [f"policy: {summary.policy}"] if summary.policy else []
    facts += [f"{role}: {model}" for role, model in (summary.models or {}).items()]
    return Group(account, speed, Text("; ".join(facts), style="dim"))


def demo_report(
    tiles: Sequence[Tile],
    summary: Summary,
    dead_letters: Sequence[DeadLetter] = (),
    answers: Sequence[SqlAnswer] = (),
) -> Group:
    """The whole report in reading order."""
    parts: list[Table | Group | Text] = [findings_table(tiles)]
    if dead_letters:
        parts += [Text(), dead_letters_table(dead_letters)]
    for answer in answers:
        parts += [Text(), answer_table(answer)]
    return Group(*parts, Text(), summary_lines(summary, tiles))


def _table(title: str) -> Table:
    return Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        header_style="dim",
        pad_edge=False,
    )


def _objects(tile: Tile) -> Text:
    found = sorted(tile.findings.objects, key=lambda detection: -detection.score)
    return _plain(", ".join(f"{humanised(item.label)} {item.score:.2f}" for item in found))


def _text(tile: Tile) -> Text:
    text = " / ".join(line.text for line in tile.findings.texts)
    if len(text) > _TEXT_CHARACTERS:
        text = text[: _TEXT_CHARACTERS - 1].rstrip() + "…"
    return _plain(text)


def _verdict(tile: Tile) -> Text:
    verdict = tile.findings.verdict
    if verdict is None:
        return Text("–", style="dim")
    text = Text(verdict.action, style=_STYLES[verdict.action])
    if verdict.rules:
        text.append(": " + _clean(", ".join(hit.rule for hit in verdict.rules)), style="default")
    return text


def _nearest(tile: Tile) -> Text:
    if tile.neighbour is None:
        return Text("–", style="dim")
    return _plain(f"{tile.neighbour.name} {tile.neighbour.similarity:.2f}")


def _is_figure(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _plain(text: str) -> Text:
    return Text(_clean(text))


def _clean(text: str) -> str:
    """Without control and direction-changing characters."""
    return "".join(
        " " if character in "\n\t" else character
        for character in text
        if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf")
    )
