"""References that lead to servers which mean harm: each a dead letter, with its reason, in time."""

from __future__ import annotations

import time

from bench.chaos import memory
from bench.chaos.producer import Load, Publication, reference
from bench.chaos.report import Row
from bench.chaos.stage import FETCH_TIMEOUT, Stage

_TRICKS = {
    "slow": ("timeout",),
    "silent": ("timeout",),
    "endless": ("too-many-bytes", "timeout"),
    "redirect": ("forbidden",),
    "circle": ("too-many-redirects",),
    "half": ("cut-off",),
}
# All of one kind wait for the few connections that one host may have, and their letters for their
# turn in the worker; beyond the fetch's own deadline that is allowed.
_GRACE_SECONDS = 15.0


async def hostile_references(stage: Stage, of_each: int) -> Row:
    """`of_each` references to every trick, among good ones to another host."""
    feed = stage.new_feed("hostile-references")
    stage.report(f"{of_each} references to each of: {', '.join(_TRICKS)}")
    load = Load(feed)
    good = stage.images(feed, first=100_000)
    publications: list[Publication] = []
    for number in range(of_each):
        for trick, reasons in _TRICKS.items():
            publications.append(
                reference(
                    f"{feed}-{trick}-{number:03d}",
                    feed,
                    stage.servers.hostile(trick, number),
                    expected_reasons=reasons,
                    within=FETCH_TIMEOUT + _GRACE_SECONDS,
                )
            )
            publications.append(next(good))
    began = time.monotonic()
    async with memory.watching(stage.worker_pids) as peak:
        await stage.producer.publish_all(load, publications)
        account = await stage.settle(load)
    fault = f"hostile references: {', '.join(_TRICKS)}"
    row = Row.of(fault, account, peak.mib, time.monotonic() - began)
    row.note = f"visits to the forbidden port: {stage.servers.canary_visits}"
    if stage.servers.canary_visits:
        row.wrong.append(f"{stage.servers.canary_visits} redirects to loopback were followed")
    return row
