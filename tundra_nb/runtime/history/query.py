"""A frame's query as SQL.

The condition that `condition` writes is the same text in both engines but for the placeholder: only `=`, `<`, `IN`,
`IS NULL` and `instr`, which compare alike (binary, case-sensitive) in both.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tundra_nb.protocol.query import LATENCY_BAND, OPS, Condition, FrameQuery, Op, checked
from tundra_nb.runtime.id_layout import LAST_MS, id_floor
from tundra_nb.types import KEY_OF, REPLACED_TABLES, columns

__all__ = [
    "KEY_SLACK_US",
    "LEAST",
    "OPS",
    "SUMS",
    "Condition",
    "FrameQuery",
    "Op",
    "checked",
    "condition",
    "summed",
    "ungrouped",
]

KEY_SLACK_US = 300_000_000
"""A row's key may be this far from its `at` on any machine; farther only where a store says so (`widen`)."""

SUMS = ("input_tokens", "output_tokens", "cost_usd")
"""Columns that are added up in groups."""
LEAST = ("bucket_requests", "bucket_tokens")
"""Levels: a group has the lowest."""

_COMPARE = {"eq": "=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}


def key_bounds(query: FrameQuery, step_ms: int = 0) -> tuple[int | None, int | None]:
    """Between which keys the rows of a query's window lie: from the first on, below the second; None is no bound.

    `step_ms`: how far a key may be from its row's time, because the clock was set.
    """
    if query.table in REPLACED_TABLES or query.table == "imported_log":
        return None, None
    slack = KEY_SLACK_US + step_ms * 1000
    since_us, until_us = query.since_us, query.until_us
    low = None if since_us is None else id_floor(max(0, since_us - slack))
    if until_us is None or (until_us + slack) // 1000 > LAST_MS:  # ids tell no later time
        return low, None
    return low, id_floor(max(0, until_us + slack))


def condition(query: FrameQuery, placeholder: str) -> tuple[str, list[Any]]:
    """What a checked query asks of its rows, but for where their keys lie; `1 = 1` when everything is wanted.

    Returns:
        A WHERE clause, without the word, and its values.
    """
    parts: list[str] = []
    values: list[Any] = []

    def add(text: str, *given: Any) -> None:
        parts.append(text.replace("?", placeholder))
        values.extend(given)

    if query.since_us is not None:
        add("at >= ?", query.since_us)
    if query.until_us is not None:
        add("at < ?", query.until_us)
    for column, op, value in ((c.column, c.op, c.value) for c in query.where):
        if query.table == "operation" and column == "profile" and op in ("eq", "in"):
            # a call that nobody answered belongs to the profile that was asked first
            names = [value] if op == "eq" else list(value)
            each = "profile = ? OR (profile IS NULL AND (asked = ? OR instr(asked, ?) = 1))"
            add(
                f"({' OR '.join([each] * len(names))})" if names else "1 = 0",
                *(v for n in names for v in (n, n, f"{n},")),
            )
        elif op == "ne":
            add(f"({column} <> ? OR {column} IS NULL)", value)
        elif op == "eq_or_null":
            add(f"({column} = ? OR {column} IS NULL)", value)
        elif op == "in":
            add(f"{column} IN ({', '.join('?' * len(value))})" if value else "1 = 0", *value)
        elif op == "contains":
            add(f"instr({column}, ?) > 0", value)
        elif op == "prefix":
            add(f"instr({column}, ?) = 1", value)
        elif op == "null":
            add(f"{column} IS {'' if value else 'NOT '}NULL")
        else:
            add(f"{column} {_COMPARE[op]} ?", value)
    return " AND ".join(parts) or "1 = 1", values


def ungrouped(query: FrameQuery) -> FrameQuery:
    """The rows that a grouped query needs, with no more columns than it needs."""
    known = {column.name for column in columns(query.table)}
    wanted = {KEY_OF[query.table], "at", "outcome", *query.by, *summed(query)}
    if LATENCY_BAND in query.by:
        wanted.add("latency_ms")
    if "profile" in query.by and "asked" in known:
        wanted.add("asked")
    names = [column.name for column in columns(query.table) if column.name in wanted]
    return msgspec.structs.replace(query, columns=names, by=[], every=None, quantiles=[])


def summed(query: FrameQuery) -> tuple[str, ...]:
    """Columns of which a group tells a summary."""
    if query.columns is None:
        return ("latency_ms", *SUMS)
    return tuple(name for name in ("latency_ms", *SUMS, *LEAST) if name in query.columns)
