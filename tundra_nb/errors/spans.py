"""Lengths of time in words."""

from __future__ import annotations

import datetime as dt
import re

LEAST = 0.01
"""Nobody waits for less: `again in 0.000473 s` is read as a number, not as a time."""
_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


def span(seconds: float) -> str:
    """A length of time as a person would say it: `0.25 s`, `12 s`, `1 min 30 s`, `1 h`, `2 d 3 h`."""
    if seconds < 59.95:
        return f"{max(seconds, LEAST):.3g} s"
    rest = round(seconds) if seconds < 3600 else round(seconds / 60) * 60
    words: list[str] = []
    for length, unit in _UNITS:
        count, rest = divmod(rest, int(length))
        if count:
            words.append(f"{count} {unit}")
        elif words:
            break
    return " ".join(words[:2])


_AHEAD = re.compile(r"\b(again|next probe) in ((?:[\d.]+ (?:s|min|h|d)\b ?){1,2})")
_LENGTHS = {unit: length for length, unit in _UNITS}


def dated(message: str, now_us: int) -> str:
    """A message that is kept: `again in 2 s` would be stale when it is read, so it says the time (UTC) instead."""

    def at(found: re.Match[str]) -> str:
        when = _ahead(found, now_us).isoformat(timespec="seconds").replace("+00:00", "Z")
        return f"{found[1]} at {when}{_space(found)}"

    return _AHEAD.sub(at, message)


def shown(message: str, now_us: int) -> str:
    """A message that is read now, and again in the saved notebook: the span, and the local time that it meant."""

    def at(found: re.Match[str]) -> str:
        when = _ahead(found, now_us).astimezone()
        return f"{found[1]} in {found[2].rstrip()}, at {when:%H:%M:%S %Z}{_space(found)}"

    return _AHEAD.sub(at, message)


def _ahead(found: re.Match[str], now_us: int) -> dt.datetime:
    words = found[2].split()
    seconds = sum(float(number) * _LENGTHS[unit] for number, unit in zip(words[::2], words[1::2], strict=True))
    return dt.datetime.fromtimestamp(now_us / 1e6 + seconds, dt.UTC)


def _space(found: re.Match[str]) -> str:
    return " " if found[2].endswith(" ") else ""
