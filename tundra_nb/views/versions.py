"""Commits, differences, the history of rows, conflicts: short hashes, one line per change, what changed in colour.

Signs stand beside the colours: `+` added, `-` removed, `~` modified.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from tundra_nb.client import times
from tundra_nb.types import KEY_OF, columns

from .blocks import Block, Cell, Facts, Heading, Para, Styled, Table, Tone
from .columns import TONES

if TYPE_CHECKING:
    import pandas as pd

    from tundra_nb.client.versions import Merged

HASH_DIGITS = 10
MAX_ROWS = 30
"""Rows shown of one table; the frame has all."""
MAX_VALUE = 60
SIGNS: dict[str, tuple[str, Tone]] = {"added": ("+", "good"), "removed": ("-", "bad"), "modified": ("~", "warn")}
CHANGE = ("", "row", "change")
"""Head of a table of changes."""

_NAMES = {"setting": "path", "profile": "name", "price": "model", "note": "subject", "incident": "title"}
_QUIET = frozenset({"at", "author", "reason", "source"})
"""Columns that say who changed a row, not what."""
_TOLD = ("value", "body", "code", "outcome", "decision", "new_state", "event", "profile", "message", "reason")
"""What tells most of an added or removed row, as far as its table has it."""


class View(Protocol):
    """Shows a frame, of each table at most so many rows."""

    def __call__(self, frame: pd.DataFrame, most: int = MAX_ROWS) -> Sequence[Block]: ...


def view_of(frame: pd.DataFrame) -> View | None:
    """The view of a frame of versions; None for other frames, and for one that was cut to other columns."""
    query = str(frame.attrs.get("query", "")).split(" ")[0]
    view, needed = _VIEWS.get(query, (None, ()))
    return view if view is not None and set(needed) <= set(frame.columns) else None


def commits(frame: pd.DataFrame, most: int = MAX_ROWS) -> Sequence[Block]:
    """The log, newest first."""
    rows: list[list[Cell]] = [
        [
            Styled(row["commit"][:HASH_DIGITS], "strong"),
            _time(row["at"]),
            _text(row["author"]),
            _text(row["rows"]),
            first_line(row["message"]),
        ]
        for row in frame.head(most).to_dict("records")
    ]
    return [Table(["commit", "at", "author", "rows", "message"], rows, frozenset({3})), _more(frame, "commits", most)]


def diff(frame: pd.DataFrame, most: int = MAX_ROWS) -> Sequence[Block]:
    """One part per table: what people changed with the cells that differ, events with what they tell."""
    asked = [str(frame.attrs.get(side, ""))[:40] for side in ("from", "to")]
    if frame.empty:
        return [Para(Styled(f"nothing differs between {asked[0]} and {asked[1]}", "dim"))]
    blocks: list[Block] = [Heading(f"{asked[0]} → {asked[1]}")]
    for table in dict.fromkeys(frame["table"]):
        part = frame[frame["table"] == table]
        counts = part["diff_type"].value_counts()
        told = ", ".join(
            f"{counts[kind]:,} {_new(str(table), counts[kind]) if kind == 'added' else kind}"
            for kind in SIGNS
            if counts.get(kind)
        )
        blocks.append(Table(CHANGE, changes(str(table), part, most), title=f"{table}: {told}"))
        if len(part) > most:
            blocks.append(Para(Styled(f"and {len(part) - most:,} more in the frame", "dim")))
    return blocks


def _new(table: str, count: int) -> str:
    """What an added row is: what people changed is told apart from what happened."""
    return "added" if table in _NAMES else "new event" if count == 1 else "new events"


def changes(table: str, part: pd.DataFrame, most: int) -> list[list[Cell]]:
    """The rows of one table's diff, at most so many, as cells: `CHANGE`."""
    if table in _NAMES:  # what changed tells more than what is new
        part = part.sort_values("diff_type", key=lambda kinds: kinds.astype(str) == "added", kind="stable")
    return [_changed_row(table, row) for row in part.head(most).to_dict("records")]


def history(frame: pd.DataFrame, most: int = MAX_ROWS) -> Sequence[Block]:
    """The changes of rows, oldest first."""
    if frame.empty:
        return [Para(Styled("no change is known", "dim"))]
    table = str(frame.attrs.get("query", "")).split(" ")[1]
    rows = [
        [
            _sign(row["diff_type"]),
            Styled(str(row["commit"])[:HASH_DIGITS], "strong"),
            _time(row["committed_at"]),
            _text(row["committer"]),
            _text(row.get(_NAMES[table])),
            _told(table, row, ""),
            _text(row.get("reason")),
        ]
        for row in frame.tail(most).to_dict("records")
    ]
    return [Table(["", "commit", "at", "by", table, "is", "why"], rows, long=5), _more(frame, "changes", most)]


def conflicts(frame: pd.DataFrame, most: int = MAX_ROWS) -> Sequence[Block]:
    """The cells that both sides changed."""
    rows = [
        [
            f"{row['table']} {row['name'] or row['row_id']}",
            row["column"],
            *(_text(row[s]) for s in ("base", "ours", "theirs")),
        ]
        for row in frame.head(most).to_dict("records")
    ]
    return [Table(["row", "column", "base", "ours", "theirs"], rows), _more(frame, "cells", most)]


def merged(found: Merged) -> Sequence[Block]:
    """What a merge did, or why not."""
    if found["commit"] is None:
        frame = found.conflicts
        return [
            Heading(Styled("conflicts: nothing was changed", "bad")),
            *conflicts(frame[~frame["column"].isin(list(_QUIET))]),
            Para(Styled("`--ours` keeps main's rows, `--theirs` takes the branch's.", "dim")),
        ]
    if not found["is_new"]:
        return [Para("nothing to merge: main has all of this branch")]
    blocks: list[Block] = [Facts([("merged", Styled(found["commit"][:HASH_DIGITS], "strong"))])]
    applied = [
        [
            one["path"],
            Styled(f"{_text(one['was'])} → {_text(one['value'])}", "good"),
            "restart needed" if one["restart"] else "",
        ]
        for one in found["applied"]
    ]
    if applied:
        blocks.append(Table(["setting", "in force", ""], applied))
    problems = [[one["path"], Styled(one["problem"], "bad")] for one in found["problems"]]
    if problems:
        blocks.append(Table(["setting", "not in force"], problems))
    return blocks


def _changed_row(table: str, row: Mapping[Any, Any]) -> list[Cell]:
    kind = str(row["diff_type"])
    side = "from" if kind == "removed" else "to"
    name = _text(row.get(f"{side}_{_NAMES[table]}")) if table in _NAMES else ""
    label = name or f"…{str(row[f'{side}_{KEY_OF[table]}'])[-5:]}"
    if kind != "modified":
        told = _told(table, row, f"{side}_")
        if table not in _NAMES and kind == "added":
            return [Styled("·", "dim"), label, Styled(told, _event_tone(row))]
        return [_sign(kind), label, Styled(told, SIGNS[kind][1])]
    cells = [
        f"{column.name} {_text(row[f'from_{column.name}'])} → {_text(row[f'to_{column.name}'])}"
        for column in columns(table)
        if column.name not in _QUIET and _text(row[f"from_{column.name}"]) != _text(row[f"to_{column.name}"])
    ]
    why = _text(row.get("to_reason")) if table == "setting" else ""
    told = ", ".join(cells) or "again as it was"
    return [_sign(kind), label, Styled(told + (f" · {why}" if why else ""), "warn")]


def _event_tone(row: Mapping[Any, Any]) -> Tone | None:
    """Tone of an event that came: red where something failed, and never green for being new."""
    words = [str(row.get(f"to_{name}")) for name in ("outcome", "new_state", "decision", "severity")]
    tones = [TONES[word] for word in words if word in TONES]
    return next((tone for tone in tones if tone in ("bad", "warn")), None)


def _told(table: str, row: Mapping[Any, Any], side: str) -> str:
    known = {column.name for column in columns(table)}
    name = _NAMES.get(table)
    words = [_text(row.get(f"{side}{column}")) for column in _TOLD if column in known and column != name]
    if table == "setting":
        words = words[:1]
    if table == "incident":
        words.append(_text(row.get(f"{side}state")))
    return " · ".join(word for word in words if word)


def _sign(kind: Any) -> Cell:
    sign, tone = SIGNS.get(str(kind), ("?", "dim"))
    return Styled(sign, tone)


def _time(value: Any) -> str:
    return times.local(value) if isinstance(value, dt.datetime) and value == value else ""  # noqa: PLR0124 - NaT


def _text(value: Any) -> str:
    import pandas as pd

    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value):  # noqa: PLR0124
        return ""
    if isinstance(value, dt.datetime):
        return times.local(value)
    text = (
        f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 40 else str(value)
    )
    text = times.in_text(" ".join(text.split()))
    return text if len(text) <= MAX_VALUE else text[: MAX_VALUE - 1] + "…"


def first_line(value: Any) -> str:
    """First line of a commit's message."""
    return _text(str(value or "").partition("\n")[0])


def _more(frame: pd.DataFrame, what: str, most: int) -> Block:
    shown = min(len(frame), most)
    cut = f", {shown} are shown" if shown < len(frame) else ""
    return Para(Styled(f"{len(frame):,} {what}{cut} · times are {times.zone()}", "dim"))


_VIEWS: dict[str, tuple[View, Sequence[str]]] = {
    "commits": (commits, ("commit", "at", "author", "message", "rows")),
    "diff": (diff, ("table", "diff_type")),
    "history": (history, ("commit", "committed_at", "diff_type")),
    "blame": (history, ("commit", "committed_at", "diff_type")),
    "conflicts": (conflicts, ("table", "column", "base", "ours", "theirs")),
}
"""View by the query that made the frame, and the columns it needs."""
