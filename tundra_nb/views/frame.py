"""A DataFrame for reading: in a terminal as wide as it is, in a notebook with the rest folded away, in a pipe whole.

Only what is shown is made into text, so that a frame of 100,000 rows is shown as quickly as one of thirty.
"""

from __future__ import annotations

import datetime as dt
import io
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tundra_nb.client import times
from tundra_nb.errors import UsageError
from tundra_nb.errors.spelling import inside
from tundra_nb.terminal import escapes

from . import columns, versions
from .blocks import Block, Cell, Details, Para, Styled, Table, clean, is_below, literal, words
from .columns import TONES

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TONES", "blocks", "is_cut", "notebook_blocks", "plain_lines", "provenance", "separated", "summary"]

_CONTROL = re.compile(rf"(?!\r){escapes.CONTROLS}|\r(?!\n)|{escapes.C1}|{escapes.BIDI}")
"""What a terminal would obey; the end of a line is none."""
MAX_ROWS = 60
NOTEBOOK_ROWS = 30
"""Rows shown of a history, which has its newest rows last."""
LIST_ROWS = 150
"""Rows shown of a list that has no newest rows and is read as a whole, as the settings are."""
MORE_ROWS = 10
"""Rows shown of what is folded away: the largest of a column, and the newest with every column."""
NOTEBOOK_WIDTH = 134
"""Characters of a row, gaps included: what JupyterLab shows on a page of 1,280 pixels without being scrolled."""
LONG_WIDTH = 64
"""Width of a column of long words, such as addresses."""
GAP = 2
LEAST_COLUMNS = 4


def blocks(frame: pd.DataFrame, most: int = MAX_ROWS) -> Sequence[Block]:
    """The blocks of a frame in a terminal: at most so many rows, the newest."""
    view = versions.view_of(frame)
    if view is not None:
        return view(frame, most) if most > MAX_ROWS else view(frame)
    shown = frame.tail(most)
    names = columns.ordered(frame, shown)
    if frame.empty or not names:
        return _nothing(frame)
    return [_table(frame, shown, names, fits=True), *_foot(frame, len(shown), names)]


def notebook_blocks(frame: pd.DataFrame) -> Sequence[Block]:
    """The blocks of a frame in a notebook: what matters, and folded away what else there is."""
    view = versions.view_of(frame)
    if view is not None:
        return view(frame)
    is_list = columns.kind_of(frame) in columns.FIRST and "at" not in frame.columns
    shown = frame.tail(LIST_ROWS if is_list else NOTEBOOK_ROWS)
    names = columns.ordered(frame, shown)
    if frame.empty or not names:
        return _nothing(frame)
    first = names[: _columns_that_fit(_table(frame, shown, names))]
    made: list[Block] = [_table(frame, shown, first)]
    if len(frame) > 1:
        for name in _sorts(frame, names):
            values = frame[name].astype("float64").reset_index(drop=True)
            largest = frame.iloc[values.nlargest(MORE_ROWS).index]
            made.append(Details(f"by {name} ↓", [_table(frame, largest, first)]))
    if len(names) > len(first):
        newest = frame.tail(MORE_ROWS)
        which = f"the newest {MORE_ROWS} rows" if len(frame) > MORE_ROWS else "these rows"
        made.append(Details(f"all {len(names)} columns of {which}", [_table(frame, newest, names, whole=True)]))
    return [*made, *_foot(frame, len(shown), names, "the frame has all")]


def plain_lines(frame: pd.DataFrame, width: int | None = None) -> Iterator[str]:
    """Every row and column as aligned text, for pipes: whole ids, times in UTC, one row a line.

    Args:
        frame: which.
        width: of a line; columns that find no room follow below in blocks of their own. None: lines as long as need be.
    """
    names = [_flat(str(name)) for name in frame.columns]
    texts = [[head, *map(_flat, frame[name])] for head, name in zip(names, frame.columns, strict=True)]
    widths = [max(map(len, column)) for column in texts]
    right = [columns.is_right(frame, name) for name in frame.columns]
    start = 0
    while start < len(names):
        end, used = start + 1, widths[start]
        while end < len(names) and (width is None or used + 2 + widths[end] <= width):
            used += 2 + widths[end]
            end += 1
        if start:
            yield ""
        for row in zip(*texts[start:end], strict=True):
            sized = (
                text.rjust(size) if is_number else text.ljust(size)
                for text, size, is_number in zip(row, widths[start:end], right[start:end], strict=True)
            )
            line = "  ".join(sized).rstrip()
            yield line if width is None or end > start + 1 else line[:width]
        start = end


def separated(value: Any, separator: str) -> str:
    """A frame as CSV or TSV: every row and column, times as ISO 8601, control characters spelled out.

    Raises:
        UsageError: it is no frame.
    """
    import pandas as pd

    if not isinstance(value, pd.DataFrame):
        raise UsageError(problem="this gives no table", field="--csv", remedy="`--json` gives it as data.")
    file = io.StringIO()
    times_ = {name: value[name].dt.strftime("%Y-%m-%dT%H:%M:%S.%fZ") for name in value.select_dtypes("datetimetz")}
    bytes_ = {
        name: value[name].map(lambda cell: literal(cell) if isinstance(cell, bytes) else cell)
        for name, kind in value.dtypes.items()
        if kind.kind == "O"
    }
    value.assign(**{str(name): made for name, made in (times_ | bytes_).items()}).to_csv(
        file, sep=separator, index=False, lineterminator="\n"
    )
    return _CONTROL.sub(lambda found: found.group().encode("unicode_escape").decode(), file.getvalue())


def provenance(frame: pd.DataFrame) -> dict[str, Any]:
    """Where a frame came from, of what is known: store, archive, commit, query, truncated, behind, approximate."""
    names = (
        *("store", "archive", "commit", "query", "truncated", "behind", "stored_until", "approximate"),
        *("digest", "frame_version"),
    )
    return {name: frame.attrs[name] for name in names if frame.attrs.get(name)}


def is_cut(frame: pd.DataFrame) -> str | None:
    """What a frame lacks because not all events were in the store when it was read; None when it is whole."""
    if not frame.attrs.get("behind"):
        return None
    until = frame.attrs.get("stored_until")
    upto = f": rows end at {times.local(dt.datetime.fromisoformat(until))}" if until else ""
    return f"cut, the store is behind{upto} (`--wait` waits for the rest)"


def summary(frame: pd.DataFrame) -> str:
    """One line on where a frame came from."""
    known = provenance(frame)
    told = [f"{len(frame):,} row{'s' if len(frame) != 1 else ''}"]
    if known.get("truncated"):
        told.append("cut by limit")
    if (lack := is_cut(frame)) is not None:
        told.append(lack)
    if known.get("archive"):
        told.append(f"with {known['archive']['rows']:,} archived rows")
    if known.get("approximate"):
        told.append("quantiles are approximate, of more than 20 million rows")
    return " · ".join(told) + _source(frame)


def _table(
    frame: pd.DataFrame, shown: pd.DataFrame, names: list[str], *, fits: bool = False, whole: bool = False
) -> Table:
    at = shown["at"].iloc[-1] if "at" in names else None
    zone = times.zone(None if columns.is_missing(at) else at)
    right = frozenset(place for place, name in enumerate(names) if columns.is_right(frame, name))
    heads = [columns.head(name, zone) for name in names]
    rows = columns.cells(shown, names, whole=whole)
    long = _longest(names, rows)
    below = long is not None and names[long] in columns.SENTENCES
    return Table(heads, rows, right, fits=fits, long=long, below=below)


def _longest(names: Sequence[str], rows: Sequence[Sequence[Cell]]) -> int | None:
    """The column that may be wrapped or cut: of those with long texts the one with the longest here."""
    widest = {
        place: max(len(words(row[place])) for row in rows) for place, name in enumerate(names) if name in columns.LONG
    }
    return max(widest, key=lambda place: widest[place]) if widest else None


def _columns_that_fit(table: Table) -> int:
    """How many of the first columns a page has room for."""
    room = NOTEBOOK_WIDTH
    for place, name in enumerate(table.head):
        if place == table.long and is_below(table):
            continue
        widest = max(len(name), *(len(words(row[place])) for row in table.rows))
        room -= GAP + (min(widest, LONG_WIDTH) if place == table.long else widest)
        if room < 0 and place >= LEAST_COLUMNS:
            return place
    return len(table.head)


def _sorts(frame: pd.DataFrame, names: list[str]) -> list[str]:
    wanted = columns.SORTS.get(columns.kind_of(frame))
    if wanted is None:
        wanted = tuple(name for name in names if columns.is_right(frame, name)) if len(frame) > MORE_ROWS else ()
    return [name for name in wanted if name in names][: columns.MAX_SORTS]


def _nothing(frame: pd.DataFrame) -> Sequence[Block]:
    return [Para(Styled(f"{emptiness(frame)}{_source(frame)}", "dim"))]


def emptiness(frame: pd.DataFrame) -> str:
    """Why a frame without rows may have none: what was asked for, or what would make one."""
    _, _, asked = str(frame.attrs.get("query") or "").partition(" ")
    filters = [word for word in asked.split(" ") if ".eq=" in word]
    if frame.attrs.get("truncated"):
        return "no rows yet: it was broken off before the end"
    if (source := frame.attrs.get("asked_source")) is not None and not filters:  # a new call would not be in it
        return f"no rows of source {source} in this window"
    return f"no rows for {asked}" if filters else columns.EMPTY.get(columns.kind_of(frame), "no rows")


def _source(frame: pd.DataFrame) -> str:
    """The store and commit that a frame was read from."""
    known = provenance(frame)
    return f" · {known['store']} {str(known.get('commit') or '')[:10]}".rstrip() if known.get("store") else ""


def _foot(frame: pd.DataFrame, shown: int, names: Sequence[str], rest: str = "`--tsv` gives all") -> list[Block]:
    if not provenance(frame):
        return []
    told = summary(frame)
    if empty := sum(name not in names for name in frame.columns):
        told += f" · {empty} empty column{'s' if empty != 1 else ''} left out"
    if len(frame) > shown:
        told += f" · the last {shown} are shown, {rest}"
    if "operation_id" in frame.columns and columns.kind_of(frame) in columns.FIRST:
        last = frame["operation_id"].dropna()
        if len(last):
            why = f"`%tundra why {str(last.iloc[-1])[-columns.ID_DIGITS :]}`"
            told += f" · {inside(why, frame.attrs.get('asked_source'))} tells the last one's story"
    return [Para(Styled(told, "dim"))]


def _flat(value: Any) -> str:
    if columns.is_missing(value):
        return ""
    if hasattr(value, "isoformat"):
        return str(value.isoformat()).replace("+00:00", "Z")
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, bytes):
        return literal(value)
    return " ".join(clean(value).split()) if isinstance(value, str) else str(value)
