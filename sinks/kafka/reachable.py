"""Why no broker could be reached, which aiokafka only logs.

A client that finds no broker says "unable to bootstrap", whether a host is down or the password is
wrong. The first passes and the second does not, so one more connection is made to learn which.
"""

from __future__ import annotations

from typing import Any

from aiokafka import errors
from aiokafka.conn import create_conn
from aiokafka.protocol.metadata import MetadataRequest

from sinks.kafka.errors import as_sink_error
from sinks.kafka.settings import KafkaSettings
from sinks.sink import PermanentSinkError, SinkError

_CONNECTION_OPTIONS = (
    *("client_id", "request_timeout_ms", "security_protocol", "ssl_context"),
    *("sasl_mechanism", "sasl_plain_username", "sasl_plain_password"),
    "sasl_oauth_token_provider",
)


async def connection_error(settings: KafkaSettings, error: BaseException, doing: str) -> SinkError:
    """`error`, which a client raised at its start, as one of the two kinds that callers tell apart.

    Permanent only if every broker that answers refuses who we are or cannot prove who it is.

    Args:
        settings: those of the client that failed.
        doing: what was being done and where, put before the reason.
    """
    if not isinstance(error, errors.KafkaConnectionError | errors.NodeNotReadyError):
        return as_sink_error(error, doing)
    reasons = [
        as_sink_error(reason, f"{doing} ({server})")
        for server in settings.client_options()["bootstrap_servers"]
        if (reason := await _reason(settings, server)) is not None
    ]
    refusals = [reason for reason in reasons if isinstance(reason, PermanentSinkError)]
    if refusals and not any(reason not in refusals for reason in reasons):
        return refusals[0]
    return reasons[0] if reasons else as_sink_error(error, doing)


async def _reason(settings: KafkaSettings, server: str) -> Exception | None:
    """What one broker does to a new connection; `None` if it is well."""
    options: dict[str, Any] = settings.client_options()
    host, _, port = server.rpartition(":")
    try:
        connection = await create_conn(
            host.strip("[]"),
            int(port),
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
