"""The client for Qdrant, and which of its errors may pass."""

from __future__ import annotations

import ipaddress
import logging
import warnings

import grpc
from qdrant_client import AsyncQdrantClient
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from sinks.qdrant.settings import QdrantSettings
from sinks.sink import AccessSinkError, PermanentSinkError, SinkError, TransientSinkError

log = logging.getLogger(__name__)

ERRORS = (
    grpc.aio.AioRpcError,
    ResponseHandlingException,
    UnexpectedResponse,
    ResourceExhaustedResponse,
    OSError,
)
"""What a call of the client may raise."""

_PERMANENT_CODES = {
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNIMPLEMENTED,
}
_ACCESS_CODES = {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED}


def connect(settings: QdrantSettings) -> AsyncQdrantClient:
    """A client for the running event loop; it connects at its first request."""
    insecure = settings.api_key is not None and not settings.https
    if insecure and not _is_loopback(settings.host):
        log.warning("the Qdrant API key travels unencrypted to %s; set qdrant.https", settings.host)
    with warnings.catch_warnings():
        # The client would say the same of loopback addresses.
        warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
        return AsyncQdrantClient(
            host=settings.host,
            port=settings.port,
            https=settings.https,
            grpc_port=settings.grpc_port,
            prefer_grpc=settings.prefer_grpc,
            api_key=None if settings.api_key is None else settings.api_key.get_secret_value(),
            timeout=settings.timeout,
            # The check asks the REST API, which the embedded engine does not have.
            check_compatibility=False,
            grpc_options={
                # gRPC's own ceiling is 2 minutes, long after Qdrant has come back.
                "grpc.initial_reconnect_backoff_ms": 200,
                "grpc.max_reconnect_backoff_ms": 2000,
            },
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_not_found(error: BaseException) -> bool:
    """Whether Qdrant said that a collection or a point is not there."""
    if isinstance(error, grpc.aio.AioRpcError):
        return bool(error.code() is grpc.StatusCode.NOT_FOUND)
    return isinstance(error, UnexpectedResponse) and error.status_code == 404


def is_conflict(error: BaseException) -> bool:
    """Whether Qdrant said that a collection is there already."""
    if isinstance(error, grpc.aio.AioRpcError):
        return bool(error.code() is grpc.StatusCode.ALREADY_EXISTS)
    return isinstance(error, UnexpectedResponse) and error.status_code == 409


def as_sink_error(error: BaseException, doing: str) -> SinkError:
    """`error` as one of the two kinds that callers tell apart.

    Args:
        error: what the client raised.
        doing: what was being done and where, put before the reason.
    """
    if isinstance(error, ResourceExhaustedResponse):
        return TransientSinkError(
            f"{doing}: Qdrant is overloaded ({error.message})", float(error.retry_after_s)
        )
    if isinstance(error, grpc.aio.AioRpcError):
        text = f"{doing}: {error.code().name}: {error.details()}"
        if error.code() in _ACCESS_CODES:
            return AccessSinkError(f"{text}; correct qdrant.api_key")
        if error.code() in _PERMANENT_CODES:
            return PermanentSinkError(text)
        return TransientSinkError(text)
    if isinstance(error, UnexpectedResponse):
        status = error.status_code or 0
        text = f"{doing}: HTTP {status} {error.reason_phrase}"
        if status >= 500 or status in (408, 425, 429):
            return TransientSinkError(text)
        if status in (401, 403):
            return AccessSinkError(f"{text}; correct qdrant.api_key")
        return PermanentSinkError(text)
    return TransientSinkError(f"{doing}: {type(error).__name__}: {error}")
