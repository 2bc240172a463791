"""The directory that a stack lives in: who holds it, what it keeps, and where it can be reached.

    DIR/lock          held (flock) by the running `up`, with its process id
    DIR/identity.json secrets and ports, made once and kept, so that clients need not be told anew
    DIR/run.json      where the running stack answers; there only while it runs
    DIR/kafka/ clickhouse/ qdrant/ logs/

The directory is the owner's alone (0700), as are the files that hold secrets (0600).
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import tempfile
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec
import psutil

from imagewire.embedded.errors import EmbeddedError
from imagewire.embedded.ports import free_port

logger = logging.getLogger(__name__)

_Record = TypeVar("_Record")

# Process start times are read from the kernel's clock ticks; two readings may differ by a few.
_SAME_START_SECONDS = 2.0


class DataDirectoryError(EmbeddedError):
    """The data directory cannot be used."""


class DirectoryHeldError(DataDirectoryError):
    """Another process runs a stack on the directory.

    Attributes:
        pid: of that process, or None if it did not say.
        since: Unix time since when it holds the directory, or None.
    """

    def __init__(self, directory: Path, pid: int | None, since: float | None) -> None:
        self.pid = pid
        self.since = since
        who = f"process {pid}" if pid is not None else "another process"
        when = f" since {datetime.fromtimestamp(since):%Y-%m-%d %H:%M:%S}" if since else ""
        stop = f"`kill {pid}`" if pid is not None else "it"
        super().__init__(
            f"{directory} is held by {who}{when}: stop that stack (Ctrl-C there, or {stop}), or "
            "name another directory with --data"
        )


@dataclass(frozen=True)
class Holder:
    """What the lock file says of the process that holds the directory."""

    pid: int
    since: float


def _secret() -> str:
    return secrets.token_urlsafe(24)


@dataclass
class Identity:
    """What a data directory keeps for good: its secrets and, by name, its last ports."""

    writer_password: str = field(default_factory=_secret, repr=False)
    analyst_password: str = field(default_factory=_secret, repr=False)
    qdrant_api_key: str = field(default_factory=_secret, repr=False)
    ports: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class RunRecord:
    """Where a running stack answers, for the commands that look for it.

    Attributes:
        pid: of the process that runs the stack, and `started` its start as Unix time: together
            they tell a living stack from a record that a crash left behind.
        broker: "apache", "tansu" or "external", at `broker_address` (HOST:PORT).
        worker_http_port: of `/metrics` and `/healthz`; None as long as no worker runs.
        pids: child name to process id at the time of writing.
        file_roots: folders that the worker may read `file:` references from.
        api_host, api_port: of the HTTP API and the console; None as long as it does not run.
        sql_port: of ClickHouse's interface for the user's own clients; None unless asked for.
    """

    pid: int
    started: float
    broker: str
    broker_address: str
    clickhouse_host: str
    clickhouse_port: int
    qdrant_host: str
    qdrant_port: int
    writer_user: str = "writer"
    writer_password: str = field(default="", repr=False)
    analyst_user: str = "analyst"
    analyst_password: str = field(default="", repr=False)
    qdrant_api_key: str = field(default="", repr=False)
    worker_http_port: int | None = None
    pids: dict[str, int] = field(default_factory=dict)
    file_roots: list[str] = field(default_factory=list)
    api_host: str | None = None
    api_port: int | None = None
    sql_port: int | None = None

    @property
    def alive(self) -> bool:
        """Whether the process that wrote this still runs; its number may have been reused."""
        try:
            started = float(psutil.Process(self.pid).create_time())
        except psutil.NoSuchProcess:
            return False
        return abs(started - self.started) < _SAME_START_SECONDS


class DataDirectory:
    """A stack's directory, held exclusively between `acquire` and `release`.

    The lock belongs to the open file: it is gone when the process is, however that ended, and
    children do not inherit it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.kafka = self.path / "kafka"
        self.clickhouse = self.path / "clickhouse"
        self.qdrant = self.path / "qdrant"
        self.logs = self.path / "logs"
        self._lock: IO[bytes] | None = None
        self._identity: Identity | None = None

    def acquire(self) -> None:
        """Create the directory if need be and hold it.

        Raises:
            DirectoryHeldError: another process holds it; the message says which.
            DataDirectoryError: it cannot be created, or belongs to somebody else.
        """
        if self._lock is not None:
            return
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.chmod(0o700)  # also of a directory that was there, or under a lax umask
            lock = os.fdopen(
                os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b"
            )
        except OSError as error:
            raise DataDirectoryError(
                f"{self.path} cannot be used as data directory: {error.strerror}; name another "
                "with --data"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(lock)
            lock.close()
            raise DirectoryHeldError(
                self.path,
                holder.pid if holder else None,
                holder.since if holder else None,
            ) from None
        try:
            lock.truncate(0)
            lock.write(msgspec.json.encode(Holder(os.getpid(), time.time())))
            lock.flush()
            for directory in (self.kafka, self.clickhouse, self.qdrant, self.logs):
                directory.mkdir(mode=0o700, exist_ok=True)
            # A record that is there now was left by a crash.
            (self.path / "run.json").unlink(missing_ok=True)
        except OSError as error:
            lock.close()
            raise DataDirectoryError(
                f"{self.path} cannot be used as data directory: {error}; mend that or name "
                "another with --data"
            ) from error
        self._lock = lock

    def release(self) -> None:
        """Withdraw the run record and let others have the directory."""
        if self._lock is None:
            return
        try:
            (self.path / "run.json").unlink(missing_ok=True)
            self._lock.truncate(0)
        except OSError as error:
            # A folder that turned read-only keeps the record; the next to hold it removes it.
            logger.warning("%s keeps its run record: %s", self.path, error)
        self._lock.close()
        self._lock = None
        self._identity = None

    @property
    def identity(self) -> Identity:
        """The secrets and ports kept here, made at the first reading. Only while held.

        Raises:
            DataDirectoryError: the file is damaged.
        """
        self._require_held()
        if self._identity is None:
            file = self.path / "identity.json"
            if file.exists():
                self._identity = _read(file, Identity)
            else:
                self._identity = Identity()
                _write(file, self._identity)
        return self._identity

    def port(self, name: str, wanted: int | None = None) -> int:
        """The port of the part called `name`: `wanted` (0: any free one), else the last one, else a
        free one.

        Raises:
            DataDirectoryError: `wanted` is taken by another program.
        """
        identity = self.identity
        port = free_port(identity.ports.get(name) if wanted is None else wanted or None)
        if wanted and port != wanted:
            raise DataDirectoryError(
                f"port {wanted} for {name} is taken by another program (`ss -ltnp` shows which); "
                "name another port, or none to have one chosen"
            )
        if identity.ports.get(name) != port:
            identity.ports[name] = port
            _write(self.path / "identity.json", identity)
        return port

    def publish(self, record: RunRecord) -> None:
        """Write `run.json`, which `find_running` reads. Only while held."""
        self._require_held()
        _write(self.path / "run.json", record)

    def _require_held(self) -> None:
        if self._lock is None:
            raise DataDirectoryError(f"{self.path} is not held: call acquire() first")


def find_running(path: Path) -> RunRecord | None:
    """The stack that runs on the directory, or None if none does.

    A record that a crashed stack left behind counts as none.

    Raises:
        DataDirectoryError: the record cannot be read: it is damaged or belongs to somebody else.
    """
    try:
        record = _read(path / "run.json", RunRecord)
    except FileNotFoundError:
        return None
    return record if record.alive else None


def own_start_time() -> float:
    """When this process started, for `RunRecord.started`."""
    return float(psutil.Process().create_time())


def _holder(lock: IO[bytes]) -> Holder | None:
    try:
        return msgspec.json.decode(lock.read(), type=Holder)
    except msgspec.DecodeError:  # it holds the lock but has not written yet
        return None


def _read(file: Path, kind: type[_Record]) -> _Record:
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except FileNotFoundError:
        raise
    except (OSError, msgspec.DecodeError) as error:
        raise DataDirectoryError(
            f"{file} cannot be read: {error}; if no stack runs on {file.parent}, remove that file "
            "(a new one is made at the next start)"
        ) from error


def _write(file: Path, record: Any) -> None:
    """Replace the file as a whole: a reader sees the old one or the new one, never a half."""
    # mkstemp creates with mode 0600.
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)
    try:
        with os.fdopen(descriptor, "wb") as temporary:
            temporary.write(msgspec.json.format(msgspec.json.encode(record), indent=2))
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
