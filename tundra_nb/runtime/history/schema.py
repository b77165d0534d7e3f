"""The tables in both dialects and in Arrow, all derived from the columns of `tundra_nb.types`.

There are no secondary indexes: keys are time-ordered, so that a time window is a key range, and each index would cost
the versioned file more than it saves (each transaction rewrites its path in every index).

`meta` holds the schema's version. `spool_place` holds how far each daemon's spool has been stored, and the file's size
after the last gc. It is in `dolt_ignore`: it changes in the same transaction as the rows, but is never part of a Dolt
commit, so that merge, revert and checkout leave it alone.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Collection, Sequence
from typing import Any

from tundra_nb.types import FRAME_VERSION, KEY_OF, REPLACED_TABLES, TABLES, ColumnType, columns

from .spool import writer_id

SCHEMA_VERSION = FRAME_VERSION
MAIN = "main"
"""The branch that events go to."""
AUTHOR = "tundra_nb <tundra@localhost>"
"""Author of the commits that the worker makes by itself."""

_DOLTLITE: dict[ColumnType, str] = {
    "id": "INTEGER",
    "int": "INTEGER",
    "float": "REAL",
    "text": "TEXT",
    "long_text": "TEXT",
    "time": "INTEGER",
    "bool": "INTEGER",
    "category": "TEXT",
}
_DOLT: dict[ColumnType, str] = {
    "id": "BIGINT",
    "int": "BIGINT",
    "float": "DOUBLE",
    "text": "VARCHAR(255)",
    "long_text": "LONGTEXT",
    "time": "BIGINT",
    "bool": "TINYINT(1)",
    "category": "VARCHAR(255)",
}


def doltlite_ddl(version: int = SCHEMA_VERSION) -> list[str]:
    """Statements that make an empty doltlite file ours; an earlier version is for tests of migrations."""
    return [
        *(_create(table, _DOLTLITE, version) for table in TABLES if columns(table, version)),
        "CREATE TABLE meta (name TEXT PRIMARY KEY, content TEXT NOT NULL)",
        f"INSERT INTO meta VALUES ('schema_version', '{version}')",  # noqa: S608 - a number of ours
        "INSERT OR IGNORE INTO dolt_ignore VALUES ('spool_place', 1)",
    ]


def dolt_ddl(version: int = SCHEMA_VERSION) -> list[str]:
    """Statements that make an empty Dolt database ours."""
    return [
        *(_create(table, _DOLT, version) for table in TABLES if columns(table, version)),
        "CREATE TABLE meta (name VARCHAR(64) PRIMARY KEY, content TEXT NOT NULL)",
        f"INSERT INTO meta VALUES ('schema_version', '{version}')",  # noqa: S608 - a number of ours
        "INSERT IGNORE INTO dolt_ignore VALUES ('spool_place', 1)",
    ]


LOCAL_DDL = (
    "CREATE TABLE IF NOT EXISTS spool_place"
    " (owner VARCHAR(64) PRIMARY KEY, node INTEGER NOT NULL, segment BIGINT NOT NULL, position BIGINT NOT NULL,"
    " gc_bytes BIGINT NOT NULL)"
)
"""For both engines, at each start: a clone comes without this table, because no commit holds it."""


def filled(table: str, rows: Sequence[tuple[Any, ...]]) -> tuple[list[str], Sequence[tuple[Any, ...]]]:
    """The columns that any of the rows has a value in, or must have, and the rows without the others.

    Half of the columns are null in most rows: to leave them out halves the time to store them (on Dolt it is a third).
    """
    known = columns(table)
    if table in REPLACED_TABLES or not rows:  # there a null replaces what was
        return [column.name for column in known], rows
    values = list(zip(*rows, strict=True))
    kept = [at for at, column in enumerate(known) if not column.nullable or values[at].count(None) < len(rows)]
    return [known[at].name for at in kept], list(zip(*(values[at] for at in kept), strict=True))


def names_of(table: str, version: int = SCHEMA_VERSION) -> list[str]:
    """The columns that a table had in a version."""
    return [column.name for column in columns(table, version)]


def doltlite_insert(table: str, names: Sequence[str]) -> str:
    """Insert values of these columns; a row of a versioned table replaces the one of its key, any other must be new."""
    places = ", ".join("?" * len(names))
    text = f"INSERT INTO {table} ({', '.join(names)}) VALUES ({places})"  # noqa: S608 - names of ours
    if table not in REPLACED_TABLES:
        return text
    updates = ", ".join(f"{name} = excluded.{name}" for name in names if name != KEY_OF[table])
    return f"{text} ON CONFLICT ({KEY_OF[table]}) DO UPDATE SET {updates}"


def dolt_insert(table: str, names: Sequence[str]) -> str:
    """Like `doltlite_insert`; in the form that PyMySQL's `executemany` turns into one multi-row statement."""
    places = ", ".join(["%s"] * len(names))
    text = f"INSERT INTO {table} ({', '.join(names)}) VALUES ({places})"  # noqa: S608 - names of ours
    if table not in REPLACED_TABLES:
        return text
    updates = ", ".join(f"{name} = VALUES({name})" for name in names if name != KEY_OF[table])
    return f"{text} ON DUPLICATE KEY UPDATE {updates}"


def widening(placeholder: str, otherwise: str) -> str:
    """Keep how far a daemon's ids are from its rows' times; `otherwise`: when the daemon has its row already."""
    places = ", ".join([placeholder] * 5)
    return f"INSERT INTO writer (writer_id, at, host, node, clock_step_ms) VALUES ({places}) {otherwise}"  # noqa: S608


def widening_row(owner: str, node: int, step_ms: int) -> tuple[Any, ...]:
    """The values for `widening`."""
    return writer_id(owner), time.time_ns() // 1000, socket.gethostname(), node, step_ms


SIGN_IN = (
    "INSERT INTO writer (writer_id, at, host, user_name, data_dir, node, started_at, seen_at, version)"
    " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) ON DUPLICATE KEY UPDATE host = VALUES(host),"
    " user_name = VALUES(user_name), data_dir = VALUES(data_dir), node = VALUES(node),"
    " started_at = VALUES(started_at), seen_at = VALUES(seen_at), version = VALUES(version)"
)
"""On a server: the row of a daemon that begins to write."""


def _create(table: str, kinds: dict[ColumnType, str], version: int) -> str:
    parts = []
    for column in columns(table, version):
        rule = " PRIMARY KEY" if column.name == KEY_OF[table] else "" if column.nullable else " NOT NULL"
        parts.append(f"{column.name} {kinds[column.type]}{rule}")
    return f"CREATE TABLE {table} ({', '.join(parts)})"


def with_all_columns(source: str, table: str, there: Collection[str]) -> str:
    """`source` as a subquery that also has the columns which the table got later than that state, as NULL."""
    missing = [column.name for column in columns(table) if column.name not in there]
    if not missing:
        return source
    return f"(SELECT *, {', '.join(f'NULL AS {name}' for name in missing)} FROM {source}) AS with_later"  # noqa: S608
