"""The page about questions, and their figures."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from bench.figures import Figure, Report, figure
from bench.parts.questions.asking import SQL, Waits

if TYPE_CHECKING:
    from bench.parts.questions import Seen


def report(seen: Seen, images: int, rate: float) -> Report:
    """Everything in milliseconds, the median of the repeats."""
    figures = [
        *_both("search_by_id", seen.by_id),
        *_both("search_by_picture", seen.by_picture),
        *_both("sql_idle", seen.sql_idle),
        *_both("sql_under_load", seen.sql_loaded),
        figure("sql_under_load_images", seen.worked, unit="images/s"),
    ]
    rows = [
        ("search by an image's id, 20 results", seen.by_id),
        ("search by a picture that is sent", seen.by_picture),
        (f"SQL, {len(SQL)} questions by turns", seen.sql_idle),
        ("the same while a worker is at full load", seen.sql_loaded),
    ]
    if seen.pages:
        for view in seen.pages[0]:
            medians = [one[view].median * 1000 for one in seen.pages]
            figures.append(figure(f"page_{view}_ms", medians, better="lower", unit="ms"))
            rows.append((f"page: {view}", [one[view] for one in seen.pages]))
        figures += _both("live_lag", seen.live)
        figures.append(figure("live_shown", seen.shown))
        rows.append((f"live view behind the verdict, {rate:g} verdicts/s", seen.live))
    table = "\n".join(
        f"| {name} | {_middle([each.median for each in waits])} | "
        f"{_middle([each.p99 for each in waits])} | {sum(len(each.seconds) for each in waits)} |"
        for name, waits in rows
    )
    return Report(
        "What people wait for who ask",
        "make bench ONLY=questions",
        f"{images} images stand in ClickHouse and Qdrant (findings made up, pictures real, "
        "vectors of 1280 numbers), and everything runs on this one machine: the broker, both "
        "stores, the API, the worker, the client and the browser. Questions go over HTTP, one "
        "after the other. At full load the worker "
        f"finished {_plain(seen.worked)} images/s (it read no text), and wrote them into the "
        "stores that are asked. A page is of use when its heading stands there, the live view "
        "when its first picture is drawn; the browser runs, and nothing is in its cache. The live "
        "view puts up new pictures once a second, and a sample where more come than can be seen: "
        f"{_share(seen)}.\n\n"
        "| | median, ms | p99, ms (of fewer than 100: the longest) | times |\n|---|---|---|---|\n"
        + table
        + _skipped(seen),
        figures,
    )


def _both(name: str, waits: list[Waits]) -> list[Figure]:
    if not waits:
        return []
    return [
        figure(f"{name}_p50_ms", [each.median * 1000 for each in waits], better="lower", unit="ms"),
        figure(f"{name}_p99_ms", [each.p99 * 1000 for each in waits], better="lower", unit="ms"),
    ]


def _middle(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1000:.0f}"


def _plain(values: list[float]) -> str:
    return f"{statistics.median(values):.0f}" if values else "no"


def _share(seen: Seen) -> str:
    if not seen.shown:
        return "it was not looked at"
    return f"{statistics.median(seen.shown):.0%} of them"


def _skipped(seen: Seen) -> str:
    return f"\n\n{seen.no_browser[:1].upper()}{seen.no_browser[1:]}." if seen.no_browser else ""
