"""The closest known word, for "did you mean": a leaf that every room may import."""

from __future__ import annotations

from collections.abc import Iterable

CLOSENESS = 0.6
"""Likeness from 0 to 1: below it a suggestion misleads more often than it helps; from our tests' misspellings."""


def nearest(word: str, known: Iterable[str], *, closeness: float = CLOSENESS) -> str | None:
    """The known word that is closest to what was written; None when none is close."""
    import difflib  # only a mistake needs it

    # what is much longer cannot be alike, and megabytes take seconds to compare
    alike = [one for one in known if min(len(one), len(word)) * 2 >= closeness * (len(one) + len(word))]
    if not alike:
        return None
    close = difflib.get_close_matches(word, alike, n=1, cutoff=closeness)
    return close[0] if close else None
