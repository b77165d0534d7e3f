"""A DataFrame for reading in a terminal: the newest rows, columns that hold something, local times."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tundra_nb.client import times

from .blocks import Block, Cell, Para, Styled, Table, number

if TYPE_CHECKING:
    import pandas as pd

MAX_ROWS = 60
MAX_COLUMNS = 14
"""Of a history frame, the columns that the documentation names come first; what follows is for the JSON."""
MAX_TEXT = 160

_TONES = {
    "ok": "good",
    "ready": "good",
    "closed": "good",
    "error": "bad",
    "open": "bad",
    "parked": "bad",
    "breaker_open": "bad",
    "critical": "bad",
    "high": "bad",
    "refused": "warn",
    "cancelled": "warn",
    "interrupted": "warn",
    "half_open": "warn",
    "cooling": "warn",
    "medium": "warn",
    "disabled": "dim",
}


def blocks(frame: pd.DataFrame) -> Sequence[Block]:
    """The blocks of a frame."""
    if frame.empty:
        return [Para(Styled("no rows", "dim")), *_foot(frame, 0)]
    names = [name for name in frame.columns if frame[name].notna().any() and not _is_blank(frame[name])]
    shown = frame[names[:MAX_COLUMNS]].tail(MAX_ROWS)
    right = frozenset(
        i for i, name in enumerate(shown.columns) if shown[name].dtype.kind in "if" and not _is_id(str(name))
    )
    rows = [
        [_cell(str(name), value) for name, value in zip(shown.columns, row, strict=True)]
        for row in shown.itertuples(index=False, name=None)
    ]
    return [Table([str(name) for name in shown.columns], rows, right), *_foot(frame, len(shown))]


def provenance(frame: pd.DataFrame) -> dict[str, Any]:
    """Where a frame came from, of what is known: store, commit, query, truncated."""
    return {name: frame.attrs[name] for name in ("store", "commit", "query", "truncated") if frame.attrs.get(name)}


def summary(frame: pd.DataFrame) -> str:
    """One line on where a frame came from."""
    known = provenance(frame)
    told = [f"{len(frame):,} row{'s' if len(frame) != 1 else ''}"]
    if known.get("truncated"):
        told.append("cut by limit")
    if known.get("store"):
        told.append(f"{known['store']} {str(known.get('commit') or '')[:10]}".strip())
    return " · ".join(told)


def _foot(frame: pd.DataFrame, shown: int) -> list[Block]:
    if not provenance(frame):
        return []
    told = summary(frame)
    if len(frame) > shown:
        told += f" · the last {shown} are shown, `--json` gives all"
    if any(str(dtype).startswith("datetime64") for dtype in frame.dtypes):
        told += f" · times are {times.zone()}"
    return [Para(Styled(told, "dim"))]


def _is_blank(column: pd.Series[Any]) -> bool:
    return bool((column.astype(object) == "").all())


def _is_id(name: str) -> bool:
    return name == "id" or name.endswith("_id")


def _cell(name: str, value: Any) -> Cell:
    import pandas as pd

    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value):  # noqa: PLR0124
        return ""
    if isinstance(value, dt.datetime):
        return times.local(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value) if _is_id(name) else f"{value:,}"
    if isinstance(value, float):
        return f"{value:.0%}" if name.endswith("_rate") else number(value, 4)
    text = str(value)
    if text in _TONES:
        return Styled(text, _TONES[text])  # type: ignore[arg-type]
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"
