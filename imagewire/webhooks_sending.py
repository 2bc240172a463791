"""Posts one signed message to one receiver, and says what came of it.

The address was written by an operator, but names and redirects belong to others: it goes by the
same rules as a fetched reference. Only public addresses, the one that was checked is the one that
is connected to, redirects are not followed, no proxy of the environment is used, and of the answer
no more than a few kilobytes are read. The signature is that of the Standard Webhooks specification.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ssl
import time
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Literal, Self

import aiohttp
import yarl
from aiohttp.abc import AbstractResolver

from imagewire.webhooks_settings import WebhookSettings
from streams.addresses import AddressRules, CheckedResolver, ForbiddenAddressError

ID_HEADER, TIME_HEADER, SIGNATURE_HEADER = (
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
)
_MOST_ANSWER_BYTES = 16 * 1024
_MOST_RETRY_AFTER = 3600.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of one attempt.

    Attributes:
        outcome: `delivered`, `again` (try later) or `gone` (the receiver wants no more).
        detail: for people; holds neither the secret nor the path of the address.
        retry_after: seconds that the receiver asked to wait, if it said so.
    """

    outcome: Literal["delivered", "again", "gone"]
    detail: str
    retry_after: float | None = None


def signature(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """The header `webhook-signature`: `v1,` and the base64 of HMAC-SHA256 over
    `ID.TIMESTAMP.BODY` (https://www.standardwebhooks.com)."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


class WebhookSender:
    """Connections to one receiver; an async context manager.

    Args:
        resolver: looks names up, the system's by default; its answers are checked.

    Raises:
        WebhookSecretError: there is no usable secret.
    """

    def __init__(self, settings: WebhookSettings, resolver: AbstractResolver | None = None) -> None:
        self._settings = settings
        self._key = settings.key()
        self._rules = AddressRules(settings.allow_networks)
        self._resolver = CheckedResolver(self._rules, resolver)
        self._url = yarl.URL(settings.url.get_secret_value())
        self._session: aiohttp.ClientSession | None = None

    @property
    def host(self) -> str:
        """The receiver, for messages: its path and query may hold secrets of its own."""
        return f"{self._url.scheme}://{self._url.host}:{self._url.port}"

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._settings.concurrency, resolver=self._resolver, ttl_dns_cache=30
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=self._settings.timeout),
            headers={"User-Agent": "imagewire", "Content-Type": "application/json"},
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None
        await self._resolver.close()

    async def send(self, message_id: str, body: bytes) -> Attempt:
        """Post `body` once. Never raises for what the receiver or the network does."""
        if self._session is None:
            raise RuntimeError("WebhookSender is to be entered before it sends")
        timestamp = int(time.time())
        headers = {
            ID_HEADER: message_id,
            TIME_HEADER: str(timestamp),
            SIGNATURE_HEADER: signature(self._key, message_id, timestamp, body),
        }
        try:
            # The resolver is not asked for hosts that are addresses themselves.
            self._rules.check_literal(self._url.raw_host or "")
            async with self._session.post(
                self._url, data=body, headers=headers, allow_redirects=False
            ) as response:
                await response.content.read(_MOST_ANSWER_BYTES)
                if not response.content.at_eof():
                    # Whatever else it has to say: the connection is not worth keeping.
                    response.close()
                return self._judged(response)
        except TimeoutError:
            return Attempt(
                "again", f"{self.host} did not answer within {self._settings.timeout:g} s"
            )
        except ForbiddenAddressError as error:
            return self._forbidden(error)
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, ForbiddenAddressError):
                return self._forbidden(error.os_error)
            return Attempt(
                "again", f"{self.host} cannot be reached: {type(error.os_error).__name__}"
            )
        except (aiohttp.ClientError, ssl.SSLError, OSError, ValueError) as error:
            # Their texts may hold the whole address.
            return Attempt("again", f"{self.host} cannot be posted to: {type(error).__name__}")

    def _forbidden(self, error: ForbiddenAddressError) -> Attempt:
        text = str(error).replace("fetch.allow_networks", "the webhook's allow_networks")
        return Attempt("again", text)

    def _judged(self, response: aiohttp.ClientResponse) -> Attempt:
        status = response.status
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            return Attempt("delivered", f"{self.host} answered {status}")
        if status == HTTPStatus.GONE:
            return Attempt("gone", f"{self.host} answered 410: it wants no more of this")
        if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
            return Attempt(
                "again", f"{self.host} answered {status}; redirects are not followed, name the "
                "final address",
            )  # fmt: skip
        return Attempt(
            "again", f"{self.host} answered {status}", _seconds(response.headers.get("Retry-After"))
        )


def _seconds(text: str | None) -> float | None:
    """Of Retry-After in its form of seconds; dates are rare and not worth trusting a clock for."""
    if text is None or not text.strip().isdigit() or len(text) > 9:
        return None
    return min(float(text), _MOST_RETRY_AFTER)
