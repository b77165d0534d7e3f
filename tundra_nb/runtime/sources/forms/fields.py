"""What several forms need to read values that programs write in many ways."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

from tundra_nb.errors import TundraError, every_error
from tundra_nb.guide import lookup
from tundra_nb.runtime.sources.taking import plausible

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_UNITS = {"ns": 1e-9, "µs": 1e-6, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9.]+)(ns|µs|us|ms|s|m|h)?")
_NUMBERS = re.compile(r"\d+(?:\.\d+)?|0x[0-9a-f]+|[0-9a-f]{8,}")
MOST_KNOWN = 10_000
UNCLASSIFIED = "Unclassified"
"""The code of an error that is not in the index."""


def time_us(value: Any) -> int | None:
    """ISO 8601, or a number since the epoch in seconds, ms, µs or ns; None for anything else."""
    if isinstance(value, str):
        try:
            moment = dt.datetime.fromisoformat(value)
        except ValueError:
            value = float(value) if re.fullmatch(r"\d+(?:\.\d+)?", value) else None
        else:
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=dt.UTC)
            at_us = (moment - _EPOCH) // dt.timedelta(microseconds=1)
            return at_us if plausible(at_us) else None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e20:
        return None
    for limit, factor in ((1e11, 1e6), (1e14, 1e3), (1e17, 1)):
        if value < limit:
            return int(value * factor) if plausible(int(value * factor)) else None
    return int(value) // 1000


def seconds(text: str) -> float | None:
    """A duration as Rust's `Debug` writes it: `1.5s`, `250ms`; or a number of seconds."""
    match = _DURATION.fullmatch(text.strip())
    try:
        return None if match is None else float(match[1]) * _UNITS[match[2] or "s"]
    except ValueError:
        return None


def number(value: Any) -> int | None:
    """A whole number, also as text; None for what is none."""
    try:
        found = int(float(value))
    except (TypeError, ValueError, OverflowError):
        return None
    return found if 0 <= found < 1 << 53 else None


def amount(value: Any) -> float | None:
    """A finite number that is not negative; None for what is none."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if 0 <= found < 1e15 else None


class Classifier:
    """Which of our errors a line of somebody else's log means, by the index of the guide."""

    def __init__(self) -> None:
        self._known: dict[str, str | None] = {}
        self._classes: dict[str, type[TundraError]] = {}
        for cls in every_error():
            self._classes.setdefault(cls.code, cls)

    def code(self, text: str) -> str | None:
        """The code, or None where the index knows nothing like it."""
        shape = _NUMBERS.sub("0", text[:400])
        if shape not in self._known:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            found = lookup.find(text[:400]) if len(text) >= 4 else None
            # a name in the line is its meaning; a phrase of a message only where one page has it
            codes = [page.code for page in found.pages if page.code] if found else []
            self._known[shape] = codes[0] if codes else None
        return self._known[shape]

    def facts(self, code: str) -> tuple[str, bool]:
        """Severity of an error of ours and whether it is worth trying again."""
        cls = self._classes.get(code)
        return (cls.severity, cls.retryable) if cls else ("medium", False)
