"""The pool: a bounded number of sessions, each of which ends with everything that it started.

    spawn ──▶ running ──leader ends──▶ exited ─┐
                 └──────release──────▶ killed ─┴─▶ HUP, CONT ─ 2 s ─ KILL … three empty looks ─▶ reaped, slot free

The slot is taken before the process exists and given back after its last process is gone. Everything happens in one
event loop, so no step between check and take can be interrupted.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import shutil
import signal
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

from tundra_nb.errors import AtCapacity, HandleNotFound, PtyError, SpawnFailed, UsageError
from tundra_nb.nearest import nearest
from tundra_nb.runtime.clock import Clock, Ids
from tundra_nb.settings import PtySettings
from tundra_nb.types import SessionEvent

from . import environment, processes, transcript
from .budget import Budget, prune
from .cgroups import Cgroups
from .ending import GRACE_SECONDS, end_session
from .ledger import Ledger
from .life import Keep, Rules, TerminalLife
from .mask import Masker
from .output import PtyOutput
from .pty import Kind, Pty
from .reader import PtyReader
from .reap import Leader, Orphans, descendants, living, signal_all
from .spawn import Size, spawn

STOPPED = "the daemon stops"
TICK_SECONDS = 0.05
SWEEP_SECONDS = 1.0
WORK_SWEEPS = 5
"""CPU time of the sessions is looked at in every fifth sweep."""
RETENTION_SECONDS = 3600.0
NEARLY_FULL = 0.8
QUEUE = 256
"""Callers that wait for a slot; one more is refused."""
REMEMBERED = 200
"""Sessions that have ended and can still be read by id."""

_log = logging.getLogger("tundra.ptys")


class PtyPool:
    """All sessions of one daemon. `async with`, or `open` and `aclose`.

    Args:
        settings: capacity and retention.
        folder: for transcripts and the record.
        ids: makes event ids.
        clock: gives the time of events.
        on_event: told of each start, refusal, resize and end, at once and in order.
        secrets: values that must not appear in output, by variable name; asked at each start.
        key_variables: names that profiles take their keys from.
        environ: what sessions inherit, keys taken out.
        adopter: pid of the subreaper above the sessions (the guard), or of this process if it is one itself.
        reserve_mb: what transcripts leave free on the disk.
        grace: seconds between HUP and KILL.
    """

    def __init__(
        self,
        settings: PtySettings,
        folder: Path,
        *,
        ids: Ids,
        clock: Clock,
        on_event: Callable[[SessionEvent], None],
        secrets: Callable[[], Mapping[str, str]],
        key_variables: Callable[[], Collection[str]],
        environ: Mapping[str, str],
        adopter: int | None,
        reserve_mb: Callable[[], float] = lambda: 0.0,
        grace: float = GRACE_SECONDS,
    ) -> None:
        self.ended: deque[Pty] = deque(maxlen=REMEMBERED)
        """Newest last; their output is read from the transcripts."""
        self.on_exit: Callable[[Pty], None] = lambda _: None
        """Told that a session's leader has ended."""
        self.ids = ids
        self.clock = clock
        self._settings = settings
        self._folder = folder
        self._secrets = secrets
        self._key_variables = key_variables
        self._environ = environ
        self._grace = grace
        self._live: dict[str, Pty] = {}
        self._reader = PtyReader()
        self._orphans = Orphans(adopter, self._leaders)
        self._instance = f"{os.getpid():x}.{clock.now_us():x}"
        self._ledger = Ledger(folder / "record.json", self._instance, ids, clock, on_event)
        self.budget = Budget(
            folder / "transcripts",
            lambda: int(self._settings.transcripts_mb * 1e6),
            lambda: int(reserve_mb() * 1e6),
            self._prune_soon,
        )
        self._pruning: asyncio.Task[None] | None = None
        self._queue: deque[asyncio.Future[None]] = deque()
        self._promised = 0
        """Slots that were given to somebody in the queue who has not taken them yet."""
        self._groups: Cgroups | None = None
        self._beyond_us: set[tuple[int, int]] = set()
        """Strays that could not be ended, by pid and start: said once."""
        self._last_number = 0
        self._endings: dict[str, asyncio.Task[None]] = {}
        self._dirty: set[PtyOutput] = set()
        self._ticker: asyncio.TimerHandle | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._is_warned = False
        self._is_closing = False

    def __repr__(self) -> str:
        return f"<PtyPool {len(self._live)} of {self._settings.capacity}>"

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def instance(self) -> str:
        """What the markers of this pool's sessions begin with."""
        return self._instance

    @property
    def settings(self) -> PtySettings:
        return self._settings

    def configure(self, settings: PtySettings) -> None:
        """Use these settings from now on. Sessions beyond a lowered capacity live on; new ones are refused."""
        self._settings = settings
        self.budget.renew()
        if self.budget.over_bytes and self._sweeper is not None:
            self._prune_soon()
        self._call_next()

    @property
    def transcripts(self) -> Path:
        """Folder of the transcripts, of this and earlier runs."""
        return self._folder / "transcripts"

    async def open(self) -> None:
        """End what an earlier daemon left, delete old transcripts, begin to serve."""
        self.transcripts.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        await self._ledger.end_strays()
        await asyncio.to_thread(transcript.delete_old, self.transcripts, self._settings.transcript_days)
        await asyncio.to_thread(self.budget.scan)
        self._reader.open()
        self._groups = Cgroups(self._instance)
        self._ledger.begin(str(self._groups.base or ""))
        self._sweeper = asyncio.create_task(self._sweep_on(), name="ptys.sweep")

    async def aclose(self) -> None:
        """End all sessions and everything in them. Twice is once."""
        self._is_closing = True
        if self._sweeper is None:
            return
        for waiting in self._queue:
            waiting.cancel()
        if self._pruning is not None:
            await asyncio.wait((self._pruning,))
        await asyncio.gather(*(self._endings.get(pty.id) or self._begin_ending(pty, STOPPED) for pty in self.list()))
        self._sweeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._sweeper
        self._sweeper = None
        if self._ticker:
            self._ticker.cancel()
            self._ticker = None
        self._reader.close()
        await self._orphans.snapshot()  # reaps
        if self._groups is not None:
            await asyncio.to_thread(self._groups.close)
        self._ledger.close()

    async def spawn(
        self,
        command: str | Sequence[str],
        *,
        told: str | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        size: Size = Size(),  # noqa: B008 - a named tuple
        kind: Kind = "command",
        keep: Keep = "always",
        user: str | None = None,
        with_keys: Collection[str] = (),
        handed: Mapping[int, int] | None = None,
        wait: float = 0.0,
    ) -> Pty:
        """Start a session.

        Args:
            command: a shell command line, or a program with its arguments.
            told: what it is called wherever people read of it; left out: as it is.
            cwd: working directory; left out: the home directory.
            env: variables on top of the inherited ones.
            size: of the window.
            kind: what it is for.
            keep: what ends it.
            user: on whose behalf.
            with_keys: variables to let through although they hold keys.
            handed: descriptors for the child, number there → ours; they stay ours to close.
            wait: seconds to wait for a free slot; who waits gets it in turn.

        Raises:
            AtCapacity: every slot is taken (still, after `wait`), or too many wait already; says by whom.
            SpawnFailed: with the operating system's reason.
            UsageError: bad size, NUL, unknown name in `with_keys`.
        """
        size.check()
        argv = [_shell(self._environ), "-c", command] if isinstance(command, str) else list(command)
        shown = told or (command if isinstance(command, str) else " ".join(command))
        folder = os.path.expanduser(cwd or self._environ.get("HOME") or "/")  # noqa: ASYNC240 - no I/O for a path or "~"
        pty_id = self._next_id()
        mark = f"{self._instance}/{pty_id}"
        secrets = dict(self._secrets())
        child = environment.build(
            self._environ,
            env or {},
            mark=mark,
            key_variables=self._key_variables(),
            with_keys=with_keys,
            offered=secrets,
        )
        secrets.update(child.secrets)
        masker = Masker(secrets)
        shown = masker.text(shown)
        try:
            await self._room(wait)
            pty = self._start(
                pty_id=pty_id,
                mark=mark,
                argv=argv,
                shown=shown,
                cwd=folder,
                child=child,
                secrets=secrets,
                masker=masker,
                size=size,
                kind=kind,
                keep=keep,
                user=user,
                handed=handed,
            )
        except PtyError as exc:
            if isinstance(exc, SpawnFailed):
                exc.command = masker.text(exc.command)
            self._ledger.emit_refused(pty_id, shown, folder, user, exc)
            raise
        self._live[pty_id] = pty
        self._reader.add(pty.master, pty.output)
        self._ledger.opened(pty)
        self._warn_when_nearly_full()
        return pty

    def get(self, pty_id: str) -> Pty:
        """The open session with this id.

        Raises:
            HandleNotFound: none; says how it ended, or which id is nearest.
        """
        pty = self.find(pty_id)
        if pty.id not in self._live:
            raise HandleNotFound(pty_id=pty_id, ended=pty.ending)
        return pty

    def find(self, pty_id: str) -> Pty:
        """The session with this id, open or ended not long ago. Raises `HandleNotFound`."""
        if pty_id in self._live:
            return self._live[pty_id]
        for pty in reversed(self.ended):
            if pty.id == pty_id:
                return pty
        known = [*self._live, *(pty.id for pty in self.ended)]
        raise HandleNotFound(pty_id=pty_id, nearest=nearest(pty_id, known))

    @property
    def running(self) -> list[Pty]:
        """Sessions that hold a slot: one that has exited holds none, while what it left is being ended."""
        return [pty for pty in self._live.values() if not pty.exited.is_set()]

    def list(self) -> list[Pty]:
        """Open sessions, oldest first."""
        return list(self._live.values())

    def resize(self, pty_id: str, size: Size) -> None:
        """Change a session's window and record it."""
        pty = self.get(pty_id)
        if size != pty.size:
            pty.resize(size)
            self._ledger.emit(pty, "resized", f"{size.columns} × {size.rows}")

    def refresh_secrets(self) -> None:
        """Mask the current secrets in the open sessions too, after a key was offered or settings changed."""
        secrets = self._secrets()
        for pty in self._live.values():
            pty.mask(secrets)

    async def look_at_work(self, pty: Pty) -> None:
        """Bring a session's `idle_seconds` up to date with the CPU time of its processes."""
        if not pty.exited.is_set():
            pty.note_work(await descendants([pty.pid]))

    async def release(self, pty_id: str, reason: str = "") -> None:
        """End every process of a session and free its slot. Cancelling the wait does not stop it.

        Raises:
            HandleNotFound: no such session is open.
        """
        pty = self.get(pty_id)
        task = self._endings.get(pty_id) or self._begin_ending(pty, reason)
        await asyncio.shield(task)

    # --- start -------------------------------------------------------------------------------------------------------

    def _start(
        self,
        *,
        pty_id: str,
        mark: str,
        argv: Sequence[str],
        shown: str,
        cwd: str,
        child: environment.ChildEnvironment,
        secrets: dict[str, str],
        masker: Masker,
        size: Size,
        kind: Kind,
        keep: Keep,
        user: str | None,
        handed: Mapping[int, int] | None,
    ) -> Pty:
        at_us = self.clock.now_us()
        try:
            written = transcript.TranscriptWriter(
                self.transcripts,
                transcript.TranscriptHead(pty_id, shown, cwd, size.columns, size.rows, at_us),
                take=self.budget.take,
            )
        except OSError as exc:
            why = "descriptors" if exc.errno in (errno.EMFILE, errno.ENFILE) else "other"
            raise SpawnFailed(command=shown, kind=why, cause=f"no transcript: {exc.strerror}") from exc
        try:
            started = spawn(argv, cwd=cwd, env=child.variables, size=size, handed=handed)
        except BaseException:
            written.close()
            written.path.unlink(missing_ok=True)
            written.index_path.unlink(missing_ok=True)
            raise
        group = self._groups.make(pty_id) if self._groups is not None else None
        if group is not None and not group.take(started.pid):
            group.remove()
            group = None
        try:
            leader = Leader(started.pid, lambda: self._on_exit(pty_id))
        except OSError as exc:  # without a descriptor that tells of its end, it must not live
            os.kill(started.pid, signal.SIGKILL)
            os.waitpid(started.pid, 0)
            os.close(started.master)
            written.close()
            raise SpawnFailed(command=shown, kind="descriptors", cause=exc.strerror or "") from exc
        output = PtyOutput(started.master, masker, written, lambda: self._note_dirty(output))
        return Pty(
            pty_id=pty_id,
            mark=mark,
            command=shown,
            cwd=cwd,
            size=size,
            kind=kind,
            life=TerminalLife(keep, self.rules),
            user=user,
            withheld=child.withheld,
            at_us=at_us,
            master=started.master,
            modes=started.modes,
            tag=started.tag,
            group=group,
            leader=leader,
            output=output,
            paths=(written.path, written.index_path),
            secrets=secrets,
        )

    def rules(self) -> Rules:
        """What the settings say now about viewers and their terminals."""
        chosen = self._settings
        return Rules(chosen.grace_seconds, chosen.lab_grace_seconds, chosen.idle_seconds)

    async def _room(self, wait: float) -> None:
        """Return when there is a free slot, which the caller must take at once."""
        self._check_is_open()
        if self._free > 0 and not (self._queue and wait > 0):
            return
        if wait <= 0 or len(self._queue) >= QUEUE:
            raise self._at_capacity()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            async with asyncio.timeout(wait):
                await turn
        except TimeoutError:
            if not turn.done() or turn.cancelled():
                raise self._at_capacity() from None
        except asyncio.CancelledError:
            if not self._is_closing:
                raise
        finally:
            if turn.done() and not turn.cancelled():
                self._promised -= 1
            else:
                self._queue.remove(turn)
            # Cancelled between its turn and taking it: the next one is called.
            asyncio.get_running_loop().call_soon(self._call_next)
        self._check_is_open()

    @property
    def _free(self) -> int:
        return self._settings.capacity - len(self.running) - self._promised

    def _call_next(self) -> None:
        while self._queue and self._free > 0:
            turn = self._queue.popleft()
            if not turn.done():
                self._promised += 1
                turn.set_result(None)

    def _check_is_open(self) -> None:
        if self._is_closing or self._sweeper is None:
            raise UsageError(problem="the pool of PTYs is closed", remedy="Start the daemon again.")

    def _at_capacity(self) -> AtCapacity:
        holders = [
            f"{pty.id} {pty.command[:60]!r} for {pty.seconds:.0f} s"
            + (f", idle for {pty.idle_seconds:.0f} s" if pty.idle_seconds >= 1 else "")
            for pty in self.running
        ]
        return AtCapacity(capacity=self._settings.capacity, holders=holders, waiting=len(self._queue))

    def _warn_when_nearly_full(self) -> None:
        used, capacity = len(self.running), self._settings.capacity
        is_nearly_full = used >= NEARLY_FULL * capacity
        if is_nearly_full and not self._is_warned:
            _log.warning("%d of %d PTYs are in use; `pty.capacity` raises the limit", used, capacity)
        self._is_warned = is_nearly_full

    def _next_id(self) -> str:
        """Seconds since the epoch in base 36: short, increasing, and never one of an earlier run."""
        number = max(self._last_number + 1, self.clock.now_us() // 1_000_000)
        while (self.transcripts / f"{_base36(number)}.out").exists():
            number += 1
        self._last_number = number
        return _base36(number)

    # --- end ---------------------------------------------------------------------------------------------------------

    def _on_exit(self, pty_id: str) -> None:
        pty = self._live[pty_id]
        is_wanted = pty_id in self._endings
        pty.mark_exited("killed" if is_wanted else "exited")
        self._ledger.emit(pty, pty.state, self._endings[pty_id].get_name() if is_wanted else "")
        if not is_wanted:
            self._begin_ending(pty, "")
        self.on_exit(pty)
        self._call_next()

    def _begin_ending(self, pty: Pty, reason: str) -> asyncio.Task[None]:
        pty.why_ended = reason
        task = asyncio.create_task(self._end(pty), name=reason)
        self._endings[pty.id] = task
        return task

    async def _end(self, pty: Pty) -> None:
        had_exited = pty.exited.is_set()
        ended = await end_session(pty, self._orphans, self._grace)
        self._reader.remove(pty.master)
        if not pty.exited.is_set():
            pty.mark_exited("lost")
            self._ledger.emit(pty, "lost", f"process {pty.pid} cannot be ended")
        pty.mark_released()
        if pty.group is not None:
            pty.group.remove()
        self._dirty.discard(pty.output)
        del self._live[pty.id]
        del self._endings[pty.id]
        self.ended.append(pty)
        self.budget.renew()
        self._ledger.closed(pty)
        if had_exited and ended.seen:
            self._ledger.emit(pty, "orphan_ended", f"{len(ended.seen)} processes that outlived the command were ended")
        if ended.survivors:
            _log.error("%s: processes %s cannot be ended", pty.id, ", ".join(map(str, ended.survivors)))

    async def _sweep_on(self) -> None:
        sweeps = 0
        cleaned = time.monotonic()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            sweeps += 1
            try:
                await self._sweep(is_work_looked_at=sweeps % WORK_SWEEPS == 0)
                if time.monotonic() - cleaned > RETENTION_SECONDS:
                    cleaned = time.monotonic()
                    days, live = self._settings.transcript_days, frozenset(self._live)
                    await asyncio.to_thread(transcript.delete_old, self.transcripts, days, live)
                    await asyncio.to_thread(self.budget.scan)
            except Exception:  # noqa: BLE001 - top of a task; logged, and the next sweep is in a second
                _log.exception("the sweep over PTYs failed; it goes on in a second")

    async def _sweep(self, *, is_work_looked_at: bool) -> None:
        for pty in self.list():
            # A leader that had closed its terminal may have opened it again.
            if not pty.exited.is_set() and not self._reader.has(pty.master):
                self._reader.add(pty.master, pty.output)
            if is_work_looked_at:
                await self.look_at_work(pty)
        if not self._live and self._orphans.are_far:
            return
        look = await self._orphans.snapshot()
        for mark, pids in look.by_mark.items():
            instance, _, pty_id = mark.partition("/")
            if instance == self._instance and pty_id not in self._live:
                await self._end_late(pty_id, pids)
        for pty in [pty for pty in self.ended if pty.tag in look.by_tag]:
            await self._end_late(pty.id, look.by_tag[pty.tag])
        await self._end_strays(look.strays)

    async def _end_strays(self, strays: Sequence[processes.Process]) -> None:
        """End what nothing tells whose it is, once no session is open that is old enough to have started it."""
        oldest = min((pty.leader.start for pty in self._live.values()), default=None)
        left = [p for p in strays if (oldest is None or p.start < oldest) and (p.pid, p.start) not in self._beyond_us]
        if not left:
            return
        pids = ", ".join(str(p.pid) for p in left)
        _log.warning("processes %s, which a released PTY has left without a trace of it, are ended", pids)
        await signal_all(left, signal.SIGSTOP, signal.SIGKILL)
        await asyncio.sleep(SWEEP_SECONDS / 2)
        kept = [p for p in left if (now := processes.look(p.pid)) and now.start == p.start and now.is_alive]
        if kept:
            _log.error("processes %s of another user cannot be ended", ", ".join(str(p.pid) for p in kept))
            self._beyond_us.update((p.pid, p.start) for p in kept)

    @property
    def boundary(self) -> Literal["cgroup", "subreaper", "neither"]:
        """What holds the processes of a session together on this machine."""
        if self._groups is not None and self._groups.base is not None:
            return "cgroup"
        return "neither" if self._orphans.are_far else "subreaper"

    @staticmethod
    async def _end_late(pty_id: str, pids: Sequence[int]) -> None:
        _log.warning("processes %s of the released PTY %s are ended", pids, pty_id)
        await signal_all(await living(pids), signal.SIGSTOP, signal.SIGKILL)

    def _leaders(self) -> set[int]:
        return {pty.pid for pty in self._live.values()}

    # --- the transcripts' budget -------------------------------------------------------------------------------------

    def _prune_soon(self) -> None:
        if self._pruning is None:
            self._pruning = asyncio.create_task(self._prune(), name="ptys.prune")
            self._pruning.add_done_callback(lambda _: setattr(self, "_pruning", None))

    async def _prune(self) -> None:
        freed = 1
        while freed and self.budget.over_bytes:  # again for what was written meanwhile
            over = self.budget.over_bytes + self.budget.limit_bytes // 50  # some room: it is not done for each byte
            freed = await asyncio.to_thread(prune, self.transcripts, frozenset(self._live), over)
            self.budget.freed(freed)
            if freed:
                limit = self._settings.transcripts_mb
                _log.info("%.0f MB of old transcripts were deleted: `pty.transcripts_mb` is %g", freed / 1e6, limit)

    # --- ticks -------------------------------------------------------------------------------------------------------

    def _note_dirty(self, output: PtyOutput) -> None:
        self._dirty.add(output)
        if self._ticker is None and not self._is_closing:
            self._ticker = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        self._ticker = None
        dirty, self._dirty = self._dirty, set()
        for output in dirty:
            if output.tick():
                self._note_dirty(output)


def _shell(environ: Mapping[str, str]) -> str:
    path = environ.get("PATH", os.defpath)
    return shutil.which("bash", path=path) or shutil.which("sh", path=path) or "/bin/sh"


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, rest = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[rest] + digits
    return digits
