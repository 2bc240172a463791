"""A log that begins anew, and what Faust and aiokafka make of it.

A topic that is deleted and created again counts from 0 again, and so may a partition whose new
leader was behind. Faust remembers how far it has read and drops what comes below; aiokafka goes on
committing old offsets until there is a topic of that name, and then its first records are skipped.
Both lose images, so neither is left to them: the order of acknowledgements is the ledger's affair,
and an image that comes twice is stored once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

logger = logging.getLogger(__name__)

_LOOK_EVERY_SECONDS = 0.5


class ForgetfulOffsets(dict[Any, None]):
    """In the place of Faust's memory of the offsets that it has read or committed."""

    def __getitem__(self, partition: Any) -> None:
        return None

    def __setitem__(self, partition: Any, offset: Any) -> None:
        """Nothing is kept."""

    def update(self, *others: Any, **more: Any) -> None:
        """Nothing is kept."""


async def commit_what_exists(
    commit: Callable[[Mapping[Any, int]], Awaitable[bool]],
    offsets: Mapping[Any, int],
    is_gone: Callable[[str], bool],
) -> bool:
    """Commit `offsets` by partition, without those of topics that are gone or go meanwhile.

    Args:
        commit: may try for as long as a topic is missing; it is cancelled then.
        is_gone: whether the client knows that there is no such topic.

    Returns:
        What `commit` returned; true if nothing is left to commit, which aiokafka would refuse.
    """
    while True:
        left = {tp: offset for tp, offset in offsets.items() if not is_gone(tp.topic)}
        if not left:
            return True
        attempt = asyncio.ensure_future(commit(left))
        try:
            while not attempt.done() and not any(is_gone(tp.topic) for tp in left):
                await asyncio.wait([attempt], timeout=_LOOK_EVERY_SECONDS)
            if attempt.done():
                return attempt.result()
        finally:
            attempt.cancel()
        await asyncio.wait([attempt])
        logger.warning("offsets of a topic that is gone are not committed")
