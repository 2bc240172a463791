"""ClickHouse's HTTP dialect: bodies, compression, and how errors are told."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping

import lz4.frame  # type: ignore[import-untyped]
from aiohttp import web

from imagewire.embedded.clickhouse_engine import EngineError

_HTTP_STATUS: Mapping[int, int] = {
    36: 400, 47: 404, 48: 501, 60: 404, 62: 400, 73: 400, 81: 404, 115: 404, 131: 413, 159: 408,
    164: 403, 194: 401, 202: 429, 241: 500, 457: 400, 497: 403, 516: 403,
}  # fmt: skip
_TOO_LARGE = 131
_ENCODERS: Mapping[str, Callable[[bytes], bytes]] = {
    "lz4": lz4.frame.compress,
    "gzip": lambda data: gzip.compress(data, 1),
}


async def read_body(http: web.Request, fields: dict[str, str], most_bytes: int) -> bytes:
    """The request's body; parts of a form are put into `fields`, as large parameters come so.

    Args:
        most_bytes: of the body, also when it is compressed: a statement of a few kilobytes could
            else take the engine's memory.

    Raises:
        EngineError: it is too large, or not what it says.
    """
    http = http.clone(client_max_size=most_bytes)
    try:
        return await _read(http, fields, most_bytes)
    except web.HTTPRequestEntityTooLarge as error:
        raise EngineError(
            _TOO_LARGE, f"the body has more than {most_bytes} bytes. (TOO_LARGE_STRING_SIZE)"
        ) from error


async def _read(http: web.Request, fields: dict[str, str], most_bytes: int) -> bytes:
    if http.content_type == "multipart/form-data":
        for name, value in (await http.post()).items():
            if isinstance(value, web.FileField):
                raise EngineError(
                    48,
                    "external data is not supported by the embedded engine's front. "
                    "(NOT_IMPLEMENTED)",
                )
            fields[name] = value if isinstance(value, str) else bytes(value).decode()
        return b""
    body = await http.read()
    encoding = http.headers.get("Content-Encoding", "")
    if encoding == "lz4":  # aiohttp itself undoes gzip, deflate, br and zstd
        frames = lz4.frame.LZ4FrameDecompressor()
        try:
            body = bytes(frames.decompress(body, max_length=most_bytes + 1))
        except RuntimeError as error:
            raise EngineError(36, f"the body is not lz4: {error}. (BAD_ARGUMENTS)") from error
        if len(body) > most_bytes:
            raise web.HTTPRequestEntityTooLarge(most_bytes, len(body))
        if not frames.eof:
            raise EngineError(36, "the body is not lz4: it ends too early. (BAD_ARGUMENTS)")
    return body


def error_response(error: EngineError, query_id: str) -> web.Response:
    """ClickHouse's refusal, as its HTTP interface tells it."""
    return web.Response(
        status=_HTTP_STATUS.get(error.code, 500),
        text=f"{error}\n",
        headers={
            "X-ClickHouse-Exception-Code": str(error.code),
            "X-ClickHouse-Query-Id": query_id,
        },
    )


def encoded(data: bytes, accepted: str) -> tuple[bytes, str | None]:
    """`data` in the first encoding of the header `accepted` that is known, and its name."""
    for name in (part.partition(";")[0].strip() for part in accepted.split(",")):
        if name in _ENCODERS:
            return _ENCODERS[name](data), name
    return data, None
