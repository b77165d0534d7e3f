"""Notice the end of a session's leader, and reap it last.

Linux: a pidfd in the event loop (uvloop refuses handlers for SIGCHLD, and asyncio's own child watcher keeps working
beside it). The status is taken with WNOWAIT: the leader stays a zombie, which pins its number as pid, group and session
id until everyone else of the session is dead. Elsewhere: a thread that waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

from . import processes

SNAPSHOT_SECONDS = 0.002
SLICE_SECONDS = 0.001
"""Longest look at processes in one turn of the loop: a session may have hundreds."""


class Slices:
    """Work on many processes in slices: `turn` lets the loop go on when a slice is used up."""

    def __init__(self) -> None:
        self._until = time.monotonic() + SLICE_SECONDS

    async def turn(self) -> None:
        if time.monotonic() >= self._until:
            await asyncio.sleep(0)
            self._until = time.monotonic() + SLICE_SECONDS


async def descendants(roots: Iterable[int]) -> dict[int, processes.Process]:
    """The roots and everything below them, zombies included: `processes.descendants`, in slices."""
    slices = Slices()
    found: dict[int, processes.Process] = {}
    queue = list(roots)
    while queue:
        pid = queue.pop()
        if pid in found:
            continue
        await slices.turn()
        process = processes.look(pid)
        if process is not None:
            found[pid] = process
            queue += processes.children(pid)
    return found


async def living(roots: Iterable[int]) -> list[processes.Process]:
    """The roots and everything below them, as far as it lives."""
    return [process for process in (await descendants(roots)).values() if process.is_alive]


async def signal_all(found: Iterable[processes.Process], *numbers: int) -> None:
    """Send each of these signals to all, in slices. All get the first before one gets the second."""
    slices = Slices()
    listed = list(found)
    for number in numbers:
        for process in listed:
            await slices.turn()
            processes.send(process, number)


class Exit(NamedTuple):
    """How a process ended: one of the two is None."""

    code: int | None
    signal: str | None

    def __str__(self) -> str:
        return f"exit code {self.code}" if self.signal is None else f"ended by {self.signal}"


class Leader:
    """The first process of a session, from its start until `reap`."""

    def __init__(self, pid: int, on_exit: Callable[[], None]) -> None:
        self.pid = pid
        self.exit: Exit | None = None
        process = processes.look(pid)
        self.start = process.start if process else 0
        """Start time, ticks since boot: with the pid it names this process and no other."""
        self._on_exit = on_exit
        self._loop = asyncio.get_running_loop()
        self._handle = -1
        if processes.LINUX:
            self._handle = os.pidfd_open(pid)
            self._loop.add_reader(self._handle, self._notice)
        else:
            threading.Thread(target=self._wait, name=f"pty-{pid}", daemon=True).start()

    def reap(self) -> None:
        """Free the number. The leader must have exited."""
        if self._handle >= 0:
            self._loop.remove_reader(self._handle)
            os.close(self._handle)
            self._handle = -1
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)

    def _notice(self) -> None:
        self._loop.remove_reader(self._handle)
        self._report(os.waitid(os.P_PIDFD, self._handle, os.WEXITED | os.WNOWAIT))

    def _wait(self) -> None:
        result = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._report, result)

    def _report(self, result: os.waitid_result | None) -> None:
        if result is None:
            return
        if result.si_code == os.CLD_EXITED:
            self.exit = Exit(result.si_status, None)
        else:
            self.exit = Exit(None, signal.Signals(result.si_status).name)
        self._on_exit()


class Snapshot(NamedTuple):
    """Adopted processes at one moment, by what tells whose they are."""

    number: int
    by_session: Mapping[int, list[int]]
    by_mark: Mapping[str, list[int]]
    by_tag: Mapping[int, list[int]]
    """Only those that neither session nor mark tells."""
    strays: list[processes.Process]
    """Only what a guard has adopted and nothing tells: `sudo` clears the environment and sets limits anew."""


class Orphans:
    """Processes that lost their parent: children of whoever adopts them.

    Args:
        adopter: pid of the subreaper above the sessions: the guard, or this process itself; None when there is none,
            then every process of the system is a candidate (and nobody but init reaps).
        leaders: pids of the open sessions' leaders, which are nobody's orphans.
    """

    def __init__(self, adopter: int | None, leaders: Callable[[], Collection[int]]) -> None:
        self._known_adopter = adopter
        self._leaders = leaders
        self._own_session = os.getsid(0)
        self._snapshot = Snapshot(0, {}, {}, {}, [])
        self._looking = asyncio.Lock()
        self._taken = 0.0
        self.turn = asyncio.Lock()
        """Whoever holds it looks at processes and signals them."""

    @property
    def are_far(self) -> bool:
        """Nobody adopts for us: a look reads all of /proc."""
        return self._adopter is None

    async def snapshot(self) -> Snapshot:
        """Look, at most every two milliseconds: many sessions that end at once share a look. Reaps on the way."""
        async with self._looking:
            if time.monotonic() - self._taken >= SNAPSHOT_SECONDS:
                adopter = self._adopter
                if adopter is None:
                    candidates = await asyncio.to_thread(processes.all_pids)
                else:
                    candidates = processes.children(adopter)
                self._snapshot = await self._sort(candidates)
                self._taken = time.monotonic()
            return self._snapshot

    @property
    def _adopter(self) -> int | None:
        """None from the moment the guard is dead: orphans go to init then."""
        known = self._known_adopter
        return known if known in (os.getpid(), os.getppid()) else None

    async def _sort(self, candidates: Collection[int]) -> Snapshot:
        own_pid = os.getpid()
        leaders = set(self._leaders())
        slices = Slices()
        by_session: dict[int, list[int]] = {}
        by_mark: dict[str, list[int]] = {}
        by_tag: dict[int, list[int]] = {}
        strays: list[processes.Process] = []
        is_guarded = self._adopter == os.getppid()  # whose children are this process and orphans
        for pid in candidates:
            if pid == own_pid or pid in leaders:
                continue
            await slices.turn()
            process = processes.look(pid)
            if process is None or process.session == self._own_session:
                continue  # children of our own share our session
            if process.is_alive:
                by_session.setdefault(process.session, []).append(pid)
                if mark := processes.marker(pid):
                    by_mark.setdefault(mark, []).append(pid)
                elif process.session in leaders:
                    continue
                elif tag := processes.tag(pid):
                    by_tag.setdefault(tag, []).append(pid)
                elif is_guarded and not processes.is_helper(pid):
                    strays.append(process)
            elif process.parent == own_pid:
                _reap(pid)
        return Snapshot(self._snapshot.number + 1, by_session, by_mark, by_tag, strays)


def _reap(pid: int) -> None:
    """Take a dead child's status; returns at once."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
