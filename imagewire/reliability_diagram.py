"""The reliability diagram of a calibration as an SVG file, drawn by hand: bars and a diagonal need
no plotting library, and the file opens anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from models.calibrating import Bin, Fit

_SIDE = 260
_MARGIN = 46
_WIDTH, _HEIGHT = _SIDE + 2 * _MARGIN, _SIDE + 2 * _MARGIN + 14
_STYLE = (
    "text{font:12px sans-serif;fill:#333}.title{font-weight:bold}.frame{fill:#fff;stroke:#999}"
    ".ideal{stroke:#999;stroke-dasharray:4 3}.gap{fill:#e8b27a}.bar{fill:#4a78a8}"
    ".whisker{stroke:#222}"
)


def reliability_svg(fits: Mapping[str, Fit]) -> str:
    """For each label two diagrams side by side, before and after: the share that is true over the
    score, with its 95 % interval, and the gap to the diagonal on which scores mean what they say.
    """
    parts = []
    for row, (label, fit) in enumerate(fits.items()):
        for column, (bins, ece, when) in enumerate(
            (
                (fit.before_bins, fit.before.ece, "scores"),
                (fit.after_bins, fit.after.ece, "calibrated, unseen labels"),
            )
        ):
            title = f"{label}: {when}, ECE {ece:.3f}"
            parts.append(
                f'<g transform="translate({column * _WIDTH},{row * _HEIGHT})">'
                f"{_diagram(bins, title)}</g>"
            )
    width, height = 2 * _WIDTH, max(len(fits), 1) * _HEIGHT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" aria-label="reliability diagrams">'
        f'<style>{_STYLE}</style><rect width="{width}" height="{height}" fill="#fff"/>'
        f"{''.join(parts)}</svg>\n"
    )


def _diagram(bins: Sequence[Bin], title: str) -> str:
    parts = [
        f'<text class="title" x="{_MARGIN}" y="{_MARGIN - 14}">{escape(title)}</text>',
        f'<rect class="frame" x="{_MARGIN}" y="{_MARGIN}" width="{_SIDE}" height="{_SIDE}"/>',
    ]
    for one in bins:
        left, width = _across(one.low) + 1, (one.high - one.low) * _SIDE - 2
        top, bottom = sorted((_down(one.share), _down(one.mean)))
        middle = left + width / 2
        parts += [
            f'<rect class="bar" x="{left:.1f}" y="{_down(one.share):.1f}" width="{width:.1f}" '
            f'height="{_down(0) - _down(one.share):.1f}"><title>{one.count} images, mean '
            f"{one.mean:.3f}, true {one.share:.3f}</title></rect>",
            f'<rect class="gap" x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" '
            f'height="{bottom - top:.1f}" fill-opacity="0.7"/>',
            f'<line class="whisker" x1="{middle:.1f}" x2="{middle:.1f}" '
            f'y1="{_down(one.share_low):.1f}" y2="{_down(one.share_high):.1f}"/>',
        ]
    parts.append(
        f'<line class="ideal" x1="{_across(0)}" y1="{_down(0)}" x2="{_across(1)}" y2="{_down(1)}"/>'
    )
    for mark in (0.0, 0.5, 1.0):
        parts += [
            f'<text x="{_across(mark):.0f}" y="{_MARGIN + _SIDE + 16}" text-anchor="middle">'
            f"{mark:g}</text>",
            f'<text x="{_MARGIN - 6}" y="{_down(mark) + 4:.0f}" text-anchor="end">{mark:g}</text>',
        ]
    parts.append(
        f'<text x="{_MARGIN + _SIDE / 2}" y="{_MARGIN + _SIDE + 34}" text-anchor="middle">'
        "probability; bars: share that is true</text>"
    )
    return "".join(parts)


def _across(value: float) -> float:
    return _MARGIN + value * _SIDE


def _down(value: float) -> float:
    return _MARGIN + (1 - value) * _SIDE
