"""Results as text that a model reads: short, with a head that holds for every row, also for those left out.

Records as JSON cost four times as much as the same rows as a table. Text of strangers is made harmless for a reader
that takes Markdown or a terminal's escapes at its word: no control, direction or zero-width characters, no line ends or
bars within a cell.
"""

from __future__ import annotations

import datetime as dt
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tundra_nb.views.blocks import clean, literal, number

if TYPE_CHECKING:
    import pandas as pd

MAX_CHARS = 8_000
"""Characters of one answer; hosts cut off or hide what is much longer."""
MAX_CELL = 160
SHOWN = 50
"""Rows that are shown when nobody says how many."""
ID_DIGITS = 5
"""The fewest digits of an id that are shown; more where fewer would name two rows."""
_COUNTED = ("outcome", "code", "severity", "decision", "new_state", "state")
"""Columns whose values the head counts over all rows."""
_LEADING = ("at", "outcome", "code", "profile", "message", "reason", "status", "severity", "asked")
_VALUES_COUNTED = 12


def plain(text: str) -> str:
    """Text with nothing in it that hides, moves or reorders what is read; line ends stay."""
    return "".join(c for c in clean(text) if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Co", "Cs"))


def cut(text: str, max_chars: int, more: str = "") -> str:
    """The text by whole lines within `max_chars`, saying how much was left out and, in `more`, how to get it."""
    if len(text) <= max_chars:
        return text
    lines = text.split("\n")
    room = max_chars - 120 - len(more)
    kept: list[str] = []
    used = 0
    for line in lines:
        if used + len(line) + 1 > room:
            break
        kept.append(line)
        used += len(line) + 1
    if not kept:
        return text[: max(room, 0)] + "…"
    return "\n".join([*kept, f"… {len(lines) - len(kept)} more lines are left out here. {more}".rstrip()])


def frame_text(frame: pd.DataFrame, what: str, *, shown: int = SHOWN, max_chars: int = MAX_CHARS) -> str:
    """A frame as a table with a head.

    Args:
        frame: the whole of what was asked for, oldest row first where it is a history.
        what: the command that gave it, for the head.
        shown: at most so many rows; fewer where the characters do not suffice.
        max_chars: of the whole text.
    """
    total = len(frame)
    head = [plain(f"{what}: {total:,} row{'' if total == 1 else 's'}")]
    head += _counts(frame)
    if frame.attrs.get("truncated"):
        head.append("The frame itself is cut: there are more rows than it holds.")
    source = [str(frame.attrs[name]) for name in ("store", "commit") if frame.attrs.get(name)]
    if source:
        head.append(f"source: {' '.join(source)}")
    if not total:
        return "\n".join(head)
    newest_first = "table" in frame.attrs
    rows = frame.iloc[::-1] if newest_first else frame
    digits = {str(name): _digits(frame[name]) for name in frame.columns if _is_id(str(name))}
    constant, varying = _split(frame)
    if constant:
        pairs = ", ".join(f"{name}={_cell(name, frame[name].iloc[0], digits)}" for name in constant)
        head.append(_short(f"the same in every row: {pairs}", 600))
    if digits and newest_first:
        head.append("Ids are their last digits; `why` takes them as they are.")
    if any(str(dtype).startswith("datetime64") for dtype in frame.dtypes):
        head.append("Times are UTC.")
    columns = varying or [str(frame.columns[0])]
    picked = rows[columns].head(shown)
    lines = [
        " | ".join(_cell(name, value, digits) for name, value in zip(columns, row, strict=True))
        for row in picked.itertuples(index=False, name=None)
    ]
    return _fitted(head, " | ".join(columns), lines, total, newest_first=newest_first, max_chars=max_chars)


def _fitted(
    head: Sequence[str], names: str, lines: Sequence[str], total: int, *, newest_first: bool, max_chars: int
) -> str:
    """Rows are dropped before columns; the head stays."""
    order = "newest first" if newest_first else "in order"
    top = "\n".join(head)
    room = max_chars - len(top) - len(names) - 200
    kept: list[str] = []
    for line in lines:
        if room - len(line) - 1 < 0:
            break
        kept.append(line)
        room -= len(line) + 1
    told = f"{len(kept)} of {total:,} rows follow, {order}."
    if len(kept) < total:
        told += " For the others: `limit`, a narrower window, a filter, `by`, or `sql`."
    return "\n".join([top, told, "", names, *kept])[:max_chars]


def _counts(frame: pd.DataFrame) -> list[str]:
    told = []
    for name in _COUNTED:
        if name not in frame.columns:
            continue
        values = frame[name].dropna().astype(str).value_counts()
        values = values[values > 0].sort_index(kind="stable").sort_values(ascending=False, kind="stable")
        if not len(values):
            continue
        shown = [f"{_short(str(value), 60)} {count:,}" for value, count in values.head(_VALUES_COUNTED).items()]
        rest = int(values.iloc[_VALUES_COUNTED:].sum())
        told.append(f"{name}: {' · '.join(shown)}{f' · others {rest:,}' if rest else ''}")
    return told


def _split(frame: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Columns that say the same in every row, and those that differ, the telling ones first; empty ones fall out."""
    constant: list[str] = []
    varying: list[str] = []
    for name in map(str, frame.columns):
        values = frame[name].dropna()
        if not len(values) or (values.astype(object) == "").all():
            continue
        is_same = len(frame) > 1 and len(values) == len(frame) and len(set(values.astype(str))) == 1
        (constant if is_same else varying).append(name)
    rank = {name: place for place, name in enumerate(_LEADING)}
    varying.sort(key=lambda name: (not _is_key(name, frame), rank.get(name, len(rank))))
    return constant, varying


def _is_key(name: str, frame: pd.DataFrame) -> bool:
    return name == str(frame.columns[0]) and _is_id(name)


def _is_id(name: str) -> bool:
    return name.endswith("_id") and name not in ("pty_id", "trace_id", "parent_span_id", "request_id", "writer_id")


def _digits(column: pd.Series[Any]) -> int:
    """How many last digits tell the ids of a column apart."""
    ids = column.dropna().astype(str).unique()
    for count in range(ID_DIGITS, 20):
        if len({text[-count:] for text in ids}) == len(ids):
            return count
    return 20


def _cell(name: str, value: Any, digits: dict[str, int]) -> str:
    if value is None or str(value) in ("<NA>", "NaT", "nan"):
        return ""
    if isinstance(value, dt.datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    if name in digits:
        return str(value)[-digits[name] :]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value, 4)
    return _short(literal(value) if isinstance(value, bytes) else str(value), MAX_CELL)


def _short(text: str, most: int) -> str:
    flat = " ".join(plain(text).replace("|", "¦").split())
    return flat if len(flat) <= most else flat[: most - 1] + "…"
