"""The part on overhead runs every contestant and says what each adds."""

from __future__ import annotations

from pathlib import Path

import pytest

import imagewire.worker as product
from bench.figures import Options
from bench.parts import overhead
from bench.parts.overhead.empty_worker import EmptyWorker, parts_that_do_nothing
from imagewire import model_copies
from imagewire.settings import Settings


def test_the_worker_without_models_is_the_products_own_with_one_empty_operator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Put back as they were when the test ends.
    monkeypatch.setattr(model_copies, "build_operators", model_copies.build_operators)
    monkeypatch.setattr(product, "make_decoder", product.make_decoder)
    parts_that_do_nothing()

    worker = EmptyWorker(Settings(), sinks=False, policy=False)

    assert [operator.name for operator in worker._chain.operators] == ["embedding"]
    assert isinstance(worker, product.Worker)


@pytest.mark.smoke
def test_the_overhead_is_measured_beside_bare_loops_and_by_sink(tmp_path: Path) -> None:
    report = overhead.run(Options(repeats=1, device="cpu", plots=tmp_path, quick=True))

    names = {figure.name for figure in report.figures}
    assert {"empty_over_bare_faust", "cpu_us_per_image", "cpu_us_of_qdrant_sink"} <= names
    assert all(figure.value > 0 for figure in report.figures if "_of_" not in figure.name)
    for entry in overhead.ENTRIES:
        assert entry.label in report.text
