"""An hour as bytes for the browser: a header of plain values, and one buffer per column. Never traits: these are saved.

Times cross as whole numbers of `unit` milliseconds since `base`; the other columns as the numbers of `hour`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

from tundra_nb.client import times

from .hour import Columns, Hour, Stretch
from .story import HourStory, share

MOST_MARKS = 400
"""Changes, and spans of each kind: the newest."""
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
    if hour.latency is not None:
        header["latency"] = [list(map(_rounded, values)) for values in
                             (hour.latency.at, hour.latency.p50, hour.latency.p95, hour.latency.most)]  # fmt: skip
    return header, [*buffers(hour.calls, base, unit), *buffers(hour.attempts, base, unit)]


def beside(hour: Hour, story: HourStory) -> dict[str, Any]:
    """The header's part that changes while it is live."""
    offset = dt.datetime.fromtimestamp(hour.until, dt.UTC).astimezone().utcoffset() or dt.timedelta()
    return {
        "names": {
            "profiles": hour.profiles.names,
            "codes": hour.codes.names,
            "reasons": hour.reasons.names,
            "callers": hour.callers.names,
        },
        "zone": times.zone(),
        "offset": offset.total_seconds(),
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
        "changes": [
            {"at": one.at, "words": one.words, "author": one.author, "commit": one.is_commit}
            for one in hour.changes[-MOST_MARKS:]
        ],
        "bands": _spans(hour.bands),
        "terminals": _spans(hour.terminals),
        "connections": _spans(hour.connections),
        "levels": [{"name": one.name, "at": list(one.at), "share": list(one.share)} for one in hour.levels],
    }


def buffers(rows: Columns, base: int, unit: int) -> list[bytes]:
    """Columns in the order in which the script reads them."""
    import numpy as np

    at = ((rows.at * 1000 - base) / unit).clip(0, _HIGHEST).astype("<u4")
    return [
        at.tobytes(),
        rows.latency.astype("<f4").tobytes(),
        rows.outcome.tobytes(),
        rows.profile.tobytes(),
        rows.label.tobytes(),
        rows.caller.tobytes(),
        b"" if (rows.count == 1).all() else rows.count.astype(np.dtype("<u4")).tobytes(),
    ]


def _spans(spans: Sequence[Stretch]) -> list[dict[str, Any]]:
    return [
        {"name": s.name, "since": s.since, "until": s.until, "word": s.word, "bad": s.is_bad, "reason": s.reason}
        for s in spans[-MOST_MARKS:]
    ]


def _rounded(value: float) -> float | None:
    return None if value != value else round(value, 3)  # noqa: PLR0124 - NaN
