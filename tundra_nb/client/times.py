"""Time words: `1h`, `30m`, `2d`, `today`, `yesterday`, `14:00`, ISO dates and times, `all`.

A time without a zone is local time, as a person in a notebook means it; what leaves here is UTC.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import time
from typing import Literal

from tundra_nb.errors import UsageError
from tundra_nb.nearest import nearest

When = str | dt.datetime | dt.date | dt.timedelta
"""A time as callers may give it; a timedelta is that long ago."""

WORDS = ("all", "now", "today", "yesterday")
EXAMPLES = (*WORDS, "15m", "1h", "2d", "1w", "1y", "14:00")
"""What completion offers."""

_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800, "y": 365 * 86400}
_AGO = re.compile(r"(?:\d+(?:\.\d+)?(?:min|[smhdwy]))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(min|[smhdwy])")
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?")
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def to_us(when: When, *, now: dt.datetime | None = None, field: str = "since") -> int | Literal["all"]:
    """Microseconds since the epoch of a time, or `all`.

    Args:
        when: a word, an ISO text, a datetime, a date or a timedelta.
        now: what "now" is; aware. The system's by default.
        field: the option it was given for, named in the error.

    Raises:
        UsageError: it is no time; names the nearest word.
    """
    if when == "all":
        return "all"
    return (resolve(when, now=now, field=field) - _EPOCH) // dt.timedelta(microseconds=1)


def resolve(when: When, *, now: dt.datetime | None = None, field: str = "since") -> dt.datetime:
    """The aware datetime (UTC) of a time; see `to_us`."""
    now = now or dt.datetime.now(dt.UTC)
    if not isinstance(when, str):
        if not isinstance(when, dt.date | dt.timedelta):
            raise UsageError(
                problem=f"a time is text, a datetime or a timedelta, not {type(when).__name__}", field=field
            )
        return _from_value(when, now)
    found = from_word(when, now=now)
    if found is None:
        raise UsageError(
            problem=f"{when!r} is not a time",
            field=field,
            nearest=nearest(when.strip().lower(), WORDS),
            remedy="Use 30m, 1h, 2d, today, yesterday, 14:00, 2026-11-24, 2026-11-24T14:00 or all.",
        )
    return found


def from_word(word: str, *, now: dt.datetime) -> dt.datetime | None:
    """The time (UTC) that a word names, None when it names none; for options that take times and other names."""
    text = word.strip()
    lower = text.lower()
    try:
        if lower == "now":
            return now.astimezone(dt.UTC)
        if lower in ("today", "yesterday"):
            day = now.astimezone().date() - dt.timedelta(days=lower == "yesterday")
            return _from_value(day, now)
        if _AGO.fullmatch(lower):
            seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(lower))
            return _from_value(dt.timedelta(seconds=seconds), now)
        if clock := _CLOCK.fullmatch(text):
            return _last_clock(dt.time(int(clock[1]), int(clock[2]), int(clock[3] or 0)), now)
        if re.match(r"\d{4}-", text):
            return _from_value(dt.datetime.fromisoformat(text), now)
    except (ValueError, OverflowError):
        return None
    return None


def local(when: dt.datetime, *, now: dt.datetime | None = None) -> str:
    """A time for people: local, seconds, with the date when it is not today's."""
    here = _here(when)
    today = (now or dt.datetime.now(dt.UTC)).astimezone().date()
    return here.strftime("%H:%M:%S" if here.date() == today else "%Y-%m-%d %H:%M:%S")


def clock(at: object) -> str:
    """A point of time for people, with its zone; also one of the daemon's form. What is none stays as it is."""
    try:
        when = at if isinstance(at, dt.datetime) else dt.datetime.fromisoformat(str(at))
    except ValueError:
        return str(at)
    return f"{local(when)} {zone(when)}"


def zone(when: dt.datetime | None = None) -> str:
    """Name of the local zone (`CET`, `UTC`)."""
    return _here(when or dt.datetime.now(dt.UTC)).tzname() or "local"


def zone_name() -> str:
    """The zone of this process as `TZ` names it (`Europe/Paris`, `UTC`); empty where nothing tells."""
    if name := os.environ.get("TZ", "").removeprefix(":"):
        return "" if name.startswith("/") else name
    try:
        file = os.readlink("/etc/localtime")
    except OSError:
        return "" if any(time.tzname[place] != "UTC" for place in range(1 + time.daylight)) else "UTC"
    return file.partition("zoneinfo/")[2]


def _here(when: dt.datetime) -> dt.datetime:
    return dt.datetime.fromtimestamp(when.timestamp(), dt.UTC).astimezone()  # pandas' own astimezone wants a zone


def _from_value(when: dt.datetime | dt.date | dt.timedelta, now: dt.datetime) -> dt.datetime:
    if isinstance(when, dt.timedelta):
        return now.astimezone(dt.UTC) - when
    if not isinstance(when, dt.datetime):
        when = dt.datetime.combine(when, dt.time())
    return when.astimezone(dt.UTC)  # a naive datetime is taken as local time


def _last_clock(clock: dt.time, now: dt.datetime) -> dt.datetime:
    """The latest moment, not after `now`, at which local clocks showed this time."""
    today = now.astimezone().date()
    at = _from_value(dt.datetime.combine(today, clock), now)
    if at > now:
        at = _from_value(dt.datetime.combine(today - dt.timedelta(days=1), clock), now)
    return at


_IN_TEXT = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")


def in_text(text: str) -> str:
    """A text in which times of the history's form are local ones, with their zone."""
    return _IN_TEXT.sub(lambda found: clock(found[0]), text)


def without(text: object) -> str:
    """A text without its times: what two of them have in common that say the same at different times."""
    return _IN_TEXT.sub("", str(text))
