"""An hour as bytes for the browser: a header of plain values, and one buffer per column. Never traits: these are saved.

Times cross as whole numbers of `unit` milliseconds since `base`; the other columns as the numbers of `hour`.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator, Sequence
from typing import Any

from tundra_nb.client import times

from .hour import Columns, Hour, Stretch
from .story import HourStory, share

MOST_MARKS = 400
"""Changes, and spans of each kind: the newest."""
CALLS = ("outcome", "profile", "label", "caller", "latency")
ATTEMPTS = ("outcome", "profile", "label")
"""The columns that cross after time and count, in this order."""
MOST_DAYS = 1000
"""Moments at which it is looked whether the clock has been put forward or back."""
_HIGHEST = 2**32 - 1


def pack(hour: Hour, story: HourStory, kind: str = "data") -> tuple[dict[str, Any], list[bytes]]:
    """The whole of it. `kind`: what the script does with it: `data` replaces all, `detail` is a part of it, closer."""
    unit = max(1, -(-int((hour.until - hour.since + 7 * 86400) * 1000) // _HIGHEST))
    base = int((hour.since - 60) * 1000)
    header = {
        "type": kind,
        "base": base,
        "unit": unit,
        "since": hour.since,
        "until": hour.until,
        "live": hour.is_live,
        "where": hour.where,
        "step": hour.step,
        **beside(hour, story),
    }
    return header, buffers(hour.calls, hour.attempts, base, unit)


def beside(hour: Hour, story: HourStory) -> dict[str, Any]:
    """The header's part that changes while it is live."""
    return {
        "names": {
            "profiles": hour.profiles.names,
            "codes": hour.codes.names,
            "reasons": hour.reasons.names,
            "callers": hour.callers.names,
        },
        "zone": times.zone(),
        "offsets": offsets(hour.since, hour.until),
        "story": {
            "who": story.who,
            "what": story.what,
            "before": story.before,
            "beside": story.beside,
            "bad": story.is_bad,
            "calls": story.calls,
            "share": share(story.unanswered, story.calls),
        },
        "episodes": [
            {"profile": one.profile, "since": one.since, "until": one.until, "words": one.words, "before": one.before}
            for one in story.episodes
        ],
        "knows_changes": hour.knows_changes,
        "changes": [
            {"at": one.at, "words": one.words, "author": one.author, "commit": one.is_commit}
            for one in hour.changes[-MOST_MARKS:]
        ],
        "bands": _spans(hour.bands),
        "terminals": _spans(hour.terminals),
        "connections": _spans(hour.connections),
        "levels": [{"name": one.name, "at": list(one.at), "share": list(one.share)} for one in hour.levels],
    }


def offsets(since: float, until: float) -> list[tuple[float, float]]:
    """How many seconds the local clock is ahead of UTC, from when on: several where it is put forward."""
    made = [(since, _offset(since))]
    step = max(86_400.0, (until - since) / MOST_DAYS)
    at = since
    while at < until:
        begin, at = at, min(at + step, until)
        if _offset(at) != made[-1][1]:
            end = at
            while end - begin > 1:
                middle = (begin + end) / 2
                begin, end = (middle, end) if _offset(middle) == made[-1][1] else (begin, middle)
            made.append((float(math.ceil(begin)), _offset(at)))
    return made


def _offset(at: float) -> float:
    local = dt.datetime.fromtimestamp(at, dt.UTC).astimezone()
    return (local.utcoffset() or dt.timedelta()).total_seconds()


def buffers(calls: Columns, attempts: Columns, base: int, unit: int) -> list[bytes]:
    """Columns in the order in which the script reads them."""
    return [*_buffers(calls, CALLS, base, unit), *_buffers(attempts, ATTEMPTS, base, unit)]


def _buffers(rows: Columns, names: Sequence[str], base: int, unit: int) -> Iterator[bytes]:
    at = ((rows.at * 1000 - base) / unit).clip(0, _HIGHEST).astype("<u4")
    yield at.tobytes()
    yield b"" if (rows.count == 1).all() else rows.count.astype("<u4").tobytes()
    for name in names:
        yield getattr(rows, name).tobytes()


def _spans(spans: Sequence[Stretch]) -> list[dict[str, Any]]:
    return [
        {"name": s.name, "since": s.since, "until": s.until, "word": s.word, "bad": s.is_bad, "reason": s.reason}
        for s in spans[-MOST_MARKS:]
    ]
