"""Who is compared, and what each does with a batch."""

from __future__ import annotations

from dataclasses import dataclass

from sinks.kafka.settings import TopicNames


@dataclass(frozen=True, slots=True)
class Contender:
    """A program that is compared.

    Attributes:
        name: short, for topics and tables.
        title: for people.
        module: what `python -m` runs.
        arguments: after the module.
        does: what overlaps in it, for the page.
    """

    name: str
    title: str
    module: str
    does: str
    arguments: tuple[str, ...] = ()

    @property
    def topics(self) -> TopicNames:
        """Topics of its own to read; the ones to write are shared."""
        return TopicNames(images=f"images.{self.name}", bulk=f"images.{self.name}.bulk")


OURS = Contender(
    "imagewire",
    "Imagewire",
    "imagewire",
    "fetching, decoding, operators and each store overlap; images are decoded in parallel in child "
    "processes",
    ("worker",),
)

PEERS = (
    Contender(
        "faust",
        "Faust `take`",
        "bench.peers.faust_take",
        "`stream.take(16, within=0.2)`; fetches the batch with `asyncio.gather`, then decodes, "
        "looks and writes the stores one after the other; Faust reads records ahead meanwhile",
    ),
    Contender(
        "quix",
        "Quix Streams",
        "bench.peers.quix",
        "a sink that is flushed at every checkpoint (16 records or 0.2 s); fetches the batch with "
        "a pool of threads, then decodes, looks and writes one after the other",
    ),
    Contender(
        "aiokafka",
        "aiokafka loop",
        "bench.peers.aiokafka_loop",
        "`getmany(max_records=16)`; fetches the batch with `asyncio.gather`, then decodes, looks, "
        "writes and commits one after the other",
    ),
    Contender(
        "litserve",
        "LitServe",
        "bench.peers.litserve_pair",
        "a client polls up to 64 records, fetches and posts all at once, writes and commits; the "
        "server (`max_batch_size=16`, `batch_timeout=0.02`) decodes and looks in a process of its "
        "own, so fetching overlaps with it, and storing does not",
    ),
)
