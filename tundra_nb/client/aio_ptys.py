"""`t.ptys`, `t.run` and `t.sh` of an `AsyncClient`: the awaited twins of `ptys`."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, Unpack

from tundra_nb.errors import HandleNotFound
from tundra_nb.protocol.ptys import Matched
from tundra_nb.terminal.asciicast import asciicast

from . import pty_calls as calls
from .answer import Event
from .call import Call, Step
from .endpoints import Awaiting, awaited
from .link import Link
from .live import CellReader, CommandReader, OnOutput, ResultReader, Run, ShellRun
from .owner import owner_name
from .pty_calls import CellOptions, Command, OpenOptions, Pattern, RunOptions
from .ptys import folder, shown
from .results import Document

if TYPE_CHECKING:
    import pandas as pd

    from tundra_nb.terminal.screen import Screen, Tail

T = TypeVar("T")
R = TypeVar("R", bound=Run)


class _AsyncStreaming(Awaiting, Protocol):
    caller: str

    @property
    def link(self) -> Link: ...
    def _events(self, call: Call[Any]) -> AsyncGenerator[Event, None]: ...


class AsyncPtys:
    """`t.ptys` of an `AsyncClient`; see `Ptys`."""

    def __init__(self, client: _AsyncStreaming) -> None:
        self._client = client

    async def _do(self, step: Step[T]) -> T:
        return await self._client._do(step)  # noqa: SLF001 - a namespace of the client

    async def __call__(self) -> pd.DataFrame:
        return await self._do(calls.listing())

    def __getitem__(self, pty_id: str) -> AsyncPty:
        return AsyncPty(self, str(pty_id))

    ids = awaited(calls.ids)
    history = awaited(calls.history)
    search = awaited(calls.search)
    why = awaited(calls.why)
    clean = awaited(calls.clean)

    async def open(self, command: Command, **options: Unpack[OpenOptions]) -> AsyncPty:
        """Start a command in a PTY that lives on; see `Ptys.open`."""
        options["cwd"] = folder(self._client.link, options.get("cwd"))
        return AsyncPty(self, str((await self._do(calls.spawn(command, kind="terminal", **options)))["pty_id"]))

    async def run(self, command: Command, *, on_output: OnOutput | None = None, **options: Unpack[RunOptions]) -> Run:
        """Run a command to its end; see `Client.run`. Cancelling it ends the command."""
        owner = owner_name(self._client.caller)
        options["cwd"] = folder(self._client.link, options.get("cwd"))
        opened = await self._do(calls.spawn(command, owner=owner, wait=calls.QUEUE_TIMEOUT, **options))
        pty_id = str(opened["pty_id"])
        reader = CommandReader(pty_id, options.get("timeout"))
        return await self._drain(calls.follow(pty_id, owner=owner), reader, on_output)

    async def sh(self, cell: str, *, on_output: OnOutput | None = None, **options: Unpack[CellOptions]) -> ShellRun:
        """Run a cell in the persistent shell; see `Client.sh`. Cancelling it interrupts the cell."""
        options["cwd"] = folder(self._client.link, options.get("cwd"))
        call = calls.cell(owner_name(self._client.caller), cell, **options)
        return await self._drain(call, CellReader("", options.get("timeout")), on_output)

    async def _drain(self, call: Call[Any], reader: ResultReader[R], on_output: OnOutput | None) -> R:
        show = shown(on_output)
        events = self._client._events(call)  # noqa: SLF001 - a namespace of the client
        try:
            async for event in events:
                if piece := reader.take(event):
                    show(piece)
                if reader.is_done:
                    break
        except asyncio.CancelledError:
            if isinstance(reader, CommandReader):  # a cell is interrupted by its stream's end
                await asyncio.shield(self._do(calls.end(reader.pty_id)))
            raise
        finally:
            await events.aclose()
        return reader.result


class AsyncPty:
    """One PTY of the daemon; see `Pty`."""

    def __init__(self, ptys: AsyncPtys, pty_id: str) -> None:
        self._ptys = ptys
        self.id = pty_id

    def __repr__(self) -> str:
        return f"<PTY {self.id}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(HandleNotFound):  # it has ended by itself
            await self.close()

    async def _do(self, step: Step[T]) -> T:
        return await self._ptys._do(step)  # noqa: SLF001 - one of the namespace's

    async def info(self) -> Document:
        """Its row: command, state, pid, exit_code, seconds."""
        return await self._do(calls.info(self.id))

    async def text(self) -> str:
        """The output so far as a person reads it: without colours and other escape codes, line ends as in files."""
        return await self._do(calls.text(self.id))

    async def raw(self) -> str:
        """The same with its escape codes."""
        return await self._do(calls.raw(self.id))

    async def output(self) -> bytes:
        """The output so far, byte for byte (secrets masked)."""
        return await self._do(calls.output(self.id))

    async def tail(self) -> Tail:
        """The end of the output, as much as a screen is drawn from."""
        from tundra_nb.terminal import screen

        timing = await self._do(calls.timing(self.id))
        columns, rows, end = screen.size_and_end(timing["head"], timing["events"])
        return screen.Tail(await self._do(calls.output(self.id, max(0, end - screen.TAIL_BYTES))), columns, rows)

    async def screen(self) -> Screen:
        """What its screen shows now, or showed last."""
        tail = await self.tail()
        return await asyncio.to_thread(lambda: tail.screen)

    async def events(self) -> pd.DataFrame:
        """When output came and what sizes the screen had."""
        return await self._do(calls.events(self.id))

    async def send(self, typed: str) -> str:
        """Type text; a line wants its newline. Returns a warning, empty when there is none."""
        return str((await self._do(calls.send(self.id, typed)))["warning"] or "")

    async def send_secret(self, name: str) -> None:
        """Type the value of a variable of this process; see `Pty.send_secret`."""
        await self._do(calls.send_secret(self.id, name))

    async def expect(
        self,
        patterns: Pattern | Sequence[Pattern],
        timeout: float | None = 30.0,  # noqa: ASYNC109 - of the search, in the daemon
    ) -> Matched:
        """Wait for the first of the patterns; see `Pty.expect`."""
        return await self._do(calls.expect(self.id, patterns, timeout))

    async def interrupt(self) -> str:
        """Send Ctrl-C to what runs; see `Pty.interrupt`."""
        return str((await self._do(calls.interrupt(self.id)))["signal"])

    async def resize(self, rows: int, columns: int) -> None:
        """Change the size of the screen."""
        await self._do(calls.resize(self.id, rows, columns))

    async def asciicast(self, file: str | os.PathLike[str] | None = None) -> str:
        """The session as an asciicast v2 recording; see `Pty.asciicast`."""
        timing = await self._do(calls.timing(self.id))
        made = "".join(asciicast(timing["head"], timing["events"], await self.output()))
        if file is not None:
            await asyncio.to_thread(Path(file).write_text, made, encoding="utf-8")
        return made

    async def close(self) -> None:
        """End it and every process of its session."""
        await self._do(calls.end(self.id))
