"""Peer, first half: a LitServe server that batches what is posted to it.

An image is posted as base64 within JSON, which is how LitServe's own examples do it. LitServe
decodes requests one after the other in its inference process, which is where pictures are decoded.
"""

# Without the future import of annotations: LitServe takes a request's type from the annotation.
import argparse
import base64
import os
import signal
import threading
import time
from typing import Any

import litserve
import msgspec
from starlette.responses import Response

from bench.peers.task import BATCH, Eyes, read_settings
from operators.frame import Frame, Origin

BATCH_TIMEOUT = 0.02
"""Seconds that LitServe waits for a batch to fill. Its tutorials use 0.01 to 0.05; 0.2, which the
other peers have, would be waited for at every batch that does not fill."""


class Looking(litserve.LitAPI):
    """Runs the operators over batches of posted images."""

    def setup(self, device: str) -> None:
        self._eyes = Eyes(read_settings())

    def decode_request(self, request: dict[str, Any]) -> Frame:
        return Frame(
            image_id=request["id"],
            feed=request["feed"],
            event_time_ms=0,
            origin=Origin("", 0, 0, 0),
            content=base64.b64decode(request["image"]),
        )

    def batch(self, inputs: list[Frame]) -> list[Frame]:
        return inputs

    def predict(self, x: list[Frame]) -> list[Frame]:
        self._eyes.look(x)
        return x

    def unbatch(self, output: list[Frame]) -> list[Frame]:
        return output

    def encode_response(self, output: Frame) -> Response:
        # A response of its own spares FastAPI's slow walk over 1280 numbers.
        body = {"findings": output.findings, "failure": output.failure}
        return Response(msgspec.json.encode(body), media_type="application/json")


def end_with_parent(parent: int) -> None:
    """Kill this process group once `parent` is gone: LitServe's processes would outlive a client
    that was killed."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    threading.Thread(target=end_with_parent, args=(os.getppid(),), daemon=True).start()
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    api = Looking(max_batch_size=BATCH, batch_timeout=BATCH_TIMEOUT)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=120)
    server.run(host="127.0.0.1", port=port, log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    main()
