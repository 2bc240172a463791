"""What a worker measures of itself and of the models: lag, memory, drift."""

from __future__ import annotations

import asyncio
import secrets
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from prometheus_client import CollectorRegistry

from imagewire.lag_in_worker import LagInWorker
from imagewire.machine_metrics import MachineMetrics
from imagewire.model_health import ModelHealth
from imagewire.settings import Settings
from models.device import Device
from operators.findings import Embedding, Findings
from operators.frame import Frame, Origin
from sinks.clickhouse.settings import ClickHouseSettings
from sinks.clickhouse.sink import ClickHouseSink
from streams.metrics import Metrics

HOUR = 3_600_000
FIRST, SECOND = ("images", 0), ("images", 1)


def lags(metrics: Metrics) -> dict[str, float]:
    """Seconds by partition."""
    (family,) = metrics.consumer_lag_seconds.collect()
    return {sample.labels["partition"]: sample.value for sample in family.samples}


def test_lag_is_the_age_of_the_oldest_record_that_is_not_finished() -> None:
    metrics = Metrics()
    lag = LagInWorker(metrics)
    lag.show({FIRST: 7, SECOND: 0}, {FIRST: 940.0}, now=1000.0)
    assert lags(metrics) == {"0": 60.0, "1": 0.0}
    # A clock that is ahead of this machine's makes no negative lag.
    lag.show({FIRST: 1, SECOND: 0}, {FIRST: 1010.0}, now=1000.0)
    assert lags(metrics)["0"] == 0


def test_records_that_nobody_takes_grow_old_too() -> None:
    metrics = Metrics()
    lag = LagInWorker(metrics)
    for now in (1000.0, 1002.0, 1090.0):
        lag.show({FIRST: 5}, {}, now)
    assert lags(metrics) == {"0": 90.0}
    lag.show({FIRST: 0}, {}, 1092.0)
    lag.show({FIRST: 5}, {}, 1094.0)
    assert lags(metrics) == {"0": 0.0}


def test_a_partition_that_another_worker_has_now_is_not_shown() -> None:
    metrics = Metrics()
    lag = LagInWorker(metrics)
    lag.show({FIRST: 5, SECOND: 9}, {FIRST: 1.0, SECOND: 1.0}, 100.0)
    lag.show({FIRST: 5}, {FIRST: 1.0}, 102.0)
    assert lags(metrics) == {"0": 101.0}
    (family,) = metrics.consumer_lag.collect()
    assert [sample.labels["partition"] for sample in family.samples] == ["0"]


def test_memory_is_told_with_what_may_be_taken(tmp_path: Path) -> None:
    cpu = Device(torch.device("cpu"), torch.float32)
    limit = tmp_path / "memory.max"
    registry = CollectorRegistry()
    registry.register(MachineMetrics(cpu, 2, limit))
    own = registry.get_sample_value("imagewire_memory_bytes", {"part": "worker"})
    assert own == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)
    assert registry.get_sample_value("imagewire_model_copies") == 2
    everything = psutil.virtual_memory().total
    for text, expected in (("max\n", everything), ("123456\n", 123456), ("", everything)):
        limit.write_text(text)
        assert registry.get_sample_value("imagewire_memory_limit_bytes") == expected
    assert MachineMetrics(cpu, 1, tmp_path / "absent").limit() == everything


async def stored(settings: ClickHouseSettings) -> None:
    """A feed whose scores and pictures were others in the week before."""
    now = time.time_ns() // 1_000_000 // HOUR * HOUR
    frames = []
    for hours, score, direction in ((50, 0.1, 0), (3, 0.9, 1)):
        for number in range(200):
            at = now - hours * HOUR + number
            frame = Frame(
                f"{hours}-{number}",
                "door",
                at,
                Origin("images", 0, number, at),
                id_given=True,
                captured_at_given=True,
            )
            vector = [0.0] * 16
            vector[direction] = 1.0
            frame.findings = Findings(
                scores={"nsfw": score},
                embedding=Embedding("lite0@1", vector),
                models={"scores": "open-nsfw@1", "embedding": "lite0@1"},
            )
            frames.append(frame)
    sink = ClickHouseSink(settings)
    await sink.open()
    await sink.write(frames)
    await sink.close()


def psi(metrics: Metrics, kind: str) -> list[tuple[str, str, float]]:
    names = metrics.registry._names_to_collectors
    (family,) = names["imagewire_drift_psi"].collect()
    return [
        (sample.labels["model"], sample.labels["name"], sample.value)
        for sample in family.samples
        if sample.labels["kind"] == kind
    ]


async def eventually(look: Any) -> None:
    async with asyncio.timeout(120):
        while not look():  # noqa: ASYNC110 - it is a metric, which tells nobody of changes
            await asyncio.sleep(0.05)


async def test_drift_reaches_prometheus_from_the_worker_that_leads(
    clickhouse_front: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagewire.model_health._LOOK_EVERY_SECONDS", 0.02)
    clickhouse = ClickHouseSettings(
        host=clickhouse_front.host,
        port=clickhouse_front.port,
        username="writer",
        password=clickhouse_front.writer_password,
        database=f"health_{secrets.token_hex(5)}",
    )
    await stored(clickhouse)
    metrics = Metrics()
    leads = False
    health = ModelHealth(
        Settings(clickhouse=clickhouse), metrics.registry, metrics.feed, lambda: leads
    )
    work = asyncio.create_task(health.run())
    try:
        await asyncio.sleep(0.1)
        assert psi(metrics, "score") == []  # another worker's turn
        leads = True
        await eventually(lambda: psi(metrics, "score"))
        ((model, name, index),) = psi(metrics, "score")
        assert (model, name) == ("open-nsfw@1", "nsfw")
        assert index > 0.25
        ((model, name, index),) = psi(metrics, "embedding")
        assert (model, name) == ("lite0@1", "signs-v1-seed1")
        assert index > 0.25
        looked_at = metrics.registry.get_sample_value("imagewire_model_health_looked_at_seconds")
        assert looked_at == pytest.approx(time.time(), abs=60)
        assert health.trouble is None
        leads = False
        await eventually(lambda: not psi(metrics, "score"))
    finally:
        work.cancel()
        await asyncio.wait([work])


async def test_a_store_that_is_away_ends_nothing_and_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("imagewire.model_health._LOOK_EVERY_SECONDS", 0.02)
    settings = Settings(clickhouse=ClickHouseSettings(host="127.0.0.1", port=9))
    metrics = Metrics()
    health = ModelHealth(settings, metrics.registry, metrics.feed, lambda: True)
    work = asyncio.create_task(health.run())
    try:
        await eventually(lambda: health.trouble is not None)
        assert not work.done()
        assert "127.0.0.1:9" in str(health.trouble)
        looked_at = metrics.registry.get_sample_value("imagewire_model_health_looked_at_seconds")
        assert looked_at == 0  # ImagewireModelHealthUnknown
    finally:
        work.cancel()
        await asyncio.wait([work])


async def test_without_the_look_there_is_no_metric_that_would_wake_somebody() -> None:
    metrics = Metrics()
    settings = Settings(model_health={"enabled": False})
    await ModelHealth(settings, metrics.registry, metrics.feed, lambda: True).run()
    name = "imagewire_model_health_looked_at_seconds"
    assert metrics.registry.get_sample_value(name) is None
