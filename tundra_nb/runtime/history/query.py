"""What may be asked of the history: a window over one table, checked before it reaches a database.

The condition that `condition` writes is the same text in both engines but for the placeholder: only `=`, `<`, `IN`,
`IS NULL` and `instr`, which compare alike (binary, case-sensitive) in both.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from tundra_nb.errors import UsageError
from tundra_nb.nearest import nearest
from tundra_nb.runtime.clock import id_floor
from tundra_nb.types import FRAMES, KEY_OF, REPLACED_TABLES, TABLES, Column, columns

Op = Literal["eq", "ne", "lt", "le", "gt", "ge", "in", "contains", "prefix", "null"]
OPS: tuple[Op, ...] = ("eq", "ne", "lt", "le", "gt", "ge", "in", "contains", "prefix", "null")
"""`ne` keeps rows without a value; `in` takes a list; `null` takes a boolean."""
KEY_SLACK_US = 300_000_000
"""A row's key may be this far from its `at` on any machine; farther only where a store says so (`widen`)."""

MOST_VALUES = 1_000
"""In one `in` condition."""
_COMPARE = {"eq": "=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}


class Condition(msgspec.Struct, frozen=True, array_like=True):
    """`column op value`."""

    column: str
    op: Op
    value: Any = None


class FrameQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A window over one table, in the order of its key.

    `since_us` is included, `until_us` is not. `at` names a state of the store (commit, branch, tag, `HEAD~2`, or
    microseconds since the epoch: the last commit made by then); None is now, with what is not committed yet. The
    conditions of `where` hold together. `columns` leaves the others out; None is all of them.
    """

    table: str
    since_us: int | None = None
    until_us: int | None = None
    at: str | int | None = None
    where: list[Condition] = []
    limit: int | None = None
    newest_first: bool = False
    columns: list[str] | None = None

    @property
    def names(self) -> list[str]:
        """Names of the wanted columns, in the table's order; of a checked query."""
        return [c.name for c in columns(self.table) if self.columns is None or c.name in self.columns]


def checked(query: FrameQuery) -> FrameQuery:
    """The query with its table's real name and values of the columns' types.

    Raises:
        UsageError: unknown table, column or operator (names the nearest), or a value of the wrong type.
    """
    table = FRAMES.get(query.table, query.table)
    if table not in TABLES:
        raise _unknown("table", query.table, [*TABLES, *FRAMES])
    if query.limit is not None and not 0 <= query.limit < (1 << 63) - 1:
        raise UsageError(problem=f"limit is {query.limit}, and must be a number of rows", field="limit")
    known = {column.name: column for column in columns(table)}
    for name in query.columns or []:
        if name not in known:
            raise _unknown("column", name, list(known))
    where = []
    for condition in query.where:
        if condition.column not in known:
            raise _unknown("column", condition.column, list(known))
        if condition.op not in OPS:
            raise _unknown("operator", condition.op, list(OPS))
        value = _coerced(known[condition.column], condition.op, condition.value)
        where.append(Condition(condition.column, condition.op, value))
    return msgspec.structs.replace(query, table=table, where=where)


def condition(query: FrameQuery, placeholder: str, step_ms: int = 0) -> tuple[str, list[Any]]:
    """The WHERE clause of a checked query, without the word, and its values; `1 = 1` when everything is wanted.

    `step_ms`: how far a key may be from its row's time, because the clock was set.
    """
    slack = KEY_SLACK_US + step_ms * 1000
    parts: list[str] = []
    values: list[Any] = []

    def add(text: str, *given: Any) -> None:
        parts.append(text.replace("?", placeholder))
        values.extend(given)

    key = KEY_OF[query.table]
    ordered = query.table not in REPLACED_TABLES and query.table != "imported_log"
    if query.since_us is not None:
        if ordered:
            add(f"{key} >= ?", id_floor(max(0, query.since_us - slack)))
        add("at >= ?", query.since_us)
    if query.until_us is not None:
        if ordered:
            add(f"{key} < ?", _id_ceiling(query.until_us + slack))
        add("at < ?", query.until_us)
    for column, op, value in ((c.column, c.op, c.value) for c in query.where):
        if op == "ne":
            add(f"({column} <> ? OR {column} IS NULL)", value)
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


def _id_ceiling(at_us: int) -> int:
    return min(id_floor(max(0, at_us)), (1 << 63) - 1)


def _unknown(what: str, word: str, known: Sequence[str]) -> UsageError:
    return UsageError(
        problem=f"no {what} {word!r} in the history",
        field=word,
        nearest=nearest(word, known),
        remedy=f"There are: {', '.join(known)}.",
    )


def _coerced(column: Column, op: Op, value: Any) -> Any:
    if op == "null":
        return _as_bool(column, True if value is None else value)
    if op == "in":
        given = value.split(",") if isinstance(value, str) else value
        if not isinstance(given, list | tuple):
            raise _wrong(column, value, "a list")
        if len(given) > MOST_VALUES:
            raise UsageError(problem=f"more than {MOST_VALUES:,} values for {column.name}", field=column.name)
        return [_coerced(column, "eq", one) for one in given]
    if column.type in ("text", "long_text", "category"):
        return str(value)
    if op in ("contains", "prefix"):
        raise UsageError(problem=f"{column.name} is not text: `{op}` does not apply", field=column.name)
    if column.type == "bool":
        return _as_bool(column, value)
    if column.type == "time":
        return _as_time(column, value)
    kind = float if column.type == "float" else int
    try:
        number = kind(value)
    except (TypeError, ValueError, OverflowError):
        raise _wrong(column, value, "a number") from None
    if isinstance(number, float) and not math.isfinite(number):
        raise _wrong(column, value, "a finite number")
    if isinstance(number, int) and not -(1 << 63) <= number < 1 << 63:
        raise _wrong(column, value, "a number of 64 bits")
    return number


def _as_bool(column: Column, value: Any) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if isinstance(value, bool):
        return value
    try:
        return words[str(value).lower()]
    except KeyError:
        raise _wrong(column, value, "true or false") from None


def _as_time(column: Column, value: Any) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        pass
    else:
        if not -(1 << 63) <= number < 1 << 63:
            raise _wrong(column, value, "a number of 64 bits")
        return number
    try:
        moment = dt.datetime.fromisoformat(str(value))
    except ValueError:
        raise _wrong(column, value, "an ISO time or microseconds since the epoch") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return int(moment.timestamp() * 1_000_000)


def _wrong(column: Column, value: Any, wanted: str) -> UsageError:
    return UsageError(problem=f"{column.name}: {value!r} is not {wanted}", field=column.name)
