"""Why no broker could be reached, which aiokafka only logs.

A client that finds no broker says "unable to bootstrap", whether a host is down or the password is
wrong. The first passes and the second does not, so one more connection is made to learn which.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka import errors
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.protocol.metadata import MetadataRequest

from sinks.kafka.errors import as_sink_error
from sinks.kafka.settings import KafkaSettings
from sinks.sink import PermanentSinkError, SinkError, TransientSinkError

_CONNECTION_OPTIONS = (
    *("client_id", "request_timeout_ms", "security_protocol", "ssl_context"),
    *("sasl_mechanism", "sasl_plain_username", "sasl_plain_password"),
    "sasl_oauth_token_provider",
)


async def connection_error(settings: KafkaSettings, error: BaseException, doing: str) -> SinkError:
    """`error`, which a client raised at its start, as one of the two kinds that callers tell apart.

    Permanent only if every broker refuses who we are or cannot prove who it is.

    Args:
        settings: those of the client that failed.
        doing: what was being done and where, put before the reason.
    """
    if not isinstance(error, errors.KafkaConnectionError | errors.NodeNotReadyError):
        return as_sink_error(error, doing)
    servers = collect_hosts(settings.client_options()["bootstrap_servers"])
    reasons = await asyncio.gather(*(_reason(settings, host, port) for host, port, _ in servers))
    found = [
        as_sink_error(reason, f"{doing} ({host}:{port})")
        for (host, port, _), reason in zip(servers, reasons, strict=True)
        if reason is not None
    ]
    refusals = [each for each in found if isinstance(each, PermanentSinkError)]
    if refusals and len(refusals) == len(servers):
        return refusals[0]
    passing = [each for each in found if isinstance(each, TransientSinkError)]
    return passing[0] if passing else TransientSinkError(str(as_sink_error(error, doing)))


async def _reason(settings: KafkaSettings, host: str, port: int) -> Exception | None:
    """What one broker does to a new connection; `None` if it is well."""
    options: dict[str, Any] = settings.client_options()
    try:
        connection = await create_conn(
            host,
            port,
            **{name: options[name] for name in _CONNECTION_OPTIONS if name in options},
        )
        try:
            metadata = await connection.send(MetadataRequest([]))
            if not metadata.brokers and settings.sasl_mechanism == "OAUTHBEARER":
                # A broker answers a wrong token with a message of its own, which aiokafka 0.14
                # takes for consent, and then ends the exchange with an empty answer.
                raise errors.SaslAuthenticationFailed(
                    "Authentication failed: the broker does not accept the bearer token"
                )
        finally:
            connection.close()
    except (TimeoutError, errors.KafkaError, OSError, ValueError) as error:
        return error
    return None
