"""Run a network from a recorded CUDA graph, so that a batch costs one launch and not hundreds.

The networks here are small and a GPU is fast: launching the 300 kernels of a pass from Python takes
longer than computing them. A recording has fixed shapes, so batches are filled up to the next of a
few sizes. Recordings are made when a shape comes for the second time (a shape seen once is not
worth it), are kept for the shapes used last, and share one pool of memory. Each is compared with
the network itself before it is used: a recording that reads memory which has since been given away
would be wrong without saying so.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch

log = logging.getLogger(__name__)

Network = Callable[[torch.Tensor], torch.Tensor]

SIZES = (1, 2, 4, 8, 16, 32, 64)
"""Batches are filled up to the next of these: at most half of the work is for nothing, and 7
recordings serve every batch. Larger batches run as they are."""

TOLERANCE = 0.02
"""How far a recording's output may be from the network's, as a share of the output's norm. Another
algorithm in half precision differs by less than 0.01; memory that was given away by about 1."""

WARM_UP = 2
"""Passes before a recording: in the first, libraries choose algorithms and take their workspace."""

_recording = threading.Lock()
"""One recording at a time in a process: the pool of memory cannot be shared by two."""


def padded_size(count: int, sizes: Sequence[int] = SIZES) -> int:
    """The smallest of `sizes` that holds `count` rows; `count` itself if none does."""
    return next((size for size in sizes if size >= count), count)


class GraphedNetwork:
    """Calls `network`, from a recording where there is one. One instance belongs to one thread.

    On a processor, and for whatever cannot be recorded, the network is called as it is.
    """

    def __init__(
        self,
        network: Network,
        device: torch.device,
        *,
        most: int = 16,
        after: int = 2,
        sizes: Sequence[int] = SIZES,
    ) -> None:
        """
        Args:
            network: takes one tensor, batch first, and returns one tensor, batch first. It must
                not read anything back from the device, and rows must not influence each other.
            most: recordings kept; each holds the memory of its activations.
            after: how often a shape must come before it is recorded.
        """
        self._network = network
        self._device = device
        self._most = most
        self._after = after
        self._sizes = sizes
        self._recordings: OrderedDict[tuple[int, ...], _Recording] = OrderedDict()
        self._seen: dict[tuple[int, ...], int] = {}
        self._pool: Any = None
        self._refused = device.type != "cuda"

    @torch.inference_mode()
    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """The network's output for `values`, which may be on the CPU; it belongs to the caller."""
        count = len(values)
        size = padded_size(count, self._sizes)
        if self._refused or size > self._sizes[-1] or not count:
            return self._network(values.to(self._device, non_blocking=True))
        shape = (size, *values.shape[1:])
        recording = self._recordings.get(shape)
        if recording is None:
            self._seen[shape] = self._seen.get(shape, 0) + 1
            if self._seen[shape] >= self._after:
                recording = self._record(shape, values)
        if recording is None:
            return self._network(values.to(self._device, non_blocking=True))
        self._recordings.move_to_end(shape)
        return recording.replay(values)

    @torch.inference_mode()
    def prepare(self, shape: Sequence[int], dtype: torch.dtype, up_to: int) -> None:
        """Record every size that batches of at most `up_to` rows of `shape` need."""
        if self._refused:
            return
        for size in self._sizes:
            self._record((size, *shape), torch.zeros((1, *shape), dtype=dtype))
            if size >= up_to or self._refused:
                return

    def _record(self, shape: tuple[int, ...], like: torch.Tensor) -> _Recording | None:
        if shape in self._recordings:
            return self._recordings[shape]
        while len(self._recordings) >= self._most:
            dropped, _ = self._recordings.popitem(last=False)
            self._seen.pop(dropped, None)
        try:
            with _recording:
                if self._pool is None:
                    self._pool = torch.cuda.graph_pool_handle()
                recording = _Recording(self._network, shape, like.dtype, self._device, self._pool)
        except torch.cuda.OutOfMemoryError:
            # Without a recording the pass is slower but needs no memory of its own.
            self._seen[shape] = -1_000_000
            log.info("there is no memory to record a pass of shape %s", shape)
            return None
        except RuntimeError as error:
            self._refused = True
            log.warning(
                "this network cannot be recorded as a CUDA graph and is launched kernel by "
                "kernel, which is slower: %s",
                str(error).splitlines()[0] if str(error) else type(error).__name__,
            )
            return None
        if not recording.agrees_with(self._network):
            self._refused = True
            self._recordings.clear()
            log.warning(
                "a CUDA graph of shape %s does not compute what its network does; this network is "
                "launched kernel by kernel, which is slower",
                shape,
            )
            return None
        self._recordings[shape] = recording
        return recording


class _Recording:
    """One shape's graph, with the memory that it reads and writes."""

    def __init__(
        self,
        network: Network,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        device: torch.device,
        pool: Any,
    ) -> None:
        self._input = torch.zeros(shape, dtype=dtype, device=device)
        side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                network(self._input)
        side.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        # Other threads (the decoder's) go on using the device meanwhile.
        with torch.cuda.graph(
            self._graph, pool=pool, stream=side, capture_error_mode="thread_local"
        ):
            self._output = network(self._input)
        torch.cuda.current_stream(device).wait_stream(side)

    def agrees_with(self, network: Network) -> bool:
        """Whether a replay gives what `network` gives, for values that differ in every row."""
        if self._input.is_floating_point():
            values = torch.rand_like(self._input) * 255
        else:
            values = torch.randint_like(self._input, 256)
        wanted = network(values).double()
        error = (self.replay(values).double() - wanted).norm()
        return bool(torch.isfinite(error)) and bool(error <= TOLERANCE * wanted.norm() + 1e-6)

    def replay(self, values: torch.Tensor) -> torch.Tensor:
        # Rows beyond `values` hold what was there before: they influence nothing.
        self._input[: len(values)].copy_(values, non_blocking=True)
        self._graph.replay()
        return self._output[: len(values)].clone()
