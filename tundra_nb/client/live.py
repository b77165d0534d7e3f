"""The output of a command or cell while it runs.

A blocking reader that is interrupted has lost its place in the stream, so a thread of its own reads it: an interrupt
only wakes whoever waits, is passed on to the command, and the rest of the output and how it ended still arrive.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import msgspec

from tundra_nb.errors import Timeout, TundraError, from_wire

from .answer import Event, died


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """How a shell command ended. `exit_code` is None when a signal ended it."""

    pty_id: str
    exit_code: int | None
    exit_signal: str | None
    seconds: float
    text: str
    """All output as a person reads it: without colours and other escape codes, line ends as in files."""
    raw: str
    """The same with them."""

    def __str__(self) -> str:
        return self.text

    @property
    def is_ok(self) -> bool:
        return self.exit_code == 0

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        return f"ended by {self.exit_signal}" if self.exit_signal else f"exit code {self.exit_code}"


class ShellRun(Run, frozen=True, kw_only=True):
    """How a cell of a persistent shell ended."""

    cwd: str
    """Where the shell is now."""
    is_shell_ended: bool
    """`exit`, `exec`: the next cell starts a new shell."""

    @property
    def ending(self) -> str:
        told = f"ended by {self.exit_signal}" if self.exit_signal else f"exit code {self.exit_code}"
        return f"{told}, the shell has ended" if self.is_shell_ended else told


PAUSE_SECONDS = 0.05
"""Without output for so long, what came last is shown even if the pace of updates would make it wait."""

R = TypeVar("R", bound=Run)
OnOutput = Callable[[str], None]


class ResultReader(Generic[R]):
    """Reads the events of a stream into its result. No I/O."""

    def __init__(self, pty_id: str, timeout: float | None) -> None:
        self.pty_id = pty_id
        self._timeout = timeout
        self._pieces: list[str] = []
        self._result: R | None = None

    def take(self, event: Event) -> str | None:
        """Take one event; return the output it adds."""
        if event.name == "output":
            piece = str(msgspec.json.decode(event.data)["text"])
            self._pieces.append(piece)
            return piece
        if event.name == "missed":
            missed = msgspec.json.decode(event.data)
            why = f": {missed['reason']}" if missed.get("reason") else ""
            piece = f"\n[{missed['bytes']:,} bytes are missing here{why}]\n"
            self._pieces.append(piece)
            return piece
        if event.name == "error":
            raise from_wire(msgspec.json.decode(event.data))
        self._note(event.name, event.data)
        return None

    @property
    def raw(self) -> str:
        """The output so far, with escape codes."""
        return "".join(self._pieces).replace("\r\n", "\n")

    def _texts(self) -> dict[str, Any]:
        from tundra_nb.terminal.ansi import plain

        raw = self.raw
        return {"text": plain(raw), "raw": raw}

    @property
    def is_done(self) -> bool:
        return self._result is not None

    @property
    def result(self) -> R:
        if self._result is None:
            raise died()
        return self._result

    def _note(self, name: str, data: str | bytes) -> None:
        raise NotImplementedError


class CommandReader(ResultReader[Run]):
    """Reads the events of a command."""

    def _note(self, name: str, data: str | bytes) -> None:
        if name != "exit":
            return
        row = msgspec.json.decode(data)
        if row.get("timed_out"):
            raise Timeout(deadline="command", seconds=self._timeout or float(row.get("seconds") or 0.0))
        self._result = Run(**self._texts(), **_ending(row), pty_id=str(row["pty_id"]))


class CellReader(ResultReader[ShellRun]):
    """Reads the events of a shell's cell."""

    def _note(self, name: str, data: str | bytes) -> None:
        row = msgspec.json.decode(data)
        if name == "shell":
            self.pty_id = str(row["pty_id"])
        elif name == "end":
            self._result = ShellRun(
                **self._texts(),
                **_ending(row),
                pty_id=self.pty_id,
                cwd=str(row.get("cwd") or ""),
                is_shell_ended=bool(row["is_shell_ended"]),
            )


def _ending(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "exit_code": row.get("exit_code"),
        "exit_signal": row.get("exit_signal"),
        "seconds": float(row.get("seconds") or 0.0),
    }


class Live(Generic[R]):
    """What a running command or cell puts out; `drain` shows it to the end.

    Args:
        what: the command, for messages.
        reader: reads the events.
        events: opens the stream; closing it is the reader thread's business.
        interrupt: asks the daemon to interrupt the PTY with this id.
        end: asks it to end that PTY with everything in it.
    """

    def __init__(
        self,
        what: str,
        reader: ResultReader[R],
        events: Callable[[], Any],
        interrupt: Callable[[str], object],
        end: Callable[[str], object],
    ) -> None:
        self.what = what
        self.reader = reader
        self._events = events
        self._interrupt = interrupt
        self._end = end
        self._pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._interrupts = 0
        self._asks: deque[Callable[[str], object]] = deque()
        self._reading = threading.Lock()  # taken for good by the thread that reads

    def drain(self, show: OnOutput, on_pause: Callable[[], None] | None = None) -> R:
        """Show each piece as it comes; return how it ended. `on_pause` is called when the output has stopped for now.

        The first interrupt is passed on to what runs (INT, then TERM, then KILL), the second ends its PTY.

        Raises:
            Timeout: its own deadline ended it.
            KeyboardInterrupt: it was interrupted; says how it ended.
        """
        while True:
            try:
                if not self._reading.locked():  # an interrupt may come before its thread has begun
                    threading.Thread(target=self._read, name="tundra-output", daemon=True).start()
                for piece in self._come():
                    if piece:
                        show(piece)
                    elif on_pause is not None:
                        on_pause()
                break
            except KeyboardInterrupt:
                self._interrupts += 1
                self._pass_on(self._interrupt if self._interrupts == 1 else self._end)
                if self._interrupts > 1 and not self.reader.pty_id:  # it still waits for a place in the pool
                    raise KeyboardInterrupt(f"{self.what}: it had not begun, and is ended when it does") from None
            except BaseException:  # it could not be shown: nobody waits for it any more
                self._pass_on(self._end)
                raise
        if self._error is not None:
            raise self._error
        if self._interrupts:
            raise KeyboardInterrupt(f"{self.what}: {self.reader.result.ending}")
        return self.reader.result

    @property
    def is_interrupted(self) -> bool:
        return self._interrupts > 0

    def _come(self) -> Iterator[str]:
        pause = None
        while True:
            try:
                piece = self._pieces.get(timeout=pause)
            except queue.Empty:
                pause = None
                yield ""
                continue
            pause = PAUSE_SECONDS
            if piece is None:
                self._pieces.put(None)  # an interrupt may have eaten this one
                return
            parts = [piece]
            while not self._pieces.empty():
                more = self._pieces.get()
                if more is None:
                    self._pieces.put(None)
                    break
                parts.append(more)
            yield "".join(parts)

    def _read(self) -> None:
        if not self._reading.acquire(blocking=False):
            return
        try:
            events = self._events()
            try:
                for event in events:
                    if piece := self.reader.take(event):
                        self._pieces.put(piece)
                    self._pass_on()
                    if self.reader.is_done:
                        break
            finally:
                events.close()
            _ = self.reader.result
        except TundraError as error:
            self._error = error
        except Exception as error:  # noqa: BLE001 - top of a thread; raised again where somebody waits
            self._error = error
        finally:
            self._pieces.put(None)

    def _pass_on(self, *asks: Callable[[str], object]) -> None:
        """Beside the output, which goes on meanwhile; what comes before the command has a PTY waits for that."""
        self._asks.extend(asks)
        while self._asks and self.reader.pty_id:
            with contextlib.suppress(IndexError):  # the other thread was first
                ask = self._asks.popleft()
                threading.Thread(target=self._ask, args=(ask,), name="tundra-interrupt", daemon=True).start()

    def _ask(self, ask: Callable[[str], object]) -> None:
        try:
            ask(self.reader.pty_id)
        except TundraError as error:
            if not self.reader.is_done and self._error is None:
                self._pieces.put(f"\n[the interrupt did not get through: {error}]\n")
