"""schemathesis over the whole OpenAPI: whatever is sent, no 5xx, and every answer as described."""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import uvicorn
from front_process import ClickHouseServer, QdrantServer
from shared_broker import SharedBroker

from imagewire.api.app import make_app
from imagewire.api.services import Services
from imagewire.settings import Settings
from operators.findings import Embedding, RuleHit, TextLine, Verdict
from operators.frame import Frame, Origin
from sinks.clickhouse.sink import ClickHouseSink
from sinks.kafka.settings import TopicNames
from sinks.kafka.topics import ensure_topics
from sinks.qdrant.sink import QdrantSink

T0 = 1_790_000_000_000
LONG = "IMAGEWIRE_TEST_SCHEMATHESIS_LONG" in os.environ
"""Ten times as many requests, and each edge of each schema besides: some minutes."""

CHECKS = (
    *("not_a_server_error", "status_code_conformance", "content_type_conformance"),
    *("response_schema_conformance", "response_headers_conformance", "unsupported_method"),
)


def _frames(topic: str) -> list[Frame]:
    frames = []
    for number, action in enumerate(("allow", "review", "block")):
        at = T0 + 1000 * number
        frame = Frame(f"bus-{number}", "gate", at, Origin(topic, 0, number, at), uri="data:,x")
        frame.findings.verdict = Verdict(action, "p@1", [RuleHit("seen", "review", "because")])  # type: ignore[arg-type]
        quad = ((0.0, 0.0), (9.0, 0.0), (9.0, 9.0), (0.0, 9.0))
        frame.findings.texts = [TextLine("hello", 0.9, quad)]
        frame.findings.embedding = Embedding("m@1", [1.0, float(number), 0.0, 0.0])
        frames.append(frame)
    return frames


@pytest.fixture(scope="module")
def running(
    clickhouse_front: ClickHouseServer, qdrant_front: QdrantServer, tansu_broker: SharedBroker
) -> Iterator[str]:
    """The address of the API over stores that hold a little."""
    token = secrets.token_hex(5)
    stores: dict[str, Any] = {
        "clickhouse": {
            "host": clickhouse_front.host,
            "port": clickhouse_front.port,
            "username": "writer",
            "password": clickhouse_front.writer_password,
            "database": f"openapi_{token}",
        },
        "qdrant": {
            "host": qdrant_front.host,
            "grpc_port": qdrant_front.grpc_port,
            "api_key": qdrant_front.api_key,
            "collection": f"openapi-{token}",
        },
        "kafka": {
            "bootstrap_servers": tansu_broker.address,
            "topics": {name: f"{name}-{token}" for name in TopicNames.model_fields},
            "partitions": 1,
        },
        # Waiting proves nothing here and costs the time of the test.
        "api": {"max_wait": 0.05, "requests_per_second": 1e6, "burst": 1_000_000},
        "fetch": {"schemes": ["data"]},
    }
    settings = Settings(**stores)

    async def fill() -> None:
        await ensure_topics(settings.kafka)
        rows, points = ClickHouseSink(settings.clickhouse), QdrantSink(settings.qdrant, "m@1", 4)
        for sink in (rows, points):
            await sink.open()
            await sink.write(_frames(settings.kafka.topics.images))
            await sink.close()

    asyncio.run(fill())
    stores["clickhouse"] |= {
        "username": "analyst",
        "password": clickhouse_front.analyst_password,
    }
    services = Services(Settings(**stores))
    config = uvicorn.Config(make_app(services), host="127.0.0.1", port=0, log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 120
    while not server.started:
        assert thread.is_alive() and time.monotonic() < deadline
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        services.closing.set()
        server.should_exit = True
        thread.join(60)


@pytest.mark.timeout(3600 if LONG else 600)
def test_schemathesis_finds_no_5xx_and_no_violation_of_the_openapi(running: str) -> None:
    import schemathesis
    from schemathesis.config import SchemathesisConfig
    from schemathesis.engine import events, from_schema

    described = httpx.get(f"{running}/openapi.json", trust_env=False).json()
    # It never ends; its own tests read it.
    described["paths"].pop("/v1/verdicts/stream")
    config = SchemathesisConfig.from_dict(
        {
            "seed": 1,
            # They measure the time of a machine that does other things as well.
            "suppress-health-check": ["all"],
            "base-url": running,
            "request-timeout": 300,
            "checks": {"enabled": False, **{name: {"enabled": True} for name in CHECKS}},
            "generation": {
                "max-examples": 40 if LONG else 2,
                "no-shrink": True,
                "deterministic": True,
            },
            "phases": {"coverage": {"enabled": LONG}, "stateful": {"enabled": False}},
        }
    )
    schema = schemathesis.openapi.from_dict(described, config=config)
    failures: dict[str, str] = {}
    tried: set[str] = set()
    for event in from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            tried.add(event.recorder.label)
            for case_id, checks in event.recorder.checks.items():
                for check in checks:
                    if check.failure_info is not None:
                        case = event.recorder.cases[case_id].value
                        found = check.failure_info.failure
                        failures.setdefault(
                            f"{event.recorder.label}: {found.title}: {found.message[:400]}",
                            case.as_curl_command()[:600],
                        )
        elif isinstance(event, events.NonFatalError):
            failures.setdefault(f"{event.label}: {event.value}", "")
        elif isinstance(event, events.FatalError):
            raise event.exception
    assert not failures, "\n\n".join(f"{what}\n{how}" for what, how in failures.items())
    operations = {
        f"{method.upper()} {path}"
        for path, methods in described["paths"].items()
        for method in methods
        if method in ("get", "post", "put", "patch", "delete")
    }
    assert tried >= operations
