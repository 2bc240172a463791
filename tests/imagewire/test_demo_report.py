"""The terminal report says what happened to every image, and obeys nothing that an image says."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from imagewire.demo.outcome import DeadLetter, Neighbour, SqlAnswer, Summary, Tile
from imagewire.demo.report import demo_report
from operators.findings import Detection, Findings, RuleHit, TextLine, Verdict

QUAD = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
SUMMARY = Summary(3, 2, 1, 0, 0, 8.25, 1234.0, 5678.0, "apache", "cpu", "default-0123456789ab")


def printed(renderable: Any) -> str:
    output = io.StringIO()
    Console(width=140, file=output, color_system=None).print(renderable)
    return output.getvalue()


def tile(text: str = "FREE MONEY") -> Tile:
    findings = Findings(
        objects=[Detection("FACE_MALE", 0.61, (0, 0, 9, 9))],
        texts=[TextLine(text, 0.98, QUAD)],
        verdict=Verdict("review", "default-0123456789ab", [RuleHit("spam-offer", "review")]),
    )
    return Tile("poster.jpg", Path("poster.jpg"), findings, neighbour=Neighbour("bus.jpg", 0.42))


def test_the_report_names_image_objects_text_verdict_rule_and_neighbour() -> None:
    text = printed(
        demo_report(
            [tile()],
            SUMMARY,
            [DeadLetter("notes.jpg", "decode", "not-an-image", "It is text.")],
            [SqlAnswer("How many?", "SELECT count() AS n", ["n"], [[60123]])],
        )
    )
    for part in (
        "poster.jpg",
        "face (male) 0.61",
        "FREE MONEY",
        "review: spam-offer",
        "bus.jpg 0.42",
        "not-an-image",
        "It is text.",
        "How many?",
        "60,123",
        "0 lost, 0 doubled",
        "8.2 images/s",
        "median 1,234 ms",
        "broker: apache",
    ):
        assert part in text


def test_text_from_an_image_cannot_steer_the_terminal_or_the_markup() -> None:
    text = printed(demo_report([tile("[bold]x[/bold] \x1b[2Jwiped\u202e")], SUMMARY))
    assert "[bold]x[/bold]" in text
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_an_image_without_verdict_or_neighbour_is_still_listed() -> None:
    text = printed(demo_report([Tile("bare.png", Path("bare.png"), Findings())], SUMMARY))
    assert "bare.png" in text
