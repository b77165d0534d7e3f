"""What may be asked of a frame: a window over one table, and groups of its rows; checked before it reaches a database.

A leaf: client, daemon and store worker mean the same by it.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from tundra_nb.errors import UsageError
from tundra_nb.nearest import nearest
from tundra_nb.types import FRAMES, TABLES, Column, columns

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Op = Literal["eq", "eq_or_null", "ne", "lt", "le", "gt", "ge", "in", "contains", "prefix", "null"]
OPS: tuple[Op, ...] = ("eq", "eq_or_null", "ne", "lt", "le", "gt", "ge", "in", "contains", "prefix", "null")
"""`ne` keeps rows without a value; `in` takes a list; `null` takes a boolean."""
MOST_VALUES = 1_000
"""In one `in` condition."""
TIMES: dict[str, int] = {"minute": 60, "hour": 3_600, "day": 86_400}
"""Groups by time, in seconds of UTC."""
LATENCY_BAND = "latency_band"
"""A group by latency: bands of a sixteenth of a decade from 1 ms on, each told by its middle, in milliseconds."""
BANDS_PER_DECADE = 16
BANDS = 96
"""Up to 1,000 s; what took longer is in the last."""
QUANTILES = (0.5, 0.95)
MOST_QUANTILES = 20


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
    by: list[str] = []
    """Columns, `minute`, `hour`, `day` or `latency_band`: one row per group that occurs, in the order of the groups.
    `columns` then says of which a summary is made: quantiles of `latency_ms`, sums, lowest levels of buckets."""
    every: int | None = None
    """Seconds: rows are grouped by intervals of this length too, whose beginning is the column `at`."""
    quantiles: list[float] = []
    """Quantiles of the latency in each group, exact; p50 and p95 when none are named."""

    @property
    def is_grouped(self) -> bool:
        return bool(self.by) or self.every is not None

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
    _check_groups(query, table)
    return msgspec.structs.replace(query, table=table, where=where)


def groups(table: str) -> tuple[str, ...]:
    """What rows of a table can be grouped by: its words, flags and ids of what they belong to, and time."""
    known = columns(table)
    named = [c.name for c in known if c.type in ("category", "text", "bool") or c.name == "status"]
    band = [LATENCY_BAND] if any(c.name == "latency_ms" for c in known) else []
    return (*named, *TIMES, *band)


def band_of(latency_ms: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The band of each latency, as a whole number; NaN stays NaN."""
    import numpy as np

    made: npt.NDArray[np.float64] = np.floor(BANDS_PER_DECADE * np.log10(np.maximum(latency_ms, 1.0)))
    return made.clip(0, BANDS - 1)


def band_middle(band: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """What stands for the latencies of a band, in milliseconds."""
    import numpy as np

    made: npt.NDArray[np.float64] = np.power(10.0, (band + 0.5) / BANDS_PER_DECADE)
    return made


def _check_groups(query: FrameQuery, table: str) -> None:
    known = groups(table)
    for name in query.by:
        if name not in known:
            raise UsageError(
                problem=f"cannot group {query.table} by {name!r}",
                field="by",
                nearest=nearest(name, known),
                remedy=f"Known: {', '.join(known)}.",
            )
    if len(set(query.by)) < len(query.by):
        raise UsageError(problem="the same group twice", field="by")
    if query.every is not None and not 1 <= query.every <= 366 * 86_400:
        raise UsageError(problem=f"every {query.every} is not a number of seconds up to a year", field="every")
    if len(query.quantiles) > MOST_QUANTILES or not all(0 <= share <= 1 for share in query.quantiles):
        raise UsageError(
            problem="quantiles are shares", field="quantiles", remedy=f"At most {MOST_QUANTILES} numbers from 0 to 1."
        )


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
    if op in ("eq", "ne") and column.values and str(value) not in column.values:
        raise UsageError(
            problem=f"{column.name} is never {str(value)[:40]!r}",
            field=column.name,
            nearest=nearest(str(value), column.values),
            remedy=f"Known: {', '.join(column.values)}.",
        )
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
