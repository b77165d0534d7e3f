"""The daemon's parent: when the daemon ends in any way, nothing that it started lives on.

    guard (subreaper, one thread, no dependencies)
    └── daemon
        ├── store worker
        └── sessions …            double-forked and setsid'ed ones are adopted by the guard, not by init

A PTY's hang-up ends its foreground job only; `nohup`, `setsid` and children that trap HUP live on after `kill -9` of
the daemon. The guard cannot be surprised by that: it waits for the daemon, then ends its own whole tree: HUP, 2 s,
KILL. In the other direction the daemon holds the reading end of a pipe that nobody writes to: end of file there means
that the guard is dead, and the daemon stops in order.

A process of its own because a process cannot act after its own `kill -9`; a small one (it may import the standard
library, `environment` and `processes`) because it lives as long as the daemon.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, MutableMapping, Sequence
from types import FrameType
from typing import NamedTuple

from tundra_nb import environment
from tundra_nb.runtime.ptys import processes

VARIABLE = "TUNDRA_GUARD"
"""`<pid of the guard>:<reading end of its pipe>`, for the daemon only."""
GRACE_SECONDS = 2.0
"""Between HUP and KILL: the interval of a PTY's release."""
GIVE_UP_SECONDS = 10.0
"""After KILL: processes in uninterruptible sleep, or of another user, cannot be waited for for ever."""
LOOKS = 3
"""One empty look is no proof: a process may be between two parents."""
FORWARDED = {signal.SIGTERM: signal.SIGTERM, signal.SIGINT: signal.SIGINT, signal.SIGHUP: signal.SIGTERM}


class Guarded(NamedTuple):
    """What a daemon knows about its guard."""

    pid: int
    pipe: int
    """Readable (end of file) when the guard is dead."""


def find(environ: MutableMapping[str, str]) -> Guarded | None:
    """The guard of this process, None without one. Takes the variable out, so that no child believes it has one."""
    value = environ.pop(VARIABLE, "")
    try:
        pid, pipe = map(int, value.split(":"))
        os.set_inheritable(pipe, False)
    except (ValueError, OSError):
        return None
    return Guarded(pid, pipe) if pid == os.getppid() else None


def run(argv: Sequence[str]) -> int:
    """Start the daemon, forward TERM, INT and HUP to it, end what it leaves, and return its exit code.

    Args:
        argv: absolute path of the interpreter and its arguments.

    Returns:
        The daemon's exit code; 128 + number when a signal ended it.
    """
    environment.keep_others_out()
    processes.become_subreaper()
    read_end, write_end = os.pipe()
    os.set_inheritable(read_end, True)
    daemon = 0
    early: list[int] = []

    def forward(number: int, _frame: FrameType | None) -> None:
        if daemon:
            with contextlib.suppress(ProcessLookupError):
                os.kill(daemon, FORWARDED[signal.Signals(number)])
        else:
            early.append(number)

    before = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        # A group of its own: Ctrl-C in a terminal reaches the guard alone, and the daemon exactly once.
        daemon = os.posix_spawn(
            argv[0],
            list(argv),
            {**os.environ, VARIABLE: f"{os.getpid()}:{read_end}"},
            setpgroup=0,
            setsigdef=list(FORWARDED),
        )
        os.close(read_end)
        if (handed := os.environ.get(environment.VARIABLE, "")).isdigit():
            with contextlib.suppress(OSError):
                os.close(int(handed))
        for number in early:
            forward(number, None)
        return _wait_for(daemon)
    finally:
        end_all()
        os.close(write_end)
        for number, handler in before.items():
            signal.signal(number, handler)


def end_all(grace: float = GRACE_SECONDS) -> None:
    """End every descendant of this process: HUP and CONT, `grace` seconds, then KILL until nothing is left."""
    started = time.monotonic()
    greeted: set[tuple[int, int]] = set()
    empty = 0
    for pause in _pauses():
        _reap()
        tree = processes.descendants(processes.children(os.getpid()))
        alive = [process for process in tree.values() if process.is_alive and not processes.is_helper(process.pid)]
        empty = 0 if alive else empty + 1
        waited = time.monotonic() - started
        if empty >= LOOKS or waited > grace + GIVE_UP_SECONDS:
            break
        if waited >= grace:
            processes.kill(alive)
        else:
            processes.hang_up(process for process in alive if (process.pid, process.start) not in greeted)
            greeted.update((process.pid, process.start) for process in alive)
        time.sleep(pause if alive else 0.002)
    _reap()


def _pauses() -> Iterator[float]:
    pause = 0.005
    while True:
        yield pause
        pause = min(pause * 1.5, 0.05)


def _wait_for(daemon: int) -> int:
    while True:
        pid, status = os.wait()
        if pid == daemon:
            return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
