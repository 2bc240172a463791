"""`imagewire serve`: says where it is, refuses what would be open to all, and ends when told."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from imagewire.cli import run
from imagewire.embedded.ports import free_port


def test_serve_refuses_an_address_that_is_open_to_all_and_one_that_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["serve", "--host", "0.0.0.0"]) == 2
    assert "keys are needed" in capfd.readouterr().err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert run(["serve", "--port", str(taken.getsockname()[1])]) == 2
    assert "choose another api.port" in capfd.readouterr().err


@pytest.mark.timeout(300)
def test_serve_says_where_it_is_and_ends_with_0_when_told_to(tmp_path: Path) -> None:
    nowhere = str(free_port())
    silent = socket.create_server(("127.0.0.1", 0))  # a ClickHouse that hangs
    process = subprocess.Popen(
        [sys.executable, "-m", "imagewire", "serve", "--port", "0"],
        cwd=tmp_path,
        env={
            **os.environ,
            "IMAGEWIRE_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{nowhere}",
            "IMAGEWIRE_CLICKHOUSE__PORT": str(silent.getsockname()[1]),
            "IMAGEWIRE_QDRANT__GRPC_PORT": nowhere,
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        address = re.fullmatch(r"console (http://127\.0\.0\.1:\d+/)\n", process.stdout.readline())
        assert address is not None
        answer = httpx.get(f"{address[1]}healthz", trust_env=False, timeout=60)
        assert answer.json() == {"status": "ok"}
        with ThreadPoolExecutor(1) as threads:
            url = f"{address[1]}v1/images"
            asking = threads.submit(httpx.get, url, trust_env=False, timeout=120)
            silent.accept()
            process.send_signal(signal.SIGTERM)
            answer = asking.result()
        assert answer.status_code == 503
        assert answer.json()["type"] == "urn:imagewire:problem:ending"
        assert process.wait(25) == 0
    finally:
        silent.close()
        process.kill()
        process.wait()
