"""What SQLite lets free SQL do: the fence behind `sql_guard`, for connections of the embedded engine and of sources.

Imports `sqlite3`: in the store worker only after `loading`.
"""

from __future__ import annotations

import sqlite3

from . import sql_guard

VALUE_BYTES = 64 << 20
"""Longest value that free SQL may make."""


def guard(db: sqlite3.Connection) -> None:
    """Prepare a connection for free SQL."""
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, VALUE_BYTES)
    db.set_authorizer(_authorize)


def _authorize(action: int, first: str | None, _second: str | None, _database: str | None, _inner: str | None) -> int:
    """Reading our tables and calling harmless functions is all that free SQL may do.

    `PRAGMA table_xinfo` and `sqlite_master` are read by the engine itself when it prepares a version table.
    """
    if action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE):
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_READ and sql_guard.may_read(first or "", sql_guard.DOLTLITE):
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_FUNCTION and (_second or "").lower() in sql_guard.DOLTLITE.functions:
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_PRAGMA and first == "table_xinfo":
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY
