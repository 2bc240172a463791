"""The commands of the walk for producers, run as they stand there."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from api_frame_stage import api_settings, serving

from sinks.kafka.settings import KafkaSettings
from sinks.kafka.topics import ensure_topics

PAGE = (Path(__file__).parents[3] / "docs" / "producers.md").read_text()
COMMANDS = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.S | re.M)


@pytest.mark.skipif(shutil.which("curl") is None, reason="the walk's commands need curl")
async def test_the_walk_s_commands_do_what_it_says(kafka: dict[str, Any], tmp_path: Path) -> None:
    spec = importlib.util.find_spec("ultralytics")
    assert spec is not None and spec.origin is not None
    shutil.copy(Path(spec.origin).parent / "assets" / "bus.jpg", tmp_path)
    await ensure_topics(KafkaSettings(**kafka))
    answers = []
    async with serving(api_settings(kafka=kafka)) as (client, _):
        for command in COMMANDS:
            if "/stream" in command:  # has no end; its own tests read it
                continue
            address = str(client.base_url).rstrip("/")
            # No worker runs here, so there is nothing to wait for.
            run = command.replace("http://127.0.0.1:8080", address).replace("=30s", "=50ms")
            process = await asyncio.create_subprocess_exec(
                *("bash", "-c", run), stdout=asyncio.subprocess.PIPE, cwd=tmp_path
            )
            printed, _ = await process.communicate()
            assert process.returncode == 0, command
            answers.append(json.loads(printed))
    picture, waited, reference, batch, refused = answers
    assert picture["image_id"] == "gate-7/000123"
    assert (picture["findings"], waited["findings"]) == (None, None)
    assert reference["image_id"] == "gate-7/000124"
    assert len(batch["images"]) == 2
    assert refused["status"] == 422
    assert refused["reason"] == "bad-captured-at"
    assert refused["detail"] in PAGE
    assert refused["title"] in PAGE
