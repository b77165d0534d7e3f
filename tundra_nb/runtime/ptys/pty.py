"""One pseudo-terminal with the session of processes in it, as its users see it; its life is the pool's business."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from tundra_nb.errors import HandleNotFound, Timeout
from tundra_nb.types import PtyState

from . import processes, transcript
from .cgroups import Cgroup
from .keyboard import Keyboard
from .life import Keep, TerminalLife
from .output import Chunk, PtyOutput, Viewer
from .reap import Exit, Leader
from .spawn import Size, set_size

if sys.platform != "win32":
    import fcntl
    import termios

Kind = Literal["command", "shell", "terminal"]
"""`command` ends by itself, `shell` runs a notebook's cells, `terminal` is talked to. What else ends it: `life`."""
TIOCSIG = 0x40045436 if sys.platform == "linux" else 0x2000745F
"""asm-generic/ioctls.h, sys/ttycom.h. Signals the foreground job: in raw mode too, and across users."""
INTERRUPT = b"\x03"
"""Ctrl-C as typed."""
PATIENCE_SECONDS = 2.0
"""Between the steps of an interrupt: INT, TERM, KILL."""


class PtyInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One session at one moment; the first nine fields are the columns of the frame `ptys`."""

    pty_id: str
    at: int
    """Start, microseconds since the epoch."""
    command: str
    state: PtyState
    pid: int | None
    exit_code: int | None
    exit_signal: str | None
    bytes_out: int
    seconds: float
    idle_seconds: float
    kind: Kind
    cwd: str
    columns: int
    rows: int
    user: str | None
    withheld: tuple[str, ...] = ()
    """Variables that its processes did not inherit, because they hold keys."""
    warning: str | None = None
    keep: Keep = "always"
    """What ends it: its owner's end, its last viewer's, or nothing but itself."""
    viewers: int = 0
    """How many look at it now."""
    ending: str | None = None
    """How and why it ended."""
    is_secret: bool = False
    """It asks for a password: it reads a line and does not show it."""


class Pty:
    """A session. Made by `PtyPool.spawn`; `aclose` of the pool or `release` ends it."""

    def __init__(
        self,
        *,
        pty_id: str,
        mark: str,
        command: str,
        cwd: str,
        size: Size,
        kind: Kind,
        life: TerminalLife,
        user: str | None,
        withheld: tuple[str, ...],
        at_us: int,
        master: int,
        modes: list[Any],
        tag: int,
        group: Cgroup | None,
        leader: Leader,
        output: PtyOutput,
        paths: tuple[Path, Path],
        secrets: dict[str, str],
    ) -> None:
        self.id = pty_id
        self.mark = mark
        self.command = command
        self.cwd = cwd
        self.size = size
        self.kind: Kind = kind
        self.life = life
        """Its viewers, and what ends it."""
        self.user = user
        self.withheld = withheld
        self.at_us = at_us
        self.modes = modes
        """Modes of the terminal, as a program finds them that starts in it."""
        self.tag = tag
        """Number in the limits of everything that it starts; 0 where there is no such thing."""
        self.group = group
        """Its control group, where the machine has one for us."""
        self.output = output
        self.transcript, self._index = paths
        """File with all output; it survives the session."""
        self.state: PtyState = "running"
        self.why_ended = ""
        """Who or what ended it, when it did not end by itself."""
        self.is_dismissed = False
        """Somebody has ended it, or has seen that it ended."""
        self.is_ending = False
        """It is being ended because nobody looks at it any more, or it is idle."""
        self.master = master
        self.leader = leader
        self.exited = asyncio.Event()
        """Set when the leader has ended and all its output is here."""
        self.released = asyncio.Event()
        """Set when every process of the session is dead and reaped."""
        self._secrets = secrets
        self._keyboard = Keyboard(master)
        self._interrupts = 0
        self._began = time.monotonic()
        self._seconds = 0.0
        self._typed = self._began
        self._cpu_ticks = 0
        self._worked = self._began

    def __repr__(self) -> str:
        return f"<Pty {self.id} {self.state} pid {self.leader.pid} {self.command!r} {self.end:,} bytes>"

    @property
    def pid(self) -> int:
        return self.leader.pid

    @property
    def exit(self) -> Exit | None:
        return self.leader.exit

    @property
    def exit_code(self) -> int | None:
        return self.exit.code if self.exit else None

    @property
    def exit_signal(self) -> str | None:
        return self.exit.signal if self.exit else None

    @property
    def ending(self) -> str:
        """How it ended, and why, in words."""
        return ", ".join(filter(None, [str(self.exit or self.state), self.why_ended]))

    @property
    def end(self) -> int:
        """Offset after the newest byte of output."""
        return self.output.end

    @property
    def seconds(self) -> float:
        """How long it has run, or ran."""
        return self._seconds if self.exited.is_set() else time.monotonic() - self._began

    @property
    def idle_seconds(self) -> float:
        """Since the last output, input, or CPU time of its processes (the last one as of the pool's latest sweep)."""
        return time.monotonic() - max(self.output.touched, self._typed, self._worked)

    def info(self) -> PtyInfo:
        return PtyInfo(
            pty_id=self.id,
            at=self.at_us,
            command=self.command,
            state=self.state,
            pid=self.pid,
            exit_code=self.exit_code,
            exit_signal=self.exit_signal,
            bytes_out=self.end,
            seconds=round(self.seconds, 3),
            idle_seconds=0.0 if self.exited.is_set() else round(self.idle_seconds, 3),
            kind=self.kind,
            cwd=self.cwd,
            columns=self.size.columns,
            rows=self.size.rows,
            user=self.user,
            withheld=self.withheld,
            warning=self.output.problem or None,
            keep=self.life.keep,
            viewers=len(self.life.present),
            ending=self.ending if self.exited.is_set() else None,
            is_secret=self.is_hiding,
        )

    # --- output ------------------------------------------------------------------------------------------------------

    def viewer(self, since: int = 0, *, is_live: bool = False, to_exit: bool = False) -> Viewer:
        """A cursor into the output, see `Viewer`."""
        return Viewer(self.output, since, is_live=is_live, to_exit=to_exit)

    def read(self, since: int = 0, limit: int = 1 << 16) -> Chunk:
        """What there is from offset `since`, at once."""
        return self.output.read(since, limit)

    def events(self) -> tuple[transcript.TranscriptHead, list[dict[str, Any]]]:
        """When output came and what sizes the window had: what an asciicast needs. Reads a file."""
        self.output.flush()
        return transcript.read_index(self._index)

    def mask(self, secrets: Mapping[str, str]) -> None:
        """Mask these values too from now on, by variable name."""
        if any(self._secrets.get(name) != value for name, value in secrets.items()):
            self._secrets.update(secrets)
            self.output.mask(self._secrets)

    # --- input -------------------------------------------------------------------------------------------------------

    async def write(self, data: bytes) -> str:
        """Type `data`. Waits while the child does not read and the queue (256 KiB) is full.

        Returns:
            A warning (a line that the kernel will cut), empty when there is none.

        Raises:
            HandleNotFound: the session has ended, perhaps meanwhile.
        """
        self._typed = time.monotonic()
        self._interrupts += INTERRUPT in data
        try:
            return await self._keyboard.type(data)
        except BrokenPipeError:
            raise HandleNotFound(pty_id=self.id, ended=self.ending) from None

    def cut_line(self, data: bytes) -> int:
        """Bytes of the longest line of `data` that the terminal would cut; 0 when it would cut none."""
        return self._keyboard.cut(data)

    @property
    def interrupts(self) -> int:
        """How often Ctrl-C was typed or sent."""
        return self._interrupts

    @property
    def is_echoing(self) -> bool:
        """Whether the terminal shows what is typed; programs switch it off before they ask for a password."""
        try:
            return bool(termios.tcgetattr(self.master)[3] & termios.ECHO)
        except (termios.error, ValueError):
            return False

    @property
    def is_hiding(self) -> bool:
        """Whether a line is read that is not shown, as passwords are; an editor shows what is typed by itself."""
        if self.exited.is_set():
            return False
        try:
            modes = termios.tcgetattr(self.master)[3]
        except (termios.error, ValueError):
            return False
        return bool(modes & termios.ICANON) and not modes & termios.ECHO

    # --- control -----------------------------------------------------------------------------------------------------

    def resize(self, size: Size) -> None:
        """Change the window; `UsageError` when no terminal can have that size."""
        size.check()
        self._check_open()
        if size != self.size:
            set_size(self.master, size)
            self.size = size
            self.output.mark_size(size)

    def signal_job(self, number: int) -> bool:
        """Signal the foreground job; False when it may not be signalled, or there is none."""
        if self.exited.is_set():
            return False
        self._interrupts += number == signal.SIGINT
        try:
            if number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP):
                fcntl.ioctl(self.master, TIOCSIG, number)
            else:
                os.killpg(os.tcgetpgrp(self.master), number)
        except OSError:
            return False
        return True

    async def interrupt(self, done: asyncio.Event | None = None, patience: float = PATIENCE_SECONDS) -> str:
        """End what is running: INT, then TERM, then KILL to the foreground job, `patience` seconds apart.

        Args:
            done: set when it has ended; left out: when the session's leader has.
            patience: seconds.

        Returns:
            The last signal that was sent.
        """
        done = done or self.exited
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            self.signal_job(number)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(done.wait(), patience)
                break
        return number.name

    async def wait(self, timeout: float | None = None) -> Exit:  # noqa: ASYNC109 - part of the interface users know
        """Wait for the leader's end; all its output is here then.

        Raises:
            Timeout: it still runs after `timeout` seconds; it goes on running.
        """
        try:
            await asyncio.wait_for(self.exited.wait(), timeout)
        except TimeoutError:
            raise Timeout(deadline="command", seconds=timeout or 0.0) from None
        assert self.leader.exit is not None
        return self.leader.exit

    # --- the pool's side ---------------------------------------------------------------------------------------------

    def note_work(self, found: Mapping[int, processes.Process]) -> None:
        """Compare the CPU time of the session's processes with that of last time."""
        ticks = sum(process.cpu_ticks for process in found.values())
        if ticks > self._cpu_ticks:
            self._worked = time.monotonic()
        self._cpu_ticks = ticks

    def mark_exited(self, state: PtyState) -> None:
        """The leader is dead: take the rest of its output and wake whoever waits."""
        self.output.mark_exited()
        self._seconds = time.monotonic() - self._began
        self.state = state
        self._keyboard.close()
        self.exited.set()

    def mark_released(self) -> None:
        """Everyone is dead: give back memory and descriptors."""
        self._keyboard.close()
        self.output.fill(1)
        self.output.finish()
        self.leader.reap()
        os.close(self.master)
        self.master = -1
        self.released.set()

    def _check_open(self) -> None:
        if self.exited.is_set():
            raise HandleNotFound(pty_id=self.id, ended=self.ending)
