"""Qdrant's embedded engine behind Qdrant's own gRPC API, in a process of its own.

    python -m imagewire.embedded.qdrant_front --path DIR --port 6334

The engine holds Python's lock while it searches and indexes, so it must not live beside the models;
and behind the API that a Qdrant server speaks, the worker, `imagewire search` and any qdrant-client
(`prefer_grpc=True`) use one and the same code against either. Only gRPC is served, on loopback
unless told otherwise, and only to those who hold the API key.
"""

from __future__ import annotations

import argparse
import hmac
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from imagewire.embedded.qdrant_api import METHODS, Method, timed
from imagewire.embedded.qdrant_collections import CollectionStore, StorageLockedError, optimize
from imagewire.embedded.qdrant_convert import RequestError, unsupported

log = logging.getLogger("imagewire.embedded.qdrant")

API_KEY_VARIABLE = "IMAGEWIRE_QDRANT_API_KEY"
LARGEST_MESSAGE_BYTES = 64 * 1024 * 1024
PARENT_CHECK_S = 1.0
DRAIN_S = 5.0
FLUSH_INTERVAL_S = 5.0
"""For writes that did not wait; a Qdrant server's default."""


class QdrantFront(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Checks the API key, finds the method, and turns errors into gRPC statuses."""

    def __init__(self, store: CollectionStore, api_key: str) -> None:
        self._store = store
        self._api_key = api_key.encode()

    def service(self, handler_call_details: Any) -> Any:
        metadata = dict(handler_call_details.invocation_metadata or ())
        given = str(metadata.get("api-key", ""))
        bearer = str(metadata.get("authorization", ""))
        if not given and bearer.lower().startswith("bearer "):
            given = bearer[len("bearer ") :]
        if not hmac.compare_digest(given.encode(), self._api_key):
            return _refusing(grpc.StatusCode.UNAUTHENTICATED, "Invalid or missing API key")
        name = handler_call_details.method
        if name not in METHODS:
            refusal = unsupported(f"the method {name}")
            return _refusing(refusal.code, str(refusal))
        request_type, method = METHODS[name]
        return grpc.unary_unary_rpc_method_handler(
            self._answering(name, timed(method)),
            request_deserializer=request_type.FromString,
            response_serializer=lambda response: response.SerializeToString(),
        )

    def _answering(self, name: str, method: Method) -> Callable[[Any, Any], Any]:
        def answer(request: Any, context: Any) -> Any:
            try:
                return method(self._store, request)
            except RequestError as error:
                context.abort(error.code, str(error))
            except Exception as error:
                # The engine raises bare exceptions. Those that begin so are its own trouble (a full
                # disk, a closed shard); the others complain about the request.
                trouble = str(error).startswith(("Service", "IO", "Out of"))
                if trouble or type(error) is not Exception:
                    log.exception("%s failed", name)
                    context.abort(grpc.StatusCode.INTERNAL, str(error))
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

        return answer


def _refusing(code: grpc.StatusCode, message: str) -> Any:
    def refuse(request: bytes, context: Any) -> None:
        context.abort(code, message)

    return grpc.unary_unary_rpc_method_handler(refuse)


def serve(store: CollectionStore, host: str, port: int, api_key: str) -> tuple[Any, int]:
    """Start answering.

    Returns:
        The server, and the port it listens on (the one chosen by the system if `port` is 0).

    Raises:
        OSError: the port is taken.
    """
    # The engine does one thing at a time; more threads would only queue inside it.
    server = grpc.server(
        ThreadPoolExecutor(max_workers=4, thread_name_prefix="qdrant"),
        handlers=[QdrantFront(store, api_key)],
        options=[
            ("grpc.max_receive_message_length", LARGEST_MESSAGE_BYTES),
            ("grpc.max_send_message_length", LARGEST_MESSAGE_BYTES),
            # Two servers on one port would share its connections, and each has its own data.
            ("grpc.so_reuseport", 0),
        ],
    )
    try:
        bound = server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise OSError(f"{host}:{port} cannot be listened on: {error}") from error
    server.start()
    return server, bound


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM, SIGINT, or the end of the process that started this one.

    Returns:
        0 after a clean stop; 1 if the folder or the port is taken; 2 for wrong usage.
    """
    parser = argparse.ArgumentParser(
        prog="python -m imagewire.embedded.qdrant_front", description=str(__doc__).split("\n")[0]
    )
    parser.add_argument("--path", type=Path, required=True, help="folder with the collections")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=6334, help="gRPC port; 0 for any free one")
    parser.add_argument(
        "--api-key-variable",
        default=API_KEY_VARIABLE,
        help="environment variable with the API key that clients must show",
    )
    parser.add_argument(
        "--optimize",
        action="store_true",
        help="build search graphs for large collections (minutes), serve nothing, and end",
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    parent = os.getppid()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        if options.optimize:
            log.info("optimised: %s", ", ".join(optimize(options.path)) or "nothing to do")
            return 0
        api_key = os.environ.get(options.api_key_variable, "")
        if not api_key:
            log.error("no API key: set the environment variable %s", options.api_key_variable)
            return 2
        store = CollectionStore(options.path)
    except StorageLockedError as error:
        log.error("%s", error)
        return 1
    try:
        server, port = serve(store, options.host, options.port, api_key)
    except OSError as error:
        log.error("%s", error)
        store.close()
        return 1
    log.info("serving %s on %s:%d", options.path, options.host, port)
    flushed_at = time.monotonic()
    while not stop.wait(PARENT_CHECK_S):
        if os.getppid() != parent:
            log.info("the process that started this one is gone; stopping")
            break
        if time.monotonic() - flushed_at > FLUSH_INTERVAL_S:
            store.flush()
            flushed_at = time.monotonic()
    server.stop(DRAIN_S).wait()
    store.close()
    log.info("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
