"""An hour in words: what broke, since when, what was changed before, and what is still well."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tundra_nb.views.blocks import duration

from .hour import CANCELLED, FAILED, INTERRUPTED, OK, REFUSED, Change, Columns, Hour, is_over

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

INTERVALS = 240
"""In which failing stretches are looked for."""
LEAST_SECONDS = 5.0
"""Shortest length of one of them."""
FAILING_SHARE = 0.25
"""Share of the attempts at a profile in an interval from which on it is failing."""
LEAST_FAILURES = 3
"""Least number in a stretch: fewer are bad luck."""
GAP_INTERVALS = 3
"""Between two stretches that are one."""
GAP_SECONDS = 20.0
CAUSE_SECONDS = 1800.0
"""How long before an outage a change may be its cause."""
SLACK_SECONDS = 2.0
"""A change may be written down a moment after what it does."""
WELL_SHARE = 0.95
"""Share of answered attempts at a profile from which on it is well."""
MOST_EPISODES = 12
SELDOM = 0.1
"""Share of an episode, in which a profile was asked and failed, up to which it was open for all of it."""


@dataclasses.dataclass(frozen=True)
class Episode:
    """A profile that did not answer for a while."""

    profile: str
    since: float
    until: float
    is_on: bool
    """Still going on at the window's end."""
    state: str
    """open, parked or failing."""
    reason: str
    """Reason of most of its failures."""
    count: int
    """Failures with that reason."""
    failures: int
    """Attempts that failed, for whatever reason."""
    cause: Change | None = None
    """The last change before it."""
    knows_changes: bool = True
    refusing: float = 0.0
    """Seconds of it in which nothing was asked of it: its breaker was not closed, or it was parked."""
    is_out: bool = False
    """Over because the profile was removed or switched off, not because it answered again."""

    @property
    def who(self) -> str:
        """What broke, and for how long: the part of its words that stands out."""
        still, whole = "still " if self.is_on else "", self.until - self.since
        between = whole - self.refusing
        if self.state in ("open", "parked") and between >= 1 and between > SELDOM * whole:
            return f"{self.profile} {still}failing for {length(whole)}, {self.state} for {length(self.refusing)} of it"
        return f"{self.profile} {still}{self.state} for {length(whole)}"

    @property
    def what(self) -> str:
        """Since when, and why."""
        end = "" if self.is_on else f" until {clock(self.until)}{', when it was taken out' if self.is_out else ''}"
        why = f" · {self.reason} × {self.count:,}" if self.reason else ""
        return f"from {clock(self.since)}{end}{why}"

    @property
    def before(self) -> str:
        """What was changed just before it."""
        if self.cause is None:
            if not self.knows_changes:
                return "what was changed before is not recorded here"
            return f"nothing was changed in the {length(CAUSE_SECONDS)} before"
        by = f" ({self.cause.author})" if self.cause.author else ""
        ago = self.since - self.cause.at
        when = f"{length(ago)} before" if ago >= 1 else "at that moment"
        return f"{when}: {self.cause.words}{by}"

    @property
    def words(self) -> str:
        return f"{self.who} {self.what}"


@dataclasses.dataclass(frozen=True)
class HourStory:
    """What an hour says."""

    episodes: list[Episode]
    """The worst first; what is still going on before what is over."""
    calls: int
    unanswered: int
    well: list[tuple[str, float]]
    """Profiles that are well, with the share of attempts that they answered."""
    interrupted: int = 0
    """Attempts that the end of the daemon cut off."""

    @property
    def who(self) -> str:
        """The headline's first part: what broke."""
        if self.episodes:
            return self.episodes[0].who
        if not self.calls:
            return "no call"
        return "no lasting failure" if self.unanswered else "all well"

    @property
    def what(self) -> str:
        """The headline's second part."""
        if self.episodes:
            return self.episodes[0].what
        if not self.calls:
            return "in this window"
        return f"· {self.counts}"

    @property
    def counts(self) -> str:
        """How many calls there were, and the share of them that was not answered."""
        calls = f"{self.calls:,} {'call' if self.calls == 1 else 'calls'}"
        cut = f", {self.interrupted:,} cut off by the daemon's end" if self.interrupted else ""
        return f"{calls}, {share(self.unanswered, self.calls)} not answered{cut}"

    @property
    def is_bad(self) -> bool:
        return bool(self.episodes)

    @property
    def headline(self) -> str:
        return f"{self.who} {self.what}"

    @property
    def before(self) -> str:
        """What was changed before the worst; empty where nothing broke."""
        return self.episodes[0].before if self.episodes else ""

    @property
    def beside(self) -> str:
        """What else broke, and what is still well."""
        told = []
        others = dict.fromkeys(one.profile for one in self.episodes[1:] if one.profile != self.episodes[0].profile)
        if others:
            told.append(f"also: {'; '.join(one.words for one in self._first_of(others))}")
        if self.well and self.episodes:
            told.append("still well: " + ", ".join(f"{name} {_percent(part)}" for name, part in self.well[:4]))
        return " · ".join(told)

    def _first_of(self, names: dict[str, None]) -> list[Episode]:
        return [next(one for one in self.episodes if one.profile == name) for name in list(names)[:2]]


def tell(hour: Hour) -> HourStory:
    """What an hour says."""
    episodes = _episodes(hour)
    calls = hour.calls
    total = int(calls.count.sum())
    unanswered = int(calls.count[(calls.outcome == FAILED) | (calls.outcome == REFUSED)].sum())
    bad = {one.profile for one in episodes}
    well = [(name, part) for name, part in _answered(hour) if name not in bad]
    return HourStory(episodes, total, unanswered, well, _interrupted(hour))


def _interrupted(hour: Hour) -> int:
    if INTERRUPTED not in hour.reasons.names:
        return 0
    rows = hour.attempts
    is_cut = (rows.outcome == CANCELLED) & (rows.label == hour.reasons.of(INTERRUPTED))
    return int(rows.count[is_cut].sum())


def _answered(hour: Hour) -> list[tuple[str, float]]:
    """The profiles that answered nearly all of their attempts; not those that were taken out after the last."""
    found = []
    taken_out = {one.takes_out: one.at for one in hour.changes if one.takes_out}
    names = hour.profiles.names
    for name, mine in zip(names, hour.attempts.by_profile(len(names)), strict=True):
        tried = int(mine.count[mine.outcome != CANCELLED].sum())
        part = int(mine.count[mine.outcome == OK].sum()) / tried if tried else 0.0
        if part >= WELL_SHARE and bool((mine.at > taken_out.get(name, -1.0)).any()):
            found.append((name, part))
    return sorted(found, key=lambda one: -one[1])


def _episodes(hour: Hour) -> list[Episode]:
    found = []
    names = hour.profiles.names
    for name, mine in zip(names, hour.attempts.by_profile(len(names)), strict=True):
        closed_gap = max(GAP_INTERVALS * _interval(hour), GAP_SECONDS)
        stretches = [
            (max(band.since, hour.since), min(band.end(hour.until), hour.until), band.word)
            for band in hour.bands
            if band.name == name
        ]
        stretches += [(begin, end, "failing") for begin, end in _failing(mine, hour)]
        for begin, end, states in _merged(stretches, closed_gap):
            episode = _episode(name, begin, end, states, mine, hour)
            if episode is not None:
                found.append(episode)
    found.sort(key=lambda one: (not one.is_on, -one.failures))
    return found[:MOST_EPISODES]


def _episode(
    name: str, begin: float, end: float, states: dict[str, float], mine: Columns, hour: Hour
) -> Episode | None:
    import numpy as np

    during = mine.where((mine.at >= begin - max(hour.step, 1)) & (mine.at <= end + 1))
    failed = during.where(during.outcome == FAILED)
    failures = int(failed.count.sum())
    last_failure = float(failed.at.max()) if len(failed) else begin
    answers = mine.at[(mine.outcome == OK) & (mine.at > last_failure)]
    out = [one.at for one in hour.changes if one.takes_out == name and last_failure <= one.at <= hour.until]
    lasting = [b for b in hour.bands if b.name == name and b.until is None]
    still = [band.word for band in lasting if begin <= max(band.since, hour.since) <= end]
    ended = bool(still) and is_over(answered=bool(len(answers)), state=still[-1], is_out=bool(out))
    if ended:
        still, end = [], min(end, *answers.tolist(), *out)
    # what it is now, or was for most of the time
    words = [word for word in still if word in states] or list(states)
    out_of_use = [word for word in words if word in ("parked", "open")] or [
        word for word in words if word == "half open"
    ]
    state = max(out_of_use, key=lambda word: states[word], default="failing")
    if state in ("failing", "half open") and failures < LEAST_FAILURES:
        return None
    by_reason = np.bincount(failed.label, weights=failed.count) if len(failed) else np.zeros(1)
    top = int(by_reason.argmax())
    reason = hour.reasons.names[top] if by_reason[top] else ""
    interval = _interval(hour)
    last = float(hour.attempts.at.max()) if len(hour.attempts) else hour.until
    answered_since = bool(((mine.outcome == OK) & (mine.at > end + interval)).any())
    closed_since = any(b.name == name and b.until is not None and last_failure <= b.until <= end for b in hour.bands)
    is_out = any(abs(at - end) <= SLACK_SECONDS for at in out)
    # Closed: by probes, a reset or a recheck; nothing failed after it. Taken out: nothing is asked of it any more.
    is_quiet = ended or answered_since or closed_since or bool(out)
    is_on = hour.is_live and (bool(still) or (end >= min(last, hour.until) - 2 * interval and not is_quiet))
    if is_on and state != "failing" and not still:  # a word of the past: it goes on only where it fails since then
        closed = max((b.until for b in hour.bands if b.name == name and b.until is not None), default=begin)
        is_on = int(failed.count[failed.at > closed].sum()) >= LEAST_FAILURES
        state = "failing" if is_on else state
    changed = [one for one in hour.changes if begin - CAUSE_SECONDS <= one.at <= begin + SLACK_SECONDS]
    cause = next((one for one in reversed(changed) if name in one.words), changed[-1] if changed else None)
    end = hour.until if is_on else end
    count, is_out = int(by_reason[top]), is_out and not is_on
    refusing = min(sum(seconds for word, seconds in states.items() if word != "failing"), end - begin)
    return Episode(name, begin, end, is_on, state, reason, count, failures, cause, hour.knows_changes, refusing, is_out)


def _interval(hour: Hour) -> float:
    return max((hour.until - hour.since) / INTERVALS, LEAST_SECONDS, float(hour.step))


def _failing(mine: Columns, hour: Hour) -> list[tuple[float, float]]:
    """Stretches in which a good part of the attempts failed, from the first failure to the last."""
    import numpy as np

    if not len(mine):
        return []
    interval = _interval(hour)
    place = ((mine.at - hour.since) / interval).astype(int).clip(0)
    tried = np.bincount(place, weights=mine.count * (mine.outcome != CANCELLED))
    failed = np.bincount(place, weights=mine.count * (mine.outcome == FAILED), minlength=len(tried))
    bad = np.flatnonzero((failed >= 1) & (failed >= FAILING_SHARE * tried))
    at = mine.at[mine.outcome == FAILED]
    found = []
    for begin, end in runs(bad, GAP_INTERVALS):
        if failed[begin : end + 1].sum() < LEAST_FAILURES:
            continue
        inside = at[(at >= hour.since + begin * interval) & (at < hour.since + (end + 1) * interval)]
        found.append((float(inside.min()), float(inside.max()) + hour.step))
    return found


def runs(places: npt.NDArray[np.int64], gap: int) -> list[tuple[int, int]]:
    """Runs of numbers whose neighbours are no more than `gap` apart."""
    runs: list[tuple[int, int]] = []
    for place in places.tolist():
        if runs and place - runs[-1][1] <= gap:
            runs[-1] = (runs[-1][0], place)
        else:
            runs.append((place, place))
    return runs


def _merged(stretches: list[tuple[float, float, str]], gap: float) -> list[tuple[float, float, dict[str, float]]]:
    """Stretches that are one, with the seconds of each of their words."""
    made: list[tuple[float, float, dict[str, float]]] = []
    for begin, end, word in sorted(stretches):
        if made and begin - made[-1][1] <= gap:
            before = made[-1]
            made[-1] = (before[0], max(before[1], end), before[2])
        else:
            made.append((begin, end, {}))
        words = made[-1][2]
        words[word] = words.get(word, 0.0) + end - begin
    return made


def clock(at: float) -> str:
    """A time for people: local, to the minute; with the date when it is not today's."""
    here = dt.datetime.fromtimestamp(at, dt.UTC).astimezone()
    today = dt.datetime.now(dt.UTC).astimezone().date()
    return here.strftime("%H:%M:%S" if here.date() == today else "%d %b %H:%M:%S").removesuffix(":00")


def length(seconds: float) -> str:
    """A length of time, as exact as it matters."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return duration(seconds)


def share(part: float, whole: float) -> str:
    """A part of a whole in per cent, never rounded to nothing or to all."""
    return _percent(part / whole if whole else 0.0)


def _percent(part: float) -> str:
    if 0 < part < 0.001:
        return "< 0.1 %"
    if 0.999 < part < 1:
        return "> 99.9 %"
    return f"{part * 100:.1f} %".replace(".0 %", " %")


def reasons(hour: Hour) -> list[tuple[str, int, bool]]:
    """Why attempts failed or were refused: the reason, how often, and whether it was a failure; the most first."""
    import numpy as np

    found: list[tuple[str, int, bool]] = []
    for outcome in (FAILED, REFUSED):
        rows = hour.attempts.where(hour.attempts.outcome == outcome)
        counts: Any = np.bincount(rows.label, weights=rows.count) if len(rows) else []
        found += [
            (hour.reasons.names[place], int(number), outcome == FAILED) for place, number in enumerate(counts) if number
        ]
    return sorted(found, key=lambda one: -one[1])


def reason_words(found: Sequence[tuple[str, int, bool]]) -> list[str]:
    """The reasons as they are named: one that attempts both failed and were refused for is there twice."""
    names = [name for name, _, _ in found]
    return [name if is_failure or names.count(name) == 1 else f"{name}, refused" for name, _, is_failure in found]
