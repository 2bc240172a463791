"""Recorded passes: which sizes they serve, and that nothing that cannot be recorded is lost.

What needs a GPU stands in tests/operators/test_cuda.py; here a stand-in records.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from models import cuda_graphs
from models.cuda_graphs import GraphedNetwork, padded_size

CUDA = torch.device("cuda:0")


class Recording:
    """Computes like a graph does: on a buffer of fixed shape, of which some rows are new."""

    made: list[tuple[int, ...]]

    def __init__(self, network: Any, shape: Any, dtype: Any, device: Any, pool: Any) -> None:
        self._network, self._input = network, torch.zeros(shape, dtype=dtype)
        Recording.made.append(tuple(shape))

    def agrees_with(self, network: Any) -> bool:
        return True

    def replay(self, values: torch.Tensor) -> torch.Tensor:
        self._input[: len(values)] = values
        return self._network(self._input)[: len(values)].clone()


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> type[Recording]:
    Recording.made = []
    monkeypatch.setattr(cuda_graphs, "_Recording", Recording)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    return Recording


def double(values: torch.Tensor) -> torch.Tensor:
    return values.flatten(1).float().sum(1, keepdim=True) * 2


def test_batches_are_filled_up_to_the_next_size() -> None:
    assert [padded_size(n) for n in (1, 2, 3, 5, 33, 64, 65)] == [1, 2, 4, 8, 64, 64, 65]


def test_on_a_processor_the_network_is_called_as_it_is() -> None:
    graphed = GraphedNetwork(double, torch.device("cpu"))
    graphed.prepare((2,), torch.uint8, 64)
    values = torch.arange(6, dtype=torch.uint8).reshape(3, 2)
    assert torch.equal(graphed(values), double(values))


def test_rows_beyond_the_batch_do_not_reach_the_result(recorded: type[Recording]) -> None:
    graphed = GraphedNetwork(double, CUDA)
    graphed.prepare((2,), torch.uint8, 4)
    assert recorded.made == [(1, 2), (2, 2), (4, 2)]
    first = torch.full((4, 2), 7, dtype=torch.uint8)
    second = torch.arange(6, dtype=torch.uint8).reshape(3, 2)
    assert torch.equal(graphed(first), double(first))
    assert torch.equal(graphed(second), double(second))


def test_sizes_are_recorded_as_far_as_the_largest_batch_needs(recorded: type[Recording]) -> None:
    GraphedNetwork(double, CUDA).prepare((2,), torch.uint8, 5)
    assert [shape[0] for shape in recorded.made] == [1, 2, 4, 8]


def test_the_shapes_used_last_are_kept(recorded: type[Recording]) -> None:
    graphed = GraphedNetwork(double, CUDA, most=2, after=1)
    for width in (2, 3, 4, 2):
        values = torch.ones((1, width), dtype=torch.uint8)
        assert torch.equal(graphed(values), double(values))
    assert recorded.made == [(1, 2), (1, 3), (1, 4), (1, 2)]


def test_a_network_that_cannot_be_recorded_is_called_kernel_by_kernel(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(cuda_graphs, "_Recording", refuse)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    graphed = GraphedNetwork(double, CUDA)
    graphed.prepare((2,), torch.uint8, 4)
    assert "cannot be recorded" in caplog.text
    assert len(caplog.records) == 1


def test_a_recording_that_computes_something_else_is_not_used(
    recorded: type[Recording], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recorded, "agrees_with", lambda *_: False)
    GraphedNetwork(double, CUDA).prepare((2,), torch.uint8, 4)
    assert "does not compute what its network does" in caplog.text
    assert recorded.made == [(1, 2)]
