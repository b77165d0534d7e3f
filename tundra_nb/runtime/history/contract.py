"""The one contract of both engines. One suite, `tests/contract/test_event_store.py`, runs over all implementations.

The same events in give the same frames out, whatever the engine; only commit hashes differ. Foreign exceptions never
pass: each implementation translates its driver's errors at one seam.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from tundra_nb.errors import Cancelled, StoreBusy, StoreUnavailable, TundraError

from .query import FrameQuery
from .spool import SpoolPlace
from .values import Commit, Merge, RefInfo, Rows, Strategy, TableInfo, TableStat

if TYPE_CHECKING:
    import pyarrow as pa

QUERY_SECONDS = 30.0
"""Longest a query may run."""
SQL_ROWS = 500_000
"""Most rows of free SQL; frames of tables have no such limit, because they are streamed."""
SQL_BYTES = 128 << 20
"""Most bytes of free SQL, as Arrow: it is held whole, since its types are known only at the end."""
WORKING = "WORKING"
"""The ref of the state that is not committed yet."""


class Frame(NamedTuple):
    """A result under way. The batches are made as they are asked for; closing the generator frees the connection."""

    schema: pa.Schema
    batches: Generator[pa.RecordBatch, None, None]
    meta: dict[str, Any]
    """`commit` (hash, None for now), `truncated`; for diffs `from_commit` and `to_commit`."""


class Written(NamedTuple):
    """What became of rows that were stored."""

    refused: int = 0
    """Left out for what they contain."""
    moved: int = 0
    """Stored under an id of their own, because another row had theirs."""


class Stop:
    """Deadline and cancellation of one request, shared by the thread that works and the one that watches.

    The deadline is for the database's work, not for a slow reader of the result: `renew` starts it again when the next
    piece of a long result is begun.
    """

    def __init__(self, seconds: float = QUERY_SECONDS) -> None:
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._gone = False
        self._hook: Callable[[], None] | None = None
        self._lock = threading.Lock()

    @property
    def is_due(self) -> bool:
        return self._gone or time.monotonic() > self._deadline

    def renew(self) -> None:
        self._deadline = time.monotonic() + self._seconds

    def cancel(self) -> None:
        """Nobody waits for the result any more."""
        self._gone = True
        self.enforce()

    def enforce(self) -> None:
        """Call the hook, once, when it is time to stop: for work that cannot look at `is_due` by itself."""
        if not self.is_due:
            return
        with self._lock:  # while it runs, too: whoever takes the hook back may then close what it breaks off
            hook, self._hook = self._hook, None
            if hook is not None:
                hook()

    def set_hook(self, hook: Callable[[], None] | None) -> None:
        """`hook` breaks off what is running, at once; it is called from another thread.

        None takes it back: it is not running any more then, and will not.
        """
        with self._lock:
            self._hook = hook
        self.enforce()

    def error(self) -> TundraError:
        """Why it was stopped."""
        if self._gone:
            return Cancelled()
        return StoreBusy(
            problem=f"the query ran longer than {self._seconds:g} s and was broken off",
            remedy="Narrow it: a time window (`--since`), fewer columns, or a `limit`.",
            kind="deadline",
        )


class EventStore(Protocol):
    """A database of events under version control.

    Two kinds of methods. Those of the *writing side* are called by one thread only, the writer's; those of the
    *reading side* by any thread at any time, each on a connection of its own, and they see whole transactions only.
    Events live on the branch `main`.

    All methods raise `StoreUnavailable` (cannot be reached or used now; the caller tries again), `StoreDamaged`
    (nobody can use it without repair), `StoreBusy` (deadline, or locked by others), and on the reading side
    `Cancelled` after `Stop.cancel`.
    """

    @property
    def engine(self) -> str:
        """`doltlite` or `dolt`."""
        ...

    # --- writing side ---

    def create(self) -> None:
        """Make the database if there is none; the only method besides `open` that may come before `open`."""
        ...

    def open(self, owner: str, node: int) -> int:
        """Connect, create what is missing, and claim a node number for the spool's `owner`.

        Returns:
            The node number granted: `node`, unless another owner of this database has it.

        Raises:
            StoreDamaged: not a database of ours, or made by a newer version.
            ConfigError: the engine cannot be loaded in this Python.
        """
        ...

    def close(self) -> None:
        """Close the writer's connection; readers close theirs. May be called twice."""
        ...

    def place(self) -> SpoolPlace:
        """How far the owner's spool has been stored."""
        ...

    def write(self, rows: Rows, place: SpoolPlace) -> Written:
        """Store rows and place in one transaction: afterwards both are durable, or neither is there.

        A row that is there already changes nothing (rows of versioned tables replace the older ones). Another row with
        an id that is taken is kept, too, under a free id of the same millisecond, and an `error_event` says so. Rows
        that the database refuses are logged and left out.
        """
        ...

    def newest_id(self) -> int:
        """The highest time-ordered id of all tables; 0 when there is none."""
        ...

    def widen(self, step_ms: int) -> None:
        """Rows are about to come whose ids are so far from their `at`: windows must look so much farther."""
        ...

    def commit(self, message: str, author: str, *, allow_empty: bool = True) -> str | None:
        """Make a commit of everything that is not committed yet; return its hash.

        When there is nothing, an empty commit is made, or none and None returned if `allow_empty` is False.

        Changes of versioned tables and events that came meanwhile go into two commits, the events first, so that the
        commit of a change can be reverted; the hash is the later one's.
        """
        ...

    def commit_events(self) -> str | None:
        """Commit the event tables if they have changed, under the worker's own name; leave versioned tables alone."""
        ...

    def leads(self) -> bool:
        """Whether this daemon is the one of the database's daemons that commits what all of them store."""
        ...

    def branch(self, name: str, ref: str = "HEAD", *, delete: bool = False) -> None:
        """Make a branch at `ref`, or delete it. Raises `UsageError` when it exists, or is `main`."""
        ...

    def tag(self, name: str, ref: str = "HEAD", message: str = "", *, delete: bool = False) -> None:
        """Name a commit for good, or delete the name. Raises `UsageError` when it exists."""
        ...

    def propose(self, branch: str, rows: Rows, message: str, author: str) -> str:
        """Commit rows of versioned tables on a branch other than `main`, which is made when it is missing."""
        ...

    def merge(self, branch: str, message: str, author: str, strategy: Strategy | None = None) -> Merge:
        """Bring a branch into `main`. Conflicts change nothing unless `strategy` says whose side wins."""
        ...

    def revert(self, ref: str, author: str) -> str:
        """Commit the opposite of a commit; return the new commit's hash.

        Raises:
            UsageError: the commit holds events, which are facts and stay.
        """
        ...

    def push(self, remote: str) -> None:
        """Send `main`, other branches and tags to a remote: `file:///…`, a path, or what the engine knows."""
        ...

    def pull(self, remote: str) -> str:
        """Merge the remote's `main` into ours; return the commit that we are at then."""
        ...

    def clone(self, remote: str, into: str) -> None:
        """Make a new database from a remote. `into`: a file (doltlite) or a database name (Dolt), not there yet."""
        ...

    def backup(self, target: str) -> None:
        """Commit, then copy the whole history to a `file:///…` target; again later: only what is new."""
        ...

    def restore(self, source: str) -> str | None:
        """Replace the history by a backup; the file in which what was there is kept, None where it is not."""
        ...

    def gc_is_due(self) -> bool:
        """Whether the database has grown enough since the last `gc` that another one pays."""
        ...

    def gc(self) -> None:
        """Free what no commit and no reader needs. The store stands still meanwhile."""
        ...

    # --- reading side ---

    def deleted(self, *, at_once: bool = False) -> StoreUnavailable | None:
        """What somebody has taken away under us, None while all is there.

        Asked many times a second: an engine for which that is dear looks now and then, or `at_once`.
        """
        ...

    def size(self) -> int:
        """Bytes on disk; 0 when the engine does not tell."""
        ...

    def frame(self, query: FrameQuery, stop: Stop) -> Frame:
        """Rows of one table in the order of its key. `query.at` is a commit hash (from `resolve`) or None for now."""
        ...

    def rows(self, query: FrameQuery, stop: Stop) -> list[dict[str, Any]]:
        """The rows of `frame` as plain values, times in microseconds: for the few that a card or page needs.

        Nothing of Arrow is loaded for it, which is most of a worker's memory and of its start.
        """
        ...

    def sql(self, text: str, at: str | None, limit: int | None, stop: Stop) -> Frame:
        """Run one read-only statement at a commit, or now.

        Raises:
            QueryRefused: it is not one reading statement over our tables, or it does not parse.
        """
        ...

    def resolve(self, ref: str | int) -> str:
        """The full hash of a commit, branch, tag, `HEAD~2`, beginning of a hash, or time (µs: the last one by then).

        Raises:
            RefNotFound: names the nearest branch or tag.
        """
        ...

    def log(self, limit: int | None = None, ref: str = "HEAD") -> list[Commit]:
        """Commits that led to `ref`, the newest first."""
        ...

    def diff(self, a: str, b: str, table: str, limit: int | None, stop: Stop) -> Frame:
        """Changed rows of one table between two commits, in the order of the key; `b` may be `WORKING`.

        Args:
            a: a commit, as `resolve` takes it.
            b: the same.
            table: its name.
            limit: at most so many rows; all when it is None.
            stop: ends it.
        """
        ...

    def stat(self, a: str, b: str) -> list[TableStat]:
        """What changed between two commits, by table, in the order of `types.TABLES`; unchanged tables are left out."""
        ...

    def history(self, table: str, key: int | None, stop: Stop, writer: str | None = None) -> Frame:
        """What each commit made of a row, or of all (of one daemon), of a table that people change; see `changes`."""
        ...

    def tables(self) -> list[TableInfo]:
        """The history's tables, in the order of `types.TABLES`."""
        ...

    def refs(self) -> list[RefInfo]:
        """Branches, then tags, by name."""
        ...

    def check(self) -> list[str]:
        """Test the database's integrity; the problems found, none when it is sound."""
        ...
