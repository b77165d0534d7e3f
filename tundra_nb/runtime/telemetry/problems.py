"""What is wrong with the daemon itself at this moment: a log that cannot be written, a data directory that was deleted.

Kept apart from the log, because the log may be what is broken: `status` shows each problem for as long as it lasts, and
the last few that are over.
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Sequence

import msgspec

KEPT = 5
"""Problems that are over and still told."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong. `what` is a stable word; `since` and `until` in seconds since the epoch."""

    what: str
    message: str
    hint: str
    since: float
    until: float | None = None
    """None while it lasts."""
    times: int = 1
    """How often in a row, when it comes and goes."""


class Problems:
    """The problems of one daemon, by their word. From any thread."""

    def __init__(self) -> None:
        self._by_word: dict[str, Problem] = {}
        self._over: collections.deque[Problem] = collections.deque(maxlen=KEPT)
        self.lost: collections.Counter[str] = collections.Counter()
        """What was lost for good, by what it was: lines of a log, traces, rows."""
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
        if what not in self._by_word:  # the usual case, on the path of every event
            return False
        with self._lock:
            ended = self._by_word.pop(what, None)
            if ended is not None:
                self._note(ended, time.time())
            return ended is not None

    def note(self, what: str, message: str) -> None:
        """Tell of something that was over before anybody could know of it."""
        with self._lock:
            now = time.time()
            self._note(Problem(what=what, message=message, hint="", since=now), now)

    def _note(self, ended: Problem, now: float) -> None:
        last = self._over[-1] if self._over else None
        if last is not None and (last.what, last.message) == (ended.what, ended.message):
            self._over[-1] = msgspec.structs.replace(last, until=now, times=last.times + 1)
        else:
            self._over.append(msgspec.structs.replace(ended, until=now))

    def list(self) -> list[Problem]:
        """All, the oldest first; but a deleted data directory before what follows from it."""
        with self._lock:
            return sorted(self._by_word.values(), key=lambda problem: (problem.what != "data_dir", problem.since))

    def of(self, what: str) -> Sequence[Problem]:
        """The problem of this word, while it lasts."""
        with self._lock:
            return [self._by_word[what]] if what in self._by_word else []

    def over(self) -> tuple[Problem, ...]:
        """The last that have ended, in the order of their ends."""
        with self._lock:
            return tuple(self._over)
