"""`t.ptys` and `t.run`: the daemon's pseudo-terminals, blocking and awaited.

Routes: `GET|POST /api/ptys`, `GET|DELETE /api/ptys/{id}`, `GET …/{id}/transcript?since=SEQ`, which as an event stream
follows the output (`output` {"seq", "text"}, then `exit` with the row of the PTY), `POST …/{id}/input` and `…/size`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from tundra_nb.errors import Timeout, from_wire

from . import api, times
from .answer import died
from .call import EVENTS, STREAM_TIMEOUT, Answer, Call, Step, query, quoted
from .endpoints import Awaiting, Blocking, awaited, blocking
from .results import Document
from .sse import Event

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")
Command = str | Sequence[str]


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """How a shell command ended. `exit_code` is None when a signal ended it."""

    pty_id: str
    exit_code: int | None
    exit_signal: str | None
    seconds: float
    text: str
    """All output, as the terminal received it."""

    def __str__(self) -> str:
        return self.text


# the table:


def listing() -> Call[pd.DataFrame]:
    """The PTYs that are open."""
    return Call(method="GET", path="/api/ptys", decode=lambda answer: api.frame_of("ptys", answer))


def spawn(
    command: Command,
    *,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    rows: int | None = None,
    columns: int | None = None,
    timeout: float | None = None,
) -> Call[Document]:
    """Start a command in a PTY: text runs by the shell, a list as it is."""
    given = {
        "command": command if isinstance(command, str) else list(command),
        "cwd": None if cwd is None else os.fspath(cwd),
        "env": None if env is None else dict(env),
        "rows": rows,
        "columns": columns,
        "timeout": timeout,
    }
    body = {name: value for name, value in given.items() if value is not None}
    return Call(method="POST", path="/api/ptys", body=body, decode=api.document)


def info(pty_id: str) -> Call[Document]:
    """The row of one PTY."""
    return Call(method="GET", path=_path(pty_id), decode=api.document)


def end(pty_id: str) -> Call[Document]:
    """End a PTY and every process of its session."""
    return Call(method="DELETE", path=_path(pty_id), decode=api.document)


def text(pty_id: str, since: int = 0) -> Call[str]:
    """The output so far, from a sequence number (byte offset) on."""
    return Call(method="GET", path=_path(pty_id, "transcript"), query=query(since=since), decode=_decoded, accept="*/*")


def follow(pty_id: str, since: int = 0) -> Call[None]:
    """The output as events, until the PTY ends."""
    return Call(
        method="GET",
        path=_path(pty_id, "transcript"),
        query=query(since=since),
        decode=lambda _: None,
        accept=EVENTS,
        timeout=STREAM_TIMEOUT,
    )


def send(pty_id: str, typed: str) -> Call[Document]:
    """Type text into a PTY; a line wants its newline."""
    return Call(method="POST", path=_path(pty_id, "input"), body={"text": typed}, decode=api.document)


def resize(pty_id: str, rows: int, columns: int) -> Call[Document]:
    """Change the size of a PTY's screen."""
    return Call(method="POST", path=_path(pty_id, "size"), body={"rows": rows, "columns": columns}, decode=api.document)


def history(
    since: times.When | None = None,
    *,
    between: api.Window | None = None,
    at: str | None = None,
    limit: int | None = None,
) -> Call[pd.DataFrame]:
    """What happened to PTYs: starts, refusals, resizes, exits, kills, orphan ends."""
    return api.history("pty-history", since, between=between, at=at, limit=limit)


def _path(pty_id: str, *more: str) -> str:
    return "/".join(["/api/ptys", quoted(pty_id), *more])


def _decoded(answer: Answer) -> str:
    return answer.body.decode("utf-8", errors="replace")


class _Follower:
    """Reads the events of a followed command into its result. No I/O."""

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._pieces: list[str] = []
        self.run: Run | None = None

    def take(self, event: Event) -> str | None:
        """Take one event; return the output it adds."""
        if event.name == "output":
            piece = str(msgspec.json.decode(event.data)["text"])
            self._pieces.append(piece)
            return piece
        if event.name == "error":
            raise from_wire(msgspec.json.decode(event.data))
        if event.name == "exit":
            self._end(msgspec.json.decode(event.data))
        return None

    def ended(self) -> Run:
        if self.run is None:
            raise died()
        return self.run

    def _end(self, row: dict[str, Any]) -> None:
        if row.get("timed_out"):
            raise Timeout(deadline="command", seconds=self._timeout or float(row.get("seconds") or 0.0))
        self.run = Run(
            pty_id=str(row["pty_id"]),
            exit_code=row.get("exit_code"),
            exit_signal=row.get("exit_signal"),
            seconds=float(row.get("seconds") or 0.0),
            text="".join(self._pieces),
        )


# blocking:


class _Streaming(Blocking, Protocol):
    def _events(self, call: Call[Any]) -> Generator[Event, None, None]: ...


class Ptys:
    """`t.ptys` of a `Client`: call it for a frame of the open ones, index it by id."""

    def __init__(self, client: _Streaming) -> None:
        self._client = client

    def _do(self, step: Step[T]) -> T:
        return self._client._do(step)  # noqa: SLF001 - a namespace of the client

    def __call__(self) -> pd.DataFrame:
        return self._do(listing())

    def __getitem__(self, pty_id: str) -> Pty:
        return Pty(self, str(pty_id))

    history = blocking(history)

    def open(
        self,
        command: Command,
        *,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        rows: int | None = None,
        columns: int | None = None,
    ) -> Pty:
        """Start a command in a PTY that lives on; close it.

        Raises:
            SpawnFailed, AtCapacity: it could not be started.
        """
        return Pty(
            self, str(self._do(spawn(command, cwd=cwd or os.getcwd(), env=env, rows=rows, columns=columns))["pty_id"])
        )

    def run(
        self,
        command: Command,
        *,
        timeout: float | None = None,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        on_output: Callable[[str], None] | None = None,
    ) -> Run:
        """Run a command to its end; see `Client.run`."""
        pty_id = str(self._do(spawn(command, cwd=cwd or os.getcwd(), env=env, timeout=timeout))["pty_id"])
        follower = _Follower(timeout)
        events = self._client._events(follow(pty_id))  # noqa: SLF001 - a namespace of the client
        try:
            for event in events:
                piece = follower.take(event)
                if piece and on_output is not None:
                    on_output(piece)
                if follower.run is not None:
                    break
        except BaseException:
            self._do(end(pty_id))
            raise
        finally:
            events.close()
        return follower.ended()


class Pty:
    """One PTY of the daemon. Nothing is remembered here: each look asks the daemon."""

    def __init__(self, ptys: Ptys, pty_id: str) -> None:
        self._ptys = ptys
        self.id = pty_id

    def __repr__(self) -> str:
        return f"<PTY {self.id}>"

    @property
    def info(self) -> Document:
        """Its row: command, state, pid, exit_code, seconds."""
        return self._ptys._do(info(self.id))  # noqa: SLF001 - one of the namespace's

    @property
    def text(self) -> str:
        """The output so far."""
        return self._ptys._do(text(self.id))  # noqa: SLF001

    def send(self, typed: str) -> None:
        """Type text; a line wants its newline."""
        self._ptys._do(send(self.id, typed))  # noqa: SLF001

    def resize(self, rows: int, columns: int) -> None:
        """Change the size of the screen."""
        self._ptys._do(resize(self.id, rows, columns))  # noqa: SLF001

    def close(self) -> None:
        """End it and every process of its session."""
        self._ptys._do(end(self.id))  # noqa: SLF001


# awaited:


class _AsyncStreaming(Awaiting, Protocol):
    def _events(self, call: Call[Any]) -> AsyncGenerator[Event, None]: ...


class AsyncPtys:
    """`t.ptys` of an `AsyncClient`; see `Ptys`."""

    def __init__(self, client: _AsyncStreaming) -> None:
        self._client = client

    async def _do(self, step: Step[T]) -> T:
        return await self._client._do(step)  # noqa: SLF001 - a namespace of the client

    async def __call__(self) -> pd.DataFrame:
        return await self._do(listing())

    def __getitem__(self, pty_id: str) -> AsyncPty:
        return AsyncPty(self, str(pty_id))

    history = awaited(history)

    async def open(
        self,
        command: Command,
        *,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        rows: int | None = None,
        columns: int | None = None,
    ) -> AsyncPty:
        """Start a command in a PTY that lives on; see `Ptys.open`."""
        row = await self._do(spawn(command, cwd=cwd or os.getcwd(), env=env, rows=rows, columns=columns))
        return AsyncPty(self, str(row["pty_id"]))

    async def run(
        self,
        command: Command,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the daemon ends the command, not this coroutine
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        on_output: Callable[[str], None] | None = None,
    ) -> Run:
        """Run a command to its end; see `Client.run`."""
        pty_id = str((await self._do(spawn(command, cwd=cwd or os.getcwd(), env=env, timeout=timeout)))["pty_id"])
        follower = _Follower(timeout)
        events = self._client._events(follow(pty_id))  # noqa: SLF001 - a namespace of the client
        try:
            async for event in events:
                piece = follower.take(event)
                if piece and on_output is not None:
                    on_output(piece)
                if follower.run is not None:
                    break
        except BaseException:
            await self._do(end(pty_id))
            raise
        finally:
            await events.aclose()
        return follower.ended()


class AsyncPty:
    """One PTY of the daemon; see `Pty`."""

    def __init__(self, ptys: AsyncPtys, pty_id: str) -> None:
        self._ptys = ptys
        self.id = pty_id

    def __repr__(self) -> str:
        return f"<PTY {self.id}>"

    async def info(self) -> Document:
        """Its row: command, state, pid, exit_code, seconds."""
        return await self._ptys._do(info(self.id))  # noqa: SLF001 - one of the namespace's

    async def text(self) -> str:
        """The output so far."""
        return await self._ptys._do(text(self.id))  # noqa: SLF001

    async def send(self, typed: str) -> None:
        """Type text; a line wants its newline."""
        await self._ptys._do(send(self.id, typed))  # noqa: SLF001

    async def resize(self, rows: int, columns: int) -> None:
        """Change the size of the screen."""
        await self._ptys._do(resize(self.id, rows, columns))  # noqa: SLF001

    async def close(self) -> None:
        """End it and every process of its session."""
        await self._ptys._do(end(self.id))  # noqa: SLF001
