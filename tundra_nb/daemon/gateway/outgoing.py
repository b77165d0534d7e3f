"""The answer to one program, written to its ASGI server.

A stream's 200 is held back until the provider's first event, so that what fails before has a true status. Then silence
is filled with comment lines, which every client reads over. A stream that fails after its begin gets the dialect's own
error event and is cut: a clean end would look like a whole answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import msgspec

from tundra_nb.daemon.cut import CUT, Cut
from tundra_nb.daemon.life import Scope, Send
from tundra_nb.runtime.providers.relay import END
from tundra_nb.runtime.relayed import Relayed
from tundra_nb.types.pieces import Piece, Raw

from .failures import Failure
from .paths import Dialect

KEEP_ALIVE_SECONDS = 10.0
KEEP_ALIVE = b": waiting\n"
"""A comment without an empty line: after an `id:` one SDK would take that for an event without data, and fail."""
CUT_SECONDS = 5.0

Headers = list[tuple[bytes, bytes]]


class Keeper:
    """Keeps a stream alive that says nothing yet, once it has been held back for `hold` seconds.

    A timer until then, and a task only afterwards: nearly every stream begins before.
    """

    def __init__(self, out: Outgoing, hold: float) -> None:
        self._out = out
        self._task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(hold, self._begin)

    def _begin(self) -> None:
        self._task = asyncio.create_task(self._out.keep_alive())

    def cancel(self) -> None:
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()


class Outgoing:
    """One answer."""

    def __init__(self, scope: Scope, send: Send, family: Dialect) -> None:
        self.family = family
        self.limits: Callable[[], Headers] = list
        self._scope = scope
        self._send = send
        self._is_head = scope.get("method") == "HEAD"
        self._operation_id = b""
        self._request: Relayed | None = None
        self._has_begun = False
        self._held: list[bytes] = []
        self._turn = 0
        """Raised with each write, so that silence can be told."""

    def begin(self, operation_id: int, request: Relayed) -> None:
        """The answer is that of an operation."""
        self._operation_id = str(operation_id).encode()
        self._request = request

    # --- answers

    async def whole(self, value: object) -> None:
        """Answer with a JSON document."""
        await self._document(200, msgspec.json.encode(value), [])

    async def piece(self, piece: Piece) -> None:
        """Pass a piece on; what holds the end mark waits for `finish`."""
        assert isinstance(piece, Raw)
        assert self._request is not None
        if piece.event == END:
            self._held.append(piece.data)
        elif piece.data:
            await self._start()
            await self._write(piece.data)

    async def finish(self) -> None:
        """The call is written down: say so."""
        assert self._request is not None
        rest = b"".join(self._held)
        if self._request.given.is_streamed:
            await self._start()
            await self._write(rest, more=False)
        else:
            await self._document(200, rest, self._own())

    async def chunk(self, data: bytes) -> None:
        """Pass on a part of an answer that no operation stands for: a document, or a stream of events."""
        if not self._has_begun:
            self._has_begun = True
            kind = b"application/json" if data.lstrip()[:1] in (b"{", b"[") else b"text/event-stream; charset=utf-8"
            await self._send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        await self._write(b"" if self._is_head else data)

    async def end(self) -> None:
        """End what `chunk` began."""
        if not self._has_begun:
            await self.chunk(b"{}")
        await self._write(b"", more=False)

    async def fail(self, told: Failure, *, closing: bool = False) -> None:
        """Tell an error: as a status, or inside the stream that has begun."""
        if not self._has_begun:
            extra = [*self._own(), *told.headers]
            if closing:
                extra.append((b"connection", b"close"))
            await self._document(told.status, told.body, extra)
            return
        await self._write(told.in_band)
        cut: Cut | None = self._scope.get(CUT)
        if cut is not None:
            cut.close()
            # the server takes an answer without an end for a defect, unless the connection is gone by then
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CUT_SECONDS):
                    await cut.gone.wait()

    async def keep_alive(self) -> None:
        """Begin the stream, and fill each silence in it, until cancelled."""
        await self._start()
        if not self._turn:
            await self._write(KEEP_ALIVE)
        while True:
            turn = self._turn
            await asyncio.sleep(KEEP_ALIVE_SECONDS)
            if turn == self._turn:
                await self._write(KEEP_ALIVE)

    # --- writing

    def _own(self) -> Headers:
        """What every answer of an operation says of it."""
        if not self._operation_id:
            return []
        found: Headers = [
            (b"x-request-id", self._operation_id),
            (b"request-id", self._operation_id),
            (b"x-tundra-operation", self._operation_id),
        ]
        request = self._request
        entry = request.entry if request is not None else None
        if request is not None and entry is not None:
            found.append((b"x-tundra-profile", entry.profile.name.encode()))
            found.append((b"x-tundra-attempts", b"%d" % entry.seq))
            if upstream := entry.seen.request_id:
                found.append((b"x-tundra-upstream-request-id", upstream.encode("latin-1", "replace")))
            if request.limited is not None:
                found.append((b"x-tundra-limited", b"%d output tokens" % request.limited))
            if request.dropped:
                found.append((b"x-tundra-dropped", ",".join(request.dropped).encode("latin-1", "replace")))
        return found + self.limits()

    async def _start(self) -> None:
        if self._has_begun:
            return
        self._has_begun = True
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),
            *self._own(),
        ]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _write(self, data: bytes, *, more: bool = True) -> None:
        self._turn += 1
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def _document(self, status: int, body: bytes, extra: Headers) -> None:
        self._has_begun = True
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *extra]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": b"" if self._is_head else body})
