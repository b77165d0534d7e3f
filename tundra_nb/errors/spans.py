"""Lengths of time in words."""

from __future__ import annotations

_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


def span(seconds: float) -> str:
    """A length of time as a person would say it: `0.25 s`, `12 s`, `1 min 30 s`, `1 h`, `2 d 3 h`."""
    if seconds < 59.95:
        return f"{seconds:.3g} s"
    rest = round(seconds) if seconds < 3600 else round(seconds / 60) * 60
    words: list[str] = []
    for length, unit in _UNITS:
        count, rest = divmod(rest, int(length))
        if count:
            words.append(f"{count} {unit}")
        elif words:
            break
    return " ".join(words[:2])
