"""The worker's writing thread: follows the spool into the database and makes commits.

Rows and the place behind them go into one transaction, so that each event is stored exactly once whenever the process
dies. Everything that changes the database runs on this thread, also what a user asks for (`run`), because the engines
have one writer.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import logging
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from tundra_nb.errors import ConfigError, StoreError, StoreUnavailable, TundraError
from tundra_nb.runtime.id_layout import MAX_ID, NODE_BITS, SEQUENCE_BITS
from tundra_nb.types import KEY_OF, REPLACED_TABLES, TABLE_OF, TABLES, Event, columns

from . import schema
from .contract import EventStore
from .protocol import COPIED, Config, Progress
from .query import KEY_SLACK_US
from .spool import START, SpoolPlace, SpoolReader, repaired, segments, writer_id
from .values import Rows

log = logging.getLogger("tundra.history")

FLUSH_ROWS = 200
FLUSH_SECONDS = 0.25
"""What was recorded is stored so soon, if nobody asks for it sooner (reads do) …"""
FLUSH_SECONDS_CAP = 5.0
"""… or, where many daemons make a server slow, so late."""
FLUSH_SHARE = 0.05
"""So much of its time a daemon spends in small transactions. A Dolt server takes 62 a second from 16 daemons, each in
237 ms; 200 that flushed four times a second would ask for 800."""
POLL_SECONDS = 0.05
BATCH_ROWS = 10_000
"""Most rows in one transaction, when there is something to catch up with: about one read of the spool."""
RETRY_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Pauses between attempts to reach a database that is away."""
PROGRESS_SECONDS = 0.05
GC_PAUSE_SECONDS = 600.0
"""After a gc that failed."""

_WRITER_PLACE = {
    table: place
    for table in TABLES
    for place, column in enumerate(columns(table))
    if column.name == "writer_id" and column.nullable
}
"""Where `writer_id` stands in the rows of a table."""

_TIME_PLACES = {
    table: (names.index(KEY_OF[table]), names.index("at"))
    for table in TABLES
    if table not in REPLACED_TABLES and table != "imported_log"
    for names in [[column.name for column in columns(table)]]
}
"""Where key and time stand in the rows of the tables whose keys are ids."""
ID_BITS = NODE_BITS + SEQUENCE_BITS

T = TypeVar("T")


class Writer(threading.Thread):
    """Owns the writing side of the store. `on_progress` and `on_fatal` are called on this thread."""

    def __init__(
        self,
        store: EventStore,
        config: Config,
        on_progress: Callable[[Progress], None],
        on_fatal: Callable[[TundraError], None],
    ) -> None:
        super().__init__(name="history-writer", daemon=True)
        self._store = store
        self._config = config
        self._writer_id = writer_id(config.owner)
        self._step_ms = 0
        self._flush_seconds = FLUSH_SECONDS
        self.stored_until: int | None = None
        """Time of the newest event that this life has stored, microseconds; None before the first."""
        self._on_progress = on_progress
        self._on_fatal = on_fatal
        self._reader: SpoolReader | None = None
        self._changed = threading.Condition()
        self._jobs: list[_Job] = []
        self._target = START
        self._place: SpoolPlace | None = None
        self._problem: TundraError | None = None
        self._stopping = False
        self._is_retry_asked = False
        self._drain_to: SpoolPlace | None = None
        self._pending: list[Event] = []
        self._pending_since = 0.0
        self._uncommitted = 0
        self._committed_at = time.monotonic()
        self._may_be_dirty = True
        self._told_at = 0.0
        self._gc_not_before = 0.0
        self._progress = Progress(place=START)
        self.on_stored: Callable[[Rows], None] | None = None
        """Told the rows that are stored, on this thread."""

    # --- called from other threads ---

    def wait_passed(self, place: SpoolPlace, timeout: float) -> bool:
        """Wait until everything before `place` is stored; tell the writer to hurry."""
        with self._changed:
            self._target = max(self._target, place)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._place is not None and self._place >= place, timeout)
            return self._place is not None and self._place >= place

    def wait_open(self, timeout: float) -> None:
        """Wait for the database; raise what keeps it from being used."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._place is not None or (self._problem is not None and not self._is_retry_asked), timeout
            )
            if self._place is None:
                raise self._problem or StoreUnavailable(
                    problem="the history's database is still opening", kind="opening"
                )

    @property
    def problem(self) -> TundraError | None:
        """What keeps it from writing."""
        with self._changed:
            return self._problem

    def retry(self) -> None:
        """The reason why the database could not be opened may be gone: try now."""
        with self._changed:
            if self._place is None:
                self._problem = None
                self._is_retry_asked = True
                self._changed.notify_all()

    def run_job(self, job: Callable[[], T], *, repairs: bool = False) -> T:
        """Run something on the writing thread, between two transactions; return or raise what it does.

        A job that `repairs` is also run while the database cannot be used; any other then fails with the reason.
        """
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        with self._changed:
            if self._stopping:
                raise StoreUnavailable(problem="the store is closing", kind="closed")
            self._jobs.append(_Job(job, future, repairs))
            self._changed.notify_all()
        return future.result()

    def stop(self, drain_to: SpoolPlace | None = None) -> None:
        """Store what is there (up to `drain_to`), commit, end."""
        with self._changed:
            self._stopping = True
            self._drain_to = drain_to
            self._changed.notify_all()

    # --- the thread ---

    def run(self) -> None:
        try:
            self._follow()
        except _GivenUpError:
            pass  # stopped while the database was away: what is not stored waits in the spool
        except ConfigError as exc:
            self._on_fatal(exc)
        except BaseException:  # noqa: BLE001 - the top of the thread
            # Nothing can be promised after a defect: end the process and let the daemon start a fresh one.
            traceback.print_exc()
            os._exit(70)
        finally:
            self._store.close()
            if self._reader is not None:
                self._reader.close()

    def _follow(self) -> None:
        while True:
            try:
                self._persist(lambda: None)
                self._follow_until_stopped()
            except _RestoredError:
                continue  # from the place that the restored database has saved
            return

    def _follow_until_stopped(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._jobs or self._is_asked(), POLL_SECONDS)
                is_job_there = bool(self._jobs)
            self._look(at_once=is_job_there)
            got = self._read()
            if self._is_flush_due() or is_job_there:
                self._flush()
            for job in self._take_jobs():
                self._run_one(job)
            if self._is_commit_due():
                self._commit()
            if self._stopping:
                if self._drain_to is not None and got:
                    continue
                self._flush()
                if self._persist(self._store.leads):
                    self._persist(self._commit_all)
                self._look_before_telling()
                self._tell(at_once=True)
                return
            self._collect_garbage()
            self._look_before_telling()
            self._tell()

    def _look_before_telling(self) -> None:
        """The segments before the place are deleted as soon as we tell that they are stored."""
        if self._place is not None and self._place.segment > self._progress.place.segment:
            self._look(at_once=True)

    def _look(self, *, at_once: bool) -> None:
        """When the database was deleted: as at a start without it; what the spool still has comes into a new one."""
        problem = self._store.deleted(at_once=at_once)
        if problem is not None:
            log.error("%s", problem.message)
            with self._changed:
                self._place = None  # what was stored is not
            self._set_problem(problem)
            raise _RestoredError

    def _is_asked(self) -> bool:
        return self._place is not None and self._target > self._place

    def _is_flush_due(self) -> bool:
        if not self._pending:
            return False
        age = time.monotonic() - self._pending_since
        return len(self._pending) >= FLUSH_ROWS or age >= self._flush_seconds or self._is_asked() or self._stopping

    def _read(self) -> bool:
        assert self._reader is not None
        batch = self._reader.read(BATCH_ROWS)
        for index in batch.odd:
            batch.events[index] = repaired(batch.events[index])
        if batch.events and not self._pending:
            self._pending_since = time.monotonic()
        self._pending += batch.events
        if not batch.events and not self._pending and self._place is not None and batch.place > self._place:
            # nothing but a step to the next segment, or damage stepped over
            with self._changed:
                self._place = batch.place
                self._changed.notify_all()
        if not batch.events and self._is_asked() and self._target > batch.place:
            with self._changed:  # asked for more than there is: a torn tail; do not hurry for it
                self._target = START
        return bool(batch.events)

    def _flush(self) -> None:
        if not self._pending:
            return
        assert self._reader is not None
        place = self._reader.place
        rows: dict[str, list[tuple[Any, ...]]] = {}
        for kind, some in itertools.groupby(self._pending, type):
            table = TABLE_OF.get(kind)
            if table is not None:
                rows.setdefault(table, []).extend(signed(table, map(msgspec.structs.astuple, some), self._writer_id))
        refused = _set_aside(rows)
        step_ms = _clock_step(rows)
        if step_ms > max(self._step_ms, KEY_SLACK_US // 1000):
            self._persist(lambda: self._store.widen(step_ms))
            self._step_ms = step_ms
        began = time.monotonic()
        written = self._persist(lambda: self._store.write(rows, place))
        if len(self._pending) <= FLUSH_ROWS:
            self._pace(time.monotonic() - began)
        count = sum(len(some) for some in rows.values())
        self._pending = []
        self._uncommitted += count
        self._may_be_dirty = self._may_be_dirty or count > 0
        self._progress.rows += count
        self._progress.refused_rows += written.refused + refused
        self._progress.moved_rows += written.moved
        times = [row[_TIME_PLACES[table][1]] for table, some in rows.items() if table in _TIME_PLACES for row in some]
        with self._changed:
            self._place = place
            self.stored_until = max(times, default=self.stored_until)
            self._changed.notify_all()
        if self.on_stored is not None:
            self.on_stored(rows)

    def _pace(self, seconds: float) -> None:
        """Flush less often where a small transaction takes long: the server has others to serve."""
        wanted = min(max(FLUSH_SECONDS, seconds / FLUSH_SHARE), FLUSH_SECONDS_CAP)
        self._flush_seconds += (wanted - self._flush_seconds) / 4

    def _is_commit_due(self) -> bool:
        age = time.monotonic() - self._committed_at
        is_shared = self._store.engine == "dolt"  # others' rows are committed, too, by one for all
        return (self._may_be_dirty or is_shared) and (
            self._uncommitted >= self._config.commit_rows or age >= self._config.commit_seconds
        )

    def _commit(self) -> None:
        made = self._persist(lambda: self._store.commit_events() if self._store.leads() else None)
        self._note_commit(made is not None)

    def _commit_all(self) -> None:
        self._store.commit_events()
        self._store.commit("Left uncommitted at stop", schema.AUTHOR, allow_empty=False)

    def _note_commit(self, made: bool) -> None:
        self._uncommitted = 0
        self._may_be_dirty = False
        self._committed_at = time.monotonic()
        self._progress.commits += made

    def _collect_garbage(self) -> None:
        """Writing goes on without it: it needs as much space again as the history has, which may not be there."""
        if time.monotonic() < self._gc_not_before:
            return
        try:
            if self._store.gc_is_due():
                self._flush()
                self._store.gc()
                log.info("freed what nothing needs; the history has %.0f MB", self._store.size() / 1e6)
        except StoreError as exc:
            log.warning("garbage of the history is not collected now: %s", exc.message)
            self._gc_not_before = time.monotonic() + GC_PAUSE_SECONDS

    def _run_one(self, job: _Job) -> None:
        try:
            result = job.action()
        except BaseException as exc:  # noqa: BLE001 - it belongs to whoever asked
            job.future.set_exception(exc)
        else:
            self._persist(self._synchronise)
            job.future.set_result(result)

    def _persist(self, action: Callable[[], T]) -> T:
        """Do it, and when the database is away do it again until it is back; the spool holds the rest meanwhile.

        A damaged database is waited for, too: somebody may restore it, or move it away.
        """
        tries = 0
        while True:
            try:
                if self._place is None or self._problem is not None:
                    self._open()
                result = action()
            except StoreError as exc:
                if self._take_retry():
                    continue  # this attempt began before the reason was gone
                if self._repair():
                    raise _RestoredError from exc
                self._fail_jobs(exc)
                if self._stopping:
                    raise _GivenUpError from exc
                if self._problem is None or self._problem.message != exc.message:
                    log.warning("history is not being written: %s", exc.message)
                self._set_problem(exc)
                with self._changed:
                    pause = RETRY_SECONDS[min(tries, len(RETRY_SECONDS) - 1)]
                    self._changed.wait_for(lambda: self._stopping or self._is_retry_asked or self._jobs, pause)
                    if self._is_retry_asked:
                        self._is_retry_asked, self._problem = False, None  # told of an attempt from before
                tries += 1
            else:
                if self._problem is not None or self._progress.error is not None:  # `retry` forgets the first only
                    self._set_problem(None)
                return result

    def _take_retry(self) -> bool:
        with self._changed:
            asked, self._is_retry_asked = self._is_retry_asked, False
            return asked and not self._stopping

    def _open(self) -> None:
        self._store.close()
        self._progress.node = self._store.open(self._config.owner, self._config.node)
        self._progress.newest_id = self._store.newest_id()
        self._synchronise()

    def _synchronise(self) -> None:
        """Go on reading from the place that the database has saved; it differs after a start and after a restore."""
        place = self._store.place()
        if place == self._place:
            return
        if self._store.engine == "dolt" and place.segment > max(segments(Path(self._config.spool)), default=0):
            raise StoreUnavailable(
                problem="the history has more of this daemon than its data directory: that is a copy, or an old one",
                remedy="It goes on under a new identity by itself.",
                kind=COPIED,
            )
        if self._reader is not None:
            self._reader.close()
        self._reader = SpoolReader(Path(self._config.spool), place)
        self._pending = []
        self._may_be_dirty = True
        with self._changed:
            self._place = place
            self._changed.notify_all()

    def _set_problem(self, problem: TundraError | None) -> None:
        with self._changed:
            self._problem = problem
            self._changed.notify_all()
        self._progress.error = problem.to_wire() if problem else None
        self._tell(at_once=True)

    def _repair(self) -> bool:
        """Run what was asked for to make the database usable again; whether one of these succeeded."""
        done = False
        for job in self._take_jobs(repairs=True):
            try:
                result = job.action()
            except BaseException as exc:  # noqa: BLE001 - it belongs to whoever asked
                job.future.set_exception(exc)
            else:
                done = True
                self._synchronise()
                self._set_problem(None)
                job.future.set_result(result)
        return done

    def _fail_jobs(self, exc: StoreError) -> None:
        for job in self._take_jobs():
            job.future.set_exception(exc)

    def _take_jobs(self, *, repairs: bool = False) -> list[_Job]:
        """All that wait, or those that repair."""
        with self._changed:
            taken = [job for job in self._jobs if job.repairs or not repairs]
            self._jobs = [job for job in self._jobs if job not in taken]
        return taken

    def _tell(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if self._place is None and self._problem is None:
            return
        if not at_once and (now - self._told_at < PROGRESS_SECONDS or self._place == self._progress.place):
            return
        self._told_at = now
        self._progress.place = self._place or START
        self._progress.size_bytes = self._store.size()
        if self._reader is not None:
            self._progress.damaged_bytes = self._reader.damaged_bytes
            self._progress.unknown_events = self._reader.unknown_events
        self._on_progress(self._progress)


def _set_aside(rows: dict[str, list[tuple[Any, ...]]]) -> int:
    """Take out the rows whose ids no database holds, as earlier versions made them of a clock past 2039; how many."""
    refused = 0
    for table, some in list(rows.items()):
        if table not in _TIME_PLACES:
            continue
        key = _TIME_PLACES[table][0]
        kept = [row for row in some if row[key] <= MAX_ID]
        if aside := len(some) - len(kept):
            refused += aside
            log.warning("%d rows of %s refused: their ids have more than 63 bits", aside, table)
            rows[table] = kept
            if not kept:
                del rows[table]
    return refused


def _clock_step(rows: Mapping[str, Sequence[tuple[Any, ...]]]) -> int:
    """Farthest that an id is from its row's time, in milliseconds."""
    farthest = 0
    for table, some in rows.items():
        if table in _TIME_PLACES:
            key, at = _TIME_PLACES[table]
            farthest = max(farthest, *(abs((row[key] >> ID_BITS) - row[at] // 1000) for row in some))
    return farthest


class _Job(NamedTuple):
    action: Callable[[], Any]
    future: concurrent.futures.Future[Any]
    repairs: bool


class _RestoredError(Exception):
    """The database is another one now; what was about to be done to the old one is void."""


class _GivenUpError(Exception):
    """The writer was told to stop while it waited for the database."""


def signed(table: str, rows: Iterable[tuple[Any, ...]], writer: str) -> Iterator[tuple[Any, ...]]:
    """The rows as those of a daemon, unless they say whose they are."""
    place = _WRITER_PLACE.get(table)
    for row in rows:
        if place is None or row[place] is not None:
            yield row
        else:
            yield (*row[:place], writer, *row[place + 1 :])
