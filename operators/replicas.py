"""Several copies of the operator chain, each at work on a batch of its own.

Operators alternate between networks, which use every core for a moment, and Python (boxes, lines,
non-maximum suppression), which uses one. And a network that has divided its work over all cores
waits at the end of every layer for the slowest, which is the one that a decoder, the broker or a
store has just interrupted. Copies that compute on fewer cores each have neither loss
(`make bench ONLY=ceiling` measures by how much). None ever takes more than its share, not even
while the others are idle: their threads would spin at the barriers of its layers for the cores
that the next batch computes on. Where one did, bursts of 100 images took a quarter longer, and a
lone image was no sooner (two cores, side by side in one run).
"""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from models.device import Device
from operators.chain import OperatorChain, OutOfMemory
from operators.frame import Frame
from operators.least_size import LeastSize
from operators.operator import Operator
from operators.policy import Policy

MOST_ON_CPU = 4
"""Each copy holds its weights and the memory of a batch; beyond four, more cores go to each."""


def replicas_for(device: Device, threads: int, chain: OperatorChain) -> int:
    """How many copies of `chain` suit a device: on a CPU one a thread, at most `MOST_ON_CPU`; on a
    GPU one, which fills it with a batch. And one where findings may depend on earlier frames, as
    those of a tracker do: each of several copies would see only some of them."""
    if device.is_cuda or not chain.depends_on_content_only:
        return 1
    return max(1, min(threads, MOST_ON_CPU))


class Replicas:
    """Equal operator chains behind the face of one. `analyse` may be called from as many threads
    at once as there are chains; their policy decides in whichever thread calls `decide`."""

    def __init__(self, chains: Sequence[OperatorChain], device: Device, threads: int) -> None:
        """
        Args:
            chains: equal, each with operators of its own; not yet set up.
            threads: torch threads on a CPU, divided among the copies.
        """
        if not chains or threads < 1:
            raise ValueError(f"there are {len(chains)} chains and {threads} threads; each needs 1")
        self._chains = tuple(chains)
        self._device = device
        share, left = divmod(threads, len(chains))
        self._shares = [max(1, share + (number < left)) for number in range(len(chains))]
        self._threads = [ThreadPoolExecutor(1, f"models-{number}") for number in range(len(chains))]
        self._streams: dict[OperatorChain, torch.cuda.Stream] = {}
        # Numbers of idle copies. The first goes first: its memory is in the processor's caches.
        self._idle: queue.PriorityQueue[int] = queue.PriorityQueue()

    @property
    def count(self) -> int:
        return len(self._chains)

    @property
    def operators(self) -> tuple[Operator, ...]:
        """Those of the first copy; the others' are the same."""
        return self._chains[0].operators

    def setup(self) -> None:
        """Load every copy's models. What was loaded is released again if one cannot start.

        Raises:
            OperatorError, models.ModelError
        """
        ready: list[OperatorChain] = []
        try:
            for number, chain in enumerate(self._chains):
                self._threads[number].submit(self._setup, number, chain).result()
                ready.append(chain)
        except BaseException:
            for chain in ready:
                chain.close()
            raise
        for number in range(self.count):
            self._idle.put(number)

    def _setup(self, number: int, chain: OperatorChain) -> None:
        # Runtimes that keep threads of their own take as many as torch has now.
        self._take_share(number)
        with self._on_own_stream(chain, ()):
            chain.setup()

    def analyse(self, frames: Sequence[Frame]) -> OutOfMemory | None:
        """See `OperatorChain.analyse`; waits while every copy is at work.

        Raises:
            DeviceLostError
        """
        number = self._idle.get()
        try:
            # In the thread that has always run this copy: OpenMP keeps helpers for each.
            return self._threads[number].submit(self._analyse, number, frames).result()
        finally:
            self._idle.put(number)

    def _analyse(self, number: int, frames: Sequence[Frame]) -> OutOfMemory | None:
        self._take_share(number)
        chain = self._chains[number]
        with self._on_own_stream(chain, frames):
            return chain.analyse(frames)

    def recognise(self, frames: Sequence[Frame]) -> list[Frame]:
        """See `OperatorChain.recognise`; what is banned, all copies know."""
        return self._chains[0].recognise(frames)

    def recognise_again(self, frames: Sequence[Frame]) -> None:
        """See `OperatorChain.recognise_again`."""
        self._chains[0].recognise_again(frames)

    def decide(self, frames: Sequence[Frame]) -> None:
        """See `OperatorChain.decide`."""
        self._chains[0].decide(frames)

    def use_policy(self, policy: Policy) -> None:
        """See `OperatorChain.use_policy`."""
        for chain in self._chains:
            chain.use_policy(policy)

    @property
    def on_settled(self) -> Callable[[list[Frame]], object] | None:
        """See `OperatorChain.on_settled`; called in whichever thread analyses."""
        return self._chains[0].on_settled

    @on_settled.setter
    def on_settled(self, told: Callable[[list[Frame]], object] | None) -> None:
        for chain in self._chains:
            chain.on_settled = told

    @property
    def on_decided(self) -> Callable[[Sequence[Frame]], None] | None:
        """See `OperatorChain.on_decided`."""
        return self._chains[0].on_decided

    @on_decided.setter
    def on_decided(self, told: Callable[[Sequence[Frame]], None] | None) -> None:
        self._chains[0].on_decided = told

    @property
    def depends_on_content_only(self) -> bool:
        """Whether equal bytes have equal findings, whatever feed or metadata they come with."""
        return self._chains[0].depends_on_content_only

    def model_versions(self) -> dict[str, str]:
        """Role to `name@version` for every model, once they are set up."""
        return self._chains[0].model_versions()

    def least_size(self) -> LeastSize | None:
        """The picture that is large enough for every operator; `None` for the full size."""
        return self._chains[0].least_size()

    def close(self) -> None:
        """Release every copy."""
        for chain in self._chains:
            chain.close()
        for thread in self._threads:
            thread.shutdown()

    def _take_share(self, number: int) -> None:
        """Let networks in this thread compute on its copy's cores, which torch keeps for each."""
        share = self._shares[number]
        if not self._device.is_cuda and torch.get_num_threads() != share:
            torch.set_num_threads(share)

    @contextlib.contextmanager
    def _on_own_stream(self, chain: OperatorChain, frames: Sequence[Frame]) -> Iterator[None]:
        """On a GPU, copies run on streams of their own, or they would wait for each other."""
        if self.count == 1 or not self._device.is_cuda:
            yield
            return
        device = self._device.torch_device
        if chain not in self._streams:
            self._streams[chain] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        stream = self._streams[chain]
        # The decoder works on the default stream, and may free pixels that this one still reads.
        stream.wait_stream(torch.cuda.default_stream(device))
        for frame in frames:
            if frame.pixels is not None and frame.pixels.is_cuda:
                frame.pixels.record_stream(stream)
        with torch.cuda.stream(stream):
            yield
        stream.synchronize()
