"""The part that measures throughput by the number of workers, and its simulated device."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.figures import Options
from bench.parts import scale
from bench.parts.scale import simulated
from models.catalog import load_catalog
from models.device import Device
from operators.frame import Frame, Origin
from operators.registry import available_operators

CPU = Device(torch.device("cpu"), torch.float32)


@pytest.mark.smoke
def test_throughput_is_measured_by_the_number_of_workers(tmp_path: Path) -> None:
    report = scale.run(Options(1, "cpu", tmp_path, quick=True))

    figures = {figure.name: figure for figure in report.figures}
    assert figures["scale_2_over_2x1"].value > 0
    assert "| 1 |" in report.text
    assert "| 2 |" in report.text
    assert all((tmp_path / plot).stat().st_size for plot in report.plots)


def frames(number: int) -> list[Frame]:
    return [
        Frame(f"image-{index}", "feed", 0, Origin("images", 0, index, 0)) for index in range(number)
    ]


def device(**options: float) -> simulated.SimulatedDevice:
    return simulated.SimulatedDevice(options, CPU, load_catalog([]))


def test_the_simulated_device_takes_its_time_for_a_batch_and_for_each_frame() -> None:
    batch = frames(4)

    took = []
    for _ in range(5):  # somebody else may have the processor meanwhile, but not each time
        began = time.perf_counter()
        device(launch=0.05, per_frame=0.02).process(batch)
        took.append(time.perf_counter() - began)
        if took[-1] < 0.18:
            break

    assert min(took) == pytest.approx(0.13, abs=0.05)
    for frame in batch:
        assert frame.findings.embedding is not None
        assert np.linalg.norm(frame.findings.embedding.vector) == pytest.approx(1, abs=1e-5)
        assert frame.findings.objects


def test_a_worker_finds_the_simulated_device_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in reversed(simulated.install(tmp_path / "plugin").split(os.pathsep)):
        monkeypatch.syspath_prepend(folder)  # as PYTHONPATH does

    assert available_operators()["simulated"].load() is simulated.SimulatedDevice
