"""Part: Imagewire beside what a user would write or pick instead.

Four peers (`bench/peers`) and a worker get the same photos from the same broker, run the same
operators in the same precision and fill the same stores. Measured are images a second, with photos
from disk and from a server that answers after 20 ms, latency at an equal load, and what is lost
when each is killed in the middle of a batch.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.figures import Options, Report
from bench.parts.peers.arena import Arena
from bench.parts.peers.contenders import OURS, PEERS, Contender
from bench.parts.peers.findings import Found, SetFound
from bench.parts.peers.page import figures, plot, text
from bench.parts.peers.references import DIFFERENT, References
from bench.parts.peers.rounds import equal_load, full_speed, killed, rounded, store_away, warm_up

COMMAND = "make bench ONLY=peers"

WITHOUT_TEXT = {"text": False}
"""Everything but reading text, which takes nine tenths of the default set's time on a CPU."""
ALL_OPERATORS: dict[str, bool] = {}
_ONLY_EMBEDDING = {"objects": False, "text": False, "scores": False}

LOAD = 0.5
"""Of the best peer's speed, for comparing latency."""
_ROUND_SECONDS = 15.0
"""Seconds that a round at full speed should take the first peer. A round counts from the first
photo to the last store; what begins and ends it took Imagewire a third of rounds of 100 photos
(27.8 images/s, where the steady middle of `end_to_end` has 40)."""
_LOAD_ROUNDS = 2
_LOAD_IMAGES = 70
_KILLS = 2
_CLOSEST = 1
"""Peers that are measured with the slow default set too: the quickest ones without text. Each costs
a minute, as a round takes six seconds."""


def run(options: Options) -> Report:
    """Measure all of it."""
    directory = Path(tempfile.mkdtemp(prefix="imagewire-peers-"))
    try:
        found = asyncio.run(_measure(directory, options))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    plots = plot(found, options.plots)
    return Report("Peers", COMMAND, text(found), figures(found), plots)


async def _measure(directory: Path, options: Options) -> Found:
    everybody = (OURS, *PEERS)
    async with (
        References(directory) as references,
        Arena(directory, references, everybody, options.device) as arena,
    ):
        options.report("starting Imagewire and four peers")
        await arena.call(everybody, _ONLY_EMBEDDING if options.quick else WITHOUT_TEXT)
        await warm_up(arena, everybody, 4 if options.quick else 2 * DIFFERENT)
        light = await _speeds(arena, everybody, options, options.repeats)
        best = max(statistics.median(light.local.rates[peer.name]) for peer in PEERS)
        rate = LOAD * best
        latency = await equal_load(
            arena,
            everybody,
            rate,
            8 if options.quick else _LOAD_IMAGES,
            1 if options.quick else _LOAD_ROUNDS,
            options.report,
        )
        options.report("killing each in the middle of a batch")
        count = 2 * DIFFERENT if options.quick else 4 * DIFFERENT
        after_kills = await killed(arena, everybody, count, _KILLS, seed=4)
        options.report("taking ClickHouse away for a moment")
        after_outage = await store_away(arena, everybody, count)
        await arena.dismiss()
        default = None if options.quick else await _default_set(arena, light, options)
    return Found(light, default, rate, latency, _KILLS, after_kills, after_outage)


async def _default_set(arena: Arena, light: SetFound, options: Options) -> SetFound:
    by_speed = sorted(PEERS, key=lambda peer: -statistics.median(light.local.rates[peer.name]))
    chosen = (OURS, *by_speed[:_CLOSEST])
    options.report("starting " + ", ".join(each.name for each in chosen) + " with reading text")
    await arena.call(chosen, ALL_OPERATORS)
    await warm_up(arena, chosen, DIFFERENT)
    return await _speeds(arena, chosen, options, options.repeats)


async def _speeds(
    arena: Arena, contenders: Sequence[Contender], options: Options, repeats: int
) -> SetFound:
    if options.quick:
        count = DIFFERENT
    else:
        # As many as the first peer does in the time for a round, so that a round is as long with
        # any set of operators on any machine.
        # The first and the last batch are so much of a short trial that rounds became a third
        # shorter than they were to be.
        trial = await full_speed(arena, contenders[1:2], "local", 5 * DIFFERENT, 1, options.report)
        count = rounded(_ROUND_SECONDS * next(iter(trial.rates.values()))[0])
    local = await full_speed(arena, contenders, "local", count, repeats, options.report)
    http = await full_speed(arena, contenders, "http", count, repeats, options.report)
    return SetFound(count, local, http)
