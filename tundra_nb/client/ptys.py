"""`t.ptys`, `t.run` and `t.sh`: the daemon's pseudo-terminals, blocking. `aio_ptys` is the awaited twin."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, Unpack

from tundra_nb.errors import AtCapacity, HandleNotFound
from tundra_nb.protocol.ptys import Matched
from tundra_nb.terminal.asciicast import asciicast

from . import pty_calls as calls
from .answer import Event
from .call import Call, Step
from .endpoints import Blocking, blocking
from .link import Link
from .live import CellReader, CommandReader, Live, OnOutput, Run, ShellRun
from .owner import owner_name
from .pty_calls import CellOptions, Command, Cwd, OpenOptions, Pattern, RunOptions
from .results import Document

if TYPE_CHECKING:
    import pandas as pd

    from tundra_nb.terminal.screen import Screen, Tail

T = TypeVar("T")
SHOWN_CHARACTERS = 60
"""How much of a command is shown in messages."""


class _Streaming(Blocking, Protocol):
    caller: str

    @property
    def link(self) -> Link: ...
    def _events(self, call: Call[Any]) -> Generator[Event, None, None]: ...


class Ptys:
    """`t.ptys` of a `Client`: call it for a frame of the open ones, index it by id."""

    def __init__(self, client: _Streaming) -> None:
        self._client = client

    def _do(self, step: Step[T]) -> T:
        return self._client._do(step)  # noqa: SLF001 - a namespace of the client

    def __call__(self) -> pd.DataFrame:
        return self._do(calls.listing())

    def __getitem__(self, pty_id: str) -> Pty:
        return Pty(self, str(pty_id))

    ids = blocking(calls.ids)
    history = blocking(calls.history)
    search = blocking(calls.search)
    why = blocking(calls.why)
    clean = blocking(calls.clean)

    def open(self, command: Command, **options: Unpack[OpenOptions]) -> Pty:
        """Start a command in a PTY that lives on; close it.

        It is ended `pty.grace_seconds` after its last viewer has gone (a terminal tab, not this process), and when it
        has been idle for `pty.idle_seconds`; a `persistent` one is not.

        Args:
            command: as typed into a shell; a list is a program with its arguments.
            options: `rows` and `columns` of its screen, `persistent`; `cwd`, `env` and `with_keys` as of `Client.run`.

        Raises:
            SpawnFailed, AtCapacity: it could not be started.
        """
        options["cwd"] = folder(self._client.link, options.get("cwd"))
        return Pty(self, str(self._do(calls.spawn(command, kind="terminal", **options))["pty_id"]))

    def run(self, command: Command, *, on_output: OnOutput | None = None, **options: Unpack[RunOptions]) -> Run:
        """Run a command to its end; see `Client.run`."""
        return self.start(command, **options).drain(shown(on_output))

    def sh(self, cell: str, *, on_output: OnOutput | None = None, **options: Unpack[CellOptions]) -> ShellRun:
        """Run a cell in the persistent shell; see `Client.sh`."""
        return self.start_cell(cell, **options).drain(shown(on_output))

    def start(
        self,
        command: Command,
        *,
        on_queue: Callable[[AtCapacity], object] = lambda _: None,
        **options: Unpack[RunOptions],
    ) -> Live[Run]:
        """Start a command; `drain` what this returns, at once: it ends when nobody follows it, unless `persistent`.

        Where every PTY is in use it waits for one in turn, at most `pty.queue_seconds`, and tells `on_queue` so.
        """
        owner = owner_name(self._client.caller)
        options["cwd"] = folder(self._client.link, options.get("cwd"))
        try:
            opened = self._do(calls.spawn(command, owner=owner, **options))
        except AtCapacity as error:
            on_queue(error)
            opened = self._do(calls.spawn(command, owner=owner, wait=calls.QUEUE_TIMEOUT, **options))
        pty_id = str(opened["pty_id"])
        return Live(
            shortened(command),
            CommandReader(pty_id, options.get("timeout")),
            lambda: self._client._events(calls.follow(pty_id, owner=owner)),  # noqa: SLF001 - a namespace of the client
            self._interrupt,
            self._end,
        )

    def start_cell(self, cell: str, **options: Unpack[CellOptions]) -> Live[ShellRun]:
        """Start a cell in the persistent shell of this notebook; `drain` what this returns."""
        options["cwd"] = folder(self._client.link, options.get("cwd"))
        call = calls.cell(owner_name(self._client.caller), cell, **options)
        return Live(
            shortened(cell.strip()),
            CellReader("", options.get("timeout")),
            lambda: self._client._events(call),  # noqa: SLF001 - a namespace of the client
            self._interrupt,
            self._end,
        )

    def _interrupt(self, pty_id: str) -> Document:
        return self._do(calls.interrupt(pty_id))

    def _end(self, pty_id: str) -> Document:
        return self._do(calls.end(pty_id))


class Pty:
    """One PTY of the daemon. Nothing is remembered here: each look asks the daemon.

    `text`, `raw`, `output`, `screen` and `events` can also be read after its end, as long as its transcript is kept.
    """

    def __init__(self, ptys: Ptys, pty_id: str) -> None:
        self._ptys = ptys
        self.id = pty_id

    def __repr__(self) -> str:
        return f"<PTY {self.id}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(HandleNotFound):  # it has ended by itself
            self.close()

    def _do(self, step: Step[T]) -> T:
        return self._ptys._do(step)  # noqa: SLF001 - one of the namespace's

    @property
    def info(self) -> Document:
        """Its row: command, state, pid, exit_code, seconds."""
        return self._do(calls.info(self.id))

    @property
    def text(self) -> str:
        """The output so far as a person reads it: without colours and other escape codes, line ends as in files."""
        return self._do(calls.text(self.id))

    @property
    def raw(self) -> str:
        """The same with its escape codes."""
        return self._do(calls.raw(self.id))

    @property
    def output(self) -> bytes:
        """The output so far, byte for byte (secrets masked)."""
        return self._do(calls.output(self.id))

    @property
    def tail(self) -> Tail:
        """The end of the output, as much as a screen is drawn from."""
        from tundra_nb.terminal import screen

        timing = self._do(calls.timing(self.id))
        columns, rows, end = screen.size_and_end(timing["head"], timing["events"])
        return screen.Tail(self._do(calls.output(self.id, max(0, end - screen.TAIL_BYTES))), columns, rows)

    @property
    def screen(self) -> Screen:
        """What its screen shows now, or showed last."""
        return self.tail.screen

    @property
    def events(self) -> pd.DataFrame:
        """When output came and what sizes the screen had: `seconds, kind, offset, columns, rows`."""
        return self._do(calls.events(self.id))

    def send(self, typed: str) -> str:
        """Type text; a line wants its newline. Returns a warning, empty when there is none."""
        return str(self._do(calls.send(self.id, typed))["warning"] or "")

    def send_secret(self, name: str) -> None:
        """Type the value of a variable of this process, once the program does not show what is typed.

        Raises:
            UsageError: it is not set here, or the terminal still shows what is typed; nothing was sent.
        """
        self._do(calls.send_secret(self.id, name))

    def expect(self, patterns: Pattern | Sequence[Pattern], timeout: float | None = 30.0) -> Matched:
        """Wait for the first of the patterns (regular expressions, `EOF`, `TIMEOUT`), from the last match on.

        Raises:
            Timeout: nothing matched within `timeout` seconds, and TIMEOUT is not among the patterns.
            HandleNotFound: the program has ended, and EOF is not among the patterns.
        """
        return self._do(calls.expect(self.id, patterns, timeout))

    def interrupt(self) -> str:
        """Send Ctrl-C to what runs; a command of `run` also gets TERM and KILL. Returns the last signal."""
        return str(self._do(calls.interrupt(self.id))["signal"])

    def resize(self, rows: int, columns: int) -> None:
        """Change the size of the screen."""
        self._do(calls.resize(self.id, rows, columns))

    def asciicast(self, file: str | os.PathLike[str] | None = None) -> str:
        """The session as an asciicast v2 recording; written to `file` if one is given."""
        timing = self._do(calls.timing(self.id))
        made = "".join(asciicast(timing["head"], timing["events"], self.output))
        if file is not None:
            Path(file).write_text(made, encoding="utf-8")
        return made

    def close(self) -> None:
        """End it and every process of its session."""
        self._do(calls.end(self.id))


def folder(link: Link, cwd: Cwd) -> str | None:
    """The working directory of a child: as this process sees it; through a Jupyter server, as that one sees it."""
    if link.place is not None and link.place.is_bridged:
        return None if cwd is None else os.fspath(cwd)
    return os.path.abspath(os.path.expanduser(os.fspath(cwd))) if cwd is not None else os.getcwd()


def shortened(command: Command) -> str:
    """A command in one line, for messages."""
    text = re.sub(r"\s+", " ", command if isinstance(command, str) else " ".join(command))
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"


def ignore(_: str) -> None:
    """Show nothing."""


def shown(on_output: OnOutput | None) -> OnOutput:
    return ignore if on_output is None else on_output
