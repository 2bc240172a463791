"""Real peers for every test that wants one: brokers, and the engines behind their fronts.

They listen on the loopback address at free ports, keep their data in pytest's own folders, and
end with the run. Tests that share one keep apart by names from `unique`.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

# At the end of the path, and this folder only: `tests/` itself holds folders that are named like
# the packages under test.
sys.path.append(str(Path(__file__).parent / "servers"))

from front_process import ClickHouseServer, QdrantServer, clickhouse_server, qdrant_server
from shared_broker import SharedBroker, broker_at_hand, missing, shared_broker

# A Kafka lives for minutes here: to compile it thoroughly took as long as all else that it did.
os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")
# Networks run beside brokers, stores and each other: a thread that has the processor and turns in
# circles until its neighbour gets one, as OpenMP's do, takes it from whoever had something to do.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(autouse=True)
def _environment_as_it_was() -> Iterator[None]:
    """Commands that run in a test's own process tell their children things by the environment,
    which would be settings of every test after it."""
    before = {name: value for name, value in os.environ.items() if name.startswith("IMAGEWIRE_")}
    yield
    for name in [name for name in os.environ if name.startswith("IMAGEWIRE_")]:
        if name not in before:
            del os.environ[name]
    os.environ.update(before)


LONGEST = {
    *("test_chaos_short.py", "test_text.py", "test_stream_on_brokers.py", "test_forgetting.py"),
    *("test_testbed.py", "test_embedded_broker.py", "test_intake.py", "test_decode_containment.py"),
}
"""Their tests take 5 s to a minute each. Last of all they would keep one process of a run busy that
the others have long left."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first, and what shares a fixture of its module shares a process.

    pytest-xdist gives each test to whichever process is free: both would then load the same model.
    """
    items.sort(key=lambda item: item.path.name not in LONGEST)
    for item in items:
        assert isinstance(item, pytest.Function)
        made = item._fixtureinfo.name2fixturedefs.values()
        shares = any(fixtures[-1].scope == "module" for fixtures in made if fixtures)
        if shares and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture(scope="session")
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that every process of this test run sees, and no other run."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    directory = shared / "shared-peers"
    directory.mkdir(exist_ok=True)
    return directory


@pytest.fixture
def unique() -> Callable[[str], str]:
    """Makes names that no other test uses: `unique("images")` for a topic, a group, a database."""
    return lambda prefix: f"{prefix}-{secrets.token_hex(5)}"


@pytest.fixture(scope="session")
def apache_kafka(run_directory: Path) -> Iterator[SharedBroker]:
    """Apache Kafka, one for the whole run."""
    with _broker("apache", run_directory) as broker:
        yield broker


@pytest.fixture(scope="session")
def tansu_broker(run_directory: Path) -> Iterator[SharedBroker]:
    """tansu, one for the whole run."""
    with _broker("tansu", run_directory) as broker:
        yield broker


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A module that promises something of each broker says so: `BROKERS = BOTH`."""
    for fixture in ("kafka_broker", "up"):
        if fixture in metafunc.fixturenames:
            brokers = getattr(metafunc.module, "BROKERS", None) or (broker_at_hand(),)
            metafunc.parametrize(fixture, brokers, indirect=True, scope="session")


@pytest.fixture(scope="session")
def kafka_broker(request: pytest.FixtureRequest) -> SharedBroker:
    """The broker of this test: `address`, `name`, `durable`, `supports_idempotence`."""
    broker = request.getfixturevalue(
        {"apache": "apache_kafka", "tansu": "tansu_broker"}[request.param]
    )
    assert isinstance(broker, SharedBroker)
    return broker


@pytest.fixture(scope="session")
def clickhouse_front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    """ClickHouse's engine behind its HTTP interface, one for each test process."""
    with clickhouse_server(tmp_path_factory.mktemp("clickhouse-front")) as server:
        yield server


@pytest.fixture(scope="session")
def qdrant_front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantServer]:
    """Qdrant's engine behind its gRPC interface, one for each test process."""
    with qdrant_server(tmp_path_factory.mktemp("qdrant-front")) as server:
        yield server


def _broker(name: str, directory: Path) -> AbstractContextManager[SharedBroker]:
    if reason := missing(name):
        if os.environ.get("CI"):
            pytest.fail(f"CI must test on {name}: {reason}")
        pytest.skip(f"{name} cannot run here: {reason}")
    return shared_broker(name, directory)
