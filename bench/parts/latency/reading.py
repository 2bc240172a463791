"""A worker's metrics at one moment, or what they gained between two."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

from bench.testbed import RunningWorker

_Key = tuple[str, str]


class Reading:
    """Sums and counts of the histograms that tell of batches; stages by their label."""

    def __init__(self, samples: Mapping[_Key, float]) -> None:
        self.samples = dict(samples)

    @classmethod
    async def of(cls, worker: RunningWorker) -> Reading:
        """The worker's metrics now."""
        samples: dict[_Key, float] = {}
        for family in text_string_to_metric_families(await worker.exposition()):
            for sample in family.samples:
                key = sample.name, sample.labels.get("stage", "")
                samples[key] = samples.get(key, 0.0) + sample.value
        return cls(samples)

    def since(self, earlier: Reading) -> Reading:
        """What was gained since `earlier`."""
        return Reading(
            {key: value - earlier.samples.get(key, 0.0) for key, value in self.samples.items()}
        )

    def total(self, name: str, stage: str = "") -> float:
        """A sample's value; 0 if there is none."""
        return self.samples.get((name, stage), 0.0)

    @property
    def batch_size(self) -> float:
        """Mean frames in a batch on the device; 0 if there was none."""
        batches = self.total("imagewire_batch_size_count")
        return self.total("imagewire_batch_size_sum") / batches if batches else 0.0

    @property
    def waited(self) -> float:
        """Mean seconds from the arrival of a batch's oldest frame until the device took it."""
        batches = self.total("imagewire_batch_wait_seconds_count")
        return self.total("imagewire_batch_wait_seconds_sum") / batches if batches else 0.0

    def stage_seconds(self, stage: str) -> float:
        """Mean seconds of a stage for a batch; 0 if there was none."""
        batches = self.total("imagewire_stage_seconds_count", stage)
        return self.total("imagewire_stage_seconds_sum", stage) / batches if batches else 0.0
