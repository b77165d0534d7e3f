"""A persistent shell that runs cells: exact output, exit code per cell, no prompt, no echo, no scraping.

The shell reads cells from a pipe and reports their ends in band (`marks`), so output and end cannot overtake each
other; its standard input stays the terminal, so programs in a cell can ask questions, and Ctrl-C reaches them. It is
interactive, because only then `^C` ends a loop and the shell lives on. The user's own rc files are not read: what a
notebook shows must not depend on them. See `shells/bashrc` for the shell's side.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sys
import time
from collections.abc import AsyncGenerator, Collection, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from tundra_nb.errors import HandleNotFound, Timeout, UsageError

from .keyboard import KeyFeed
from .marks import Mark, MarkParser
from .pool import PtyPool
from .pty import PATIENCE_SECONDS, Pty
from .spawn import Size

if sys.platform != "win32":
    import termios

Program = Literal["bash", "zsh"]
CELLS = 9
"""Descriptor from which the shell reads cells; scripts use the low ones."""
HEALINGS = 20
"""In one cell: a shell whose loop cannot be restarted (a cell took it out) is lost."""
SIGNALLED = 128
INTERRUPTED = 130
_FOLDER = Path(__file__).parent / "shells"


class CellEnd(NamedTuple):
    """How a cell ended."""

    exit_code: int | None
    exit_signal: str | None
    seconds: float
    is_shell_ended: bool
    """`exit`, `exec`, `kill $$`: the next cell needs a new shell."""


class Shell:
    """One shell and its PTY. Made by `start`, ended by `aclose`."""

    def __init__(self, pool: PtyPool, program: Program, pty: Pty, cells: int) -> None:
        self.pty = pty
        self.program = program
        self._pool = pool
        self._cells = cells
        self._feed = KeyFeed(cells)
        self._session = secrets.token_hex(8)
        self._viewer = pty.viewer(to_exit=True)
        self._parser = MarkParser()
        self._done: asyncio.Event | None = None
        self._senders: set[asyncio.Task[None]] = set()
        self._one_at_a_time = asyncio.Lock()
        self._word = ""
        self._has_started = False
        self._has_begun = False
        self._is_late = False
        self._is_over = True
        """The end of the last cell was seen; not so when its reader has gone away."""

    def __repr__(self) -> str:
        return f"<Shell {self.program} {'busy' if self.is_busy else 'idle'} {self.pty!r}>"

    @classmethod
    async def start(
        cls,
        pool: PtyPool,
        program: Program = "bash",
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        size: Size = Size(),  # noqa: B008 - a named tuple
        user: str | None = None,
        with_keys: Collection[str] = (),
    ) -> Shell:
        """Start a shell in the pool; raises what `PtyPool.spawn` raises."""
        argv, extra = _command(program)
        theirs, ours = os.pipe()
        try:
            os.set_blocking(ours, False)
            pty = await pool.spawn(
                argv,
                told=f"{program} -i",  # its files of ours are nothing to read
                cwd=cwd,
                env={**extra, **(env or {})},
                size=size,
                kind="shell",
                user=user,
                with_keys=with_keys,
                handed={CELLS: theirs},
            )
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        shell = cls(pool, program, pty, ours)
        with contextlib.suppress(BrokenPipeError):  # it has ended already: the first cell will say so
            await shell._feed.write(f"{shell._session}\0".encode())
        return shell

    @property
    def is_busy(self) -> bool:
        return self._done is not None and not self._done.is_set()

    @property
    def is_ended(self) -> bool:
        return self.pty.exited.is_set()

    @property
    def cwd(self) -> str:
        """Where the shell is now."""
        try:
            return os.readlink(f"/proc/{self.pty.pid}/cwd")
        except OSError:
            return self.pty.cwd

    async def run(self, cell: str, timeout: float | None = None) -> AsyncGenerator[bytes | CellEnd, None]:  # noqa: ASYNC109
        """Run a cell: pieces of output as they come, then exactly one `CellEnd`.

        Closing the generator lets the cell go on; the next one waits for it. A cell reads what is typed while it runs:
        what was typed before is dropped.

        Raises:
            Timeout: after `timeout` seconds it was interrupted, with more and more force, and has ended by now.
            HandleNotFound: the shell has ended before.
            UsageError: a NUL in the cell, or another cell is running.
        """
        if "\0" in cell:
            raise UsageError(problem="a NUL character cannot be passed to a shell", field="cell", remedy="Take it out.")
        if self.is_busy:
            raise UsageError(problem="a cell is still running in this shell", remedy="Wait for it, or interrupt it.")
        if self.is_ended:
            raise HandleNotFound(pty_id=self.pty.id, ended=str(self.pty.exit))
        word = secrets.token_hex(8)
        done = self._done = asyncio.Event()
        self._is_late = self._is_over = False
        with contextlib.suppress(termios.error):
            # A program of the last cell may have left the terminal raw, or lines that nobody read.
            termios.tcsetattr(self.pty.master, termios.TCSANOW, self.pty.modes)
            termios.tcflush(self.pty.master, termios.TCOFLUSH)
        message = f"{word}\0{cell}\0{word}\0".encode(errors="surrogateescape")
        self._send_soon(message)
        self._word = word
        alarm = asyncio.create_task(self._interrupt_after(timeout)) if timeout is not None else None
        started = time.monotonic()
        end = CellEnd(None, None, 0.0, is_shell_ended=True)
        try:
            async with contextlib.aclosing(self._pieces(word, message)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, bytes):
                        yield piece
                    else:
                        end = CellEnd(piece.code, None, 0.0, is_shell_ended=False)
            done.set()
            self._is_over = True
            if self._is_late:
                raise Timeout(deadline="command", seconds=timeout or 0.0)
            if end.is_shell_ended:
                self._close_cells()
                end = end._replace(exit_code=self.pty.exit_code, exit_signal=self.pty.exit_signal)
            yield end._replace(seconds=time.monotonic() - started)
        finally:
            done.set()
            if alarm is not None:
                alarm.cancel()

    async def interrupt(self, patience: float = PATIENCE_SECONDS) -> str:
        """End the running cell, with more and more force; nothing happens when none runs. Returns the last signal.

        Also a cell that goes on without a reader. Where the shell itself goes on, since it ignores the first signal and
        the others are for its programs, it is ended with the cell.
        """
        if self._is_over or self.is_ended:
            return ""
        ended = asyncio.Event()
        watching = asyncio.create_task(self._watch(ended))
        try:
            last = await self.pty.interrupt(ended, patience)
        finally:
            watching.cancel()
        if not ended.is_set():
            await self._give_up("the shell ignored an interrupt")
        return last

    async def aclose(self) -> None:
        """End the shell and everything in it. Twice is once."""
        self._close_cells()
        await self._give_up("the shell was closed")

    async def _give_up(self, why: str) -> None:
        with contextlib.suppress(HandleNotFound):
            await self._pool.release(self.pty.id, why)

    def _close_cells(self) -> None:
        if self._cells >= 0:
            self._feed.close()
            os.close(self._cells)
            self._cells = -1

    async def _interrupt_after(self, timeout: float) -> None:  # noqa: ASYNC109
        await asyncio.sleep(timeout)
        self._is_late = True
        await self.interrupt()

    async def _watch(self, ended: asyncio.Event) -> None:
        """See the end of the cell, or the prompt, with eyes of its own.

        Whoever consumes `run` may be slow: that must not look as if the cell ignored the signal.
        """
        viewer, parser = self.pty.viewer(self._viewer.cursor, to_exit=True), MarkParser()
        parser.give_back([self._parser.held])
        ends = {("D", self._word), ("A", self._session), ("B", self._session)}
        is_inside = self._has_begun
        while (chunk := await viewer.read()) is not None:
            for piece in parser.feed(chunk.data):
                if not isinstance(piece, Mark):
                    continue
                is_inside = is_inside or (piece.kind, piece.word) == ("C", self._word)
                if is_inside and (piece.kind, piece.word) in ends:
                    ended.set()
                    return
        ended.set()

    def _send_soon(self, message: bytes) -> None:
        """Send beside reading: a long cell does not fit into the pipe. Never cut short: half a cell would spoil the
        next.
        """
        task = asyncio.create_task(self._send(message))
        self._senders.add(task)
        task.add_done_callback(self._senders.discard)

    async def _send(self, message: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):  # the shell has ended, which `run` sees for itself
            async with self._one_at_a_time:
                await self._feed.write(message)

    async def _pieces(self, word: str, message: bytes) -> AsyncGenerator[bytes | Mark, None]:
        """Output of the cell, then its mark D; no mark when the shell has ended."""
        is_inside = self._has_begun = False
        healings = 0
        interrupts = self.pty.interrupts
        while (chunk := await self._viewer.read()) is not None:
            pieces = self._parser.feed(chunk.data)
            for number, piece in enumerate(pieces):
                if isinstance(piece, bytes):
                    if is_inside:
                        yield piece
                elif piece.kind == "B" and piece.word == self._session:
                    healings += 1
                    await self._heal(healings)
                    is_inside = False
                elif piece.kind == "A" and piece.word == self._session:
                    is_inside = False
                    if self._has_started and not self._has_begun:
                        # ^C in the middle of reading has lost a part; a cell that was read whole is skipped.
                        self._send_soon(message)
                    self._has_started = True
                elif piece.word != word:
                    if is_inside:
                        yield piece.raw
                elif piece.kind == "C":
                    is_inside = self._has_begun = True
                    healings = 0
                elif piece.kind == "D":
                    self._parser.give_back(pieces[number + 1 :])
                    # zsh reports 2 for a loop of its own that ^C ended
                    is_cut = healings > 0 and self.pty.interrupts > interrupts and (piece.code or 0) < SIGNALLED
                    yield piece._replace(code=INTERRUPTED) if is_cut else piece
                    return
        rest = self._parser.finish()
        if rest and is_inside:
            yield rest

    async def _heal(self, healings: int) -> None:
        """The shell prompts on its terminal: make it run its loop again."""
        if healings > HEALINGS:
            await self._give_up("the shell no longer takes cells")
            return
        with contextlib.suppress(HandleNotFound, termios.error):
            if self.program == "bash":
                await self.pty.write(b"\n")
            else:
                modes = termios.tcgetattr(self.pty.master)
                modes[3] &= ~termios.ECHO
                termios.tcsetattr(self.pty.master, termios.TCSANOW, modes)
                await self.pty.write(b" . " + os.fsencode(_FOLDER / "zsh" / ".zshrc") + b"\n")


def _command(program: Program) -> tuple[list[str], dict[str, str]]:
    if program == "bash":
        return ["bash", "--noediting", "--rcfile", str(_FOLDER / "bashrc"), "-i"], {}
    return ["zsh", "-d", "-i"], {"ZDOTDIR": str(_FOLDER / "zsh")}
