"""All rows of one operation in one request: the operation, and what its attempts, limiter and breakers left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from .query import Condition, FrameQuery

RELATED = {
    "attempts": "attempt",
    "limit_events": "limit_event",
    "breaker_events": "breaker_event",
    "errors": "error_event",
    "exchanges": "exchange",
}
"""Part of a story → the table that it is from."""
RECENT = 10_000
"""Among so many of the latest operations the last digits of an id are looked for."""
WHOLE_ID_DIGITS = 15
"""An id with at least so many digits may be a whole one."""
LAST_ID = (1 << 63) - 1
EARLIER_US = 1_000_000
"""So long before the operation's own time its first row may stand."""


class WantedOperation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which operation. One of these is given."""

    digits: str = ""
    """Its id, or the last digits of it."""
    back: int = 0
    """1 is the latest, 2 the one before; calls of agents' runs are not counted, which have stories of their own …"""
    all: bool = False
    """… of all daemons that write here, not of this one."""
    running: int = 0
    """The id of one that is under way, and so has no row yet …"""
    since_us: int = 0
    """… and when it began."""


class StoredStory(msgspec.Struct, frozen=True, kw_only=True):
    """What the history holds of an operation."""

    operation: dict[str, Any] | None
    """None where there is none."""
    calls: int = 0
    """How many there are, counted as far as `back` asked."""
    related: dict[str, list[dict[str, Any]]] = {}
    """The rows by part, times in µs since 1970."""


def tell(rows: Callable[[FrameQuery], list[dict[str, Any]]], wanted: WantedOperation, writer: str = "") -> StoredStory:
    """Find the operation and gather its rows.

    Args:
        rows: answers a query.
        wanted: which one.
        writer: `back` counts only what this daemon has written; empty where nobody else writes.
    """
    calls = 0
    operation: dict[str, Any] | None = None
    if wanted.running:
        key, at = wanted.running, wanted.since_us
    else:
        if wanted.back:
            latest = _latest(rows, wanted.back, writer)
            calls = len(latest)
            operation = latest[wanted.back - 1] if calls >= wanted.back else None
        else:
            operation = _by_digits(rows, wanted.digits)
        if operation is None:
            return StoredStory(operation=None, calls=calls)
        key, at = operation["operation_id"], operation["at"]
    mine = [Condition("operation_id", "eq", key)]
    related = {
        part: rows(FrameQuery(table=table, since_us=at - EARLIER_US, where=mine)) for part, table in RELATED.items()
    }
    return StoredStory(operation=operation, calls=calls, related=related)


def _latest(rows: Callable[[FrameQuery], list[dict[str, Any]]], count: int, writer: str) -> list[dict[str, Any]]:
    """The newest operations, newest first: this daemon's, and those of before rows said whose they are."""
    wanted = [[Condition("writer_id", "eq", writer)], [Condition("writer_id", "null", True)]] if writer else [[]]
    no_run = Condition("run_id", "null", True)
    found = [
        row
        for where in wanted
        for row in rows(FrameQuery(table="operation", where=[*where, no_run], newest_first=True, limit=count))
    ]
    return sorted(found, key=lambda row: int(row["operation_id"]), reverse=True)[:count]


def _by_digits(rows: Callable[[FrameQuery], list[dict[str, Any]]], digits: str) -> dict[str, Any] | None:
    is_whole = len(digits) >= WHOLE_ID_DIGITS and int(digits) <= LAST_ID
    if is_whole and (found := _by_id(rows, int(digits))):
        return found
    recent = rows(FrameQuery(table="operation", newest_first=True, limit=RECENT, columns=["operation_id"]))
    for row in recent:
        if str(row["operation_id"]).endswith(digits):
            return _by_id(rows, row["operation_id"])
    return None


def _by_id(rows: Callable[[FrameQuery], list[dict[str, Any]]], key: int) -> dict[str, Any] | None:
    found = rows(FrameQuery(table="operation", where=[Condition("operation_id", "eq", key)], limit=1))
    return found[0] if found else None
