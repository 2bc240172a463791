"""The API beside the workers of `imagewire up`: a child that may die without taking them along."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from running_up import RunningUp, until

from imagewire.embedded.datadir import RunRecord, find_running

pytestmark = [pytest.mark.xdist_group("end-to-end"), pytest.mark.timeout(600)]


def _place(up: RunningUp) -> RunRecord | None:
    record = find_running(up.directory)
    return record if record is not None and record.api_port is not None else None


def test_a_picture_published_over_http_is_analysed_and_the_api_may_die_meanwhile(
    up: RunningUp, photos: Path
) -> None:
    record = until("the API runs", lambda: _place(up), 240)
    assert record is not None
    address = f"http://{record.api_host}:{record.api_port}"
    assert f"console     {address}/\n" in up.output.read_text()
    with httpx.Client(base_url=address, trust_env=False, timeout=120) as client:
        stores = client.get("/readyz").json()["stores"]
        assert stores == {"kafka": "ok", "clickhouse": "ok", "qdrant": "ok"}
        with (photos / "sign.png").open("rb") as picture:
            made = client.post(
                "/v1/images?wait=60s",
                files={"picture": picture},
                data={"feed": "over-http", "id": "over-http/1"},
            ).json()
        assert made["failure"] is None
        assert "Leeds" in " ".join(line["text"] for line in made["findings"]["texts"])

        def stored() -> list[str]:
            found = client.get("/v1/images", params={"feed": "over-http"}).json()["images"]
            return [image["image_id"] for image in found]

        assert until("its row", stored, 60) == ["over-http/1"]

        api = up.child("imagewire serve")
        assert api is not None
        api.kill()
        api.wait(60)

        def back() -> bool:
            try:
                return client.get("/healthz").status_code == 200
            except httpx.TransportError:
                return False

        until("the API is back", back, 120)
    assert up.process is not None
    assert up.process.poll() is None
    assert up.health()["status"] == "ok"
