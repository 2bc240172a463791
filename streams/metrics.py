"""What a worker tells Prometheus. One instance a worker, on a registry of its own."""

from __future__ import annotations

from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from operators.frame import Frame
from sinks.replay import failed_attempts
from streams.findings_metrics import FindingsMetrics

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

_Metric = TypeVar("_Metric", Counter, Gauge, Histogram)


class Labelled(Generic[_Metric]):
    """A metric whose children are found without prometheus_client's lock and copies, which cost
    some 2 µs a look-up, several times for each image."""

    def __init__(self, metric: _Metric) -> None:
        self._metric: _Metric = metric
        self._children: dict[tuple[str, ...], _Metric] = {}

    def labels(self, *values: str) -> _Metric:
        """The child for these label values."""
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = self._metric.labels(*values)
        return child


class Metrics:
    """The metrics of one worker.

    Labels stay few: feeds, stages, actions, sinks and models are small sets, while image ids and
    hosts are not labels; `findings` bounds its own. At most `max_feeds` feeds get a label of their
    own and the rest share `other`, since feed names come from producers.
    """

    def __init__(self, registry: CollectorRegistry | None = None, max_feeds: int = 200) -> None:
        self.registry = registry or CollectorRegistry()
        self._feeds: set[str] = set()
        self._max_feeds = max_feeds
        self.operators: tuple[str, ...] = ()
        """Names of the operators that run, which images that are not analysed spare."""
        self.frames_in = Labelled(
            Counter(
                "imagewire_frames_in_total",
                "Records taken from Kafka",
                ["feed"],
                registry=self.registry,
            )
        )
        self.frames_out = Labelled(
            Counter(
                "imagewire_frames_out_total",
                "Frames whose findings are safe in every sink",
                ["feed", "action"],
                registry=self.registry,
            )
        )
        self.frames_failed = Labelled(
            Counter(
                "imagewire_frames_failed_total",
                "Frames that became dead letters",
                ["feed", "stage"],
                registry=self.registry,
            )
        )
        self.stage_seconds = Labelled(
            Histogram(
                "imagewire_stage_seconds",
                "Time a stage or operator took for one frame (fetch) or one batch (the others)",
                ["stage"],
                buckets=_SECONDS,
                registry=self.registry,
            )
        )
        self.queue_depth = Labelled(
            Gauge(
                "imagewire_queue_depth",
                "Frames that wait before a stage",
                ["stage"],
                registry=self.registry,
            )
        )
        self.batch_size = Histogram(
            "imagewire_batch_size",
            "Frames in a batch on the device",
            buckets=(1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 128, 256),
            registry=self.registry,
        )
        self.batch_limit = Gauge(
            "imagewire_batch_limit",
            "Most frames in a batch at the moment: fewer than configured after the device ran out "
            "of memory",
            registry=self.registry,
        )
        self.out_of_memory = Counter(
            "imagewire_out_of_memory_total",
            "Batches, and parts of batches, that did not fit into memory",
            registry=self.registry,
        )
        self.batch_wait = Histogram(
            "imagewire_batch_wait_seconds",
            "Age of a batch's oldest frame when the device took it, from its arrival",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.service_time = Labelled(
            Gauge(
                "imagewire_predicted_seconds",
                "What an operator is expected to take for a batch of so many frames",
                ["stage", "batch"],
                registry=self.registry,
            )
        )
        self.prediction = Histogram(
            "imagewire_prediction_ratio",
            "Time that the operators took for a batch, divided by what was predicted",
            buckets=(0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2, 4, 16),
            registry=self.registry,
        )
        self.reused = Labelled(
            Counter(
                "imagewire_frames_reused_total",
                "Frames whose findings come from another: from one analysed before (cached), one "
                "under way (in-flight), or one that looks nearly the same (near)",
                ["kind"],
                registry=self.registry,
            )
        )
        self.runs_saved = Labelled(
            Counter(
                "imagewire_model_runs_saved_total",
                "Images that an operator did not have to look at, by what spared it: a banned "
                "image (banlist), findings of the same bytes (cache) or of a frame that looks "
                "nearly the same (near), or the operator's own condition (when)",
                ["operator", "rung"],
                registry=self.registry,
            )
        )
        self.bans = Labelled(
            Gauge(
                "imagewire_bans",
                "Entries of banlists that this worker knows, all lists together",
                ["kind"],
                registry=self.registry,
            )
        )
        self.ban_records_refused = Counter(
            "imagewire_ban_records_refused_total",
            "Records on the topic of bans that are none, or too large, and were passed over",
            registry=self.registry,
        )
        self.reuse_lookups = Counter(
            "imagewire_reuse_lookups_total",
            "Frames whose content was looked up among those analysed",
            registry=self.registry,
        )
        self.reuse_bytes = Gauge(
            "imagewire_reuse_bytes",
            "Memory that findings kept for reuse take, by estimate",
            registry=self.registry,
        )
        self.loop_delay = Histogram(
            "imagewire_event_loop_delay_seconds",
            "How late the event loop comes to a timer that is due: what it was busy with, or had "
            "no processor for",
            buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5),
            registry=self.registry,
        )
        self.latency = Labelled(
            Histogram(
                "imagewire_latency_seconds",
                "From the Kafka timestamp of a record to the acknowledgement of its verdict",
                ["feed"],
                buckets=_SECONDS,
                registry=self.registry,
            )
        )
        self.consumer_lag = Gauge(
            "imagewire_consumer_lag",
            "Records in a partition that are not acknowledged yet",
            ["topic", "partition"],
            registry=self.registry,
        )
        self.consumer_lag_seconds = Gauge(
            "imagewire_consumer_lag_seconds",
            "Age of the oldest record in a partition that is not acknowledged yet, by its Kafka "
            "timestamp",
            ["topic", "partition"],
            registry=self.registry,
        )
        self.findings = FindingsMetrics(self.registry, self.feed)
        self.model_info = Gauge(
            "imagewire_model_info",
            "1 for each model in use",
            ["operator", "model"],
            registry=self.registry,
        )
        self.policy_info = Gauge(
            "imagewire_policy_info",
            "1 for the policy in force",
            ["version"],
            registry=self.registry,
        )
        self.policy_reload_failures = Counter(
            "imagewire_policy_reload_failures_total",
            "New policies that could not be used, so that the old one stayed in force",
            registry=self.registry,
        )
        self.sink_retries = Counter(
            "imagewire_sink_retries_total",
            "Writes that a sink refused for now and that were tried again",
            ["sink"],
            registry=self.registry,
        )
        self.sink_rejections = Counter(
            "imagewire_sink_rejections_total",
            "Frames that a sink refused for good",
            ["sink"],
            registry=self.registry,
        )
        self.redelivered = Counter(
            "imagewire_frames_dropped_unacknowledged_total",
            "Frames let go at a rebalance or stop because the drain timeout passed",
            registry=self.registry,
        )

        self.reviews = Labelled(
            Counter(
                "imagewire_reviews_total",
                "Decisions of people that were taken, by what they say; refused: records that are "
                "none, forgotten: on images that were erased",
                ["decision"],
                registry=self.registry,
            )
        )
        self.overrides = Gauge(
            "imagewire_overrides",
            "Decisions of people held in memory, by image and by content",
            registry=self.registry,
        )

        self.webhooks = Labelled(
            Counter(
                "imagewire_webhooks_total",
                "Attempts to tell a receiver of a verdict: delivered, again (failed, tried again "
                "later), gone (refused for good); and dead-letter, messages that were given up",
                ["webhook", "outcome"],
                registry=self.registry,
            )
        )

        self.forgotten = Labelled(
            Counter(
                "imagewire_frames_forgotten_total",
                "Frames that were dropped because their image was erased",
                ["feed"],
                registry=self.registry,
            )
        )
        self.tombstones = Gauge(
            "imagewire_tombstones",
            "Images, contents and feeds that were erased and must not come back",
            registry=self.registry,
        )
        self.expired = Labelled(
            Counter(
                "imagewire_expired_total",
                "Rows and vectors that were deleted because their time was over",
                ["store"],
                registry=self.registry,
            )
        )

    def decided(self, frame: Frame, now: float) -> None:
        """A frame's verdict is acknowledged; `now` in Unix seconds."""
        if frame.failed or failed_attempts(frame.origin):
            return  # a replay waited for a person
        # Producers may send no timestamp, which Kafka records as -1.
        if frame.origin.timestamp_ms > 0:
            latency = now - frame.origin.timestamp_ms / 1000
            self.latency.labels(self.feed(frame.feed)).observe(max(latency, 0.0))

    def finished(self, frame: Frame) -> None:
        """A frame is safe in every sink, as findings or as a dead letter."""
        feed = self.feed(frame.feed)
        if frame.failure is not None:
            self.frames_failed.labels(feed, frame.failure.stage).inc()
        else:
            verdict = frame.findings.verdict
            self.frames_out.labels(feed, verdict.action if verdict else "none").inc()
        self.findings.count(frame)

    def spared(self, operator: str, rung: str, frames: int) -> None:
        """An operator did not have to look at so many frames."""
        self.runs_saved.labels(operator, rung).inc(frames)

    def spared_all(self, rung: str, frames: int) -> None:
        """No operator had to look at so many frames."""
        if frames:
            for operator in self.operators:
                self.spared(operator, rung, frames)

    def feed(self, name: str) -> str:
        """The label for a feed: its name, or `other` once `max_feeds` names are taken."""
        if name in self._feeds:
            return name
        if len(self._feeds) >= self._max_feeds:
            return "other"
        self._feeds.add(name)
        return name
