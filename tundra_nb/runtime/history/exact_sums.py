"""Sums of doltlite beyond 64 bits, as of ids: the engine refuses them, Dolt gives their digits; here, too.

A sum in Python is slower, so a statement is first given to the engine's own.
"""

from __future__ import annotations

import sqlite3

OVERFLOW = "integer overflow"
"""What the engine says of such a sum."""
_LARGEST = (1 << 63) - 1


class _Sum:
    """The aggregate: whole numbers exactly, as text where they do not fit; with any other number a float."""

    def __init__(self) -> None:
        self._total: int | float | None = None

    def step(self, value: float | str | bytes | None) -> None:
        if value is None:
            return
        if not isinstance(value, int | float):
            try:
                value = float(value)
            except ValueError:
                value = 0.0
        self._total = value if self._total is None else self._total + value

    def finalize(self) -> float | str | None:
        if isinstance(self._total, int) and abs(self._total) > _LARGEST:
            return str(self._total)
        return self._total


def sum_exactly(db: sqlite3.Connection) -> None:
    """Replace `sum` in this connection by one that knows no overflow, and cannot be a window function (`sum(…) over`).

    For one statement: Python cannot take an aggregate away again.
    """
    db.create_aggregate("sum", 1, _Sum)  # type: ignore[arg-type]
