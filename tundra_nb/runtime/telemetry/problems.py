"""What is wrong with the daemon itself at this moment: a log that cannot be written, a data directory that was deleted.

Kept apart from the log, because the log may be what is broken: `status` shows each problem for as long as it lasts.
"""

from __future__ import annotations

import threading
import time

import msgspec


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong. `what` is a stable word; `since` in seconds since the epoch."""

    what: str
    message: str
    hint: str
    since: float


class Problems:
    """The problems of one daemon, by their word. From any thread."""

    def __init__(self) -> None:
        self._by_word: dict[str, Problem] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Problems: {', '.join(self._by_word) or 'none'}>"

    def tell(self, what: str, message: str, hint: str = "") -> bool:
        """Note a problem; True when it was not known in these words."""
        with self._lock:
            known = self._by_word.get(what)
            if known is not None and known.message == message:
                return False
            since = known.since if known else time.time()
            self._by_word[what] = Problem(what=what, message=message, hint=hint, since=since)
            return True

    def has(self, what: str) -> bool:
        return what in self._by_word

    def end(self, what: str) -> bool:
        """The problem has gone; True when there was one."""
        with self._lock:
            return self._by_word.pop(what, None) is not None

    def list(self) -> list[Problem]:
        """All, the oldest first; but a deleted data directory before what follows from it."""
        with self._lock:
            return sorted(self._by_word.values(), key=lambda problem: (problem.what != "data_dir", problem.since))
