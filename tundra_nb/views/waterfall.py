"""The story of a call as a waterfall: what waited, what was tried, how it ended, on one axis of time.

    first    ▒▒▒███|                                 error: status_529 · 50 ms
                   ◆                                 breaker closed → open
    second         ░░░░░░░░░░░████████████           ok · 800 ms · $0.00012

A row is an attempt (hatched: limiter wait and pauses; solid: the call, coloured by outcome; a tick: its first byte), a
breaker's move, or a decision of the limiter. Pure: a `Why` in, SVG text out.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tundra_nb.client.results import Why

from . import svg
from .blocks import duration, money

WIDTH = 880.0
NAMES = 140.0
"""Width of the column of names; the notes on the right have as much as is left."""
NOTES = 310.0
LEFT, RIGHT = NAMES + 16, WIDTH - NOTES - 16
ROW = 24.0
NARROW, NARROW_ROW = 400.0, 48.0
"""Width and height of a row in the form for narrow pages."""
TOP = 30.0
BAR = 12.0
MAX_ROWS = 40
"""A longer story is cut in the picture; the table below it has all of it."""
TICKS = 5

STYLES = {"ok": "good", "error": "bad", "refused": "warn", "cancelled": "void", "interrupted": "lost"}
"""Colour by outcome; the note beside a bar says the word, so colour never stands alone."""


@dataclasses.dataclass(frozen=True)
class Span:
    """A stretch of time, in ms since the call began."""

    start: float
    end: float
    style: str
    tip: str


@dataclasses.dataclass(frozen=True)
class TimeScale:
    """Where the axis of time lies."""

    left: float
    right: float
    total: float
    """ms."""

    def x(self, ms: float) -> float:
        return self.left + (self.right - self.left) * min(max(ms / self.total, 0.0), 1.0)


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the picture."""

    at: float
    name: str
    note: str
    style: str
    spans: Sequence[Span] = ()
    tick: float | None = None
    """When the first byte came."""
    mark: str = ""
    """The style of a diamond at `at`."""
    profile: str = ""

    @property
    def end(self) -> float:
        return max([self.at, *(span.end for span in self.spans)])


def rows(why: Why) -> list[Row]:
    """What the picture shows, in order of time."""
    begin = _time(why["operation"].get("at"))

    def after(at: Any) -> float:
        when = _time(at)
        return max(0.0, (when - begin).total_seconds() * 1000) if when and begin else 0.0

    made = [_attempt(row, after(row.get("at"))) for row in why.get("attempts") or ()]
    made += [_move(row, after(row.get("at"))) for row in why.get("breaker_events") or ()]
    made += [
        _decision(row, after(row.get("at")))
        for row in why.get("limit_events") or ()
        if row.get("decision") in ("refused", "penalised")
    ]
    return sorted(made, key=lambda row: row.at)


def draw(why: Why) -> str:
    """The picture as an SVG document."""
    op: Mapping[str, Any] = why["operation"]
    found = rows(why)
    shown = found[:MAX_ROWS]
    total = max([1.0, op.get("latency_ms") or 0.0, *(row.end for row in shown)])
    cut = len(found) - len(shown)
    bottom = TOP + ROW * (len(shown) + (1 if cut else 0))
    place = TimeScale(LEFT, RIGHT, total)
    parts = [*_axis(place, bottom)]
    before: tuple[Row, float] | None = None
    for index, row in enumerate(shown):
        y = TOP + ROW * index
        if row.spans:
            if before is not None and row.profile != before[0].profile:
                parts += _failover(*before, row, y, place)
            before = row, y
        parts += _row(row, y, place)
    if cut:
        parts.append(svg.text(LEFT, bottom - 8, f"and {cut} more: see the table", "dim"))
    parts += _sum(op, bottom)
    return svg.picture(WIDTH, bottom + 34, parts, title=summary(why))


def draw_narrow(why: Why) -> str:
    """The same for a narrow page: each row's words above its bar, which has the whole width."""
    op: Mapping[str, Any] = why["operation"]
    found = rows(why)
    shown = found[:MAX_ROWS]
    total = max([1.0, op.get("latency_ms") or 0.0, *(row.end for row in shown)])
    cut = len(found) - len(shown)
    bottom = TOP + NARROW_ROW * len(shown) + (ROW if cut else 0)
    place = TimeScale(12, NARROW - 12, total)
    parts = [*_axis(place, bottom)]
    before: tuple[Row, float] | None = None
    for index, row in enumerate(shown):
        y = TOP + NARROW_ROW * index + ROW
        if row.spans:
            if before is not None and row.profile != before[0].profile:
                parts += _failover(*before, row, y, place)
            before = row, y
        # the name has as much room as its words need, the note what is left
        room = min(len(row.name) * 6.5 + 14, NARROW / 2)
        parts.append(svg.text(12, y - 6, row.name, "ink" if row.spans else "dim", room=room))
        parts.append(svg.text(12 + room, y - 6, row.note, row.style, room=NARROW - room - 24))
        parts += _bars(row, y + ROW / 2, place)
    if cut:
        parts.append(svg.text(12, bottom - 8, f"and {cut} more: see the table", "dim"))
    parts.append(svg.line(12, bottom + 4, NARROW - 12, bottom + 4))
    style = STYLES.get(str(op.get("outcome")), "void")
    parts.append(svg.text(12, bottom + 23, _ending(op), style, size=13, room=NARROW - 24))
    parts.append(svg.text(12, bottom + 42, _took(op), "ink", size=13, room=NARROW - 24))
    return svg.picture(NARROW, bottom + 54, parts, title=summary(why))


def summary(why: Why) -> str:
    """The picture in a sentence, for whoever cannot see it."""
    op = why["operation"]
    told = [f"{row.name} {row.note}" for row in rows(why)[:MAX_ROWS]]
    return f"Call {why.operation_id}: {_ending(op)}. " + "; ".join(told)


def _attempt(row: Mapping[str, Any], at: float) -> Row:
    outcome = str(row.get("outcome"))
    style = STYLES.get(outcome, "void")
    profile = str(row.get("profile") or "")
    waited, pause = row.get("limiter_wait_ms") or 0.0, row.get("backoff_ms") or 0.0
    spans = []
    if pause:
        spans.append(Span(max(0.0, at - pause), at, "waits", f"waited {duration(pause / 1000)} before trying"))
    if waited:
        spans.append(Span(at, at + waited, "warn", f"limiter: waited {duration(waited / 1000)}"))
    sent = at + waited
    took = row.get("latency_ms")
    word = row.get("reason") if outcome != "ok" else None
    note = [f"{outcome}: {word}" if word else outcome]
    if took is not None:
        note.append(duration(took / 1000))
    if row.get("retry_after_s") is not None:
        note.append(f"retry after {duration(row['retry_after_s'])}")
    if row.get("cost_usd") is not None:
        note.append(money(row["cost_usd"]))
    told = " · ".join(note)
    spans.append(Span(sent, sent + (took or 0.0), style, f"{profile}: {told}. {row.get('message') or ''}".strip()))
    first = row.get("first_byte_ms")
    return Row(
        at=at,
        name=f"{row.get('seq')}  {profile}",
        note=told,
        style=style,
        spans=spans,
        tick=None if first is None or took is None or first >= took else sent + first,
        profile=profile,
    )


def _move(row: Mapping[str, Any], at: float) -> Row:
    if row.get("old_state") == row.get("new_state"):
        style, note = ("bad", "parked") if row.get("parked") else ("good", "taken back in")
    else:
        closed = row.get("new_state") == "closed"
        style = "good" if closed else "warn" if row.get("new_state") == "half_open" else "bad"
        note = f"breaker {row.get('old_state')} → {row.get('new_state')}"
    if row.get("reason"):
        note += f" ({row['reason']})"
    return Row(at, str(row.get("profile") or ""), note, style, mark=style)


def _decision(row: Mapping[str, Any], at: float) -> Row:
    note = f"limiter: {row.get('resource')} {row.get('decision')}"
    if row.get("retry_after_s") is not None:
        note += f", free after {duration(row['retry_after_s'])}"
    return Row(at, f"{row.get('tier')} {row.get('limit_key') or ''}".strip(), note, "warn", mark="warn")


def _row(row: Row, y: float, place: TimeScale) -> Iterator[str]:
    middle = y + ROW / 2
    yield svg.text(12, middle + 4, row.name, "ink" if row.spans else "dim", room=NAMES - 8)
    yield from _bars(row, middle, place)
    yield svg.text(RIGHT + 16, middle + 4, row.note, row.style, room=NOTES - 12)


def _bars(row: Row, middle: float, place: TimeScale) -> Iterator[str]:
    for span in row.spans:
        start = place.x(span.start)
        yield svg.bar(start, middle - BAR / 2, place.x(span.end) - start, BAR, span.style, span.tip)
    if row.tick is not None:
        yield svg.bar(place.x(row.tick) - 1, middle - BAR / 2, svg.MIN_BAR, BAR, "ground", "first byte")
    if row.mark:
        yield svg.diamond(place.x(row.at), middle, row.mark, row.note)


def _failover(before: Row, before_y: float, row: Row, y: float, place: TimeScale) -> Iterator[str]:
    """Draw the line from the end of one profile's attempt down to the begin of the next profile's."""
    x = place.x(before.end)
    middle = y + ROW / 2
    yield svg.line(x, before_y + ROW / 2 + BAR / 2, x, middle, "path")
    start = place.x(min(span.start for span in row.spans))
    if start > x:
        yield svg.line(x, middle, start, middle, "path")


def _axis(place: TimeScale, bottom: float) -> Iterator[str]:
    step = _step(place.total)
    for count in range(math.floor(place.total / step + 1e-9) + 1):
        x = place.x(count * step)
        yield svg.line(x, TOP - 4, x, bottom + 4)
        yield svg.text(x, TOP - 10, duration(count * step / 1000) if count else "0", "dim", anchor="middle", size=11)


def _sum(op: Mapping[str, Any], bottom: float) -> Iterator[str]:
    yield svg.line(12, bottom + 4, WIDTH - 12, bottom + 4)
    style = STYLES.get(str(op.get("outcome")), "void")
    yield svg.text(12, bottom + 23, _ending(op), style, size=13, room=WIDTH - NOTES - 24)
    yield svg.text(RIGHT + 16, bottom + 23, _took(op), "ink", size=13, room=NOTES - 12)


def _took(op: Mapping[str, Any]) -> str:
    told = [duration(op["latency_ms"] / 1000)] if op.get("latency_ms") is not None else []
    if op.get("cost_usd") is not None:
        told.append(money(op["cost_usd"]))
    if op.get("output_tokens") is not None:
        told.append(f"{op.get('input_tokens')} → {op['output_tokens']} tokens")
    return " · ".join(told)


def _ending(op: Mapping[str, Any]) -> str:
    outcome = str(op.get("outcome"))
    if outcome == "ok":
        return f"answered by {op.get('profile')} ({op.get('model')})"
    return f"{outcome}: {op['code']}" if op.get("code") else outcome


def _step(total: float) -> float:
    """A round number of which at most `TICKS` fit into the total."""
    rough = total / TICKS
    size = 10.0 ** math.floor(math.log10(rough))
    return next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough)


def _time(value: Any) -> dt.datetime | None:
    try:
        when = dt.datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return when if when.tzinfo else when.replace(tzinfo=dt.UTC)
