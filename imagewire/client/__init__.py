"""A typed client of Imagewire's HTTP API, synchronous and for asyncio.

from imagewire.client import Imagewire

with Imagewire() as wire:
    print(wire.publish(Path("bus.jpg"), wait=5).findings)
"""

from __future__ import annotations

from imagewire.client.asynchronous import AsyncImagewire
from imagewire.client.errors import (
    ApiError,
    ImagewireError,
    InvalidRequestError,
    NotAllowedError,
    NotFoundError,
    SqlError,
    TooManyRequestsError,
    UnavailableError,
    UnreachableError,
)
from imagewire.client.synchronous import Imagewire

__all__ = [
    "ApiError",
    "AsyncImagewire",
    "Imagewire",
    "ImagewireError",
    "InvalidRequestError",
    "NotAllowedError",
    "NotFoundError",
    "SqlError",
    "TooManyRequestsError",
    "UnavailableError",
    "UnreachableError",
]
