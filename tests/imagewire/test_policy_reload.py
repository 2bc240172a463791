"""What a worker promises about policies that change while it works."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from imagewire.policy_in_worker import PolicyInWorker
from imagewire.policy_topic import publish_policy
from imagewire.settings import PolicySettings, Settings
from operators.calibration import Calibration, write_calibration
from operators.policy import Policy, PolicyError
from sinks.kafka.settings import KafkaSettings
from streams.metrics import Metrics


def write(file: Path, action: str) -> None:
    file.write_text(text(action))


def text(action: str) -> str:
    return f"[[rules]]\nname = 'all'\nwhen = 'true'\naction = '{action}'\n"


class Worker:
    """As much of a worker as there is to policies."""

    def __init__(
        self,
        file: Path,
        kafka: KafkaSettings | None = None,
        calibrations_folder: Path | None = None,
    ) -> None:
        self.metrics = Metrics()
        own = PolicySettings(
            file=file,
            check_seconds=0.1,
            follow=kafka is not None,
            calibrations_folder=calibrations_folder,
        )
        settings = Settings(policy=own)
        if kafka is not None:
            settings = settings.model_copy(update={"kafka": kafka})
        self.policies = PolicyInWorker(settings, self.metrics)
        self.used: list[Policy] = []
        self.policies.on_change(self.used.append)

    @property
    def action(self) -> str:
        return self.policies.current.rules[0].action

    @property
    def failures(self) -> float:
        return self.metrics.registry.get_sample_value("imagewire_policy_reload_failures_total") or 0

    def in_force(self, version: str) -> float | None:
        return self.metrics.registry.get_sample_value("imagewire_policy_info", {"version": version})

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not holds():  # noqa: ASYNC110 - what is waited for is told by nobody
                await asyncio.sleep(0.02)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.policies.run())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "house.toml"
    path.write_text(text("allow"))
    return path


async def test_a_file_that_changes_is_taken_over(file: Path) -> None:
    worker = Worker(file)
    first = worker.policies.current.version
    assert worker.in_force(first) == 1
    async with worker.running():
        write(file, "block")
        await worker.until(lambda: worker.action == "block")
    second = worker.policies.current.version
    assert [policy.version for policy in worker.used] == [second]
    assert second == Policy.load(file).version
    assert (worker.in_force(first), worker.in_force(second)) == (None, 1)


async def test_a_bad_file_keeps_the_old_policy_and_alarms(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker(file)
    async with worker.running():
        write(file, "blok")
        await worker.until(lambda: worker.failures == 1)
        assert worker.action == "allow"
        assert "'blok' is not one of" in worker.policies.troubles()["policy"]
        assert "stays in force" in caplog.text
        await asyncio.sleep(0.3)
        assert worker.failures == 1, "one file is one failure, however often it is looked at"
        os.unlink(file)  # noqa: PTH108 - the other way is refused in async tests
        await worker.until(lambda: worker.failures == 2)
        write(file, "review")
        await worker.until(lambda: worker.action == "review")
    assert worker.policies.troubles() == {}


async def test_a_calibration_that_comes_into_the_folder_applies_at_once(
    file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "calibrations"
    worker = Worker(file, calibrations_folder=folder)
    first = worker.policies.current.version
    async with worker.running():
        folder.mkdir()
        (folder / "notes.txt").write_text("not a calibration, and not called one")
        made = Calibration(format=1, model="net@1", weights_sha256="", labels={})
        write_calibration(made, folder / "net.calibration.json")
        await worker.until(lambda: worker.policies.current.version != first)
        assert worker.policies.current.version.startswith(f"{first}+")
        (folder / "worse.calibration.json").write_text("{}")
        await worker.until(lambda: worker.failures == 1)
        assert "worse.calibration.json" in worker.policies.troubles()["policy"]
        (folder / "worse.calibration.json").unlink()
        await worker.until(lambda: worker.policies.troubles() == {})


def test_a_bad_file_at_the_start_is_refused(file: Path) -> None:
    write(file, "blok")
    with pytest.raises(PolicyError):
        Worker(file)


async def test_a_published_policy_is_in_force_until_it_is_withdrawn(
    file: Path, tansu_broker: Any, unique: Callable[[str], str]
) -> None:
    from sinks.kafka.settings import TopicNames

    names = {field: unique(field) for field in TopicNames.model_fields}
    kafka = KafkaSettings(bootstrap_servers=tansu_broker.address, topics=TopicNames(**names))
    await publish_policy(kafka, "default", text("block").encode())
    worker = Worker(file, kafka)
    async with worker.running():
        await worker.policies.ready()
        assert worker.action == "block", "what stands on the topic is in force from the start"
        assert worker.policies.current.version.startswith("default-")
        await publish_policy(kafka, "another", text("allow").encode())
        await publish_policy(kafka, "default", b"not TOML at all")
        await worker.until(lambda: worker.failures == 1)
        assert worker.action == "block"
        started_later = Worker(file, kafka)
        async with started_later.running():
            await started_later.policies.ready()
            assert started_later.action == "block", "the last one that can be used is in force"
            assert "not valid TOML" in started_later.policies.troubles()["policy"]
            await publish_policy(kafka, "default", text("alow").encode())
            await started_later.until(lambda: "'alow'" in str(started_later.policies.troubles()))
            assert started_later.action == "block"
        await worker.until(lambda: worker.failures == 2)
        await publish_policy(kafka, "default", text("review").encode())
        await worker.until(lambda: worker.action == "review")
        assert worker.policies.troubles() == {}
        await publish_policy(kafka, "default", None)
        await worker.until(lambda: worker.action == "allow")
        await publish_policy(kafka, "default", b"not TOML at all")
        await worker.until(lambda: worker.failures == 3)
        write(file, "review")
        await worker.until(lambda: worker.action == "review")
        assert "policy" in worker.policies.troubles()
    with pytest.raises(PolicyError, match="larger than"):
        await publish_policy(kafka, "default", b"#" * 2_000_000)
