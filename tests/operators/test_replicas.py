"""Copies of the models: several batches at once, and the findings of one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from models.catalog import Catalog
from models.device import Device
from operators.chain import OperatorChain
from operators.frame import Frame, Origin
from operators.operator import Operator, OperatorError
from operators.policy import Policy
from operators.replicas import MOST_ON_CPU, Replicas, replicas_for

CPU = Device(torch.device("cpu"), torch.float32)


class Probe(Operator):
    """Says what it saw, and waits for as many as the test wants at work side by side."""

    name = "probe"
    depends_on_content_only = True

    def __init__(self, barrier: threading.Barrier | None, fails: bool = False) -> None:
        super().__init__({}, CPU, Catalog([]))
        self.barrier = barrier
        self.fails = fails
        self.set_up = self.closed = False
        self.threads: list[int] = []
        self.at_work = threading.Lock()

    def setup(self) -> None:
        if self.fails:
            raise OperatorError("no weights")
        self.set_up = True

    def process(self, frames: Sequence[Frame]) -> None:
        assert self.at_work.acquire(blocking=False), "two batches in one copy"
        try:
            self.threads.append(torch.get_num_threads())
            time.sleep(0.0005)  # long enough to be met by another batch
            if self.barrier is not None:
                self.barrier.wait(60)
        finally:
            self.at_work.release()

    def close(self) -> None:
        self.closed = True


def batch(number: int) -> list[Frame]:
    return [Frame(f"photo-{number}", "feed", 0, Origin("images", 0, number, 0), content=b"")]


def replicas(probes: Sequence[Probe], threads: int = 4) -> Replicas:
    return Replicas([OperatorChain([probe], Policy.load()) for probe in probes], CPU, threads)


@pytest.fixture(autouse=True)
def torch_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_as_many_batches_are_analysed_at_once_as_there_are_copies() -> None:
    probes = [Probe(None) for _ in range(3)]
    barrier = threading.Barrier(3)
    copies = replicas(probes)
    copies.setup()
    for probe in probes:
        probe.barrier = barrier
    batches = [batch(number) for number in range(3)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(copies.analyse, batches))
    # One that had to wait for another would have waited at the barrier in vain.
    assert [frame.failure for frames in batches for frame in frames] == [None] * 3
    assert [len(probe.threads) for probe in probes] == [1, 1, 1]


def test_no_copy_has_two_batches_at_a_time() -> None:
    copies = replicas([Probe(None), Probe(None)])
    copies.setup()
    batches = [batch(number) for number in range(200)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(copies.analyse, batches))
    # A chain makes a dead letter of what an operator raises.
    assert [frame.failure for frames in batches for frame in frames] == [None] * 200


def test_a_copy_keeps_to_its_share_of_the_cores_while_the_others_are_idle() -> None:
    probes = [Probe(None), Probe(None)]
    copies = replicas(probes, threads=4)
    copies.setup()
    copies.analyse(batch(0))
    copies.analyse(batch(1))
    assert probes[0].threads == [2, 2]


def test_cores_that_cannot_be_divided_equally_are_used_all_the_same() -> None:
    probes = [Probe(None) for _ in range(4)]
    copies = replicas(probes, threads=6)
    copies.setup()
    barrier = threading.Barrier(4)
    for probe in probes:
        probe.barrier = barrier
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(copies.analyse, [batch(number) for number in range(4)]))
    assert [probe.threads for probe in probes] == [[2], [2], [1], [1]]


def test_one_copy_has_every_core() -> None:
    probe = Probe(None)
    copies = replicas([probe], threads=4)
    copies.setup()
    copies.analyse(batch(0))
    assert probe.threads == [4]


def test_batches_side_by_side_share_the_cores() -> None:
    probes = [Probe(None), Probe(None)]
    copies = replicas(probes, threads=4)
    copies.setup()
    entered, leave = threading.Event(), threading.Event()

    def hold(frames: Sequence[Frame]) -> None:
        entered.set()
        leave.wait(60)

    probes[0].process = hold  # type: ignore[method-assign]
    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(copies.analyse, batch(0))
        assert entered.wait(60)
        copies.analyse(batch(1))
        leave.set()
        busy.result()
    assert probes[1].threads == [2]


def test_a_copy_that_cannot_start_closes_those_that_did() -> None:
    probes = [Probe(None), Probe(None, fails=True)]
    with pytest.raises(OperatorError, match="no weights"):
        replicas(probes).setup()
    assert probes[0].closed


def test_every_copy_is_closed() -> None:
    probes = [Probe(None), Probe(None)]
    copies = replicas(probes)
    copies.setup()
    copies.close()
    assert all(probe.closed for probe in probes)


class Tracker(Probe):
    depends_on_content_only = False


@pytest.mark.parametrize(("threads", "count"), [(1, 1), (2, 2), (64, MOST_ON_CPU)])
def test_a_cpu_has_a_copy_for_each_thread_up_to_a_limit(threads: int, count: int) -> None:
    assert replicas_for(CPU, threads, OperatorChain([Probe(None)], Policy.load())) == count


def test_a_gpu_has_one() -> None:
    gpu = Device(torch.device("cuda", 0), torch.float16)
    assert replicas_for(gpu, 64, OperatorChain([Probe(None)], Policy.load())) == 1


def test_an_operator_that_may_remember_frames_sees_them_all() -> None:
    assert replicas_for(CPU, 64, OperatorChain([Probe(None), Tracker(None)], Policy.load())) == 1
