"""A DataFrame for reading in a terminal: the newest rows, columns that hold something, local times."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tundra_nb.client import times

from . import versions
from .blocks import Block, Cell, Para, Styled, Table, Tone, number

if TYPE_CHECKING:
    import pandas as pd

MAX_ROWS = 60
MAX_TEXT = 160
ID_DIGITS = 5
"""Of an id; `why` takes its last digits."""

_LAST = (
    "kind",
    "requested_model",
    "attempt_id",
    "limit_event_id",
    "breaker_event_id",
    "error_id",
    "event_id",
    "waited_ms",
    "limiter_wait_ms",
    "backoff_ms",
    "cached_tokens",
    "reasoning_tokens",
    "source",
    "retryable",
    "pty_id",
    "price_at",
    "stop_reason",
    "streamed",
    "user_name",
    "caller",
    "bucket_requests",
    "bucket_tokens",
    "request_id",
    "limit_headers",
)
"""Columns of history tables that come last where not all find room."""

TONES: dict[str, Tone] = {
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
    view = versions.view_of(frame)
    if view is not None:
        return view(frame)
    is_history = "table" in frame.attrs
    names = [name for name in frame.columns if frame[name].notna().any() and not _is_blank(frame[name])]
    if is_history:
        names.sort(key=lambda name: (name in _LAST, name != "at" and not name.endswith("_id")))
    if frame.empty or not names:
        return [Para(Styled(f"no rows{_source(frame)}", "dim"))]
    shown = frame[names].tail(MAX_ROWS)
    right = frozenset(i for i, name in enumerate(names) if shown[name].dtype.kind in "if" and not _is_id(str(name)))
    rows = [
        [_cell(str(name), value, is_history) for name, value in zip(names, row, strict=True)]
        for row in shown.itertuples(index=False, name=None)
    ]
    return [Table([str(name) for name in names], rows, right, fits=True), *_foot(frame, len(shown))]


def provenance(frame: pd.DataFrame) -> dict[str, Any]:
    """Where a frame came from, of what is known: store, commit, query, truncated, behind."""
    names = ("store", "commit", "query", "truncated", "behind", "stored_until")
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
    return " · ".join(told) + _source(frame)


def _source(frame: pd.DataFrame) -> str:
    """The store and commit that a frame was read from."""
    known = provenance(frame)
    return f" · {known['store']} {str(known.get('commit') or '')[:10]}".rstrip() if known.get("store") else ""


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


def _cell(name: str, value: Any, is_history: bool) -> Cell:
    import pandas as pd

    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value):  # noqa: PLR0124
        return ""
    if isinstance(value, dt.datetime):
        return times.local(value)
    if hasattr(value, "item"):  # a number of numpy
        value = value.item()
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        if not _is_id(name):
            return f"{value:,}"
        return f"…{str(value)[-ID_DIGITS:]}" if is_history else str(value)
    if isinstance(value, float):
        return f"{value:.0%}" if name.endswith("_rate") else number(value, 4)
    text = str(value)
    if text in TONES:
        return Styled(text, TONES[text])
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"
