"""Which sessions are open, on disk, for the case that daemon *and* guard were killed.

The next daemon ends what is left of them, and nothing else: nothing at all if the machine was started anew, the pid
namespace or the user is another, or that daemon still lives; else only processes whose pid and start time are recorded,
that belong to a recorded leader's session, that carry the marker of that very daemon in their environment or the
number of a recorded session in their limits, or that are in that daemon's control group. Without a control group,
processes of other users (sudo) are found but may not be signalled.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from . import processes

_ENCODER = msgspec.json.Encoder()
CHANGES = 1000
"""Lines that are added to the file before it is written anew."""
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
    tag: int = 0


class SessionsRecord(msgspec.Struct, frozen=True):
    """All open sessions of one daemon."""

    instance: str
    boot: str
    namespace: str
    uid: int
    daemon: int
    daemon_start: int
    sessions: dict[str, RecordedSession]
    groups: str = ""
    """Path of the daemon's control group, where it has one."""


class SessionChange(msgspec.Struct, frozen=True, omit_defaults=True):
    """A session that was opened, or, without one, that was closed."""

    pty_id: str
    session: RecordedSession | None = None


class Stray(msgspec.Struct, frozen=True):
    """A process that an earlier daemon left."""

    pid: int
    start: int
    pty_id: str
    """Empty when its session cannot be told."""
    command: str


def describe(instance: str, sessions: dict[str, RecordedSession], groups: str = "") -> SessionsRecord:
    """The record of this process."""
    own = processes.look(os.getpid())
    return SessionsRecord(
        instance=instance,
        boot=_boot(),
        namespace=_namespace(),
        uid=os.getuid(),
        daemon=os.getpid(),
        daemon_start=own.start if own else 0,
        sessions=sessions,
        groups=groups,
    )


class RecordFile:
    """The record on disk, 0600: a line with all that was open when it was written, then a line for each change.

    Adding a line costs microseconds; replacing a file costs a millisecond, in which the loop stands still.
    """

    def __init__(self, path: Path, instance: str) -> None:
        self._path = path
        self._instance = instance
        self.groups = ""
        self._sessions: dict[str, RecordedSession] = {}
        self._changes = 0
        self._fd = -1

    def __repr__(self) -> str:
        return f"<RecordFile {self._path}: {len(self._sessions)} open>"

    def begin(self) -> None:
        """Replace the file, in one step, by one that names what is open now. Raises `OSError`."""
        new = self._path.with_suffix(".new")
        fd = os.open(new, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, _ENCODER.encode(describe(self._instance, self._sessions, self.groups)) + b"\n")
            os.replace(new, self._path)
        except BaseException:
            os.close(fd)
            raise
        self.close()
        self._fd, self._changes = fd, 0

    def opened(self, pty_id: str, session: RecordedSession) -> None:
        """A session has begun. Raises `OSError`."""
        self._sessions[pty_id] = session
        self._add(SessionChange(pty_id, session))

    def closed(self, pty_id: str) -> None:
        """Nothing is left of a session. Raises `OSError`."""
        self._sessions.pop(pty_id, None)
        self._add(SessionChange(pty_id))

    def close(self) -> None:
        """Close the file. May be called twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _add(self, change: SessionChange) -> None:
        if self._fd < 0 or self._changes >= CHANGES:
            self.begin()  # says it all
            return
        line = _ENCODER.encode(change) + b"\n"
        if os.write(self._fd, line) != len(line):  # the disk is full: half a line must not be added to
            self.close()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._changes += 1


def read(path: Path) -> SessionsRecord | None:
    """The record of an earlier daemon; None when there is none or it cannot be read."""
    try:
        first, *lines = path.read_bytes().splitlines()
        record = msgspec.json.decode(first, type=SessionsRecord)
    except (OSError, ValueError):  # no file, an empty one, no JSON
        return None
    for line in lines:
        try:
            change = msgspec.json.decode(line, type=SessionChange)
        except ValueError:
            break  # the last one, cut short
        if change.session is None:
            record.sessions.pop(change.pty_id, None)
        else:
            record.sessions[change.pty_id] = change.session
    return record


def is_of_the_dead(record: SessionsRecord) -> bool:
    """Whether what a record names is ours to end: this boot, namespace and user, and its daemon is dead."""
    if (record.boot, record.namespace, record.uid) != (_boot(), _namespace(), os.getuid()):
        return False
    daemon = processes.look(record.daemon)
    return daemon is None or not daemon.is_alive or daemon.start != record.daemon_start


def strays(record: SessionsRecord) -> list[Stray]:
    """What is left of a dead daemon's sessions. Looks at every process: not for an event loop."""
    if not is_of_the_dead(record):
        return []
    # A leader's number is trusted as session id only while nobody else has it.
    trusted: dict[int, str] = {}
    for pty_id, session in record.sessions.items():
        if session.pid <= 1:  # 0 is the session of every kernel thread
            continue
        leader = processes.look(session.pid)
        if leader is None or leader.start == session.start:
            trusted[session.pid] = pty_id
    tagged = {session.tag: pty_id for pty_id, session in record.sessions.items() if session.tag}
    found = []
    for pid in processes.all_pids():
        process = processes.look(pid)
        if process is None or not process.is_alive or pid == os.getpid():
            continue
        instance, _, marked = processes.marker(pid).partition("/")
        pty_id = marked if instance == record.instance else trusted.get(process.session, "")
        if not pty_id and tagged:
            pty_id = tagged.get(processes.tag(pid), "")
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
