"""An hour, read through the client: single rows while they are few, groups made where the rows are beyond that."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import msgspec

from tundra_nb.client import times
from tundra_nb.errors import UsageError

from . import changes
from .changes import as_word
from .hour import ATTEMPT_OUTCOMES, FAILED, OUTCOMES, Change, Columns, Hour, Level, Numbering, Stretch

if TYPE_CHECKING:
    import pandas as pd

    from tundra_nb.client.sync import Client

DEFAULT_SINCE = "1h"
MOST_ROWS = 250_000
"""Calls beyond which groups are read: twelve bytes each cross to the browser."""
GROUPS = 480
"""Intervals that a window is read in then, at most."""
STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400)
LEVELS = 180
"""Points of a bucket's line."""
BEFORE = 3600.0
"""Seconds before the window in which breakers, terminals and connections may have begun, and changes were made."""
EMPTY_SHARE = 0.4
"""Share of the last hour: where nothing had happened for so long yet, it begins with what happened first."""
LEAST_WINDOW = 120.0
ID_SHIFT = 22
"""An id is milliseconds since 1970, shifted."""
MOST_ID = 2**63 - 1
RECENT_SECONDS = 900.0
"""A call that began so long ago may still end."""
CALLS = ["operation_id", "at", "profile", "asked", "outcome", "code", "caller", "latency_ms"]
LEVEL_COLUMNS = ["outcome", "bucket_requests", "bucket_tokens"]
ATTEMPTS = ["attempt_id", "at", "profile", "reason", *LEVEL_COLUMNS]
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """Which hour is asked for."""

    since: times.When | None = None
    """One hour ago when left out."""
    between: tuple[times.When, times.When] | None = None
    at: str | None = None
    """A state of the history: a commit, branch, tag or time."""
    incident: str | None = None
    """Its window, at its pin."""
    source: str | None = None
    """What was imported under this name; all of it where no window is given."""
    profile: str | None = None
    code: str | None = None
    caller: str | None = None


class Range(msgspec.Struct, frozen=True, kw_only=True):
    """The same with its ends known; seconds since 1970."""

    since: float
    until: float
    is_live: bool
    at: str | None
    where: str
    is_default: bool = False
    """Nobody has asked for just this window."""
    source: str | None = None
    profile: str | None = None
    code: str | None = None
    caller: str | None = None

    @property
    def times(self) -> tuple[dt.datetime, dt.datetime]:
        """Both ends, as the client takes them."""
        return moment(self.since), moment(self.until)


def moment(at: float) -> dt.datetime:
    """Seconds since 1970 as a time, without one call of `float` too many."""
    return EPOCH + dt.timedelta(microseconds=round(at * 1e6))


def resolve(client: Client, window: Window) -> Range:
    """Both ends of what is asked for.

    Raises:
        UsageError: times that do not parse or exclude each other, an incident that is not there, nothing recorded.
    """
    given = {"profile": window.profile, "code": window.code, "caller": window.caller}
    at, where = window.at, f"as of {window.at}" if window.at else ""
    bounds: tuple[float, float] | None = None
    source = window.source or client.sources.name
    if source is not None:
        if window.incident or window.at:
            raise UsageError(problem="a source has no pins, and no incidents", field="in")
        where = f"source {source}"
    if window.incident is not None:
        if window.between or window.since or window.at:
            raise UsageError(problem="an incident has a window and a pin of its own", field="incident")
        found = client.incidents.find(window.incident)
        ends = [dt.datetime.fromisoformat(found[name]).timestamp() for name in ("since", "until")]
        bounds = (ends[0], ends[1])
        at, where = str(found["ref"]), f"incident {found['title']!r}"
    elif window.between is not None:
        if window.since is not None:
            raise UsageError(problem="`since` and `between` exclude each other", field="between")
        begin, end = (times.to_us(end, field="between") for end in window.between)
        if begin == "all" or end == "all":
            raise UsageError(problem="`between` takes two times", field="between")
        bounds = (begin / 1e6, end / 1e6)
    elif (
        window.since is None and window.at is None and source is None and client.versions.window is not None
    ):  # an incident is open
        bounds = (client.versions.window[0] / 1e6, client.versions.window[1] / 1e6)
    if at is None and source is None and client.versions.at is not None:
        where = client.versions.checked_out
    is_pinned = at is not None or client.versions.at is not None or source is not None
    if bounds is None:
        begin = times.to_us(DEFAULT_SINCE if window.since is None else window.since)
        end_us = times.to_us(dt.datetime.now(dt.UTC))
        assert isinstance(end_us, int)
        if begin == "all" or (is_pinned and window.since is None):
            bounds = _recorded(client, at, source, end_us / 1e6)
        else:
            bounds = (begin / 1e6, end_us / 1e6)
    if bounds[1] <= bounds[0]:
        raise UsageError(problem="the window ends before it begins", field="since")
    is_live = not is_pinned and window.between is None and window.incident is None and bounds[1] > _now() - 60
    is_default = is_live and window.since is None
    return Range(
        since=bounds[0],
        until=bounds[1],
        is_live=is_live,
        at=at,
        where=where,
        is_default=is_default,
        source=source,
        **given,
    )


def _now() -> float:
    return dt.datetime.now(dt.UTC).timestamp()


def _recorded(client: Client, at: str | None, source: str | None, now: float) -> tuple[float, float]:
    """Times of the first and last call of a state of the history; of a pin, of the last hour before its last call."""
    found = client.sql("SELECT min(at) AS first, max(at) AS last FROM operation", at=at, source=source)
    first, last = (found[name].iloc[0] if len(found) else None for name in ("first", "last"))
    if first is None or first != first:  # noqa: PLR0124 - NaN
        return now - 3600, now
    begin, end = (_seconds_of(value) for value in (first, last))
    is_now = at is None and source is None and client.versions.at is None
    return begin - 1, now if is_now else end + 60


def _seconds_of(value: Any) -> float:
    return float(value.timestamp()) if hasattr(value, "timestamp") else float(value) / 1e6


def read(client: Client, asked: Range, *, most_rows: int = MOST_ROWS) -> Hour:
    """Everything that the dashboard shows of a window.

    Raises:
        IpcError: the daemon cannot be reached.
        UsageError: a profile or code that nobody knows.
    """
    profiles, codes, reasons, callers = Numbering(), Numbering(), Numbering(["answered"]), Numbering()
    hour = Hour(
        asked.since, asked.until, asked.is_live, asked.where, profiles, codes, reasons, callers,
        Columns.empty(), Columns.empty(),
    )  # fmt: skip
    hour.counted = count(client, asked)
    hour.step = 0 if hour.counted[0] <= most_rows else _steps(asked)[0]
    with ThreadPoolExecutor(2, "tundra-dash-reading") as beside:
        attempts = beside.submit(_attempt_rows, client, asked, hour.step)
        changed = beside.submit(changes.read, client, asked.since - BEFORE, asked.until, asked.source)
        found: Any = _call_rows(client, asked, hour, most_rows)
        tried: Any = attempts.result()
        _tell_changes(hour, changed.result())
    if asked.is_live and not hour.step:
        for key, frame in (("operation_id", found), ("attempt_id", tried)):
            hour.recent.update(frame[key][_seconds(frame["at"]) >= asked.until - RECENT_SECONDS].tolist())
    hour.calls = calls(found, hour)
    hour.attempts = _attempts(tried, hour)
    hour.levels = _levels(tried, hour)
    read_spans(client, asked, hour)
    hour.most_seconds = asked.until - asked.since
    if asked.is_default:
        _begin_with_the_first(hour)
    return hour


def _begin_with_the_first(hour: Hour) -> None:
    """On a machine that was started ten minutes ago fifty minutes of nothing would hide what happened."""
    spans = [one.since for one in (*hour.bands, *hour.terminals)]
    rows = [float(columns.at.min()) for columns in (hour.calls, hour.attempts) if len(columns)]
    first = min([*rows, *spans], default=hour.since)
    if first - hour.since > EMPTY_SHARE * hour.most_seconds:
        changed = [one.at for one in hour.changes if hour.since <= one.at < first]
        first = min([first, *changed])
        hour.since = max(hour.since, min(first - 0.05 * (hour.until - first), hour.until - LEAST_WINDOW))


def count(client: Client, asked: Range) -> tuple[int, int]:
    """How many calls and attempts there are in the window, by their ids: a range of keys, not a scan."""
    factor = 1000 << ID_SHIFT if asked.source is None else 1_000_000
    ends = [min(int(end * 1000) * factor // 1000, MOST_ID) for end in (asked.since, asked.until)]
    counts = []
    for table in ("operation", "attempt"):
        column = "at" if asked.source is not None else f"{table}_id"
        counts.append(f"(SELECT count(*) FROM {table} WHERE {column} >= {ends[0]} AND {column} < {ends[1]})")  # noqa: S608 - numbers
    found = client.sql(f"SELECT {counts[0]} AS calls, {counts[1]} AS attempts", at=asked.at, source=asked.source)
    return (int(found["calls"].iloc[0]), int(found["attempts"].iloc[0])) if len(found) else (0, 0)


def _rows(client: Client, asked: Range, frame: str, **more: Any) -> pd.DataFrame:
    equals: dict[str, Any] = {"profile": asked.profile}
    if frame == "calls":
        equals |= {"code": asked.code, "caller": asked.caller}
    return client.history(frame, between=asked.times, at=asked.at, source=asked.source, **equals, **more)


def _steps(asked: Range) -> list[int]:
    """Lengths of the intervals that groups can be made of, in the order in which they are tried."""
    return [step for step in STEPS if (asked.until - asked.since) / step <= GROUPS] or [STEPS[-1]]


def _call_rows(client: Client, asked: Range, hour: Hour, most_rows: int) -> pd.DataFrame:
    """Calls, or groups of them where `hour` has a step, which grows until they are no more than single rows may be."""
    if not hour.step:
        return _rows(client, asked, "calls", columns=CALLS)
    by = ["profile", "outcome", "code", "caller", "latency_band"]
    for step in _steps(asked):
        hour.step = step
        found = _rows(client, asked, "calls", by=by, every=step, columns=["outcome"])
        if len(found) <= most_rows:
            break
    return found


def _attempt_rows(client: Client, asked: Range, step: int) -> pd.DataFrame:
    if not step:
        return _rows(client, asked, "attempts", columns=ATTEMPTS)
    return _rows(client, asked, "attempts", by=["profile", "outcome", "reason"], every=step, columns=LEVEL_COLUMNS)


def profiles_of(frame: Any) -> Any:
    """The profile that each call counts for: who answered, or was asked first where none did."""
    profile = frame["profile"].astype(object)
    if "asked" not in frame:  # of groups, which are made so where the rows are
        return profile
    is_open = profile.isna()
    profile[is_open] = frame["asked"][is_open].astype(object).fillna("").astype(str).str.split(",").str[0]
    return profile


def calls(frame: Any, hour: Hour) -> Columns:
    """Calls, or groups of calls, as columns."""
    return Columns.of(
        _seconds(frame["at"]),
        _numbers(profiles_of(frame), hour.profiles),
        _outcomes(frame["outcome"]),
        _numbers(frame["code"], hour.codes),
        _numbers(frame["caller"], hour.callers),
        frame["latency_band" if "latency_band" in frame else "latency_ms"],
        frame["count"] if "count" in frame else [1] * len(frame),
    )


def _attempts(frame: Any, hour: Hour) -> Columns:
    return Columns.of(
        _seconds(frame["at"]),
        _numbers(frame["profile"], hour.profiles),
        _outcomes(frame["outcome"], ATTEMPT_OUTCOMES),
        _numbers(frame["reason"], hour.reasons),
        [0] * len(frame),
        [float("nan")] * len(frame),
        frame["count"] if "count" in frame else [1] * len(frame),
    )


def from_events(kind: str, rows: Sequence[Mapping[str, Any]], hour: Hour) -> Columns:
    """Rows of the live feed as columns. `kind`: operation or attempt."""
    is_call = kind == "operation"
    label, names, outcomes = ("code", hour.codes, OUTCOMES) if is_call else ("reason", hour.reasons, ATTEMPT_OUTCOMES)
    return Columns.of(
        [_iso(row["at"]) for row in rows],
        [hour.profiles.of(str(row.get("profile") or str(row.get("asked") or "").partition(",")[0])) for row in rows],
        [outcomes.get(str(row["outcome"]), FAILED) for row in rows],
        [names.of(str(row.get(label) or "")) for row in rows],
        [hour.callers.of(str(row.get("caller") or "")) if is_call else 0 for row in rows],
        [float("nan") if row.get("latency_ms") is None else row["latency_ms"] for row in rows],
        [1] * len(rows),
    )


def _iso(text: Any) -> float:
    return text / 1e6 if isinstance(text, int) else dt.datetime.fromisoformat(str(text)).timestamp()


def _seconds(at: Any) -> Any:
    return at.dt.as_unit("us").astype("int64").to_numpy().astype("float64") / 1e6


def _numbers(values: Any, names: Numbering) -> Any:
    """A column of words as numbers."""
    return _coded(values, names.of, "")


def _outcomes(values: Any, outcomes: Mapping[str, int] = OUTCOMES) -> Any:
    return _coded(values, lambda word: outcomes.get(word, FAILED), "error")


def _coded(values: Any, code: Callable[[str], int], missing: str) -> Any:
    """A number for each word of a column, which is asked for once; `missing`: the word of a cell that has none."""
    import numpy as np
    import pandas as pd

    kind = values.cat if isinstance(values.dtype, pd.CategoricalDtype) else pd.Series(pd.Categorical(values)).cat
    codes = kind.codes.to_numpy()
    place = np.zeros(len(kind.categories) + 1, "uint8")  # the last is that of code -1
    for number in np.unique(codes).tolist():
        place[number] = code(missing if number < 0 else str(kind.categories[number]))
    return place[codes]


def _levels(attempts: Any, hour: Hour) -> list[Level]:
    """The buckets that attempts met, each as a line of its lowest level per interval."""
    import numpy as np

    made = []
    at = _seconds(attempts["at"])
    place = ((at - hour.since) / max(hour.until - hour.since, 1.0) * LEVELS).astype(int)
    for resource in ("requests", "tokens"):
        level = attempts[f"bucket_{resource}"].to_numpy("float64")
        for profile in attempts["profile"].dropna().unique():
            chosen = (attempts["profile"] == profile).to_numpy() & ~np.isnan(level)
            if not chosen.any():
                continue
            most = float(level[chosen].max())
            lowest = np.full(LEVELS + 1, np.nan)
            np.fmin.at(lowest, np.clip(place[chosen], 0, LEVELS), level[chosen])
            known = np.flatnonzero(~np.isnan(lowest))
            if most <= 0 or float(lowest[known].min()) > 0.5 * most:  # never half empty: nothing to see
                continue
            times_ = hour.since + (known + 0.5) * (hour.until - hour.since) / LEVELS
            shares = np.round(np.clip(lowest[known] / most, 0, 1), 3)
            made.append(Level(f"{profile}/{resource}", times_.tolist(), shares.tolist(), most))
    return sorted(made, key=lambda one: min(one.share))


def read_beside(client: Client, asked: Range, hour: Hour) -> None:
    """Read changes, breakers, terminals and connections again."""
    _tell_changes(hour, changes.read(client, asked.since - BEFORE, asked.until, asked.source))
    read_spans(client, asked, hour)


def _tell_changes(hour: Hour, known: list[Change] | None) -> None:
    hour.knows_changes, hour.changes = known is not None, known or []


def read_spans(client: Client, asked: Range, hour: Hour) -> None:
    """Breakers, terminals and connections: few, and read whole."""
    state: dict[str, Any] = {"between": (moment(asked.since - BEFORE), moment(asked.until)), "at": asked.at}
    state["source"] = asked.source
    events: Any = client.history("breaker-history", profile=asked.profile, **state)
    hour.bands = bands(events.to_dict("records"), hour)
    sessions: Any = client.history("pty-history", **state)
    hour.terminals = terminals(sessions.to_dict("records"), hour)
    links: Any = client.history("connections", **state)
    hour.connections = connections(links.to_dict("records"), hour)


def bands(rows: Sequence[Mapping[str, Any]], hour: Hour) -> list[Stretch]:
    """When each breaker was not closed, or its profile parked; the oldest row first."""
    open_: dict[str, Stretch] = {}
    made: list[Stretch] = []
    for row in rows:
        name, at = str(row["profile"]), _at(row["at"])
        parked, same = as_word(row.get("parked")) == "True", row["old_state"] == row["new_state"]
        state = "parked" if parked and same else str(row["new_state"]).replace("_", " ")
        if (before := open_.pop(name, None)) is not None:
            made.append(_ended(before, at))
        if state != "closed":
            open_[name] = Stretch(name, at, None, state, state in ("open", "parked"), as_word(row.get("reason")))
    made += [_until_taken_out(one, hour) for one in open_.values()]
    return sorted((one for one in made if one.end(hour.until) >= hour.since), key=lambda one: one.since)


def _until_taken_out(band: Stretch, hour: Hour) -> Stretch:
    """A profile that was removed, also while no daemon ran, is not open for ever after."""
    ends = [one.at for one in hour.changes if one.takes_out == band.name and one.at >= band.since]
    return _ended(band, ends[0]) if ends else band


def terminals(rows: Sequence[Mapping[str, Any]], hour: Hour) -> list[Stretch]:
    """When each terminal ran."""
    spans: dict[str, Stretch] = {}
    for row in rows:
        key, at = str(row["pty_id"]), _at(row["at"])
        command = " ".join(as_word(row.get("command")).split()) or key
        if row["event"] == "started":
            spans[key] = Stretch(command, at, None, "running")
        elif row["event"] in ("exited", "killed", "orphan_ended", "lost", "refused"):
            began = spans[key].since if key in spans else at - float(row.get("seconds") or 0)
            code, signal = as_word(row.get("exit_code")), as_word(row.get("exit_signal"))
            is_bad = row["event"] in ("refused", "lost") or code not in ("", "0") or bool(signal)
            word = signal or (f"exit code {code}" if code else str(row["event"]))
            spans[key] = Stretch(command, began, at, word, is_bad)
    return _of_window(spans.values(), hour)


def connections(rows: Sequence[Mapping[str, Any]], hour: Hour) -> list[Stretch]:
    """When each viewer was connected, and lines that broke."""
    spans: dict[str, Stretch] = {}
    made = []
    for row in rows:
        at, state = _at(row["at"]), str(row["new_state"])
        viewer = as_word(row.get("viewer"))
        name = f"{row['peer']} {as_word(row.get('pty_id'))}".strip()
        code = as_word(row.get("code"))
        if not viewer or code:
            made.append(Stretch(name, at, at, code or str(row["reason"]), is_bad=bool(code)))
            continue
        if state in ("ended", "lost"):
            began = spans.pop(viewer, Stretch(name, at, None, "")).since
            made.append(Stretch(name, began, at, str(row["reason"]), state == "lost"))
        elif viewer not in spans:
            spans[viewer] = Stretch(name, at, None, state)
    return _of_window([*made, *spans.values()], hour)


def _of_window(spans: Any, hour: Hour) -> list[Stretch]:
    return sorted((one for one in spans if one.end(hour.until) >= hour.since), key=lambda one: one.since)


def _ended(span: Stretch, at: float) -> Stretch:
    return Stretch(span.name, span.since, at, span.word, span.is_bad, span.reason)


def _at(value: Any) -> float:
    return float(value.timestamp()) if hasattr(value, "timestamp") else _iso(value)
