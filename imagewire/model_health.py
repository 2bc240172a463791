"""How the models are doing, for Prometheus: drift, and what people made of scores and verdicts.

These are statements about days of data, which is in ClickHouse; so they are asked there, once an
hour, by one worker of the group, and shown as gauges. When that worker loses its first partition it
shows nothing any more, so that no old value stands beside the new owner's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Gauge

from imagewire.settings import Settings
from sinks.clickhouse.reader import ClickHouseReader, QueryError

logger = logging.getLogger(__name__)

Rows = list[dict[str, Any]]

# At most 1000 rows of each, as more series than a dashboard can show would only cost. Those come
# first that matter most: what drifted furthest, the rules with most decisions.
# Of an embedding's projections the one that moved most: any of them may be the one that shows it.
_DRIFT = """
SELECT
    feed, kind, model, if(kind = 'score', name, splitByChar('/', name)[1]) AS name,
    max(drift.psi) AS psi, argMax(drift.by_chance, drift.psi) AS by_chance
FROM drift
GROUP BY feed, kind, model, name
ORDER BY psi DESC
LIMIT 1000
"""
_PRECISION = """
SELECT rule, machine_verdict, audited, precision, low, high
FROM rule_precision ORDER BY audited DESC LIMIT 1000
"""
_AGREEMENT = """
SELECT rule, machine_verdict, sum(decided) AS decisions, sum(ifNull(overturned, 0)) AS overturns
FROM rule_agreement
WHERE machine_verdict != 'review'
GROUP BY rule, machine_verdict ORDER BY decisions DESC LIMIT 1000
"""
_RELIABILITY = """
SELECT model, name, tenth, audited, images, mean_score, true_share
FROM reliability ORDER BY images DESC LIMIT 1000
"""
_LOOK_EVERY_SECONDS = 1.0


class ModelHealth:
    """Asks every `model_health.interval` seconds while `leads` says that it is this worker's turn.

    Attributes:
        trouble: why the last look failed; `None` if it did not.
    """

    def __init__(
        self,
        settings: Settings,
        registry: CollectorRegistry,
        feed: Callable[[str], str],
        leads: Callable[[], bool],
    ) -> None:
        self.trouble: str | None = None
        self._settings = settings.model_health
        self._enabled = settings.model_health.enabled and settings.clickhouse.enabled
        self._clickhouse = settings.clickhouse.model_copy(
            update={"query_timeout": settings.model_health.query_timeout}
        )
        self._feed = feed
        self._leads = leads

        # What is never asked is not shown: a zero would look as if it were wanted and failed.
        shown = registry if self._enabled else None

        def gauge(name: str, meaning: str, *labels: str) -> Gauge:
            return Gauge(f"imagewire_{name}", meaning, labels, registry=shown)

        drifting = ("feed", "kind", "model", "name")
        judged = ("rule", "machine_verdict")
        scored = ("model", "name", "tenth", "audited")
        self._psi = gauge(
            "drift_psi",
            "Population stability index of a score, or of the projection of the embedding that "
            "moved most: the last 24 hours against the week before",
            *drifting,
        )
        self._by_chance = gauge(
            "drift_psi_by_chance",
            "What the index stays below 999 times in 1000 if nothing changed",
            *drifting,
        )
        self._precision = gauge(
            "rule_precision",
            "Share of a rule's verdicts that people confirm, of images drawn at random: the share "
            "itself, and the ends of its 95 % interval",
            *judged,
            "bound",
        )
        self._audited = gauge(
            "rule_audited_images", "Images behind imagewire_rule_precision", *judged
        )
        self._decided = gauge("rule_decided_images", "Verdicts that people looked at", *judged)
        self._overturned = gauge("rule_overturned_images", "Verdicts that people changed", *judged)
        self._true_share = gauge(
            "score_true_share",
            "Of the images in one tenth of a score, the share that people gave the label",
            *scored,
        )
        self._mean_score = gauge("score_mean", "Mean score of the same images", *scored)
        self._judged_images = gauge("score_decided_images", "How many these are", *scored)
        self._looked_at = gauge(
            "model_health_looked_at_seconds",
            "When ClickHouse was last asked with success, in Unix seconds; 0 if never, or if "
            "another worker asks",
        )
        self._took = gauge("model_health_look_seconds", "How long the last look took")
        self._all = (
            *(self._psi, self._by_chance, self._precision, self._audited, self._decided),
            *(self._overturned, self._true_share, self._mean_score, self._judged_images),
        )

    async def run(self) -> None:
        """Ask until cancelled."""
        due = 0.0
        while self._enabled:
            if not self._leads():
                self._forget()
                due = 0.0
            elif time.monotonic() >= due:
                await self._try_to_look()
                # Many services that were started together should not all ask at once.
                due = time.monotonic() + self._settings.interval * random.uniform(0.9, 1.1)  # noqa: S311
            await asyncio.sleep(_LOOK_EVERY_SECONDS)

    async def _try_to_look(self) -> None:
        began = time.monotonic()
        try:
            answers = await self._answers()
        except Exception as error:  # noqa: BLE001 - nothing that goes wrong here may end the stream
            message = str(error) if isinstance(error, QueryError) else repr(error)
            if self.trouble is None:
                # Everything else works without it, so it is no trouble of the worker's.
                logger.warning("how the models are doing cannot be asked: %s", message)
            self.trouble = message
            return
        self.trouble = None
        if self._leads():
            self._show(*answers)
            self._took.set(time.monotonic() - began)
            self._looked_at.set(time.time())

    async def _answers(self) -> tuple[Rows, ...]:
        """Ask in a thread that nobody waits for at a stop, as a query may take minutes."""
        loop = asyncio.get_running_loop()
        answers: asyncio.Future[tuple[Rows, ...]] = loop.create_future()

        def settle(result: tuple[Rows, ...] | None, error: Exception | None) -> None:
            if answers.done():
                return  # cancelled
            if result is None:
                answers.set_exception(error or RuntimeError("there was no answer"))
            else:
                answers.set_result(result)

        def work() -> None:
            result, problem = None, None
            try:
                result = self._ask()
            except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
                problem = error
            with contextlib.suppress(RuntimeError):  # the loop has been closed
                loop.call_soon_threadsafe(settle, result, problem)

        threading.Thread(target=work, name="model-health", daemon=True).start()
        return await answers

    def _ask(self) -> tuple[Rows, ...]:
        with ClickHouseReader(self._clickhouse) as reader:
            return tuple(
                reader.query(sql).to_pylist()
                for sql in (_DRIFT, _PRECISION, _AGREEMENT, _RELIABILITY)
            )

    def _show(self, drift: Rows, precision: Rows, agreement: Rows, reliability: Rows) -> None:
        for gauge in self._all:
            gauge.clear()
        for row in reversed(drift):  # of feeds that share a label, the one that drifted most stays
            labels = (self._feed(row["feed"]), row["kind"], row["model"], row["name"])
            self._psi.labels(*labels).set(row["psi"])
            self._by_chance.labels(*labels).set(row["by_chance"])
        for row in precision:
            judged = (row["rule"], row["machine_verdict"])
            for bound, column in (("share", "precision"), ("low", "low"), ("high", "high")):
                self._precision.labels(*judged, bound).set(row[column])
            self._audited.labels(*judged).set(row["audited"])
        for row in agreement:
            judged = (row["rule"], row["machine_verdict"])
            self._decided.labels(*judged).set(row["decisions"])
            self._overturned.labels(*judged).set(row["overturns"])
        for row in reliability:
            audited = "true" if row["audited"] else "false"
            scored = (row["model"], row["name"], f"{row['tenth'] / 10:.1f}", audited)
            self._true_share.labels(*scored).set(row["true_share"])
            self._mean_score.labels(*scored).set(row["mean_score"])
            self._judged_images.labels(*scored).set(row["images"])

    def _forget(self) -> None:
        for gauge in self._all:
            gauge.clear()
        self._looked_at.set(0)
        self._took.set(0)
