"""The daemon's face of the history: appends to the spool, keeps the store worker alive, asks it questions.

`append` never waits for the database. A worker that dies is started again at once; one that dies again and again is
started at growing intervals, reads fail with the reason meanwhile, and events wait in the spool.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import hashlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from tundra_nb.environment import account
from tundra_nb.errors import StoreUnavailable, TundraError, from_wire
from tundra_nb.paths import Paths
from tundra_nb.runtime.clock import Clock, Ids
from tundra_nb.runtime.telemetry.problems import Problems
from tundra_nb.runtime.telemetry.redact import refuse_key
from tundra_nb.settings import StoreSettings
from tundra_nb.types import AgentRun, AgentRunOpened, Attempt, AttemptOpened, Event, Operation, OperationOpened

from . import spool as spools
from .line import READ_TRIES, ArrowStream, answered, asked, close, hand_over, handed_over, not_started
from .on_demand import ENVIRONMENT, ended
from .protocol import (
    COPIED,
    FATAL,
    HELLO,
    PROGRESS,
    TRACES,
    Config,
    Progress,
    WorkerRequest,
    read_frame,
)
from .query import Condition, FrameQuery, checked
from .spool import Spool
from .versions import Versions

log = logging.getLogger("tundra.history")

MODULE = "tundra_nb.runtime.history.worker"
START_SECONDS = 15.0
"""Longest wait of a request for a worker that is just starting: from a slow disk Python alone takes ten."""
STOP_SECONDS = 10.0
RESTART_SECONDS = (0.0, 0.1, 0.5, 2.0, 5.0, 10.0)
"""Pauses before the next start, by how many short lives there were in a row."""
SHORT_LIFE_SECONDS = 5.0
DEATHS_TOLERATED = 3
"""After so many short lives in a row, reads fail at once."""
NOTICE_SECONDS = 3.0
PULSE_SECONDS = 1.0
"""How often the worker is asked for a sign of life …"""
PULSE_TIMEOUT_SECONDS = 5.0
"""… how long one may take (a busy machine, a large garbage collection) …"""
PULSES_MISSED = 2
"""… and how many may be missing before the worker is taken for hung. One that a signal has stopped is known at once."""
STDERR_LINES = 20

State = Literal["closed", "starting", "ready", "failing"]


class HistoryStats(msgspec.Struct, frozen=True, kw_only=True):
    """Where the history stands, for `status` and metrics."""

    engine: str
    state: State
    worker_pid: int | None
    restarts: int
    waiting_bytes: int
    """Appended in the current segment and not stored yet; 0 when the worker has caught up."""
    is_behind: bool
    rows: int
    """Stored by the worker in its present life."""
    commits: int
    refused_rows: int
    moved_rows: int
    """Rows whose id was taken, kept under another one: the clock, or a copied data directory, gave an id twice."""
    damaged_bytes: int
    size_bytes: int
    error: str | None
    """What keeps the worker from writing."""
    traces: dict[str, Any] | None = None
    """How the sending of traces stands (`telemetry.sender.TraceStats`); None where none are sent."""
    last_end: str | None = None
    """How the last worker that ended by itself did."""


class History:
    """Append-only history of one daemon. `open` before use; `aclose` stores what is appended, commits, ends the worker.

    `mask` goes over what people name and write.

    `password` belongs to `settings.user`, `reader` is a user with nothing but SELECT and its password (both for Dolt's
    server only). `environ` is where the worker's few variables come from; the process's own when left out.
    """

    def __init__(
        self,
        paths: Paths,
        settings: StoreSettings,
        ids: Ids,
        clock: Clock,
        *,
        password: str = "",
        reader: tuple[str, str] = ("", ""),
        environ: Mapping[str, str] | None = None,
        mask: Callable[[str], str] = str,
    ) -> None:
        self._mask = mask
        self._paths = paths
        self._settings = settings
        self.ids = ids
        self._clock = clock
        self._password = password
        self._reader_login = reader
        self._environ = environ
        self._spool = Spool(paths.spool)
        self._identity = spools.Identity("", 0)
        self._state: State = "closed"
        self._changed = asyncio.Event()
        self._problem: TundraError | None = None
        self._progress = Progress(place=spools.START)
        self._process: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self.lives = 0
        self._is_closing = False
        self._dropped_before = 0
        self._last_end: str | None = None
        self._hung: StoreUnavailable | None = None
        self.troubles = Problems()
        """What keeps, or has kept, events from being recorded or stored."""
        self._traces: dict[str, Any] = {}
        self._traces_told: dict[str, Any] = {}
        """What the worker of now was started with, or told since."""
        self._trace_stats: dict[str, Any] | None = None
        self._traces_dropped = 0
        """By the sender of now."""
        self.requests: collections.Counter[str] = collections.Counter()
        """How often the worker was asked, by method; its pulse left out."""
        self.versions = Versions(self)
        self._last_words: collections.deque[str] = collections.deque(maxlen=STDERR_LINES)

    def __repr__(self) -> str:
        return f"<History {self._settings.engine} {self._state}, {self._spool!r}>"

    async def open(self) -> None:
        """Open the spool, mark what an earlier life left unfinished, start the worker; does not wait for it.

        Raises:
            StoreUnavailable: the data directory cannot be written.
        """
        self._identity, is_copy = await asyncio.to_thread(self._identify)
        self.ids.renumber(self._identity.node)
        await asyncio.to_thread(self._spool.open)
        self.ids.begin_above(self._spool.newest_id)
        # what was under way when a running daemon's folder was copied still is, over there
        interrupted = [] if is_copy and self._settings.engine == "dolt" else _interrupted(self._spool)
        for start in range(0, len(interrupted), 1000):
            self._spool.append(*interrupted[start : start + 1000])
        if calls := sum(isinstance(row, Operation) for row in interrupted):
            some = "1 call was" if calls == 1 else f"{calls:,} calls were"
            self.troubles.note("interrupted", f"{some} under way when the daemon before this one ended")
        self._state = "starting"
        self._supervisor = asyncio.create_task(self._supervise(), name="history-supervisor")

    def _identify(self) -> tuple[spools.Identity, bool]:
        """Who writes, and whether the folder is another daemon's, copied."""
        folder = self._paths.spool
        kept, known = spools.kept_identity(folder), spools.identity(folder)
        is_copy = kept is not None and kept.owner != known.owner
        if is_copy:
            self._note_copy()
        return spools.begin_life(folder, known, self._clock.now_us()), is_copy

    def _note_copy(self) -> None:
        self.troubles.note("copied", "the data directory is a copy of another daemon's; this one writes as a new one")

    async def aclose(self) -> None:
        """Let the worker store everything, commit and end (at most 10 s); what is not stored waits in the spool."""
        if self._supervisor is None:
            return
        self._is_closing = True
        if self._state in ("ready", "starting"):
            with contextlib.suppress(TundraError, TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await self._call("stop", {})
        if self._control is not None:
            with contextlib.suppress(OSError):
                self._control.shutdown(socket.SHUT_RDWR)  # the worker ends when the line does
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await asyncio.wait([self._supervisor])
        self._supervisor.cancel()
        await asyncio.gather(self._supervisor, return_exceptions=True)
        self._supervisor = None
        self._set_state("closed")
        self._spool.close()

    @property
    def writer_id(self) -> str:
        """What stands as `writer_id` in the rows of this daemon."""
        return self._identity.writer_id

    @property
    def engine(self) -> str:
        return self._settings.engine

    @property
    def own(self) -> list[Condition]:
        """What tells the rows of this daemon from those of others; nothing where no other writes."""
        return [Condition("writer_id", "eq", self.writer_id)] if self._settings.engine == "dolt" else []

    @property
    def own_or_unsigned(self) -> list[Condition]:
        """The same with rows of before any row said whose it is."""
        return [Condition("writer_id", "eq_or_null", self.writer_id)] if self._settings.engine == "dolt" else []

    def append(self, *events: Event) -> None:
        """Record events; when this returns, they survive the death of every process. From any thread.

        Raises:
            StoreUnavailable: the disk is full, or the history is closed.
        """
        try:
            self._spool.append(*events)
        except StoreUnavailable as exc:
            self.troubles.tell("spool", exc.message)
            raise
        self.troubles.end("spool")

    def query(self, query: FrameQuery, wait: float | None = None) -> ArrowStream:
        """Rows of one table; raises `UsageError` at once when the query names what is not there.

        Args:
            query: which rows.
            wait: seconds until it must be answered although not all events are stored; its `meta` says so then.
        """
        return ArrowStream(self, self.request("frame", query, wait))

    def request(self, method: str, query: FrameQuery, wait: float | None = None) -> WorkerRequest:
        """A request for rows, as `query` and `rows` make it, and others who hand it on."""
        return WorkerRequest(
            method=method, params=msgspec.to_builtins(checked(query)), after=self._spool.end, wait=wait
        )

    async def rows(self, query: FrameQuery) -> list[dict[str, Any]]:
        """The same rows as plain values, times in microseconds: for small results that the daemon itself reads."""
        found: list[dict[str, Any]] = await self._call("rows", msgspec.to_builtins(checked(query)))
        return found

    def sql(
        self, text: str, at: str | int | None = None, limit: int | None = None, wait: float | None = None
    ) -> ArrowStream:
        """One read-only statement, now or at a ref; `wait` as in `query`."""
        params = {"text": text, "at": at, "limit": limit}
        return ArrowStream(self, WorkerRequest(method="sql", params=params, after=self._spool.end, wait=wait))

    def stream(self, method: str, **params: Any) -> ArrowStream:
        """A method of the worker that gives a frame, piece by piece; `versions` has them with their types."""
        return ArrowStream(self, WorkerRequest(method=method, params=params, after=self._spool.end))

    async def call(self, method: str, **params: Any) -> Any:
        """A method of the worker: JSON values, or the bytes of a whole Arrow stream. See `versions`.

        Raises:
            UsageError: a branch, tag or remote was to be named by a key; messages and authors are masked instead.
        """
        if method in _WORDED:
            params = self._worded(params)
        return await self._call(method, params)

    def _worded(self, params: dict[str, Any]) -> dict[str, Any]:
        """Commit messages and names are pushed, pulled and cannot be taken back."""
        masked = {name: self._mask(value) if isinstance(value, str) else value for name, value in params.items()}
        for name in ("name", "branch"):
            if isinstance(params.get(name), str) and not params.get("delete"):
                refuse_key(self._mask, params[name], name)
        return {name: masked[name] if name in ("message", "author") else value for name, value in params.items()}

    async def trace(self, traces: Mapping[str, Any]) -> None:
        """Send traces there from now on (`telemetry.sender.Traces`); an empty mapping: none."""
        if dict(traces) == {name: value for name, value in self._traces.items() if name != "since_us"}:
            return
        self._traces = {**traces, "since_us": self._clock.now_us()} if traces else {}
        self._trace_stats = None
        self.troubles.end("traces")
        await self._tell_traces()

    async def _tell_traces(self) -> None:
        """Tell the worker; one that starts anew is told at its start."""
        if self._state == "ready" and self._traces != self._traces_told:
            self._traces_told, self._traces_dropped = self._traces, 0
            with contextlib.suppress(TundraError):
                await self._call("traces", self._traces)

    async def settled(self, timeout: float) -> bool:  # noqa: ASYNC109 - the worker keeps this deadline
        """Wait until everything appended so far is stored; False when that took longer."""
        try:
            async with asyncio.timeout(timeout + 0.5):
                return bool(await self._call("settle", {"timeout": timeout}))
        except (StoreUnavailable, TimeoutError):
            return False

    @property
    def problem(self) -> TundraError | None:
        """What keeps events from being stored; they wait in the spool meanwhile."""
        if self._problem is not None:
            return self._problem
        return from_wire(self._progress.error) if self._progress.error else None

    def stats(self) -> HistoryStats:
        end, place = self._spool.end, self._progress.place
        waiting = end.offset - (place.offset if place.segment == end.segment else 0)
        problem = self.problem
        return HistoryStats(
            engine=self._settings.engine,
            state=self._state,
            worker_pid=self._process.pid if self._process and self._process.returncode is None else None,
            restarts=max(0, self.lives - 1),
            waiting_bytes=max(0, waiting),
            is_behind=place < end and waiting > 0,
            rows=self._progress.rows,
            commits=self._progress.commits,
            refused_rows=self._progress.refused_rows,
            moved_rows=self._progress.moved_rows,
            damaged_bytes=self._progress.damaged_bytes,
            size_bytes=self._progress.size_bytes,
            error=problem.message if problem else None,
            traces=self._trace_stats,
            last_end=self._last_end,
        )

    # --- requests ---

    async def ask(self, request: WorkerRequest) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Send one request to the worker, on a connection of its own; the caller closes it."""
        if request.method != "ping":
            self.requests[request.method] += 1
        return await hand_over(await self._wait_ready(), request)

    async def socket_of(self, query: FrameQuery, wait: float | None = None) -> socket.socket:
        """A connection on which the worker answers a query, for another worker to read; the caller closes it.

        `query.at` is the commit, or None for now.
        """
        self.requests["frame"] += 1
        return await handed_over(await self._wait_ready(), self.request("frame", query, wait))

    async def _call(self, method: str, params: dict[str, Any]) -> Any:
        request = WorkerRequest(method=method, params=params, after=self._spool.end)
        return await asked(self, request, READ_TRIES if method in _REPEATABLE else 1)

    async def notice_end(self, life: int) -> None:
        """After a request was lost: wait until the end of that worker is known, lest it get the next try, too."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(NOTICE_SECONDS):
                while self.lives == life and self._state == "ready":
                    await self._changed.wait()

    async def _wait_ready(self) -> socket.socket:
        try:
            async with asyncio.timeout(START_SECONDS):
                while self._state == "starting":
                    await self._changed.wait()
        except TimeoutError:
            raise self._problem or StoreUnavailable(
                problem="the store worker is still starting", kind="starting"
            ) from None
        if self._state == "ready" and self._control is not None:
            return self._control
        raise self._problem or StoreUnavailable(problem="the history is closed", kind="closed")

    # --- the worker's life ---

    async def _supervise(self) -> None:
        short_lives = 0
        while True:
            born = self._clock.monotonic()
            self.lives += 1
            try:
                await self._live_once()
            except OSError as exc:
                self._problem = not_started("the store worker", exc)
            except Exception as exc:  # the top of the task: without it nobody would start a worker ever again
                log.exception("defect in the supervision of the store worker")
                problem = f"the store worker was lost by a defect: {type(exc).__name__}"
                self._problem = StoreUnavailable(problem=problem, kind="worker")
            if self._is_closing:
                return
            self._last_end = self._problem.message if self._problem else None
            is_short = self._clock.monotonic() - born < SHORT_LIFE_SECONDS
            short_lives = short_lives + 1 if is_short else 1
            is_hopeless = short_lives >= DEATHS_TOLERATED or not isinstance(self._problem, StoreUnavailable)
            self._set_state("failing" if is_hopeless else "starting")
            log.warning("store worker ended: %s", self._problem)
            await self._clock.sleep(RESTART_SECONDS[min(short_lives, len(RESTART_SECONDS)) - 1])

    async def _live_once(self) -> None:
        """Start the worker and follow it to its end; `_problem` then says why it ended."""
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            self._last_words.clear()
            self._process = process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", MODULE, str(theirs.fileno())),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=(theirs.fileno(),),
                env=self._worker_environment(),
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        # asyncio owns one descriptor for reading; the other sends descriptors, which streams cannot
        reader, writer = await asyncio.open_unix_connection(sock=ours.dup())
        self._control = ours
        listener = asyncio.create_task(self._keep_last_words(process), name="history-worker-stderr")
        pulse = asyncio.create_task(self._feel_pulse(process), name="history-worker-pulse")
        fatal: TundraError | None = None
        try:
            assert process.stdin is not None
            with contextlib.suppress(ConnectionError, RuntimeError):  # dead already: uvloop says so by RuntimeError
                process.stdin.write(msgspec.json.encode(self._config()))
                await process.stdin.drain()
                process.stdin.close()
            fatal = await self._listen(reader)
        finally:
            self._control = None
            self._set_state("starting")
            ours.close()
            await close(writer)
            await ended(process, STOP_SECONDS)
            pulse.cancel()
            await asyncio.gather(listener, pulse, return_exceptions=True)
            self._problem, self._hung = fatal or self._hung or self._death(process.returncode), None

    async def _feel_pulse(self, process: asyncio.subprocess.Process) -> None:
        """Kill a worker that gives no sign of life, so that another is started; requests are then asked again."""
        missed = 0
        while True:
            await self._clock.sleep(PULSE_SECONDS)
            if is_stopped := _is_stopped(process.pid):
                missed = PULSES_MISSED
            elif self._state == "ready":
                try:
                    async with asyncio.timeout(PULSE_TIMEOUT_SECONDS):
                        await answered(*await self.ask(WorkerRequest(method="ping", params={})))
                    missed = 0
                except TimeoutError:
                    missed += 1
                except (TundraError, OSError, asyncio.IncompleteReadError):
                    continue  # gone, or swamped by requests: that is seen elsewhere
            if missed >= PULSES_MISSED:
                how = "was stopped by a signal" if is_stopped else "gave no sign of life"
                self._hung = StoreUnavailable(
                    problem=f"the store worker (pid {process.pid}) {how}, and was replaced",
                    remedy="It is started again by itself; events wait in the spool.",
                    kind="worker",
                )
                log.error("the store worker hangs (it %s): it is killed, another one is started", how)
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                return

    async def _listen(self, reader: asyncio.StreamReader) -> TundraError | None:
        """Take the worker's reports until it is gone; return what it could not get over."""
        while True:
            try:
                kind, payload = await read_frame(reader)
            except (asyncio.IncompleteReadError, ConnectionError):
                return None
            if kind == HELLO:
                self._problem = None
                self._set_state("ready")
                await self._tell_traces()
            elif kind == PROGRESS:
                self._progress = msgspec.json.decode(payload, type=Progress)
                await self._note_progress()
            elif kind == TRACES:
                self._note_traces(msgspec.json.decode(payload))
            elif kind == FATAL:
                return from_wire(msgspec.json.decode(payload))

    def _note_traces(self, stats: dict[str, Any]) -> None:
        self.troubles.lost["traces"] += max(0, stats["dropped"] - self._traces_dropped)
        self._traces_dropped = stats["dropped"]
        self._trace_stats = stats
        if stats.get("problem"):
            self.troubles.tell(
                "traces",
                f"traces wait: {stats['problem']}",
                "Start the collector, or correct `otel.endpoint`; calls go on, and their traces are sent later.",
            )
        elif stats.get("refused"):
            self.troubles.tell(
                "traces",
                f"traces are lost: {stats['refused']}",
                f"{_TOO_LARGE if stats['refused_size'] else _REFUSED}; what was refused is not sent again.",
            )
        else:
            self.troubles.end("traces")

    async def _note_progress(self) -> None:
        progress = self._progress
        if progress.error is None:
            self.troubles.end("database")
        else:
            problem = from_wire(progress.error)
            self.troubles.tell("database", problem.message)
            if getattr(problem, "kind", "") == COPIED:
                await self._become_another()
        self.ids.begin_above(progress.newest_id)
        if progress.node is not None and progress.node != self._identity.node:
            self._identity = msgspec.structs.replace(self._identity, node=progress.node)
            self.ids.renumber(progress.node)
            await asyncio.to_thread(spools.save_identity, self._paths.spool, self._identity)
        if progress.place.segment > self._dropped_before:
            self._dropped_before = progress.place.segment
            await asyncio.to_thread(self._spool.drop_passed, progress.place)

    async def _become_another(self) -> None:
        """Two daemons are one writer, because a disk was copied: go on as a new one, from the spool's beginning."""
        if self._process is None or self._process.returncode is not None:
            return
        self._note_copy()
        made = await asyncio.to_thread(spools.new_identity, self._paths.spool)
        self._identity = await asyncio.to_thread(spools.begin_life, self._paths.spool, made, self._clock.now_us())
        self.ids.renumber(self._identity.node)
        self._process.kill()  # the next one is given the new identity

    async def _keep_last_words(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        while line := await process.stderr.readline():
            text = line.decode("utf-8", "replace").rstrip()
            self._last_words.append(text)
            log.info("worker: %s", text)

    def _death(self, code: int | None) -> StoreUnavailable:
        how = f"by {signal.Signals(-code).name}" if code is not None and code < 0 else f"with exit code {code}"
        last = list(self._last_words)
        words = "; ".join(last[-1:] if any(line.startswith("Traceback") for line in last) else last)
        return StoreUnavailable(
            problem=f"the store worker ended {how}" + (f": {words[-1500:]}" if words else ""),
            remedy="It is started again by itself; events wait in the spool. `tundra logs` has its last words.",
            kind="worker",
        )

    def _set_state(self, state: State) -> None:
        self._state = state
        self._changed.set()
        self._changed = asyncio.Event()

    def _worker_environment(self) -> dict[str, str]:
        source = os.environ if self._environ is None else self._environ
        return {name: source[name] for name in ENVIRONMENT if name in source}

    def _config(self) -> Config:
        settings = self._settings
        source = os.environ if self._environ is None else self._environ
        self._traces_told, self._traces_dropped = self._traces, 0
        return Config(
            engine=settings.engine,
            spool=str(self._paths.spool),
            store=str(self._paths.store),
            owner=self._identity.owner,
            node=self._identity.node,
            life=self._identity.life,
            life_before=self._identity.life_before,
            user_name=account(source),
            data_dir=hashlib.sha256(str(self._paths.data_dir).encode()).hexdigest()[:12],
            host=settings.host,
            port=settings.port,
            database=settings.database,
            user=settings.user,
            password=self._password,
            reader_user=self._reader_login[0],
            reader_password=self._reader_login[1],
            tls=settings.tls,
            ca_file=settings.ca_file,
            commit_rows=settings.commit_rows,
            commit_seconds=settings.commit_seconds,
            traces=self._traces,
        )


_REPEATABLE = frozenset(
    {
        "log",
        "resolve",
        "diff",
        "stat",
        "history",
        "tables",
        "refs",
        "check",
        "below",
        "describe",
        "digests",
        "frame",
        "overview",
        "rows",
        "sql",
        "settle",
        "story",
    }
)
"""Methods that change nothing, and are asked again when the worker dies under them."""


_REFUSED = "Correct `otel.endpoint`, or what `otel.headers_env` names"
_TOO_LARGE = "Raise the limit that the collector, or a proxy before it, sets to the size of a request"
_WORDED = frozenset({"commit", "branch", "tag", "merge", "propose", "revert"})
"""Methods that write down words of a person."""


def _is_stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"T"
    except (OSError, IndexError):
        return False  # gone this moment, or a system without /proc


def _interrupted(spool: Spool) -> list[Event]:
    """The rows that an earlier life owes: it died before it could write how these ended."""
    message = "the daemon ended before this did"
    marks = spool.unfinished()
    rows: list[Event] = [
        Attempt(
            attempt_id=mark.attempt_id,
            operation_id=mark.operation_id,
            seq=mark.seq,
            at=mark.at,
            profile=mark.profile,
            model=mark.model,
            outcome="interrupted",
            reason="interrupted",
            message=message,
            cost_usd=mark.most_usd,
        )
        for mark in marks
        if isinstance(mark, AttemptOpened)
    ]
    most_usd = {mark.operation_id: mark.most_usd for mark in marks if isinstance(mark, AttemptOpened)}
    rows += [
        Operation(
            operation_id=mark.operation_id,
            at=mark.at,
            kind=mark.kind,
            requested_model=mark.requested_model,
            outcome="interrupted",
            attempts=spool.attempts_of(mark.operation_id),
            cost_usd=most_usd.get(mark.operation_id),
            streamed=mark.streamed,
            user_name=mark.user_name,
            caller=mark.caller,
            run_id=mark.run_id,
            message=message,
        )
        for mark in marks
        if isinstance(mark, OperationOpened)
    ]
    rows += [
        AgentRun(**msgspec.structs.asdict(mark), outcome="interrupted", message=message)
        for mark in marks
        if isinstance(mark, AgentRunOpened)
    ]
    return rows
