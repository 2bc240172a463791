"""Opens clickhouse-connect clients and says which of their errors may pass.

The same client class serves a server, the embedded engine's front and the engine in process; only
the arguments differ.
"""

from __future__ import annotations

import ipaddress
import os
from typing import TYPE_CHECKING, Any

import clickhouse_connect
from clickhouse_connect.driver import exceptions

from sinks.clickhouse.directory_lock import holding_process
from sinks.clickhouse.settings import ClickHouseSettings

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

TRANSIENT_CODES = frozenset(
    {
        # A disk that is full, failing or read-only is no fault of the rows.
        74,  # CANNOT_READ_FROM_FILE_DESCRIPTOR
        75,  # CANNOT_WRITE_TO_FILE_DESCRIPTOR
        76,  # CANNOT_OPEN_FILE
        77,  # CANNOT_CLOSE_FILE
        88,  # CANNOT_TRUNCATE_FILE
        159,  # TIMEOUT_EXCEEDED
        202,  # TOO_MANY_SIMULTANEOUS_QUERIES
        209,  # SOCKET_TIMEOUT
        210,  # NETWORK_ERROR
        241,  # MEMORY_LIMIT_EXCEEDED
        242,  # TABLE_IS_READ_ONLY
        243,  # NOT_ENOUGH_SPACE
        252,  # TOO_MANY_PARTS
        319,  # UNKNOWN_STATUS_OF_INSERT
    }
)
"""ClickHouse error codes after which the same statement may succeed later."""

_STD_EXCEPTION = 1001
_FILESYSTEM_ERROR = "filesystem error"
"""What the C++ library calls it when a directory cannot be made; ClickHouse has no code for it."""

ACCESS_CODES = frozenset(
    {
        192,  # UNKNOWN_USER
        193,  # WRONG_PASSWORD
        194,  # REQUIRED_PASSWORD
        195,  # IP_ADDRESS_NOT_ALLOWED
        497,  # ACCESS_DENIED
        516,  # AUTHENTICATION_FAILED
    }
)
"""ClickHouse error codes that say that this user may not."""

_LONGEST_MESSAGE = 600


def connect(
    settings: ClickHouseSettings, database: str | None = None, answer_timeout: float | None = None
) -> Client:
    """A client for `settings`, connected and ready.

    Args:
        database: where unqualified names are looked up; it must exist.
        answer_timeout: seconds to wait for an answer, if not `settings.send_receive_timeout`.

    Raises:
        clickhouse_connect.driver.exceptions.Error: it cannot be reached, or refuses the user.
    """
    if settings.interface == "chdb":
        if settings.path is not None:
            holder = holding_process(settings.path)
            if holder not in (None, str(os.getpid())):
                raise exceptions.ProgrammingError(
                    f"the data in {settings.path} is in use by process {holder}; stop that process "
                    "or set clickhouse.path to another directory"
                )
        return clickhouse_connect.get_client(
            interface="chdb",
            path=str(settings.path),
            database=database,
            chdb_options={
                "max_server_memory_usage": settings.max_memory,
                "mark_cache_size": min(settings.max_memory // 10, 128 << 20),
            },
        )
    transport: dict[str, Any] = {}
    if settings.ca_cert is not None:
        transport["ca_cert"] = str(settings.ca_cert)
    return clickhouse_connect.get_client(
        interface="https" if settings.secure else "http",
        host=settings.host,
        port=settings.port,
        username=settings.username,
        password=settings.password.get_secret_value(),
        # Named always: without it the server looks for a database that may not exist yet.
        database=database or "default",
        verify=settings.verify,
        connect_timeout=settings.connect_timeout,
        send_receive_timeout=answer_timeout or settings.send_receive_timeout,
        # Compressing for the loopback interface only burns processor time.
        compress=False if _is_loopback(settings.host) else "lz4",
        # A session allows one statement at a time and nothing here needs its state.
        autogenerate_session_id=False,
        client_name="imagewire",
        **transport,
    )


def is_transient(error: Exception) -> bool:
    """Whether the same statement may succeed later."""
    if isinstance(error, exceptions.DatabaseError):
        if error.code is not None:
            return _may_pass(error.code, error)
        # Without a code it is the network or a proxy, unless the driver refused the data itself.
        return not isinstance(
            error, exceptions.ProgrammingError | exceptions.DataError | exceptions.NotSupportedError
        )
    if isinstance(error, exceptions.StreamFailureError):
        return error.code is None or _may_pass(error.code, error)
    return isinstance(error, ConnectionError | TimeoutError)


def _may_pass(code: int, error: Exception) -> bool:
    return code in TRANSIENT_CODES or (code == _STD_EXCEPTION and _FILESYSTEM_ERROR in str(error))


def engine_message(error: Exception) -> str:
    """The engine's own message in one line, without version and stack, at most 600 characters."""
    message = " ".join(exceptions.scrub_error_details(str(error)).split())
    if len(message) > _LONGEST_MESSAGE:
        message = message[: _LONGEST_MESSAGE - 1] + "…"
    return message or type(error).__name__


def place(settings: ClickHouseSettings) -> str:
    """Where ClickHouse is, for messages."""
    if settings.interface == "chdb":
        return str(settings.path)
    return f"{settings.host}:{settings.port}"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
