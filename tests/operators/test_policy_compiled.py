"""Compiled conditions give what CEL gives, or leave the answer to CEL.

Conditions and findings are drawn at random, from the parts that are compiled and from parts that
are not, with values that are awkward on purpose, and both ways of evaluation are compared.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from operators.findings import (
    Detection,
    Face,
    Fingerprint,
    HashMatch,
    ImageInfo,
    SimilarMatch,
    TextLine,
)
from operators.frame import Frame, Origin
from operators.policy_conditions import Condition, ConditionError, Context, ContextBuilder
from operators.policy_variables import FrameView

QUAD = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
WORDS = ("", "a", "A", "cat", "Cat face", "é", "\U0001f600", "ﬁ", "'", "\\", '"', "a\nb")


def written(text: str) -> str:
    """`text` as a CEL literal."""
    marks = {"\\": "\\\\", "'": "\\'", "\n": "\\n"}
    return "'" + "".join(marks.get(character, character) for character in text) + "'"


texts = st.sampled_from(WORDS)
numbers = st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.5, 1.0, 1e-300, 0.1 + 0.2])
odd_numbers = st.one_of(numbers, st.sampled_from([math.nan, math.inf, -1.0, 5e300]))
boxes = st.tuples(odd_numbers, numbers, odd_numbers, numbers)
literals = st.one_of(
    texts.map(written),
    st.sampled_from(["0", "1", "-1", "0.5", "0.25", "0.3", "1.0", "1e300", "9007199254740993"]),
)
strings = st.sampled_from(
    ["feed", "text", "words", "image.format", "fingerprint.pdq", "models.a", *map(written, WORDS)]
)
of_objects = {
    "objects": ("label", "score", "area", "box.x1", "box.x2"),
    "faces": ("score", "area", "box.y2"),
    "texts": ("text", "score", "normal"),
    "hashes": ("list", "kind", "distance", "action"),
    "similar": ("exemplar", "distance"),
}
plain = st.sampled_from(
    ["scores.nsfw", "scores['nsfw']", "calibrated.x", "image.width", "image.height", "image.bytes",
     "fingerprint.pdq_quality", "size(objects)", "texts.size()", "image.width * image.bytes",
     "image.width - image.height * 3", "scores.nsfw * 2.0 - scores.nsfw", "metadata.age",
     "objects[0].score", "size(text)", "image.width / 2"]
)  # fmt: skip
order = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])


@st.composite
def comparisons(draw: Any, value: Any) -> str:
    """A comparison of `value`, or something like one."""
    kind = draw(st.integers(0, 5))
    left = draw(value)
    if kind <= 2:
        return f"{left} {draw(order)} {draw(st.one_of(literals, value))}"
    if kind == 3:
        items = draw(st.lists(literals, max_size=4))
        return f"{left} in [{', '.join(items)}]"
    if kind == 4:
        function = draw(st.sampled_from(["contains", "startsWith", "endsWith", "matches"]))
        return f"{draw(strings)}.{function}({draw(strings)})"
    return draw(
        st.sampled_from(
            ["'nsfw' in scores", "has(metadata.age)", "'a' in models", "true", "feed in metadata",
             "'x' in calibrated", "1 in scores"]
        )
    )  # fmt: skip


@st.composite
def quantified(draw: Any, depth: int) -> str:
    macro = draw(st.sampled_from(["exists", "all", "exists_one"]))
    if draw(st.booleans()):
        items = ", ".join(draw(st.lists(texts.map(written), min_size=1, max_size=3)))
        body = draw(st.sampled_from(["words.contains(p)", "p == feed", "p < text", "p.size() > 1"]))
        return f"[{items}].{macro}(p, {body})"
    over = draw(st.sampled_from(sorted(of_objects)))
    name = draw(st.sampled_from(["o", "p", "feed"]))
    fields = st.sampled_from([f"{name}.{field}" for field in of_objects[over]])
    source = over
    if draw(st.booleans()):
        source = f"{over}.filter({name}, {draw(conditions(fields, 0))})"
    return f"{source}.{macro}({name}, {draw(conditions(fields, depth - 1))})"


@st.composite
def conditions(draw: Any, value: Any, depth: int) -> str:
    kind = draw(st.integers(0, 6)) if depth > 0 else 0
    if kind <= 1:
        return str(draw(comparisons(value)))
    if kind == 2:
        return f"!({draw(conditions(value, depth - 1))})"
    if kind == 3:
        return str(draw(quantified(depth - 1)))
    if kind == 4:
        parts = [f"({draw(conditions(value, depth - 1))})" for _ in range(3)]
        return f"{parts[0]} ? {parts[1]} : {parts[2]}"
    mark = " && " if kind == 5 else " || "
    count = draw(st.integers(2, 3))
    return mark.join(f"({draw(conditions(value, depth - 1))})" for _ in range(count))


@st.composite
def frames(draw: Any) -> Frame:
    frame = Frame("image", draw(texts), 0, Origin("images", 0, 0, 0))
    few: dict[str, Any] = {"max_size": 3}
    findings = frame.findings
    if draw(st.booleans()):
        findings.image = ImageInfo(
            draw(st.sampled_from([0, 1, 640, 2**31])), draw(st.integers(0, 9)), draw(texts),
            draw(st.sampled_from([0, 5, 2**40])),
        )  # fmt: skip
        findings.fingerprint = Fingerprint("ab", draw(texts), draw(st.integers(0, 100)))
    findings.objects = draw(st.lists(st.builds(Detection, texts, odd_numbers, boxes), **few))
    findings.faces = draw(st.lists(st.builds(Face, odd_numbers, boxes), **few))
    findings.texts = draw(
        st.lists(st.builds(TextLine, texts, odd_numbers, st.just(QUAD), texts), **few)
    )
    findings.hashes = draw(
        st.lists(st.builds(HashMatch, texts, st.just("pdq"), st.integers(0, 31)), **few)
    )
    findings.similar = draw(st.lists(st.builds(SimilarMatch, texts, texts, odd_numbers), **few))
    findings.scores = draw(
        st.dictionaries(st.sampled_from(["nsfw", "other"]), st.one_of(odd_numbers, st.just(1)))
    )
    findings.models = draw(st.dictionaries(st.sampled_from("ab"), texts, max_size=2))
    frame.metadata = draw(
        st.dictionaries(st.sampled_from(["age", "cat"]), st.one_of(st.none(), st.integers(0, 9)))
    )
    return frame


def context(condition: Condition, frame: Frame) -> Context:
    return ContextBuilder([condition]).context(FrameView(frame))


def by_cel(condition: Condition, frame: Frame) -> Any:
    try:
        return condition.holds_in_cel(context(condition, frame))
    except ValueError as error:
        return str(error)


COMPILED = {"yes": 0, "no": 0}


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(conditions(plain, 3), frames())
def test_a_compiled_condition_gives_what_cel_gives(source: str, frame: Frame) -> None:
    try:
        condition = Condition(source)
    except ConditionError:
        return
    COMPILED["yes" if condition.compiled else "no"] += 1
    expected = by_cel(condition, frame)
    try:
        found: Any = condition.holds(context(condition, frame))
    except ValueError as error:
        found = str(error)
    assert found == expected
    assert type(found) is type(expected)
    if condition.always is not None and isinstance(expected, bool):
        assert condition.always == expected


@pytest.mark.parametrize(
    "source",
    [
        "objects.exists(o, o.score >= 0.5 && o.label in ['A', 'B'])",
        "objects.filter(o, o.label.startsWith('FACE_') && o.area > 0.1).size() >= 5",
        "'nsfw' in scores && scores['nsfw'] >= 0.7 && scores.nsfw < 0.95",
        "[' a ', ' b '].exists(phrase, words.contains(phrase))",
        "words.contains(' call ') && text.matches('[0-9]+')",
        "image.width < 64 || image.height * 3 > image.width",
        "feed.startsWith('camera') && !hashes.exists(h, h.distance > 10)",
        "objects.exists(o, texts.all(t, t.score < o.score))",
    ],
)
def test_what_moderators_write_most_is_compiled(source: str) -> None:
    assert Condition(source).compiled is not None


def test_a_score_that_is_no_number_is_an_error_as_in_cel() -> None:
    condition = Condition("scores.nsfw >= 0.5")
    frame = Frame("image", "f", 0, Origin("images", 0, 0, 0))
    frame.findings.scores = {"nsfw": math.nan}
    with pytest.raises(ValueError, match="operand types"):
        condition.holds(context(condition, frame))
