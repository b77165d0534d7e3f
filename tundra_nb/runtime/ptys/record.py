"""Which sessions are open, on disk, for the case that daemon *and* guard were killed.

The next daemon ends what is left of them, and nothing else: nothing at all if the machine was started anew, the pid
namespace or the user is another, or that daemon still lives; else only processes whose pid and start time are recorded,
that belong to a recorded leader's session, or that carry the marker of that very daemon in their environment. Known
blind spots: programs that overwrite their environment, and other users (sudo).
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from . import processes

GRACE_SECONDS = 2.0
GIVE_UP_SECONDS = 5.0


class RecordedSession(msgspec.Struct, frozen=True):
    """One open session."""

    pid: int
    start: int
    command: str
    at_us: int
    cwd: str = ""
    user: str = ""


class Record(msgspec.Struct, frozen=True):
    """All open sessions of one daemon."""

    instance: str
    boot: str
    namespace: str
    uid: int
    daemon: int
    daemon_start: int
    sessions: dict[str, RecordedSession]


class Stray(msgspec.Struct, frozen=True):
    """A process that an earlier daemon left."""

    pid: int
    start: int
    pty_id: str
    """Empty when its session cannot be told."""
    command: str


def describe(instance: str, sessions: dict[str, RecordedSession]) -> Record:
    """The record of this process."""
    own = processes.look(os.getpid())
    return Record(
        instance=instance,
        boot=_boot(),
        namespace=_namespace(),
        uid=os.getuid(),
        daemon=os.getpid(),
        daemon_start=own.start if own else 0,
        sessions=sessions,
    )


def write(path: Path, record: Record) -> None:
    """Replace the file in one step, 0600."""
    new = path.with_suffix(".new")
    handle = os.open(new, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(handle, msgspec.json.encode(record))
    finally:
        os.close(handle)
    os.replace(new, path)


def read(path: Path) -> Record | None:
    """The record of an earlier daemon; None when there is none or it cannot be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except (OSError, msgspec.DecodeError):
        return None


def strays(record: Record) -> list[Stray]:
    """What is left of a dead daemon's sessions. Looks at every process: not for an event loop."""
    if (record.boot, record.namespace, record.uid) != (_boot(), _namespace(), os.getuid()):
        return []
    daemon = processes.look(record.daemon)
    if daemon is not None and daemon.is_alive and daemon.start == record.daemon_start:
        return []
    # A leader's number is trusted as session id only while nobody else has it.
    trusted: dict[int, str] = {}
    for pty_id, session in record.sessions.items():
        if session.pid <= 1:  # 0 is the session of every kernel thread
            continue
        leader = processes.look(session.pid)
        if leader is None or leader.start == session.start:
            trusted[session.pid] = pty_id
    found = []
    for pid in processes.all_pids():
        process = processes.look(pid)
        if process is None or not process.is_alive or pid == os.getpid():
            continue
        instance, _, marked = processes.marker(pid).partition("/")
        pty_id = marked if instance == record.instance else trusted.get(process.session, "")
        if pty_id:
            found.append(Stray(pid, process.start, pty_id, command_of(pid)))
    return found


def end(found: Iterable[Stray]) -> None:
    """HUP and CONT, two seconds, KILL. Blocks until they are gone; never signals a reused pid."""
    wanted = [(stray.pid, stray.start) for stray in found]
    number: int | None = None
    started = time.monotonic()
    while alive := [
        process
        for pid, start in wanted
        if (process := processes.look(pid)) is not None and process.is_alive and process.start == start
    ]:
        waited = time.monotonic() - started
        if number is None:
            processes.hang_up(alive)
            number = signal.SIGHUP
        elif waited >= GRACE_SECONDS:
            processes.kill(alive)
        if waited > GRACE_SECONDS + GIVE_UP_SECONDS:
            break
        time.sleep(0.02)


@functools.cache
def _boot() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    import psutil

    return str(int(psutil.boot_time()))


@functools.cache
def _namespace() -> str:
    with contextlib.suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return ""


def command_of(pid: int) -> str:
    """The command line of a process, empty when it may not be read."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()[:200]
    return ""
