"""The static picture of an hour and its words: what a saved notebook, an exported page and the command line show.

Bars of one outcome are one path in whole pixels, so that two pictures, each with its form for narrow pages, fit into
50 kB of a notebook.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tundra_nb.client import times
from tundra_nb.views import svg
from tundra_nb.views.blocks import Block, Details, Heading, Para, Picture, Styled, Table, duration
from tundra_nb.views.plots import MARKS, STATE_STYLES, STEPS_S, Plotted

from .hour import FAILED, OK, REFUSED, Columns, Hour, Stretch
from .reading import Window, moment, read, resolve
from .story import FAILING_SHARE, HourStory, clock, reason_words, reasons, runs, share, tell

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from tundra_nb.client.sync import Client

EPISODE_COLUMNS = ["profile", "since", "until", "is_on", "state", "reason", "count", "failures", "changed_at",
                   "changed", "author"]  # fmt: skip
BUCKETS = 122
"""At most so many on the axis: five pixels each."""
WIDTH = 880.0
LEFT, RIGHT = 130.0, 740.0
"""Names stand left of the lanes, notes right of them."""
NARROW_BUCKETS = 61
NARROW_WIDTH = 400.0
"""Of a picture for pages as narrow as a phone's."""
NARROW_EDGE = 10.0
NARROW_ABOVE = 18.0
"""There names and notes stand above the lanes."""
TOP = 34.0
CALLS, LATENCY, ROW = 56.0, 46.0, 22.0
MOST_ROWS = 5
"""Profiles, and reasons, that have a row of their own."""
MOST_SPANS = 2
"""Terminals, and connections."""
MOST_LEVELS = 2
"""Buckets that have a row of their own."""
EMPTY_LEVEL = 0.02
"""Share of a bucket below which nothing is left."""
MOST_CHANGES = 12


@dataclasses.dataclass(frozen=True)
class HourAxis:
    """Buckets of equal length over a window, and where they are drawn: lanes go from `left` to `right`.

    `above` a lane is so much room for its words; none where they stand beside it.
    """

    since: float
    until: float
    step: float
    count: int
    left: float = LEFT
    right: float = RIGHT
    width: float = WIDTH
    above: float = 0.0

    def place(self, at: Any) -> Any:
        """Buckets of an array of times; those outside are clipped."""
        return ((at - self.since) / self.step).astype(int).clip(0, self.count - 1)

    def x(self, at: float) -> float:
        part = (at - self.since) / (self.until - self.since)
        return self.left + (self.right - self.left) * min(max(part, 0.0), 1.0)

    def edges(self) -> list[int]:
        """Where the buckets begin and end, in whole pixels."""
        return [round(self.left + (self.right - self.left) * place / self.count) for place in range(self.count + 1)]


def shown(client: Client, window: Window) -> Plotted:
    """The hour where nothing can be live: its picture; `frame` has a row for each stretch in which a profile failed.

    Raises:
        IpcError: the daemon cannot be reached.
        UsageError: a window that is none, a profile or code that nobody knows.
    """
    hour = read(client, resolve(client, window))
    told = tell(hour)
    return Plotted(frame(told), blocks(hour, told))


def frame(told: HourStory) -> pd.DataFrame:
    """The stretches in which a profile did not answer, the worst first."""
    import pandas as pd

    made = pd.DataFrame(
        [
            {
                "profile": one.profile,
                "since": moment(one.since),
                "until": moment(one.until),
                "is_on": one.is_on,
                "state": one.state,
                "reason": one.reason,
                "count": one.count,
                "failures": one.failures,
                "changed_at": moment(one.cause.at) if one.cause else None,
                "changed": one.cause.words if one.cause else None,
                "author": one.cause.author if one.cause else None,
            }
            for one in told.episodes
        ],
        columns=EPISODE_COLUMNS,
    )
    for name in ("since", "until", "changed_at"):
        made[name] = pd.to_datetime(made[name], utc=True)
    made.attrs["query"] = "dash"
    return made


def axis(hour: Hour, most: int = BUCKETS) -> HourAxis:
    """Buckets whose length people know, aligned so that a bar means the same time in every picture."""
    span = hour.until - hour.since
    step = float(next((s for s in STEPS_S if span / s <= most and s >= hour.step), STEPS_S[-1]))
    if span / step < most / 8:
        step = span / most  # a short window: the shortest known length is too long for it
    return HourAxis(hour.since, hour.until, step, max(int(-(-span // step)), 1))


def blocks(hour: Hour, story: HourStory | None = None) -> list[Block]:
    """Headline, cause, picture, and the same in words."""
    told = story or tell(hour)
    begin, end = clock(hour.since), clock(hour.until)
    zone = times.zone(dt.datetime.fromtimestamp(hour.since, dt.UTC))
    window = f"{begin} – {end} {zone}{f' · {hour.where}' if hour.where else ''}"
    made: list[Block] = [Heading(Styled(told.headline, "bad" if told.is_bad else "good" if told.calls else "dim"))]
    if told.before:
        made.append(Para(Styled(told.before, "strong")))
    if told.beside:
        made.append(Para(told.beside))
    made.append(Para(Styled(f"{window} · {told.counts}", "dim")))
    if told.calls or hour.bands or hour.terminals:
        alt = ". ".join(part for part in (told.headline, told.before, told.beside, f"{window}, {told.counts}") if part)
        small = picture(hour, told.headline, narrow(axis(hour, NARROW_BUCKETS)))
        made.append(Picture(picture(hour, told.headline), alt, small))
        made.append(Details("as a table", [_table(hour, told)], in_text=True))
    return made


def _table(hour: Hour, story: HourStory) -> Block:
    at = axis(hour, 40)
    rows: list[list[Any]] = [
        [one.profile, f"{one.words.removeprefix(one.profile).strip()}; {one.before}"]
        for one in story.episodes[:MOST_ROWS]
    ]
    rows += [[name, f"well, {part * 100:.1f} % answered"] for name, part in story.well[:MOST_ROWS]]
    failed, refused, answered = (_counts(hour.calls, at, outcome) for outcome in (FAILED, REFUSED, OK))
    rows.append(["calls", f"{_sparkline(failed + refused + answered)} each mark is {duration(at.step)}"])
    rows.append(["not answered", _sparkline(failed + refused)])
    found = reasons(hour)[:MOST_ROWS]
    told = [f"{word} × {number:,}" for word, (_, number, _) in zip(reason_words(found), found, strict=True)]
    rows.append(["reasons", ", ".join(told)])
    told = [f"{clock(one.at)} {one.words}{f' ({one.author})' if one.author else ''}" for one in hour.changes]
    rows.append(["changed", "; ".join(told[-MOST_CHANGES:]) or "nothing"])
    return Table(["", ""], rows)


def _sparkline(values: npt.NDArray[np.float64]) -> str:
    top = max(float(values.max()), 1.0)
    return "".join(" " if not value else MARKS[min(int(value / top * 7.99), 7)] for value in values.tolist())


def narrow(at: HourAxis) -> HourAxis:
    """The same, drawn for a narrow page."""
    right = NARROW_WIDTH - NARROW_EDGE
    return dataclasses.replace(at, left=NARROW_EDGE, right=right, width=NARROW_WIDTH, above=NARROW_ABOVE)


def picture(hour: Hour, title: str, at: HourAxis | None = None) -> str:
    """All lanes over one axis, as SVG."""
    at = at or axis(hour)
    body: list[str] = []
    y = TOP + at.above
    shown = [one for one in hour.changes if hour.since <= one.at <= hour.until][-MOST_CHANGES:]
    if shown:
        body += _changes(hour, at, y + 4)
        y += ROW + at.above
    body += _calls(hour, at, y)
    y += CALLS + 10 + at.above
    body += _latency(hour, at, y)
    y += LATENCY + 12 + at.above
    for rows in (_profiles(hour, at), _reasons(hour, at), _levels(hour, at), _spans(hour, at)):
        for row in rows:
            body.append(f'<g transform="translate(0 {y:.0f})">{"".join(row)}</g>')
            y += ROW + at.above
        y += 4 if rows else 0
    y -= at.above
    rules = [svg.line(at.x(one.at), TOP + 10, at.x(one.at), y - 4, "path") for one in shown]
    return svg.picture(at.width, y + 4, [*_ticks(at, y - 4), *rules, *body], title=title)


def _counts(rows: Columns, at: HourAxis, outcome: int) -> npt.NDArray[np.float64]:
    import numpy as np

    mine = rows.where(rows.outcome == outcome)
    return np.bincount(at.place(mine.at), weights=mine.count, minlength=at.count).astype("float64")


def _area(at: HourAxis, height: npt.NDArray[Any], floor: float, style: str) -> str:
    """Bars side by side as one path, in whole pixels: it goes up and down by steps, and says only what changes."""
    edges = at.edges()
    tall = [max(round(value), 1) if value > 0 else 0 for value in height.tolist()]
    path, now, place = "", 0, 0
    while place < at.count:
        end = place + 1
        while end < at.count and tall[end] == tall[place]:
            end += 1
        if tall[place] and not now:
            path += f"M{edges[place]} {floor:.0f}"
        if tall[place] != now:
            path += f"v{now - tall[place]}"
        if tall[place]:
            path += f"h{edges[end] - edges[place]}"
        elif now:
            path += "z"
        now, place = tall[place], end
    path += f"v{now}z" if now else ""
    return f'<path class="{style}" d="{path}"/>' if path else ""


def _label(at: HourAxis, y: float, name: str, note: str, *, down: float = 14, style: str = "dim") -> list[str]:
    """The words of the lane at `y`: beside it and so far `down`, or above it."""
    if at.above:
        room = at.right - at.left
        left, right = (min(len(told) * 11.5 * svg.CHARACTER + 12, room / 2) for told in (name, note))
        return [
            svg.text(at.left, y - 5, name, style, size=11.5, room=room - right),
            svg.text(at.right, y - 5, note, "dim", anchor="end", size=11.5, room=room - left),
        ]
    return [
        svg.text(at.left - 10, y + down, name, style, anchor="end", size=11.5, room=at.left - 14),
        svg.text(at.right + 8, y + down, note, "dim", size=11.5, room=at.width - at.right - 10),
    ]


def _calls(hour: Hour, at: HourAxis, y: float) -> Iterator[str]:
    failed, refused, answered = (_counts(hour.calls, at, outcome) for outcome in (FAILED, REFUSED, OK))
    total = failed + refused + answered
    scale = CALLS / max(float(total.max()), 1.0)
    bad, all_ = int((failed + refused).sum()), int(total.sum())
    per = f"per {duration(at.step)}, max {int(total.max()):,}"
    name = f"calls {per}" if at.above else "calls"
    yield from _label(at, y, name, f"{all_:,} · {bad:,} failed", style="ink")
    if not at.above:
        yield svg.text(at.left - 10, y + 30, per, "dim", anchor="end", size=10)
    yield svg.line(at.left, y + CALLS, at.right, y + CALLS)
    for style, values in (("slate", total), ("warn", failed + refused), ("bad", failed)):
        yield _area(at, values * scale, y + CALLS, style)


def _latency(hour: Hour, at: HourAxis, y: float) -> Iterator[str]:
    """Draw p50 to p95, on a logarithmic scale of whole decades."""
    import numpy as np

    p50, p95 = quantiles(hour, at)
    yield from _label(at, y, "latency, answered", "p50 to p95", style="ink")
    known = np.flatnonzero(~np.isnan(p50))
    if not len(known):
        return
    low = math.floor(math.log10(max(float(np.nanmin(p50)), 1.0)))
    high = max(math.ceil(math.log10(max(float(np.nanmax(p95)), 1.0))), low + 1)

    def level(ms: float) -> int:
        return round(y + LATENCY - (math.log10(max(ms, 1.0)) - low) / (high - low) * LATENCY)

    for decade in range(low, high + 1):
        yield svg.line(at.left, level(10**decade), at.right, level(10**decade))
        is_free = at.above or abs(level(10**decade) - (y + 10)) > 12  # of the lane's own name
        if is_free and (low < decade < high or high - low == 1):
            x, down, anchor = (at.left, 10, "start") if at.above else (at.left - 10, 4, "end")
            yield svg.text(x, level(10**decade) + down, duration(10**decade / 1000), "dim", anchor=anchor, size=10)
    edges = at.edges()
    path = ""
    for begin, end in runs(known, 1):
        path += f"M{edges[begin]} {level(p95[begin])}h{edges[begin + 1] - edges[begin]}"
        for place in range(begin + 1, end + 1):
            path += f"v{level(p95[place]) - level(p95[place - 1])}h{edges[place + 1] - edges[place]}"
        path += f"V{max(level(p50[end]), level(p95[end]) + 2)}"
        for place in range(end, begin - 1, -1):
            step = level(p50[place - 1]) - level(p50[place]) if place > begin else 0
            path += f"h{edges[place] - edges[place + 1]}" + (f"v{step}" if step else "")
        path += "z"
    yield f'<path class="slate" d="{path}"/>'


def quantiles(hour: Hour, at: HourAxis) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """p50 and p95 of the answered calls by bucket, NaN where there is none."""
    import numpy as np

    p50, p95 = np.full(at.count, np.nan), np.full(at.count, np.nan)
    mine = hour.calls.where((hour.calls.outcome == OK) & ~np.isnan(hour.calls.latency))
    if not len(mine):
        return p50, p95
    place = at.place(mine.at)
    order = np.lexsort((mine.latency, place))
    latency, passed = mine.latency[order], np.cumsum(mine.count[order], dtype="int64")
    calls = np.bincount(place, weights=mine.count, minlength=at.count).astype("int64")
    there = np.flatnonzero(calls)
    before = (np.cumsum(calls) - calls)[there]
    for values, share_ in ((p50, 0.5), (p95, 0.95)):
        wanted = before + (calls[there] * share_).astype("int64")
        values[there] = latency[np.searchsorted(passed, wanted, "right")]
    return p50, p95


def _changes(hour: Hour, at: HourAxis, y: float) -> Iterator[str]:
    shown = [one for one in hour.changes if hour.since <= one.at <= hour.until][-MOST_CHANGES:]
    yield from _label(at, y, "changes", f"{len(shown)}", down=10, style="ink")
    for index, one in enumerate(shown):
        x = at.x(one.at)
        tip = f"{clock(one.at)} {one.words} {f'({one.author})' if one.author else ''}"
        yield svg.diamond(x, y + 6, "dim" if one.is_commit else "lost", tip, 5)
        end = at.x(shown[index + 1].at) if index + 1 < len(shown) else at.right
        if end - x > 60:
            yield svg.text(x + 9, y + 10, one.words, "ink", size=11, room=end - x - 12)


def _profiles(hour: Hour, at: HourAxis) -> list[list[str]]:
    """A row per profile: its failing share behind the bands of its breaker; those in trouble first."""
    rows = []
    names = hour.profiles.names
    for name, mine in zip(names, hour.attempts.by_profile(len(names)), strict=True):
        bands = [one for one in hour.bands if one.name == name]
        tried = int(mine.count.sum())
        bad = int(mine.count[mine.outcome == FAILED].sum())
        if not tried and not bands:
            continue
        open_for = sum(one.end(hour.until) - max(one.since, hour.since) for one in bands)
        rows.append(((-open_for, -bad), name, mine, bands, f"{share(bad, tried)} failed" if tried else "not asked"))
    rows.sort(key=lambda row: row[0])
    made = []
    for _, name, mine, own, note in rows[:MOST_ROWS]:
        failed, answered = _counts(mine, at, FAILED), _counts(mine, at, OK)
        parts = _row(at, name, note, style="ink")
        asked = failed + answered
        is_failing = (failed > 0) & (failed >= FAILING_SHARE * asked)
        parts += [_area(at, (asked > 0) * 4.0, 20, "slate"), _area(at, is_failing * 5.0, 20, "bad")]
        parts += _bands(at, hour, own)
        made.append(parts)
    if len(rows) > MOST_ROWS:
        made.append(_row(at, f"{len(rows) - MOST_ROWS} more", "with less trouble"))
    return made


def _row(at: HourAxis, name: str, note: str, *, style: str = "dim") -> list[str]:
    """The words of a row; the row is moved to its place as a whole."""
    return _label(at, 0, name, note, down=16, style=style)


def _bands(at: HourAxis, hour: Hour, bands: list[Stretch]) -> Iterator[str]:
    """Its breaker; a word that goes on after a probe is said once."""
    told = ""
    for one in bands:
        x, end = at.x(one.since), at.x(one.end(hour.until))
        style = STATE_STYLES.get(one.word.replace(" ", "_"), "bad" if one.is_bad else "slate")
        until = "still" if one.until is None else f"until {clock(one.until)}"
        yield svg.bar(x, 1, end - x, 13, style, f"{one.name} {one.word} from {clock(one.since)} {until} {one.reason}")
        if one.word != told and end - x > 8 * len(one.word):
            yield svg.text(x + 5, 12, one.word, "on", size=10.5)
            told = one.word


def _reasons(hour: Hour, at: HourAxis) -> list[list[str]]:
    """A row per reason, all on one scale: a single reset must not be as loud as an outage."""
    found = reasons(hour)[:MOST_ROWS]
    places = {name: index for index, name in enumerate(hour.reasons.names)}
    counts: list[npt.NDArray[np.float64]] = []
    for name, _, is_failure in found:
        rows = hour.attempts.where(hour.attempts.label == places[name])
        counts.append(_counts(rows, at, FAILED if is_failure else REFUSED))
    highest = max((float(each.max()) for each in counts), default=1.0)
    made = []
    for (_, number, is_failure), word, each in zip(found, reason_words(found), counts, strict=True):
        drawn = _area(at, each * (15 / highest), 18, "bad" if is_failure else "warn")
        made.append([*_row(at, word, f"{number:,}"), drawn])
    return made


def _levels(hour: Hour, at: HourAxis) -> list[list[str]]:
    """A row per bucket that ran low: what was left in it."""
    import numpy as np

    made = []
    for one in hour.levels[:MOST_LEVELS]:
        share_of = np.full(at.count, np.nan)
        np.fmin.at(share_of, at.place(np.asarray(one.at, "float64")), np.asarray(one.share, "float64"))
        known = np.where(np.isnan(share_of), -1, np.arange(at.count))
        place = np.maximum.accumulate(known)  # a level lasts until the next is known
        lasting = np.where(place < 0, np.nan, share_of[place])
        is_empty = lasting < EMPTY_LEVEL
        drawn = _area(at, np.where(is_empty | np.isnan(lasting), 0.0, lasting * 15), 18, "slate")
        drawn += _area(at, np.where(is_empty, 2.0, 0.0), 18, "warn")
        if is_empty.any():
            x = at.edges()[int(is_empty.argmax())]
            drawn += svg.text(x + 4, 13, "empty", "warn", size=10.5)
        made.append([*_row(at, one.name, f"{one.share[-1] * 100:.0f} % left"), drawn])
    return made


def _spans(hour: Hour, at: HourAxis) -> list[list[str]]:
    made = []
    for kind, spans in (("terminal", hour.terminals), ("connection", hour.connections)):
        chosen = sorted(spans, key=lambda one: (not one.is_bad, -one.since))[:MOST_SPANS]
        for one in chosen:
            x, end = at.x(one.since), at.x(one.end(hour.until))
            bar = svg.bar(x, 8, end - x, 6, "bad" if one.is_bad else "slate", f"{one.name}: {one.word}")
            made.append([*_row(at, one.name, one.word or kind), bar])
    return made


def _ticks(at: HourAxis, bottom: float) -> Iterator[str]:
    """Round local times at the top, each with a rule through all lanes."""
    span = at.until - at.since
    step = next((s for s in STEPS_S if span / s <= (4 if at.above else 7)), STEPS_S[-1])
    offset = dt.datetime.fromtimestamp(at.since, dt.UTC).astimezone().utcoffset() or dt.timedelta()
    first = -(-(at.since + offset.total_seconds()) // step) * step - offset.total_seconds()
    for index in range(int((at.until - first) // step) + 1):
        when = first + index * step
        here = dt.datetime.fromtimestamp(when, dt.UTC).astimezone()
        form = "%d %b %H:%M" if span > 86400 else "%H:%M" if step >= 60 else "%H:%M:%S"
        x = at.x(when)
        yield svg.text(x, TOP - 16, here.strftime(form), "dim", anchor="middle", size=11)
        yield svg.line(x, TOP - 10, x, bottom)
