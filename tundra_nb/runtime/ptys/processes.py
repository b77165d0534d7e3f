"""Who belongs to a session, and signals that cannot hit a stranger.

Killing a process group is not enough: a job-control shell gives each job its own group, `setsid` leaves the session, a
double fork leaves the parent. So members of a session are: the descendants of its leader, and whatever was orphaned
out of it and still carries its session id or its marker in the environment. Orphans are found among the children of
the *adopter* (a subreaper: the guard, or the daemon itself), which costs 0.2 ms where a scan of /proc costs 14.

Standard library only at import: `tundra_nb.daemon.guard` shares this module and must stay small.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

LINUX = sys.platform == "linux"
MARKER = "TUNDRA_PTY_ID"
"""Environment variable `<instance>/<pty>` that every process of a session inherits."""
PR_SET_CHILD_SUBREAPER = 36
"""linux/prctl.h."""
TAG_BASE = 1 << 50
"""Microseconds, 35 years: a limit on real-time processes that limits nobody, and tells a session by its number."""
_TAG_LINE = b"Max realtime timeout"
HELPER = b"DOLT_ROOT_PATH="
_DEAD = ("Z", "X", "x")


class Process(NamedTuple):
    """One process as seen at one moment. `start` in clock ticks since boot tells a reused pid apart."""

    pid: int
    parent: int
    session: int
    state: str
    cpu_ticks: int
    start: int

    @property
    def is_alive(self) -> bool:
        return self.state not in _DEAD


def become_subreaper() -> bool:
    """Make orphaned descendants children of this process. False where the system has no such thing."""
    if not LINUX:
        return False
    return bool(ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def start_of(pid: int) -> int:
    """When a process began, in clock ticks since boot; 0 where the system does not tell."""
    found = look(pid)
    return found.start if found else 0


def look(pid: int) -> Process | None:
    """The process with this pid now, zombies included; None when there is none."""
    if not LINUX:
        return _look_portable(pid)
    raw = _read(f"/proc/{pid}/stat")
    if not raw:
        return None
    # The name is in parentheses and may contain both blanks and parentheses: fields are counted from the last ")".
    fields = raw[raw.rindex(b")") + 2 :].split()
    return Process(
        pid=pid,
        parent=int(fields[1]),
        session=int(fields[3]),
        state=fields[0].decode(),
        cpu_ticks=int(fields[11]) + int(fields[12]),
        start=int(fields[19]),
    )


def children(pid: int) -> list[int]:
    """Pids of the direct children, of whichever thread."""
    if not LINUX:
        return _children_portable(pid)
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            found += map(int, _read(f"/proc/{pid}/task/{task}/children").split())
    return found


def descendants(roots: Iterable[int], spare: frozenset[int] = frozenset()) -> dict[int, Process]:
    """The roots and everything below them, without the subtrees of `spare`."""
    found: dict[int, Process] = {}
    queue = list(roots)
    while queue:
        pid = queue.pop()
        if pid in found or pid in spare:
            continue
        process = look(pid)
        if process is not None:
            found[pid] = process
            queue += children(pid)
    return found


def living(roots: Iterable[int]) -> list[Process]:
    """The roots and everything below them, as far as it lives."""
    return [process for process in descendants(roots).values() if process.is_alive]


def marker(pid: int) -> str:
    """Value of the marker in the environment of a process, empty when it has none or may not be read."""
    if not LINUX:
        return _marker_portable(pid)
    prefix = f"{MARKER}=".encode()
    for item in _read(f"/proc/{pid}/environ").split(b"\0"):
        if item.startswith(prefix):
            return item[len(prefix) :].decode(errors="replace")
    return ""


def tag(pid: int) -> int:
    """The session's number in the soft limit of real-time CPU time (`spawn`), 0 when it has none.

    Inherited by whatever a session starts, and kept when the environment is cleared and the session left.
    """
    if not LINUX:
        return 0
    for line in _read(f"/proc/{pid}/limits").splitlines():
        if line.startswith(_TAG_LINE):
            soft = line[len(_TAG_LINE) :].split()[0]
            return int(soft) if soft.isdigit() and int(soft) > TAG_BASE else 0
    return 0


def is_helper(pid: int) -> bool:
    """Whether it is a Dolt server of ours, which outlives whoever has started it."""
    return any(item.startswith(HELPER) for item in _read(f"/proc/{pid}/environ").split(b"\0"))


def all_pids() -> list[int]:
    """Every process that this user can see: slow, not for an event loop."""
    if not LINUX:
        import psutil

        return list(psutil.pids())
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def send(process: Process, number: int) -> bool:
    """Signal exactly this process, never one that got its pid since. False when it is gone or may not be signalled."""
    try:
        if not LINUX:
            now = look(process.pid)
            if now is None or now.start != process.start:
                return False
            os.kill(process.pid, number)
            return True
        handle = os.pidfd_open(process.pid)
    except OSError:
        return False
    try:
        now = look(process.pid)
        if now is None or now.start != process.start:
            return False
        signal.pidfd_send_signal(handle, number)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(handle)


def hang_up(processes: Iterable[Process]) -> None:
    """HUP, then CONT, because a stopped process sees no signal but KILL."""
    for process in processes:
        send(process, signal.SIGHUP)
        send(process, signal.SIGCONT)


def kill(processes: Iterable[Process]) -> None:
    """STOP all first and KILL then: a fork storm ends in half the time when nobody forks meanwhile."""
    frozen = list(processes)
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for process in frozen:
            send(process, number)


def _read(path: str) -> bytes:
    # Unbuffered and without a file object: this runs for each process of a session at each look.
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return b"".join(_chunks(handle))
    except OSError:
        return b""
    finally:
        os.close(handle)


def _chunks(handle: int) -> Iterator[bytes]:
    while chunk := os.read(handle, 65536):
        yield chunk


def _look_portable(pid: int) -> Process | None:
    import psutil

    try:
        process = psutil.Process(pid)
        times = process.cpu_times()
        return Process(
            pid=pid,
            parent=process.ppid(),
            session=os.getsid(pid),
            state="Z" if process.status() == psutil.STATUS_ZOMBIE else "R",
            cpu_ticks=int((times.user + times.system) * 100),
            start=int(process.create_time() * 1000),
        )
    except (psutil.Error, OSError):
        return None


def _children_portable(pid: int) -> list[int]:
    import psutil

    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.Error:
        return []


def _marker_portable(pid: int) -> str:
    import psutil

    try:
        return str(psutil.Process(pid).environ().get(MARKER, ""))
    except (psutil.Error, OSError):
        return ""
