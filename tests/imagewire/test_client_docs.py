"""The example of docs/client.md, run as it stands there against a running stack."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from running_up import RunningUp, until

from imagewire.client import Imagewire
from imagewire.embedded.datadir import find_running

pytestmark = [pytest.mark.xdist_group("end-to-end"), pytest.mark.timeout(600)]

PAGE = (Path(__file__).parents[2] / "docs" / "client.md").read_text("utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_example_does_what_it_says(
    up: RunningUp,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    record = find_running(up.directory)
    assert record is not None
    monkeypatch.setenv("IMAGEWIRE_URL", f"http://{record.api_host}:{record.api_port}")
    bus = photos / "bus.jpg"
    # The same before, and waited for in every store: the example does not wait for its vector, and
    # on a busy machine the first image may take long.
    with Imagewire() as wire:
        until(
            "a first image",
            lambda: wire.publish(bus, id="bus-1", feed="docs", wait=60).findings,
            240,
        )
        until("its vector", lambda: wire.search(bus, feed="docs").results, 60)
        wire.image("bus-1", wait=60)
    exec(compile(EXAMPLES[0], "docs/client.md", "exec"), {"photo": bus})
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("bus-1 ") and said[0].endswith(" objects")
    assert any(line.startswith("bus-1 20") for line in said), "the list of images"
    assert "1.000 bus-1" in said, "the picture finds itself"
    assert "bus-1 block" in said, "the decision that was taken back"
    assert "unknown-image 404" in said
    assert any(line.startswith("47 Unknown expression") for line in said)


def test_the_other_example_is_python() -> None:
    compile(EXAMPLES[1], "docs/client.md", "exec")
