"""The account: was every published image stored, and none twice?"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from imagewire.demo.arrivals import Arrivals
from imagewire.settings import Settings
from sinks.clickhouse.reader import ClickHouseReader
from sinks.qdrant.reader import VectorReader

_STORES_WITHIN = 60.0
"""Seconds for the stores to have what Kafka has; rows gather for half a second before an insert."""


@dataclass(frozen=True, slots=True)
class Account:
    """Ids of images that did not end exactly once where they belong.

    Attributes:
        lost: without findings on Kafka, in ClickHouse and in Qdrant, and without a dead letter on
            Kafka and in ClickHouse.
        doubled: with more than one verdict, more than one row, or both findings and a dead letter;
            and one entry for each point in Qdrant that is too many.
    """

    lost: frozenset[str]
    doubled: frozenset[str]


async def take_account(
    settings: Settings, published: Collection[str], arrivals: Arrivals
) -> Account:
    """Compare what was published with Kafka and both stores, giving the stores time to follow."""
    deadline = asyncio.get_running_loop().time() + _STORES_WITHIN
    while True:
        account = await _compare(settings, frozenset(published), arrivals)
        if not account.lost or asyncio.get_running_loop().time() > deadline:
            return account
        await asyncio.sleep(0.5)


async def _compare(settings: Settings, published: frozenset[str], arrivals: Arrivals) -> Account:
    rows, failures = await asyncio.to_thread(_stored_ids, settings)
    async with VectorReader(settings.qdrant) as vectors:
        points = await vectors.count()
    found = arrivals.findings.keys() & arrivals.verdicts.keys() & rows.keys()
    failed = arrivals.dead_letters.keys() & failures.keys()
    lost = set(published - found - failed)
    if points < len(found):
        lost.add(f"{len(found) - points} points in Qdrant")
    doubled = {
        image_id
        for counts in (rows, failures, arrivals.verdicts)
        for image_id, count in counts.items()
        if count > 1
    }
    doubled |= rows.keys() & failures.keys()
    if points > len(found):
        doubled.add(f"{points - len(found)} points in Qdrant")
    return Account(frozenset(lost), frozenset(doubled))


def _stored_ids(settings: Settings) -> tuple[Counter[str], Counter[str]]:
    """How many rows each image id has in ClickHouse, as findings and as dead letter."""
    with ClickHouseReader(settings.clickhouse) as reader:
        found = reader.query("SELECT image_id FROM images").column("image_id").to_pylist()
        failed = reader.query("SELECT image_id FROM failures").column("image_id").to_pylist()
    return Counter(found), Counter(failed)
