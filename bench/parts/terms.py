"""What text costs: processor time an image for normal spelling, term lists and redaction.

No stream, no models: the lines that posters, shops and screens show, one image after another on one
thread, in processor time. Half of the lists' terms are phrases of two words. Every image reads
something new, so that nothing is remembered from the last.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

from bench.figures import Options, Report, figure
from operators.redact import Redactor
from operators.redact_options import RedactionOptions
from operators.terms_file import Term
from operators.terms_matching import TermMatcher
from operators.text_normal import normalised

SIZES = (100, 10_000, 50_000)
TARGET_OF_MOST = 300.0
"""Microseconds an image at 50 000 terms; nobody promised a figure, this is where it would hurt."""
_LINES = (
    "SUMMER SALE {n}", "up to 50% off {w}", "all {w} and bags", "Main Street {n}", "open 9-18 {w}",
    "call now 0171 {n}{n}", "follow us {w}", "while stocks last {w}",
)  # fmt: skip
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def run(options: Options) -> Report:
    """Measure each list by turns."""
    chance = random.Random(1)
    sizes = SIZES[:2] if options.quick else SIZES
    words = [_word(chance) for _ in range(60_000)]
    matchers = {size: TermMatcher(_terms(words, size)) for size in sizes}
    redactor = Redactor(RedactionOptions())
    work: dict[str, Callable[[Sequence[str]], object]] = {
        "normal spelling": lambda lines: [normalised(line) for line in lines],
        "redaction": redactor.lines,
    }
    for size, matcher in matchers.items():
        work[f"{size} terms"] = matcher.match
    spent: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(1 if options.quick else options.repeats):
        for name, do in work.items():
            spent[name].append(_microseconds(do, chance, words, 50 if options.quick else 2_000))
        options.report("  ".join(f"{name}: {times[-1]:.0f} µs" for name, times in spent.items()))
    figures = [
        figure(
            f"text_{name.replace(' ', '_')}_us",
            times,
            target=TARGET_OF_MOST if name == f"{SIZES[-1]} terms" else None,
            better="lower",
            unit="µs",
            note="processor time an image of eight lines",
        )
        for name, times in spent.items()
    ]
    text = (
        "Eight lines of text an image, made anew for each, on one thread, in processor time. "
        "`N terms` includes normal spelling, which a worker shares between term lists and rules."
    )
    return Report("Text: normal spelling, term lists, redaction", "make bench ONLY=terms", text,
                  figures)  # fmt: skip


def _word(chance: random.Random) -> str:
    return "".join(chance.choices(_LETTERS, k=chance.randint(4, 11)))


def _terms(words: Sequence[str], count: int) -> list[Term]:
    return [
        Term(
            *("bench", words[n] if n % 2 else f"{words[n]} {words[-n - 1]}", "phrase", "", True),
            *("full", "", "", "made:1"),
        )
        for n in range(count)
    ]


def _microseconds(
    do: Callable[[Sequence[str]], object],
    chance: random.Random,
    words: Sequence[str],
    images: int,
) -> float:
    frames = [
        [line.format(w=chance.choice(words), n=chance.randint(1_000, 9_999)) for line in _LINES]
        for _ in range(images)
    ]
    start = time.process_time()
    for lines in frames:
        do(lines)
    return (time.process_time() - start) / images * 1e6
