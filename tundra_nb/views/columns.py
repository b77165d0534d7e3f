"""Which columns of a frame come first, and how a cell is told to people.

A row is recognised by its short id (`why` takes it), when it was, how it ended and why; what it cost comes after that.
Ids are the last digits of the real ones, times are local with the zone in the head, and an empty cell is empty.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tundra_nb.client import times
from tundra_nb.errors.spelling import inside

from .blocks import Cell, Styled, Tone, give, literal, money, number

if TYPE_CHECKING:
    import pandas as pd

MAX_TEXT = 160
ID_DIGITS = 5
"""How many digits of an id are shown; `why` takes its last digits."""

FIRST: dict[str, tuple[str, ...]] = {
    "calls": ("operation_id", "at", "outcome", "code", "message", "profile", "model", "attempts", "latency_ms",
              "waited_ms", "input_tokens", "output_tokens", "cost_usd", "user_name", "caller", "kind", "client",
              "dialect", "way", "dropped"),
    "attempts": ("operation_id", "at", "seq", "outcome", "reason", "message", "profile", "status", "model",
                 "latency_ms", "retry_after_s", "first_byte_ms", "input_tokens", "output_tokens", "cost_usd"),
    "errors": ("operation_id", "at", "code", "message", "profile", "severity", "source", "reason"),
    "limit-history": ("operation_id", "at", "decision", "tier", "limit_key", "resource", "requested", "remaining",
                      "retry_after_s"),
    "breaker-history": ("operation_id", "at", "profile", "old_state", "new_state", "reason", "failures", "message",
                        "parked"),
    "pty-history": ("pty_id", "at", "event", "command", "exit_code", "exit_signal", "seconds", "message"),
    "ptys": ("pty_id", "at", "state", "command", "exit_code", "seconds", "pid"),
    "providers": ("profile", "state", "cooling_until", "reason", "kind", "model", "base_url", "key_variable",
                  "key_present"),
    "models": ("profile", "model", "available", "problem", "context_tokens", "input_usd_per_mtok",
               "output_usd_per_mtok"),
    "limits": ("owner", "tier", "limit_key", "resource", "remaining", "limit", "per_second", "waiting",
               "penalised_for_s", "reset_after_s", "scope"),
    "settings": ("path", "value", "source", "default"),
    "notes": ("at", "author", "subject", "body"),
}  # fmt: skip
"""By the query that made the frame. Columns that are not named follow in the frame's own order."""
LONG = ("message", "command", "body", "reason", "hint", "base_url", "value", "problem", "text")
"""Columns of long texts: where the width is short they take what is left, and are cut."""
SENTENCES = ("message", "body", "hint", "problem", "text")
"""Of these the columns that may stand below their rows."""
NAMES = frozenset({"pid", "status", "close_code"})
"""Numbers that name something: nobody counts them."""
SORTS: dict[str, tuple[str, ...]] = {
    "calls": ("latency_ms", "cost_usd", "waited_ms"),
    "attempts": ("latency_ms", "cost_usd", "first_byte_ms"),
    "pty-history": ("seconds",),
    "limit-history": ("retry_after_s",),
}
MAX_SORTS = 3

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

EMPTY: dict[str, str] = {
    "calls": "no call in this window: `%tundra ask Say hi` makes one, `--since all` looks further back",
    "attempts": "no attempt in this window: each call leaves one row per try; `--since all` looks further back",
    "errors": "no error in this window; `--since all` looks further back",
    "limit-history": "the limiter has made nobody wait in this window; `%tundra limits` shows its levels now",
    "breaker-history": "no breaker has moved in this window; `%tundra breakers` shows their state now",
    "pty-history": "no terminal in this window: `%tundra run date` or `%tundra pty open` starts one",
    "ptys": "no terminal is open: `%tundra pty open python3` opens one",
    "connections": "nobody has looked at a terminal in this window, and no line to the daemon broke: `%tundra pty open"
    " --lab` opens a tab, each step of which is a row",
    "incidents": "no incident yet: `%tundra incident new 'a bad hour'` makes one, with a notebook that reads as a"
    " report",
    "agent-runs": "no agent has run in this window: `%tundra triage` runs one",
    "agent-steps": "no agent has run in this window: `%tundra triage` runs one",
    "notes": "no note yet: `%tundra note what I saw` writes one",
    "providers": "no profile yet: `%tundra providers add local --kind local --base-url http://127.0.0.1:8080/v1`",
    "faults": "nothing is injected: `%tundra fault start`, then `%tundra fault set refused`",
    "keys": "no profile names a key variable",
}
"""What would fill a frame that has no rows."""


def kind_of(frame: pd.DataFrame) -> str:
    """The query that made a frame, without its filters; of a grouped frame the same with `--by`."""
    kind = str(frame.attrs.get("query") or "").partition(" ")[0]
    first = FIRST.get(kind, ())
    return kind if not first or first[0] in frame.columns or first[1] in frame.columns else f"{kind} --by"


def ordered(frame: pd.DataFrame, shown: pd.DataFrame) -> list[str]:
    """The columns that hold something, those that matter first."""
    first = FIRST.get(kind_of(frame), ())
    names = [*(name for name in first if name in frame.columns), *(n for n in frame.columns if n not in first)]
    filled = [name for name in names if frame[name].notna().any() and not _is_blank(shown[name])]
    if kind_of(frame).endswith(" --by") and "cost_usd" in filled and not frame["cost_usd"].any():
        filled.remove("cost_usd")  # the sum of what nobody knows is 0, too: `$0` would say more than is known
    if "profile" in names and "profile" not in filled and "asked" in filled:  # nobody answered: who was asked
        filled.insert(sum(name in filled for name in names[: names.index("profile")]), "profile")
    return filled


def head(name: str, zone: str) -> str:
    """A column's name for people: times name their zone, an id is an id."""
    return f"at ({zone})" if name == "at" else "id" if name == "operation_id" else name


def cells(frame: pd.DataFrame, names: Sequence[str], *, whole: bool = False) -> list[list[Cell]]:
    """The rows as cells; `whole` cuts no text and no id."""
    source = frame.attrs.get("asked_source")
    columns = [
        [_linked(name, value, cell(name, value, whole=whole), source) for value in frame[name]] for name in names
    ]
    rows = [list(row) for row in zip(*columns, strict=True)]
    if "profile" in names and "asked" in frame.columns:  # where nobody answered, who was asked
        place = list(names).index("profile")
        for row, asked in zip(rows, frame["asked"], strict=True):
            if not row[place] and isinstance(asked, str):
                row[place] = Styled(asked, "dim")
    return rows


WHY = {"operation_id": "%tundra why {}", "pty_id": "%tundra pty why {}"}
"""What tells the story of an id."""


def _linked(name: str, value: Any, shown: Cell, source: str | None) -> Cell:
    line = inside(WHY.get(name, "").format(value), source)
    if not line or not shown or (source is not None and "--in" not in line):
        return shown
    return Styled(shown, None, give(line)) if isinstance(shown, str) else shown


def cell(name: str, value: Any, *, whole: bool = False) -> Cell:
    """One value for people."""
    if is_missing(value):
        return ""
    if isinstance(value, dt.datetime):
        return times.local(value)
    if hasattr(value, "item"):  # a number of numpy
        value = value.item()
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        if not is_id(name):
            return str(value) if name in NAMES else f"{value:,}"
        return str(value) if whole or value < 10**ID_DIGITS else f"…{str(value)[-ID_DIGITS:]}"
    if isinstance(value, float):
        if name.endswith("_usd"):
            return money(value)
        return f"{value:.0%}" if name.endswith("_rate") else number(value, 4)
    if isinstance(value, bytes):
        return literal(value)
    text = times.in_text(_said(str(value))) if name in ("message", "reason", "evidence") else str(value)
    if name == "source" and not whole:  # a settings file, whose place `status` tells
        text = text.rpartition("/")[2]
    if text in TONES:
        return Styled(text, TONES[text])
    return text if whole or len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def _said(message: str) -> str:
    """What a message says; that of a parked profile is its whole error, which the daemon takes up after a restart."""
    if message.startswith('{"'):
        with contextlib.suppress(ValueError):
            told = json.loads(message)
            if isinstance(told, dict) and isinstance(told.get("message"), str):
                return str(told["message"])
    return message


def is_missing(value: Any) -> bool:
    import pandas as pd

    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value)  # noqa: PLR0124


def is_id(name: str) -> bool:
    return name == "id" or name.endswith("_id")


def is_right(frame: pd.DataFrame, name: str) -> bool:
    """Whether a column is one of numbers."""
    return frame[name].dtype.kind in "if" and not is_id(name)


def _is_blank(column: pd.Series[Any]) -> bool:
    return column.dtype.kind in "OU" and not any(isinstance(value, str | bytes) and value for value in column)
