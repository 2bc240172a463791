"""What is promised of words and pictures to search by, with a user's own model of both."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from colour_words import catalogue
from PIL import Image

from imagewire.api.looking import Looking
from imagewire.api.problems import Problem
from imagewire.settings import Settings


def settings(catalog: Path, **embedding: Any) -> Settings:
    return Settings(
        models={"catalogs": [str(catalog)], "precision": "fp32"},
        operators={"embedding": {"model": "colours"} | embedding},
    )


def picture(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(buffer, "PNG")
    return buffer.getvalue()


async def test_words_and_the_pictures_that_they_describe_are_near(tmp_path: Path) -> None:
    looking = Looking(settings(catalogue(tmp_path)))
    try:
        red = await looking.of_words("a red bag")
        near = (await looking.embedding(picture("red"))).vector
        far = (await looking.embedding(picture("blue"))).vector
    finally:
        await looking.close()
    assert _dot(red, near) > 0.95
    assert _dot(red, far) < 0.1


def _dot(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize(
    ("changes", "embedding", "status", "kind"),
    [
        ({'words = "colour-words", ': ""}, {}, 422, "no-text-tower"),
        ({'weights = "words.pt"': 'weights = "gone.pt"'}, {}, 503, "text-half-away"),
        ({}, {"enabled": False}, 503, "no-embedder"),
    ],
)
async def test_where_words_cannot_be_embedded_a_problem_says_so(
    changes: dict[str, str], embedding: dict[str, Any], status: int, kind: str, tmp_path: Path
) -> None:
    looking = Looking(settings(catalogue(tmp_path, **changes), **embedding))
    try:
        for _ in range(2):
            with pytest.raises(Problem) as problem:
                await looking.of_words("red")
            assert (problem.value.status, problem.value.kind) == (status, kind)
            assert str(tmp_path) not in problem.value.detail
    finally:
        await looking.close()
