"""What befalls a machine: its clock jumps, its parts come up late, its secrets lie in files.

One `imagewire up` for all of it, with a worker whose wall clock can be moved. Every promise is
checked with images that end in both stores.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from running_up import Record, RunningUp, until
from shared_broker import missing

from bench.chaos import pictures
from imagewire.embedded.datadir import find_running

pytestmark = [
    pytest.mark.xdist_group("faults-of-a-machine"),
    # A minute alone on two cores, and several beside others that want them.
    pytest.mark.timeout(900),
]

KEY = "the key that stands in a file"
HOUR = 3600


@dataclass
class Machine:
    """A running stack, and the file that moves its worker's clock."""

    up: RunningUp
    clock: Path

    def jump(self, seconds: int) -> None:
        """Set the clock this far from the true time."""
        self.clock.write_text(str(seconds))

    def publish(self, feed: str, first: int, count: int = 4) -> None:
        self.up.send(
            [
                Record(
                    pictures.jpeg(number),
                    None,
                    (("image-id", f"{feed}-{number}".encode()), ("feed", feed.encode())),
                )
                for number in range(first, first + count)
            ]
        )

    def get(self, path: str, key: str | None) -> httpx.Response:
        record = find_running(self.up.directory)
        assert record is not None
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        url = f"http://127.0.0.1:{record.worker_http_port}{path}"
        return httpx.get(url, headers=headers, trust_env=False, timeout=30)

    def is_well(self) -> bool:
        """Whether its worker says so to who has the key; a moment ago it may not have answered."""
        try:
            return bool(self.get("/healthz", KEY).json()["status"] == "ok")
        except httpx.HTTPError:
            return False

    def ids(self, feed: str) -> list[str]:
        rows = self.up.rows(f"SELECT image_id FROM images WHERE feed = '{feed}' ORDER BY image_id")
        return [row["image_id"] for row in rows]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    if reason := missing("apache"):
        if os.environ.get("CI"):
            pytest.fail(f"CI must test on Apache Kafka: {reason}")
        pytest.skip(f"Apache Kafka cannot run here: {reason}")
    folder = tmp_path_factory.mktemp("machine")
    clock = folder / "clock"
    clock.write_text("0")
    (folder / "http-key").write_text(f"{KEY}\n")
    # Those of another installation, which the stack's own parts do not have.
    (folder / "other").write_text("hush\n")
    up = RunningUp(
        folder / "data",
        ["--broker", "apache"],
        {
            "IMAGEWIRE_HTTP__KEY_FILE": str(folder / "http-key"),
            "IMAGEWIRE_CLICKHOUSE__PASSWORD_FILE": str(folder / "other"),
            "IMAGEWIRE_QDRANT__API_KEY_FILE": str(folder / "other"),
            "IMAGEWIRE_STREAM__SESSION_TIMEOUT": "6",
            # A part that hangs is given up sooner than in service.
            "IMAGEWIRE_CLICKHOUSE__SEND_RECEIVE_TIMEOUT": "10",
            "IMAGEWIRE_KAFKA__REQUEST_TIMEOUT_MS": "10000",
            "IMAGEWIRE_OPERATORS__OBJECTS__ENABLED": "false",
            "IMAGEWIRE_OPERATORS__TEXT__ENABLED": "false",
            "IMAGEWIRE_OPERATORS__SCORES__ENABLED": "false",
            **_preloaded(folder, clock),
        },
    )
    try:
        up.start()
        yield Machine(up, clock)
    finally:
        up.end()


def _preloaded(folder: Path, clock: Path) -> dict[str, str]:
    """Variables that give a process a clock that can be moved; none where it cannot be built."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        return {}
    library = folder / "shifted_clock.so"
    source = Path(__file__).with_name("shifted_clock.c")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True
    )
    return {"LD_PRELOAD": str(library), "SHIFTED_CLOCK_FILE": str(clock)}


def test_secrets_in_files_reach_the_workers_and_those_of_other_stores_do_not(
    machine: Machine,
) -> None:
    assert machine.get("/healthz", None).status_code == 401
    until("well", machine.is_well, 120)
    machine.publish("secrets", 0)
    machine.up.wait_for("secrets", 4)


def test_a_clock_that_jumps_loses_nothing_and_doubles_nothing(machine: Machine) -> None:
    if "LD_PRELOAD" not in machine.up.variables:
        pytest.skip("moving a worker's clock takes Linux and a C compiler (cc)")
    published = 0
    for jump in (HOUR // 2, -2 * HOUR, -400 * 24 * HOUR, 0):
        machine.publish("clock", published)
        machine.jump(jump)
        machine.publish("clock", published + 4)
        published += 8
        # A worker whose time-outs followed the clock would wait for hours, or leave its group.
        machine.up.wait_for("clock", published)
    # The same images once more, under a clock that is a year behind: the same rows, not newer ones.
    machine.jump(-400 * 24 * HOUR)
    machine.publish("clock", 0, published)
    machine.publish("clock", published)
    machine.up.wait_for("clock", published + 4)
    machine.jump(0)
    until("well", machine.is_well, 120)
    expected = sorted(f"clock-{number}" for number in range(published + 4))
    assert machine.ids("clock") == expected
    until("the points", lambda: machine.up.points("clock") == len(expected), 120)


def test_a_clock_that_is_far_ahead_is_named_and_its_verdicts_come_when_it_is_right(
    machine: Machine,
) -> None:
    """Kafka takes no record from more than an hour ahead of it."""
    if "LD_PRELOAD" not in machine.up.variables:
        pytest.skip("moving a worker's clock takes Linux and a C compiler (cc)")
    machine.jump(400 * 24 * HOUR)
    try:
        machine.publish("ahead", 0)
        machine.up.wait_for("ahead", 4)

        def said() -> bool:
            detail = machine.get("/healthz", KEY).json()["detail"]
            return "clock" in detail.get("kafka", "")

        until("the wrong clock is named", said, 120)
    finally:
        machine.jump(0)
    expected = {f"ahead-{number}" for number in range(4)}

    def decided() -> bool:
        verdicts = machine.up.records("images.verdicts")
        return expected <= {record.fields["image_id"] for record in verdicts}

    until("the verdicts are there", decided, 90)
    assert not machine.up.rows("SELECT image_id FROM failures WHERE feed = 'ahead'")
    until("well", machine.is_well, 120)


def test_a_worker_that_comes_up_before_everything_waits_and_says_for_whom(
    machine: Machine,
) -> None:
    """Kafka and both stores are stopped as a machine's parts are in a power cut, and come back in
    the wrong order: worker first."""
    machine.jump(0)
    parts = {
        "kafka": "kafka.Kafka",
        "clickhouse": "clickhouse_front",
        "qdrant": "qdrant_front",
    }
    frozen = []
    worker = machine.up.child("imagewire worker")
    assert worker is not None
    for words in parts.values():
        part = machine.up.child(words)
        assert part is not None
        frozen.append(part)
        part.suspend()
    try:
        worker.kill()

        def waiting() -> bool:
            try:
                health = machine.get("/healthz", KEY).json()
            except httpx.HTTPError:
                return False
            return health["status"] == "starting" and health["detail"].keys() == parts.keys()

        until("the new worker says for whom it waits", waiting, 240)
    finally:
        for part in frozen:
            part.resume()
    machine.publish("late", 0)
    machine.up.wait_for("late", 4)
    until("it is well", machine.is_well, 120)
