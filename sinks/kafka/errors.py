"""Which Kafka errors may pass and which will not.

aiokafka marks the errors that it retries by itself; those that reach us have outlived its patience
but may still pass. The rest is sorted here, since a wrong guess either loops for ever on a record
that can never be written or turns a restart of the broker into dead letters.
"""

from __future__ import annotations

import ssl

from aiokafka import errors

from sinks.sink import AccessSinkError, PermanentSinkError, SinkError, TransientSinkError

TOO_LARGE = (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError)

_ACCESS = (
    errors.AuthenticationFailedError,
    errors.AuthenticationMethodNotSupported,
    errors.ClusterAuthorizationFailedError,
    errors.GroupAuthorizationFailedError,
    errors.IllegalSaslStateError,
    errors.SaslAuthenticationFailed,
    errors.SecurityDisabled,
    errors.TopicAuthorizationFailedError,
    errors.UnsupportedSaslMechanismError,
    ssl.SSLCertVerificationError,
)
_CONFIGURATION = (
    errors.IncompatibleBrokerVersion,
    errors.InvalidConfigurationError,
    errors.InvalidPartitionsError,
    errors.InvalidReplicationAssignmentError,
    errors.InvalidReplicationFactorError,
    errors.InvalidRequestError,
    errors.InvalidRequiredAcksError,
    errors.InvalidTopicError,
    errors.KafkaConfigurationError,
    errors.PolicyViolationError,
    errors.UnsupportedCodecError,
    errors.UnsupportedForMessageFormatError,
    errors.UnsupportedVersionError,
    ValueError,
    TypeError,
)


def as_sink_error(error: BaseException, doing: str) -> SinkError:
    """`error` as one of the two kinds that callers tell apart.

    Args:
        error: what aiokafka raised.
        doing: what was being done and where, put before the reason.
    """
    reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, TOO_LARGE):
        return PermanentSinkError(
            f"{doing}: the record is larger than the broker accepts ({reason}); "
            "raise message.max.bytes (broker) or max.message.bytes (topic), "
            "and kafka.max_record_bytes"
        )
    if isinstance(error, errors.InvalidTimestampError):
        # Kafka takes no record from more than an hour ahead of its own clock.
        return TransientSinkError(
            f"{doing}: {reason}; the clock of this machine or that of the broker is wrong, set it "
            "right"
        )
    if isinstance(error, _ACCESS):
        return AccessSinkError(f"{doing}: {reason}; correct the [kafka] settings")
    if isinstance(error, _CONFIGURATION):
        return PermanentSinkError(f"{doing}: {reason}; correct the [kafka] settings")
    return TransientSinkError(f"{doing}: {reason}")
