"""Pictures of frames: lanes over one axis of time, or a bar per group. Pure: a frame in, SVG and words out.

    calls     ▂▂█▆▂   answered above the red of what was not
    latency   ╌╌╱╲╌   of answered calls only: quick failures would look like a recovery
    cost      ▁▁▃▂▁

Bars of one outcome are one path, so that a picture stays small. Failures stand on the base line in red, answered calls
above them in slate: position, not colour alone, tells them apart. What the picture shows stands in words beside it.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tundra_nb.client import times
from tundra_nb.errors import UsageError

from . import svg
from .blocks import Block, Details, Heading, Para, Picture, Styled, Table, duration, money, number
from .columns import is_missing

if TYPE_CHECKING:
    import pandas as pd

WIDTHS = (880.0, 400.0)
"""Of the picture, and of its form for narrow pages."""
LEFT = 12.0
"""The edge on either side."""
WORDS = 20.0
"""Height of the line of words above a lane: whose it is on the left, its numbers on the right."""
LANE = 64.0
BAR = 16.0
BAND = 20.0
GAP = 14.0
TOP = 40.0
BUCKETS = 120
"""At most so many on the axis."""
STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400, 604800)
MAX_LANES = 8
MAX_GROUPS = 16
MAX_VARIANTS = 40
MAX_TOLD = 2
"""Of the stretches that a headline names, the longest."""
MARKS = "▁▂▃▄▅▆▇█"


@dataclasses.dataclass(frozen=True)
class Plotted:
    """A frame and its picture; `frame` is the frame."""

    frame: pd.DataFrame
    blocks: Sequence[Block]

    def __len__(self) -> int:
        return len(self.frame)


@dataclasses.dataclass(frozen=True)
class Lane:
    """One strip over the axis. `series`: style and values by bucket, the first stands on the base line; None: no value.

    As lines or as bars that stand on each other.
    """

    name: str
    series: Sequence[tuple[str, Sequence[float | None]]]
    words: Callable[[float], str]
    is_line: bool = False
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Bar:
    """A bar of parts that follow each other: style and count."""

    name: str
    parts: Sequence[tuple[str, float]]
    note: str
    words: str


@dataclasses.dataclass(frozen=True)
class Band:
    """A stretch of a lane with a word in it, as shares of the axis."""

    start: float
    end: float
    style: str
    word: str
    tip: str


@dataclasses.dataclass(frozen=True)
class Out:
    """A time that a profile was out of use, from the first refusal until its breaker was closed again."""

    profile: str
    state: str
    start: float
    end: float
    reason: str
    still: str


@dataclasses.dataclass(frozen=True)
class Axis:
    """Buckets of equal length over a window; seconds since the epoch."""

    begin: float
    step: float
    count: int

    @property
    def end(self) -> float:
        return self.begin + self.step * self.count

    def bucket(self, at: float) -> int:
        return min(max(int((at - self.begin) // self.step), 0), self.count - 1)

    def share(self, at: float) -> float:
        return min(max((at - self.begin) / (self.end - self.begin), 0.0), 1.0)


@dataclasses.dataclass(frozen=True)
class Sheet:
    """What is drawn on: so many pixels between the edges."""

    width: float

    @property
    def inner(self) -> float:
        return self.width - 2 * LEFT

    def x(self, share: float) -> float:
        return LEFT + self.inner * share

    def words(self, y: float, name: str, note: str) -> Iterator[str]:
        """The line above a lane: either side has what the other leaves, and half of it at least."""
        left, right = (min(len(told) * 12 * svg.CHARACTER + 12, self.inner / 2) for told in (name, note))
        yield svg.text(LEFT, y + 14, name, "ink", room=self.inner - right)
        yield svg.text(LEFT + self.inner, y + 14, note, "dim", anchor="end", room=self.inner - left)


def blocks(plotted: Plotted) -> Sequence[Block]:
    return plotted.blocks


def plot(frame: pd.DataFrame, *, buckets: bool = False) -> Plotted:
    """The picture of a frame of calls, attempts, errors, limit or breaker events, or of one grouped by `by`.

    Args:
        frame: which.
        buckets: of attempts: the levels of the buckets that they met.

    Raises:
        UsageError: frames of this kind have no picture.
    """
    if "variant" in frame.columns and "ok_most" in frame.columns:
        blocks = _variants(frame)
    elif "count" in frame.columns and "errors" in frame.columns:
        blocks = _groups(frame)
    elif "old_state" in frame.columns:
        blocks = _bands(frame)
    elif buckets and "bucket_requests" in frame.columns:
        blocks = _buckets(frame)
    elif "outcome" in frame.columns and "at" in frame.columns:
        blocks = _calls(frame)
    elif "code" in frame.columns and "at" in frame.columns:
        blocks = _counted(frame, map(str, frame["code"]), "bad", "no error in this window")
    elif "decision" in frame.columns:
        kinds = (f"{limit}: {done}" for limit, done in zip(frame["limit_key"], frame["decision"], strict=True))
        blocks = _counted(frame, kinds, "slate", "the limiter had nothing to do in this window")
    else:
        raise UsageError(problem="rows of this kind have no picture", field="--plot", remedy="Leave --plot out.")
    return Plotted(frame, [*blocks, *_rows(frame)])


def _rows(frame: pd.DataFrame) -> list[Block]:
    from .frame import notebook_blocks

    if frame.empty:
        return []
    return [Details(f"the {len(frame):,} row{'s' if len(frame) != 1 else ''}", notebook_blocks(frame))]


def _calls(frame: pd.DataFrame) -> list[Block]:
    if frame.empty:
        return [_empty("no call in this window")]
    axis = _axis(frame["at"])
    at = [axis.bucket(when) for when in _seconds(frame["at"])]
    failed, answered = _zeros(axis), _zeros(axis)
    took: list[list[float]] = [[] for _ in range(axis.count)]
    cost = _zeros(axis)
    for place, outcome, latency, usd in zip(at, frame["outcome"], frame["latency_ms"], frame["cost_usd"], strict=True):
        if outcome == "ok":
            answered[place] += 1
            if latency == latency:  # noqa: PLR0124 - NaN
                took[place].append(float(latency))
        else:
            failed[place] += 1
        if usd == usd:  # noqa: PLR0124 - NaN
            cost[place] += float(usd)
    return _over_time(axis, failed, answered, [_at(t, 0.5) for t in took], [_at(t, 0.95) for t in took], cost)


def _over_time(
    axis: Axis,
    failed: Sequence[float],
    answered: Sequence[float],
    p50: Sequence[float | None],
    p95: Sequence[float | None],
    cost: Sequence[float],
) -> list[Block]:
    total, bad = sum(failed) + sum(answered), sum(failed)
    lanes = [
        Lane("calls", [("bad", failed), ("slate", answered)], number, note=f"{bad:,.0f} of {total:,.0f} failed"),
        Lane("p50, p95", [("ink", p50), ("dim", p95)], _ms, is_line=True, note="of answered calls"),
    ]
    if any(cost):
        lanes.append(Lane("cost", [("slate", cost)], money, note=f"{money(sum(cost))} in all"))
    told = f"{total:,.0f} call{'' if total == 1 else 's'}, {bad:,.0f} not answered"
    return _drawn(axis, lanes, told)


def _counted(frame: pd.DataFrame, kinds: Iterable[str], style: str, none: str) -> list[Block]:
    """A lane for each kind of row, the most frequent ones first."""
    if frame.empty:
        return [_empty(none)]
    axis = _axis(frame["at"])
    at = [axis.bucket(when) for when in _seconds(frame["at"])]
    by_kind: dict[str, list[float]] = {}
    for place, kind in zip(at, kinds, strict=True):
        by_kind.setdefault(kind, _zeros(axis))[place] += 1
    most = sorted(by_kind, key=lambda kind: -sum(by_kind[kind]))
    scale = max(max(values) for values in by_kind.values())
    lanes = [
        Lane(kind, [(style, by_kind[kind])], number, note=f"{sum(by_kind[kind]):,.0f}") for kind in most[:MAX_LANES]
    ]
    told = ", ".join(f"{kind} × {sum(by_kind[kind]):,.0f}" for kind in most[:3])
    return _drawn(axis, lanes, told, scale=scale)


def _groups(frame: pd.DataFrame) -> list[Block]:
    if frame.empty:
        return [_empty("no call in this window")]
    names = list(frame.columns[: list(frame.columns).index("count")])
    time = next((name for name in names if name in ("minute", "hour", "day")), None)
    if time is None:
        return _bars(frame, names)
    axis = _axis(frame[time], step={"minute": 60.0, "hour": 3600.0, "day": 86400.0}[time])
    failed, answered, cost = _zeros(axis), _zeros(axis), _zeros(axis)
    p50: list[float | None] = [None] * axis.count
    p95: list[float | None] = [None] * axis.count
    rows = zip(
        _seconds(frame[time]), *(frame[n] for n in ("count", "errors", "p50_ms", "p95_ms", "cost_usd")), strict=True
    )
    for when, count, errors, half, most, usd in rows:
        place = axis.bucket(when)
        failed[place] += float(errors)
        answered[place] += float(count) - float(errors)
        cost[place] += 0.0 if usd != usd else float(usd)  # noqa: PLR0124 - NaN
        if half == half:  # noqa: PLR0124 - NaN
            p50[place] = max(p50[place] or 0.0, float(half))
            p95[place] = max(p95[place] or 0.0, float(most))
    return _over_time(axis, failed, answered, p50, p95, cost)


def _bars(frame: pd.DataFrame, names: Sequence[str]) -> list[Block]:
    """One bar per group: failed and answered, with p95 and cost in words."""
    shown = frame.sort_values("count", ascending=False).head(MAX_GROUPS)
    most = float(shown["count"].max()) or 1.0
    drawn: list[Bar] = []
    for _, group in shown.iterrows():
        label = " · ".join("none" if is_missing(group[name]) else str(group[name]) for name in names)
        errors, count = float(group["errors"]), float(group["count"])
        words = f"{count:,.0f} calls, {errors:,.0f} failed, p95 {_ms(group['p95_ms'])}"
        note = f"{count:,.0f} · {errors:,.0f} failed"
        drawn.append(Bar(label, [("bad", errors), ("slate", count - errors)], note, words))
    return _barred(drawn, most, "calls: not answered in red, answered in slate")


def _variants(frame: pd.DataFrame) -> list[Block]:
    """One bar per variant: answered, then the band of what nobody knows, then refused and failed."""
    calls = max(float(frame["calls"].max()), 1.0)
    drawn: list[Bar] = []
    one: Any
    for one in frame.head(MAX_VARIANTS).itertuples():
        band = max(float(one.ok_most) - float(one.ok_least), 0.0)
        shown = f"{one.ok_least:,}" if not band else f"{one.ok_least:,} to {one.ok_most:,}"
        rest = float(one.calls) - float(one.ok_least) - band
        refused = min(float(one.refused), max(rest, 0.0))
        parts = [("slate", float(one.ok_least)), ("waits", band), ("warn", refused), ("bad", rest - refused)]
        words = f"{shown} of {one.calls:,} answered, {one.refused:,} refused, {one.failed:,} failed"
        words += f", waits p95 {_ms(one.waited_p95_ms)}"
        drawn.append(Bar(str(one.variant), parts, f"{shown} ok", words))
    return _barred(drawn, calls, "answered in slate, unknown hatched, refused in amber, failed in red")


def _barred(bars: Sequence[Bar], most: float, legend: str) -> list[Block]:
    """Bars below each other, of which `most` would fill the picture."""

    def draw(sheet: Sheet) -> tuple[list[str], float]:
        parts = [svg.text(LEFT, 22, legend, "dim", size=11, room=sheet.inner)]
        y = TOP - 8
        for bar in bars:
            parts += sheet.words(y, bar.name, bar.note)
            share = 0.0
            for style, count in bar.parts:
                if count > 0:
                    tip = f"{bar.name}: {bar.words}"
                    parts.append(svg.bar(sheet.x(share), y + WORDS, sheet.inner * count / most, BAR, style, tip))
                    share += count / most
            y += WORDS + BAR + GAP / 2
        return parts, y + GAP / 2

    words = [f"{bar.name}: {bar.words}" for bar in bars]
    return [
        _picture(draw, "; ".join(words)),
        Details("in words", [Para(word) for word in words], in_text=True),
    ]


def _bands(frame: pd.DataFrame) -> list[Block]:
    if frame.empty:
        return [_empty("no breaker has moved in this window")]
    window = frame.attrs.get("window")  # of an incident that is open: what came later is none of its business
    axis = _axis(frame["at"], until=window[1] / 1e6 if window else dt.datetime.now(dt.UTC).timestamp())
    lanes: list[tuple[str, list[Band], str]] = []
    words: list[str] = []
    outs: list[Out] = []
    for profile in dict.fromkeys(frame["profile"]):
        part = frame[frame["profile"] == profile]
        moments = _seconds(part["at"])
        states = [_state(row) for row in part.itertuples()]
        bands: list[Band] = []
        first = str(part["old_state"].iloc[0])
        ends = [*moments, axis.end]
        was_closed = True
        for index, (state, reason) in enumerate([(first, ""), *states]):
            start = axis.begin if index == 0 else moments[index - 1]
            end = ends[index]
            if end <= start and index == 0:
                continue
            still = " (still)" if index == len(states) else ""
            tip = _stretch(profile, state, start, end, reason)
            bands.append(Band(axis.share(start), axis.share(end), STATE_STYLES.get(state, "void"), state, tip))
            if state != "closed":
                words.append(tip + still)
                out = Out(str(profile), state, start, end, reason, still)
                outs.append(out if was_closed else dataclasses.replace(outs.pop(), end=end, still=still))
            was_closed = state == "closed"
        is_bad = [state for state, _ in states if state in ("open", "parked")]
        lanes.append((str(profile), bands, f"{len(is_bad)} × open or parked"))
    outs.sort(key=lambda out: out.start - out.end)
    told = "; ".join(_stretch(o.profile, o.state, o.start, o.end, o.reason) + o.still for o in outs[:MAX_TOLD])
    told += f"; {len(outs) - MAX_TOLD} more" if len(outs) > MAX_TOLD else ""
    told = told or "no breaker was open"
    row = WORDS + BAND + GAP

    def draw(sheet: Sheet) -> tuple[list[str], float]:
        shown = lanes[:MAX_GROUPS]
        bottom = TOP + row * len(shown)
        parts = [*_ticks(axis, sheet, bottom - GAP)]
        for index, (name, bands, note) in enumerate(shown):
            y = TOP + row * index
            parts += sheet.words(y, name, note)
            parts += (svg_part for band in bands for svg_part in _band(band, sheet, y + WORDS))
        return parts, bottom

    return [
        Heading(f"{told} · {_window(axis)}"),
        _picture(draw, told),
        Details("in words", [Para(word) for word in words[-MAX_GROUPS:]], in_text=True),
    ]


def _stretch(profile: object, state: str, start: float, end: float, reason: str) -> str:
    told = f"{profile} {state.replace('_', ' ')} from {_clock(start)} for {duration(end - start)}"
    return f"{told}: {reason}" if reason else told


def _band(band: Band, sheet: Sheet, y: float) -> Iterator[str]:
    x, end_x = sheet.x(band.start), sheet.x(band.end)
    is_thin = band.style == "good"
    yield svg.bar(x, y + (7 if is_thin else 0), end_x - x, 6 if is_thin else BAND, band.style, band.tip)
    if not is_thin and end_x - x > 8 * len(band.word):
        yield svg.text((x + end_x) / 2, y + 14, band.word.replace("_", " "), "on", anchor="middle", size=11)


STATE_STYLES = {"closed": "good", "open": "bad", "half_open": "warn", "parked": "lost"}


def _state(row: Any) -> tuple[str, str]:
    """The state after an event, and why."""
    parked = getattr(row, "parked", None)
    is_parked = not is_missing(parked) and bool(parked) and row.old_state == row.new_state
    reason = str(row.reason or "")
    return ("parked" if is_parked else str(row.new_state)), reason


_REMAINING = re.compile(r"ratelimit-(?:remaining-(requests|tokens)|(requests|tokens)-remaining)$")
_LIMIT = re.compile(r"ratelimit-(?:limit-(requests|tokens)|(requests|tokens)-limit)$")


def _buckets(frame: pd.DataFrame) -> list[Block]:
    """Their bucket against ours, over time: what the provider's headers said it had left, and what our limiter had."""
    rows = frame[frame["bucket_requests"].notna() | frame["limit_headers"].notna()]
    if rows.empty:
        return [_empty("no attempt in this window met a bucket of ours, or told of one of its provider's")]
    axis = _axis(rows["at"])
    lanes: list[Lane] = []
    for profile in dict.fromkeys(rows["profile"]):
        part = rows[rows["profile"] == profile]
        places = [axis.bucket(when) for when in _seconds(part["at"])]
        for resource in ("requests", "tokens"):
            ours = _lowest(axis, places, part[f"bucket_{resource}"])
            told = [_told(text, resource) for text in part["limit_headers"]]
            theirs = _lowest(axis, places, [left for left, _ in told])
            if any(value is not None for value in theirs) or (
                resource == "requests" and any(v is not None for v in ours)
            ):
                limits = [limit for _, limit in told if limit is not None]
                note = f"theirs of {number(limits[-1])}" if limits else "theirs: not told"
                lanes.append(Lane(f"{profile} {resource}", [("bad", theirs), ("ink", ours)], number, True, note))
    lanes = lanes[:MAX_LANES]
    silent = [lane.name for lane in lanes if not any(value is not None for value in lane.series[0][1])]
    known = [lane for lane in lanes if lane.name not in silent]
    told_words = [f"{lane.name}: theirs {_last(lane, 0)}, ours {_last(lane, 1)}" for lane in known]
    if silent:
        told_words.append(f"{', '.join(silent)}: theirs not told")
    legend = "left in the bucket: theirs, by their headers, in red, and ours"
    return _drawn(axis, lanes, "; ".join(told_words), legend=legend)


def _told(text: Any, resource: str) -> tuple[float | None, float | None]:
    """What the provider's headers say is left, and of how much."""
    if not isinstance(text, str):
        return None, None
    try:
        headers = json.loads(text)
    except ValueError:
        return None, None
    found: list[float | None] = [None, None]
    for name, value in headers.items() if isinstance(headers, dict) else ():
        for place, pattern in enumerate((_REMAINING, _LIMIT)):
            match = pattern.search(str(name))
            if match and resource in match.groups():
                try:
                    found[place] = float(value)
                except (TypeError, ValueError):
                    continue
    return found[0], found[1]


def _lowest(axis: Axis, places: Sequence[int], values: Any) -> list[float | None]:
    made: list[float | None] = [None] * axis.count
    for place, value in zip(places, values, strict=True):
        if value is not None and value == value:  # noqa: PLR0124 - NaN
            before = made[place]
            made[place] = float(value) if before is None else min(before, float(value))
    return made


def _last(lane: Lane, index: int) -> str:
    known = [value for value in lane.series[index][1] if value is not None]
    return number(known[-1]) if known else "not told"


def _drawn(
    axis: Axis, lanes: Sequence[Lane], told: str, *, scale: float | None = None, legend: str = ""
) -> list[Block]:
    when = _window(axis)

    def draw(sheet: Sheet) -> tuple[list[str], float]:
        row = WORDS + LANE + GAP
        bottom = TOP + row * len(lanes)
        parts = [*_ticks(axis, sheet, bottom - GAP + 4)]
        if legend:
            parts.append(svg.text(LEFT, bottom + 6, legend, "dim", size=11, room=sheet.inner))
        for index, lane in enumerate(lanes):
            parts += _lane(axis, lane, sheet, TOP + row * index, scale)
        return parts, bottom + (18 if legend else 0)

    rows = [[lane.name, _sparkline(lane), lane.note] for lane in lanes]
    step = f"each mark is {duration(axis.step)}"
    return [
        Heading(f"{told} · {when}"),
        _picture(draw, f"{told}. {when}"),
        Details("in words", [Table(["", step, ""], rows)], in_text=True),
    ]


def _picture(draw: Callable[[Sheet], tuple[list[str], float]], told: str) -> Picture:
    """What is drawn, wide and narrow; `draw` gives the parts and the height."""
    made = []
    for width in WIDTHS:
        parts, height = draw(Sheet(width))
        made.append(svg.picture(width, height, parts, title=told))
    return Picture(made[0], told, made[1])


def _lane(axis: Axis, lane: Lane, sheet: Sheet, y: float, scale: float | None) -> Iterator[str]:
    floor = y + WORDS + LANE
    stacked = [sum(values) for values in zip(*([v or 0.0 for v in row] for _, row in lane.series), strict=True)]
    known = [value for _, row in lane.series for value in row if value is not None]
    top = scale or (max(known, default=0.0) if lane.is_line else max(stacked, default=0.0)) or 1.0
    most = f"max {lane.words(top)}"
    yield from sheet.words(y, lane.name, f"{lane.note} · {most}" if lane.note else most)
    yield svg.line(LEFT, floor, LEFT + sheet.inner, floor)
    width = sheet.inner / axis.count
    base = [0.0] * axis.count
    for style, values in lane.series:
        if lane.is_line:
            yield from _curve(values, style, floor, top, width)
            continue
        steps = "".join(
            f"M{_n(LEFT + width * place)} {_n(floor - LANE * base[place] / top)}"
            f"v{_n(-max(LANE * value / top, 2.0))}h{_n(max(width - 1, 1.5))}v{_n(max(LANE * value / top, 2.0))}z"
            for place, value in enumerate(values)
            if value
        )
        if steps:
            yield f'<path class="{style}" d="{steps}"/>'
        base = [below + (value or 0.0) for below, value in zip(base, values, strict=True)]


def _curve(values: Sequence[float | None], style: str, floor: float, top: float, width: float) -> Iterator[str]:
    points = [
        (LEFT + width * (place + 0.5), floor - LANE * value / top)
        for place, value in enumerate(values)
        if value is not None
    ]
    if len(points) > 1:
        path = "L".join(f"{_n(x)} {_n(y)}" for x, y in points)
        yield f'<path class="curve curve-{style}" d="M{path}"/>'
    yield from (f'<circle class="{style}" cx="{_n(x)}" cy="{_n(y)}" r="2.5"/>' for x, y in points)


def _ticks(axis: Axis, sheet: Sheet, bottom: float) -> Iterator[str]:
    """Five times at the top, each with a rule through all lanes; on a short axis those that differ as they are told."""
    before = ""
    is_long = axis.end - axis.begin > 86400
    for part in range(5):
        at = axis.begin + (axis.end - axis.begin) * part / 4
        x = sheet.x(part / 4)
        when = dt.datetime.fromtimestamp(at, dt.UTC).astimezone()
        shown = when.strftime("%d %b %H:%M" if is_long else "%H:%M:%S" if axis.end - axis.begin < 600 else "%H:%M")
        if shown == before:
            continue
        before = shown
        anchor = "start" if part == 0 else "end" if part == 4 else "middle"
        yield svg.text(x, TOP - 18, shown, "dim", anchor=anchor, size=11)
        yield svg.line(x, TOP - 12, x, bottom)


def _sparkline(lane: Lane) -> str:
    values = [sum(v or 0.0 for v in parts) for parts in zip(*(row for _, row in lane.series), strict=True)]
    if lane.is_line:
        values = [v or 0.0 for v in lane.series[-1][1]]
    size = max(1, math.ceil(len(values) / 40))
    folded = [max(values[place : place + size]) for place in range(0, len(values), size)]
    top = max(folded, default=0.0) or 1.0
    return "".join(" " if not value else MARKS[min(int(value / top * 7.99), 7)] for value in folded)


def _axis(at: Any, *, step: float | None = None, until: float | None = None) -> Axis:
    moments = _seconds(at)
    begin, end = min(moments), max(*moments, until or 0.0, min(moments) + 1.0)
    step = step or next((s for s in STEPS_S if (end - begin) / s <= BUCKETS), STEPS_S[-1])
    if step and (end - begin) / step > 4 * BUCKETS:  # a few rows far apart
        step = (end - begin) / BUCKETS
    begin = begin // step * step
    return Axis(begin, step, max(int((end - begin) // step) + 1, 2))


def _seconds(at: Any) -> list[float]:
    return [when.timestamp() for when in at]


def _window(axis: Axis) -> str:
    return f"{_clock(axis.begin)} – {_clock(axis.end)} {times.zone(dt.datetime.fromtimestamp(axis.begin, dt.UTC))}"


def _clock(at: float) -> str:
    return times.local(dt.datetime.fromtimestamp(at, dt.UTC))


def _zeros(axis: Axis) -> list[float]:
    return [0.0] * axis.count


def _at(values: list[float], share: float) -> float | None:
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def _ms(value: float | None) -> str:
    return duration(None if value is None else value / 1000)


def _empty(told: str) -> Block:
    return Para(Styled(f"{told}; `--since all` looks further back", "dim"))


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
