"""What the models can do by themselves: decoded photos in memory, batch after batch, nothing else.

No pipeline around the models can be faster than this on the same machine, so everything else is
measured against it.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
import tempfile
from pathlib import Path

from bench.figures import Options, Report, figure
from bench.laps import Contestant
from bench.models_alone import models_alone
from bench.photos import MIX
from bench.rates import steady_rate
from bench.results import on_gpu
from operators.registry import BUILT_IN

WHOLE = "operators"
COPIES = "operators side by side"
_DIFFERENT = 32
"""Pictures before they repeat. A lap is a whole number of rounds, so that every lap has the same
work whichever photo it begins with: what is written in a picture decides how long reading takes."""
BATCHES = (1, 4, 8, 16, 32)
_MORE_ON_GPU = (64,)
_PHOTOS, _PHOTOS_ON_GPU = 32, 512
"""In a lap; with a warm-up of one batch before the clock starts."""

_LABELS = {
    WHOLE: "**all of them, and the policy**",
    COPIES: "the same, as many copies of the models side by side as a worker has",
}

Rates = dict[str, dict[int, list[float]]]
"""Images a second by what runs and batch size, one for each repeat."""


def run(options: Options) -> Report:
    """Find the best batch size of each operator and of the whole set, then repeat with it."""
    directory = Path(tempfile.mkdtemp(prefix="imagewire-ceiling-"))
    try:
        return _report(asyncio.run(_run(options, directory)))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def _run(options: Options, directory: Path) -> Rates:
    kinds = [*(f"operator {name}" for name in BUILT_IN), WHOLE, COPIES]
    batches, photos, repeats = BATCHES, _PHOTOS, options.repeats
    if gpu := on_gpu(options.device):
        batches, photos = BATCHES + _MORE_ON_GPU, _PHOTOS_ON_GPU
    settings = {"IMAGEWIRE_MODELS__DEVICE": options.device}
    if options.quick:
        kinds, batches, photos, repeats = ["operator embedding", WHOLE, COPIES], (1, 2), 4, 1
        settings["IMAGEWIRE_OPERATORS__TEXT__ENABLED"] = "false"
    rates: Rates = {kind: {batch: [] for batch in batches} for kind in kinds}
    async with models_alone(directory, settings, different=_DIFFERENT) as models:
        for kind in kinds:
            slow = kind in (WHOLE, COPIES, "operator text") and not gpu
            for batch in batches:
                if slow and batch < 4 and not options.quick:
                    continue  # minutes for what is known to be slower
                rates[kind][batch].append(await _lap(models, kind, batch, photos))
                options.report(f"{kind}, batch {batch}: {rates[kind][batch][0]:.1f} images/s")
        best = {
            kind: max(rates[kind], key=lambda size: max(rates[kind][size], default=0.0))
            for kind in kinds
        }
        for repeat in range(1, repeats):
            for kind in kinds:
                rates[kind][best[kind]].append(await _lap(models, kind, best[kind], photos))
            whole = rates[WHOLE][best[WHOLE]][-1]
            options.report(f"{repeat + 1} of {repeats}: all operators, {whole:.1f} images/s")
    return rates


async def _lap(models: Contestant, kind: str, batch: int, photos: int) -> float:
    # Copies finish their first batches together, and their last ones one after the other: so they
    # have twice the work.
    warm_up, rounds = (2 * batch, 2) if kind == COPIES else (batch, 1)
    lap = await models.lap(what=kind, batch=batch, first=0, count=rounds * photos + warm_up)
    return steady_rate(lap["times"], warm_up - 1)


def _best(rates: Rates, kind: str) -> tuple[int, list[float]]:
    """The batch size that was repeated, which is the best, with its rates."""
    return max(rates[kind].items(), key=lambda item: (len(item[1]), max(item[1], default=0.0)))


def _report(rates: Rates) -> Report:
    figures = []
    lines = [
        "The operators as a worker runs them, with its precision and threads, on decoded photos in "
        f"memory ({MIX}), batch after batch: no Kafka, no decoding, no stores. One lap for each "
        "batch size, then the best again, in turns.",
        "",
        "| what runs | "
        + " | ".join(f"batch {size}" for size in rates[WHOLE])
        + " | best, median |",
        "|---" * (len(rates[WHOLE]) + 2) + "|",
    ]
    for kind, by_batch in rates.items():
        name = {WHOLE: "default_set", COPIES: "copies"}.get(kind, kind.split()[-1])
        size, values = _best(rates, kind)
        figures.append(figure(f"ceiling_{name}", values, unit="images/s", note=f"batch {size}"))
        cells = [f"{found[0]:.1f}" if found else "–" for found in by_batch.values()]
        label = _LABELS.get(kind, f"`{name}`")
        lines.append(f"| {label} | {' | '.join(cells)} | {statistics.median(values):.1f} |")
    alone, copies = (_best(rates, kind)[1] for kind in (WHOLE, COPIES))
    ratios = [many / one for many, one in zip(copies, alone, strict=True)]
    figures.append(figure("ceiling_copies_over_one", ratios))
    return Report(
        "Ceiling: what the models do by themselves",
        "make bench ONLY=ceiling",
        "\n".join(lines),
        figures,
    )
