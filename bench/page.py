"""`RESULTS.md`: a table of all figures against their targets, then a section for each part.

The page is shared with what people wrote by hand (chaos, soak, reading text). So everything that is
generated stands between two comments that name it, and only what is between them is replaced.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.figures import Report
from bench.machine import Machine
from bench.results import GPU_SUFFIX, Results, section_of

_SUMMARY = "all figures"
_TITLE = "# What was measured\n"
PLOTS = "plots"
"""The folder of plots beside the page."""


class Page:
    """The page's text, with its generated sections."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._text = path.read_text() if path.exists() else _TITLE

    def put_part(self, part: str, report: Report, device: str) -> None:
        """Replace or add the section of a part."""
        body = [f"## {report.title}", "", f"`{report.command}`", "", report.text.strip()]
        for file, caption in report.plots.items():
            body += ["", f"![{caption}]({PLOTS}/{file})", "", f"*{caption}*"]
        self._put(section_of(part, device), "\n".join(body))

    def put_summary(self, results: Results) -> None:
        """Replace or add the table of all figures."""
        self._put(_SUMMARY, summary(results))

    def write(self) -> None:
        self._path.write_text(self._text)

    def _put(self, name: str, body: str) -> None:
        begin, end = f"<!-- bench: {name} -->", f"<!-- bench: end of {name} -->"
        section = f"{begin}\n{body}\n{end}"
        if begin in self._text and end in self._text:
            before, _, rest = self._text.partition(begin)
            after = rest.partition(end)[2]
            self._text = before + section + after
            return
        at = self._place_for(name)
        self._text = self._text[:at] + section + "\n\n" + self._text[at:]

    def _place_for(self, name: str) -> int:
        """After the generated sections, which stand before those written by hand."""
        marker = "<!-- bench: end of "
        last = -1 if name == _SUMMARY else self._text.rfind(marker)
        if last >= 0:
            # Past the marker's line and the empty line behind it.
            at = self._text.index("\n", last) + 1
            return at + 1 if self._text[at : at + 1] == "\n" else at
        heading = self._text.find("\n## ")
        marked = self._text.find("\n<!-- bench: ")
        found = [at for at in (heading, marked) if at >= 0]
        if found:
            return min(found) + 1
        self._text = self._text.rstrip("\n") + "\n\n"
        return len(self._text)


def summary(results: Results) -> str:
    """All figures that have a target, then the others, and the machines that they are from."""
    figures = results.figures
    promised = {name: f for name, f in figures.items() if f["target"] is not None}
    lines = ["## All figures", "", _how(results), ""]
    lines += ["| figure | measured | spread | target | met | measured with |"]
    lines += ["|---|--:|--:|--:|:-:|---|"]
    for name, figure in sorted(promised.items(), key=_order):
        sign = "≥" if figure["better"] == "higher" else "≤"
        lines.append(
            f"| `{name}` | {_number(figure['value'], figure['unit'])} | {_spread(figure)} | "
            f"{sign} {_number(figure['target'], figure['unit'])} | "
            f"{'yes' if figure['met'] else '**no**'} | {_source(figure, results)} |"
        )
    notes = [f"- `{name}`: {f['note']}" for name, f in sorted(promised.items()) if f["note"]]
    if notes:
        lines += ["", *notes]
    others = {name: f for name, f in figures.items() if f["target"] is None}
    if others:
        lines += ["", "Figures that no target is set for:", ""]
        lines += ["| figure | measured | spread | measured with |", "|---|--:|--:|---|"]
        lines += [
            f"| `{name}` | {_number(figure['value'], figure['unit'])} | {_spread(figure)} | "
            f"{_source(figure, results)} |"
            for name, figure in sorted(others.items(), key=_order)
        ]
    return "\n".join(lines)


def _how(results: Results) -> str:
    machines = results.machines
    sentences = [
        "Medians of interleaved repeats; the spread is the lowest and the highest of them. A "
        "commit with `+` had uncommitted changes. The same for programs: "
        "[results.json](results.json).",
    ]
    for name, machine in machines.items():
        where = "On the GPU" if name.endswith(GPU_SUFFIX) else "On the processor"
        sentences.append(f"{where}: {_machine(machine)}.")
    return "\n\n".join(sentences)


def _machine(machine: Machine) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    gpu = f"{machine['gpu']}, " if machine["gpu"] else ""
    return (
        f"{gpu}{machine['cpu']}, {machine['cores']} cores, {machine['ram_gib']:g} GiB, "
        f"{machine['kernel']}, Python {machine['python']}, {versions}"
    )


def _order(item: tuple[str, dict[str, Any]]) -> tuple[str, str]:
    return item[1]["part"], item[0]


def _source(figure: dict[str, Any], results: Results) -> str:
    part = results.parts.get(figure["part"], {})
    command = part.get("command", "make bench")
    return f"`{command}`, {figure['repeats']} ×, {figure['commit']}, {figure['date'][:10]}"


def _spread(figure: dict[str, Any]) -> str:
    low, high = figure["spread"]
    return f"{_number(low, '')} to {_number(high, '')}"


def _number(value: float, unit: str) -> str:
    digits = f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{digits} {unit}".strip()
