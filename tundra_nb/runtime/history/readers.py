"""Read-only connections to a doltlite file, kept for the next reader: opening one costs 2 to 10 ms, using it again 0.1.

A connection belongs to one reader at a time. It may move between threads, but never works in two at once.
"""

from __future__ import annotations

import contextlib
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from tundra_nb.errors import StoreUnavailable

from .contract import Stop

BUSY_SECONDS = 30.0
PROGRESS_STEPS = 20_000
"""Steps of the engine between two looks at the clock: about a millisecond."""
OLD = -1
"""Generation of a connection that is closed when it is given back."""
IDLE = 4
"""Connections kept open while nobody reads."""

Prepare = Callable[[sqlite3.Connection], None]


def uri(name: str, mode: str) -> str:
    """The engine's address of a file, which it does not make when it is not there."""
    return f"file:{name.replace('%', '%25').replace('?', '%3f').replace('#', '%23')}?mode={mode}"


_KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFDIR: "a directory"}


def refuse_other(path: Path) -> None:
    """Raise `StoreUnavailable` when something else stands in the place of the file.

    The engine would wait for a pipe for ever, and speaks of permissions where a directory is.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if not stat.S_ISREG(mode):
        raise StoreUnavailable(
            problem=f"{path} is {_KINDS.get(stat.S_IFMT(mode), 'a device or socket')}, not a file",
            remedy="Move it away; a file of that name is made anew. `tundra restore` brings a backup back.",
            kind="file",
        )


class ReadConnection(sqlite3.Connection):
    """A connection that knows what it was opened for."""

    at: str | None = None
    prepare: Prepare | None = None
    generation = 0


class Readers:
    """Lends connections to `path`, each to the present state or to a commit.

    What a connection is prepared with (an authorizer, limits) stays on it, so it is lent again for the same use only.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._idle: list[ReadConnection] = []
        self._generation = 0

    def take(self, at: str | None = None, stop: Stop | None = None, prepare: Prepare | None = None) -> ReadConnection:
        """A connection to the present state, or a commit, that breaks off when `stop` is due; goes to `give_back`."""
        with self._lock:
            found = next((db for db in reversed(self._idle) if db.at == at and db.prepare is prepare), None)
            if found is not None:
                self._idle.remove(found)
        db = found or self._open(at, prepare)
        if stop is not None:
            db.set_progress_handler(lambda: int(stop.is_due), PROGRESS_STEPS)
        return db

    def give_back(self, db: ReadConnection) -> None:
        """End the reader's transaction and keep the connection, or close it."""
        surplus: list[ReadConnection] = []
        try:
            db.set_progress_handler(None, 0)
            if db.in_transaction:
                db.execute("ROLLBACK")
        except sqlite3.Error:
            db.close()
            return
        with self._lock:
            if db.generation == self._generation:
                self._idle.append(db)
                surplus = [self._idle.pop(0)] if len(self._idle) > IDLE else []
            else:
                surplus = [db]
        for one in surplus:
            one.close()

    @contextlib.contextmanager
    def lent(
        self, at: str | None = None, stop: Stop | None = None, prepare: Prepare | None = None
    ) -> Iterator[ReadConnection]:
        db = self.take(at, stop, prepare)
        try:
            yield db
        finally:
            self.give_back(db)

    def drop(self) -> None:
        """Close what is idle, and later what is lent: the file is another one now."""
        with self._lock:
            self._generation += 1
            idle, self._idle = self._idle, []
        for db in idle:
            db.close()

    def _open(self, at: str | None, prepare: Prepare | None) -> ReadConnection:
        refuse_other(self._path)
        db = sqlite3.connect(
            uri(str(self._path) if at is None else f"{self._path}@{at}", "ro"),
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            factory=ReadConnection,
        )
        db.at, db.prepare, db.generation = at, prepare, self._generation
        if prepare is not None:
            prepare(db)
        return db
