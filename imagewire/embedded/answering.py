"""Whether a child of the stack answers, asked as its clients will ask."""

from __future__ import annotations

import grpc
import httpx
from pydantic import SecretStr


async def http_ok(url: str, key: SecretStr | None = None) -> bool:
    """Whether `url` answers 200."""
    headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key is not None else {}
    # trust_env=False: a proxy of the user's has no business on the loopback address. verify=False:
    # there is no TLS, and loading certificates would take 30 ms of processor time at each look.
    async with httpx.AsyncClient(
        trust_env=False,
        verify=False,  # noqa: S501 - plain HTTP
        timeout=2.0,
        headers=headers,
    ) as client:
        try:
            return (await client.get(url)).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False


async def grpc_answers(address: str, api_key: str) -> bool:
    """Whether Qdrant's gRPC service at `address` answers its health check.

    The request has no fields, so it is zero bytes long, and the answer need not be read.
    """
    options = [("grpc.enable_http_proxy", 0)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        check = channel.unary_unary("/qdrant.Qdrant/HealthCheck")
        try:
            await check(b"", metadata=(("api-key", api_key),), timeout=2.0)
        except grpc.aio.AioRpcError:
            return False
    return True
