"""Brings the tables and views up to date: numbered SQL files, each applied once, in order.

ClickHouse has neither transactions over DDL nor locks, so two workers may apply the same file at
once, and a worker may die between two statements. Hence the rule for migration files: every
statement can run twice without harm (`IF NOT EXISTS`, `IF EXISTS`). A file that was applied is
never edited; its checksum is kept and compared.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from string import Template
from typing import TYPE_CHECKING

from sinks.clickhouse.connection import is_transient
from sinks.clickhouse.sql_lexer import split_statements
from sinks.sink import PermanentSinkError

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

logger = logging.getLogger(__name__)

RETAINED_TABLES = ("images_raw", "failures_raw")
"""Tables whose rows are deleted after the retention time."""

_FILE_NAME = re.compile(r"(\d{4})_(\w+)\.sql")
_MIGRATIONS_TABLE = """
CREATE TABLE IF NOT EXISTS ${database}.schema_migrations
(
    number     UInt32,
    name       String,
    checksum   FixedString(64),
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree(applied_at)
ORDER BY number
"""
# DDL of two workers at the same moment can collide (a table half made, a view being written): the
# statements are repeatable, so a second try settles it.
_DDL_TRIES = 5
_DDL_PAUSE_SECONDS = 0.2
_COLLISION_CODES = frozenset({57, 60, 81, 82, 107, 253, 473, 517, 529, 1001})
# TABLE_ALREADY_EXISTS, UNKNOWN_TABLE, UNKNOWN_DATABASE, DATABASE_ALREADY_EXISTS, FILE_DOESNT_EXIST,
# REPLICA_ALREADY_EXISTS, DEADLOCK_AVOIDED, CANNOT_ASSIGN_ALTER, NOT_A_LEADER, std::exception


@dataclass(frozen=True, slots=True)
class Migration:
    """A numbered file of SQL statements in which `${database}` stands for the database's name."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the file's text, 64 hex digits."""
        return hashlib.sha256(self.sql.encode()).hexdigest()

    def statements(self, database: str) -> list[str]:
        """The statements for `database`."""
        return split_statements(Template(self.sql).substitute(database=database))


def shipped_migrations() -> list[Migration]:
    """The migrations in this package, by number.

    Raises:
        ValueError: a file is misnamed or two have the same number.
    """
    found: dict[int, Migration] = {}
    for file in resources.files("sinks.clickhouse").joinpath("migrations").iterdir():
        if not file.name.endswith(".sql"):
            continue
        match = _FILE_NAME.fullmatch(file.name)
        if match is None or int(match[1]) in found:
            raise ValueError(f"migration {file.name} needs a name NNNN_what_it_does.sql of its own")
        found[int(match[1])] = Migration(int(match[1]), match[2], file.read_text("utf-8"))
    return [found[number] for number in sorted(found)]


def migrate(
    client: Client, database: str, migrations: Sequence[Migration] | None = None
) -> list[int]:
    """Apply what `database` lacks and return the numbers applied. Safe to call from two workers.

    Raises:
        PermanentSinkError: a migration that was applied has another text now.
        clickhouse_connect.driver.exceptions.Error: a statement failed.
    """
    if migrations is None:
        migrations = shipped_migrations()
    _run(client, f"CREATE DATABASE IF NOT EXISTS {database}")
    _run(client, Template(_MIGRATIONS_TABLE).substitute(database=database))
    recorded_rows = client.query(
        f"SELECT number, toString(checksum) FROM {database}.schema_migrations FINAL"  # noqa: S608
    ).result_rows
    applied: dict[int, str] = {row[0]: row[1] for row in recorded_rows}
    done: list[int] = []
    for migration in migrations:
        recorded = applied.pop(migration.number, None)
        if recorded is None:
            for statement in migration.statements(database):
                _run(client, statement)
            client.insert(
                f"{database}.schema_migrations",
                [[migration.number, migration.name, migration.checksum.encode()]],
                column_names=["number", "name", "checksum"],
                column_type_names=["UInt32", "String", "FixedString(64)"],
                settings={"async_insert": 0},
            )
            done.append(migration.number)
        elif recorded != migration.checksum:
            raise PermanentSinkError(
                f"migration {migration.number:04d}_{migration.name} was applied to database "
                f"'{database}' with another text (SHA-256 {recorded[:12]}…, now "
                f"{migration.checksum[:12]}…): restore the file and put the change into a new one"
            )
    if applied:
        logger.warning(
            "database '%s' has migrations that this version does not know (%s): a newer Imagewire "
            "wrote them; this one goes on with the tables that it knows",
            database,
            ", ".join(str(number) for number in sorted(applied)),
        )
    return done


def set_retention(client: Client, database: str, days: int) -> list[str]:
    """Make rows live for `days` (0: for ever) and return the tables that were altered.

    The time counts from when a row was written, not from the picture's event time: an archive of
    old pictures would else vanish while it is being read in.
    """
    altered: list[str] = []
    for table in RETAINED_TABLES:
        engine = str(
            client.command(
                "SELECT engine_full FROM system.tables "
                "WHERE database = {database:String} AND name = {table:String}",
                parameters={"database": database, "table": table},
            )
        )
        found = re.search(r"\bTTL toDateTime\(ingested_at\) \+ toIntervalDay\((\d+)\)", engine)
        current = int(found[1]) if found else 0
        if current == days:
            continue
        change = (
            f"MODIFY TTL toDateTime(ingested_at) + toIntervalDay({days})" if days else "REMOVE TTL"
        )
        _run(client, f"ALTER TABLE {database}.{table} {change}")
        altered.append(table)
    return altered


def _run(client: Client, statement: str) -> None:
    for attempt in range(1, _DDL_TRIES + 1):
        try:
            client.command(statement)
        except Exception as error:
            collided = getattr(error, "code", None) in _COLLISION_CODES
            if attempt == _DDL_TRIES or not (collided or is_transient(error)):
                raise
            logger.debug("statement collided with another worker's, trying again: %s", error)
            time.sleep(_DDL_PAUSE_SECONDS * attempt)
        else:
            return
