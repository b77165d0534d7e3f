"""`WS /api/ptys/{id}/ws?since=SEQ[&reset=1][&own=1][&viewer=NAME]`: a terminal, live, in terminado's messages.

    to the viewer    ["setup", {}]  ["stdout", text, end]  ["disconnect", 1]
    with own=1 also  ["seq", end]  ["missed", {bytes, from, to}]  ["ended", {reason, exit_code, exit_signal, seq}]
    from the viewer  ["stdin", text]  ["set_size", rows, columns, …]

`since` and `end` are offsets in bytes of the shown output; a text ends at a character's border, so whoever comes back
with the last `end` gets every byte once. `reset=1` is for JupyterLab's own terminal: it begins with ESC c and the last
screenful, and stays open after an end that was not the program's own, with a line that says why.

Refused before the handshake: 400 (a parameter), 404 (no such terminal), 410 (it has ended), 503 (stopping, or too many
viewers). Closed afterwards: 1000 the program has exited, 1001 the daemon stops, 1008 not a message, 1009 too long a
one, 1011 no pong, 1013 the program does not read what is typed, 4410 the terminal was ended: why is the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.routing import BaseRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from tundra_nb import errors
from tundra_nb.daemon.answers import error_response
from tundra_nb.daemon.routing import route
from tundra_nb.daemon.sockets import GOING_AWAY, NO_PONG, STOPPING
from tundra_nb.protocol import ptys as api
from tundra_nb.runtime.ptys.life import ViewerConnection
from tundra_nb.runtime.ptys.output import TAIL_BYTES
from tundra_nb.runtime.ptys.output import Viewer as Cursor
from tundra_nb.runtime.ptys.pty import Pty
from tundra_nb.runtime.ptys.spawn import Size

if TYPE_CHECKING:
    from tundra_nb.daemon.context import Daemon

EXITED, NOT_A_MESSAGE, OVERLOADED, ENDED = 1000, 1008, 1013, 4410
MAX_VIEWERS = 256
"""Most viewers of one terminal."""
STALL_SECONDS = 3.0
"""A viewer that has not read for so long, and was overtaken by the ring, goes on near the end."""
UNREAD_MESSAGES = 64
UNREAD_SECONDS = 30.0
"""So long may so many typed messages wait for a program that does not read."""
MAX_REASON_BYTES = 123
"""RFC 6455: a control frame has 125 bytes, two are the code."""
RESET = "\x1bc"
"""RIS: whatever the viewer's screen held from before is gone."""
_encode = msgspec.json.Encoder().encode


def routes(daemon: Daemon) -> list[BaseRoute]:
    async def terminal(websocket: WebSocket) -> None:
        try:
            session = _admitted(daemon, websocket)
        except errors.TundraError as error:
            gone = isinstance(error, errors.HandleNotFound) and error.ended
            refusal = error_response(error, daemon.runtime.redactor, status=410 if gone else None)
            await websocket.send_denial_response(refusal)
            return
        await session.run()

    return [route(api.SOCKET, terminal)]


class ViewerSession:
    """One viewer on one WebSocket, from the handshake to the closing code."""

    def __init__(self, daemon: Daemon, websocket: WebSocket, pty: Pty, since: int, *, own: bool, reset: bool) -> None:
        self._daemon = daemon
        self._viewers = daemon.runtime.terminals.viewers
        self._socket = websocket
        self._pty = pty
        self._own = own
        self._reset = reset
        # Whoever looks at a screen rather skips than lags; a program wants every byte.
        self._cursor = Cursor(pty.output, since, is_live=reset, to_exit=True)
        self._at = since
        """Offset of what it has got."""
        self._typed: asyncio.Queue[bytes] = asyncio.Queue(UNREAD_MESSAGES)
        self._one: ViewerConnection | None = None
        self._number = 0
        self._close: tuple[int, str] | None = None
        """The code and reason that we close with."""
        self._gone: tuple[int, str] | None = None
        """The code that the viewer closed with."""

    async def run(self) -> None:
        """Serve until either side is done."""
        name = self._socket.query_params.get("viewer", "")[:40]
        user = self._daemon.user(self._socket)
        peer = "lab" if self._reset else "viewer"
        self._one = self._viewers.connect(self._pty, "lab" if peer == "lab" else "viewer", user, name)
        self._number = self._one.socket
        try:
            with contextlib.suppress(OSError, RuntimeError, WebSocketDisconnect):  # gone before it was here
                await self._socket.accept()
                await self._greet()
                self._viewers.established(self._pty, self._one)
            await self._first_of(self._show(), self._listen(), self._type(), self._stop())
        finally:
            await self._part()

    async def _greet(self) -> None:
        await self._send("setup", {})
        if self._own:
            await self._send("seq", self._cursor.cursor)
        if self._reset:
            await self._send("stdout", RESET, self._cursor.cursor)

    async def _show(self) -> None:
        """The output to its end, then how it ended."""
        assert self._one is not None
        while (got := await self._cursor.read_text()) is not None:
            text, end, missed = got
            if missed:
                await self._tell_missed(missed)
            self._at = end
            began = time.monotonic()
            if text:
                await self._send("stdout", text, end)
            if self._viewers.is_superseded(self._one, self._number):
                self._close = (EXITED, "this viewer has come back on another socket")
                return
            if self._own:
                await self._send("seq", end)
                self._cursor.is_live = time.monotonic() - began >= STALL_SECONDS
            await asyncio.sleep(0)  # a viewer that reads faster than the child writes must not take the whole loop
        await self._pty.exited.wait()
        await self._tell_end()

    async def _tell_missed(self, count: int) -> None:
        to = self._at + count
        assert self._one is not None
        self._viewers.missed(self._pty, self._one, count)
        if self._own:
            await self._send("missed", {"bytes": count, "from": self._at, "to": to})
        else:
            await self._send("stdout", f"\r\n\x1b[0;7m {count:,} bytes were not shown \x1b[0m\r\n", to)

    async def _tell_end(self) -> None:
        pty = self._pty
        is_own_end = pty.state == "exited"
        if self._own:
            found = pty.exit
            told = {
                "reason": pty.ending,
                "exit_code": found.code if found else None,
                "exit_signal": found.signal if found else None,
                "seq": pty.end,
            }
            await self._send("ended", told)
        if self._reset and not is_own_end:
            await self._send("stdout", f"\r\n\x1b[0;7m tundra-{pty.id} has ended: {pty.ending} \x1b[0m\r\n", pty.end)
            await asyncio.Event().wait()  # the tab keeps its last screen until somebody closes it
        await self._send("disconnect", 1)
        self._close = (EXITED, str(pty.exit)) if is_own_end else (ENDED, pty.ending)

    async def _listen(self) -> None:
        """What the viewer sends, until it goes."""
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                self._gone = (int(message.get("code") or 1006), str(message.get("reason") or ""))
                return
            try:
                told = msgspec.json.decode(message["text"])
                kind = told[0]
                if kind == "stdin":
                    await self._queue(told[1].encode(errors="surrogatepass"))
                elif kind == "set_size":
                    self._resize(told[1], told[2])
            except (msgspec.DecodeError, RecursionError, KeyError, IndexError, TypeError, AttributeError, ValueError):
                self._close = (
                    NOT_A_MESSAGE,
                    'a message is a JSON list: ["stdin", text] or ["set_size", rows, columns]',
                )
                return
            if self._close is not None:
                return

    async def _queue(self, data: bytes) -> None:
        try:
            async with asyncio.timeout(UNREAD_SECONDS):
                await self._typed.put(data)
        except TimeoutError:
            self._close = (OVERLOADED, "the program does not read what is typed")

    async def _type(self) -> None:
        with contextlib.suppress(errors.HandleNotFound):  # it has ended, which `_show` tells
            while True:
                await self._pty.write(await self._typed.get())
        await asyncio.Event().wait()

    def _resize(self, rows: Any, columns: Any) -> None:
        if not isinstance(rows, int | float) or not isinstance(columns, int | float):
            raise TypeError
        assert self._one is not None
        self._viewers.resize(self._pty, self._one, Size(int(columns), int(rows)))

    async def _stop(self) -> None:
        await self._daemon.life.stopping.wait()
        self._close = (GOING_AWAY, STOPPING)

    async def _part(self) -> None:
        """Close what is open, and say how it ended."""
        assert self._one is not None
        if self._close is not None:
            code, reason = self._close
            short = reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore")
            with contextlib.suppress(RuntimeError, OSError):
                if self._socket.application_state is WebSocketState.CONNECTED:
                    await self._socket.close(code, short)
            word = {GOING_AWAY: "stopping", NOT_A_MESSAGE: "not_a_message", OVERLOADED: "overloaded"}.get(code, "ended")
            self._viewers.gone(self._pty, self._one, self._number, word, code, is_goodbye=True)
            return
        code = self._gone[0] if self._gone is not None else 1006
        word = {1000: "closed_by_peer", 1001: "went_away", 1009: "too_long"}.get(code, "lost")
        if self._gone == (NO_PONG, "no pong"):
            word = "ping_timeout"
        elif self._gone == (GOING_AWAY, STOPPING):
            word = "stopping"
        self._viewers.gone(self._pty, self._one, self._number, word, code, is_goodbye=code in (1000, 1009))

    async def _send(self, kind: str, *told: Any) -> None:
        await self._socket.send({"type": "websocket.send", "text": _encode([kind, *told]).decode()})

    async def _first_of(self, *parts: Awaitable[None]) -> None:
        """Run them until one is over; the others are cancelled and waited for."""
        tasks = [asyncio.ensure_future(part) for part in parts]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            # A socket that is closed under a message that was being sent is an ordinary end.
            if isinstance(result, Exception) and not isinstance(result, OSError | RuntimeError | WebSocketDisconnect):
                raise result


def _admitted(daemon: Daemon, websocket: WebSocket) -> ViewerSession:
    if daemon.life.stopping.is_set():
        raise errors.IpcError(kind="stopped", problem="the daemon is stopping")
    query = websocket.query_params
    own, reset = (_flag(query.get(name, "0"), name) for name in ("own", "reset"))
    text = query.get("since", "0")
    if not (text.isascii() and text.isdigit()):
        raise errors.UsageError(problem=f"since {text[:40]!r} is not an offset in bytes", field="since")
    pty = _found(daemon, websocket.path_params["id"])
    if pty.exited.is_set() and not reset:
        raise errors.HandleNotFound(pty_id=pty.id, ended=pty.ending)
    if int(text) > pty.end:
        problem = f"since {text[:40]} is beyond the output, which ends at {pty.end}"
        raise errors.UsageError(problem=problem, field="since")
    if len(pty.life.present) >= MAX_VIEWERS:
        raise errors.AtCapacity(capacity=MAX_VIEWERS, holders=[f"viewers of PTY {pty.id}"])
    since = _screenful(pty) if reset and "since" not in query else int(text)
    return ViewerSession(daemon, websocket, pty, since, own=own, reset=reset)


def _found(daemon: Daemon, pty_id: str) -> Pty:
    terminals = daemon.runtime.terminals
    try:
        return terminals.pool.find(pty_id)
    except errors.HandleNotFound:
        terminals.transcript_of(pty_id)  # raises when there never was one
        raise errors.HandleNotFound(pty_id=pty_id, ended="an earlier daemon had it") from None


def _screenful(pty: Pty) -> int:
    """Where the replay of the last screen begins: at a line, so that no escape is cut in two."""
    since = max(0, pty.end - TAIL_BYTES)
    if since == 0:
        return 0
    chunk = pty.read(since, 4096)
    return chunk.start + chunk.data.find(b"\n") + 1


def _flag(text: str, name: str) -> bool:
    if text not in ("0", "1"):
        raise errors.UsageError(problem=f"{name} {text[:40]!r} is neither 0 nor 1", field=name)
    return text == "1"
