"""uvicorn's HTTP protocol, whose answers can be broken off, and which tells when its client has left.

An answer that fails half-way must not look whole, and with chunked encoding the only way to say so is to close the
connection before its end. ASGI has no word for that, so the scope carries one. It also tells of a client that left
without a task that waits for it, which would cost as much as the rest of the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

CUT = "tundra.cut"
"""Key of the scope that holds a `Cut`."""
APART_BYTES = 64 * 1024
"""A longer part of a body is not copied to stand in one piece with what frames it."""
IDLE_SLACK_SECONDS = 0.01
"""Not worth another timer."""


class Cut:
    """One connection. `gone` is set once it is closed."""

    def __init__(self, protocol: HttpToolsProtocol) -> None:
        self._protocol = protocol
        self._on_gone: Callable[[], None] | None = None
        self.gone = asyncio.Event()

    def close(self) -> None:
        """Close it: what has been written still goes out."""
        self._protocol.transport.close()

    def watch(self, on_gone: Callable[[], None] | None) -> None:
        """Have `on_gone` called, once, when the client leaves; at once, if it has. None: nobody wants to know any more.

        For when the request's body has been read.
        """
        self._on_gone = on_gone
        if on_gone is not None:
            if self.gone.is_set():
                self.lost()
            else:
                self._protocol.flow.resume_reading()  # a long body has stopped it, and then nothing is heard

    def lost(self) -> None:
        self.gone.set()
        on_gone, self._on_gone = self._on_gone, None
        if on_gone is not None:
            on_gone()


class Leaving:
    """A block that ends when the client leaves: its task is cancelled at once, and nothing is raised. For `with`."""

    def __init__(self, cut: Cut) -> None:
        self._cut = cut
        self._task: asyncio.Task[Any] | None = None
        self._is_gone = False

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        self._cut.watch(self._leave)
        return self

    def stop(self) -> None:
        """Let the rest of the block run, whether the client leaves or not."""
        self._cut.watch(None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.stop()
        if not self._is_gone or kind is not asyncio.CancelledError or self._task is None:
            return False
        self._task.uncancel()
        return True

    def _leave(self) -> None:
        if self._task is not None:
            self._is_gone = True
            self._task.cancel()


class Cycle(RequestResponseCycle):
    """uvicorn's request with its answer, written in as few pieces as there are.

    An answer whose length is known follows its head at once, so the two are one write, and one segment on the wire.
    Names of headers are in lower case, as ASGI has it.
    """

    _head: bytes | None = None
    """Waits for the body."""
    _lasts_until_close = False

    async def send(self, message: Any) -> None:
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        kind = message["type"]
        if kind == "http.response.start" and not self.response_started:
            self._begin(message["status"], [*self.default_headers, *message.get("headers", ())])
        elif kind == "http.response.body" and self.response_started and not self.response_complete:
            self._go_on(message.get("body", b""), is_last=not message.get("more_body", False))
        else:
            raise RuntimeError(f"{kind} does not belong here")

    def _begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.response_started = True
        self.waiting_for_100_continue = False
        is_framed = False
        for name, value in headers:
            if name == b"content-length":
                self.expected_content_length, self.chunked_encoding, is_framed = int(value), False, True
            elif name == b"connection":
                self.keep_alive = self.keep_alive and value.lower() != b"close"
            elif name == b"transfer-encoding":
                self.chunked_encoding = is_framed = True
        if not is_framed and self.scope["method"] != "HEAD" and status not in (204, 304):
            if self.scope["http_version"] == "1.0":  # knows no chunks
                self.chunked_encoding, self._lasts_until_close = False, True
            else:
                self.chunked_encoding = True
                headers.append((b"transfer-encoding", b"chunked"))
        if not self.keep_alive and (b"connection", b"close") not in headers:
            headers.append((b"connection", b"close"))
        lines = [b"%s: %s\r\n" % header for header in headers]
        head = b"".join([STATUS_LINE[status], *lines, b"\r\n"])
        if head.count(b"\n") != len(lines) + 2 or head.count(b"\r") != len(lines) + 2 or b"\0" in head:
            raise RuntimeError("a header holds what ends a line")
        if self.chunked_encoding is False:
            self._head = head
        else:
            self.transport.write(head)

    def _go_on(self, body: bytes, *, is_last: bool) -> None:
        parts, self._head = [self._head or b""], None
        if self.scope["method"] == "HEAD":
            self.expected_content_length = 0
        elif self.chunked_encoding:
            parts += (b"%x\r\n" % len(body), body, b"\r\n") if body else ()
            parts += (b"0\r\n\r\n",) if is_last else ()
        else:
            self.expected_content_length -= 0 if self._lasts_until_close else len(body)
            parts.append(body)
        if self.expected_content_length < 0 or (is_last and self.expected_content_length):
            raise RuntimeError("the answer is not as long as its head says")
        if len(body) > APART_BYTES:
            self.transport.writelines(parts)
        elif data := b"".join(parts):
            self.transport.write(data)
        if is_last:
            self.response_complete = True
            self.message_event.set()
            if not self.keep_alive:
                self.transport.close()
            self.on_response()


class Cuttable(HttpToolsProtocol):
    """Puts a `Cut` into each scope, and answers by `Cycle`.

    A connection that idles is closed by one timer of its own, which looks how long it has: uvicorn would set and
    cancel one for each request.
    """

    _cut: Cut | None = None
    _idle_since: float | None = None
    """None while a request is under way."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._cut = Cut(self)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[CUT] = self._cut  # type: ignore[literal-required]

    def on_headers_complete(self) -> None:
        scope, parser = self.scope, self.parser
        scope["method"] = parser.get_method().decode("ascii")
        version = parser.get_http_version()
        if version != "1.1":
            scope["http_version"] = version
        if parser.should_upgrade() and self._should_upgrade():
            return
        address = httptools.parse_url(self.url)
        path = address.path.decode("ascii")
        scope["path"] = unquote(path) if "%" in path else path
        scope["raw_path"] = address.path
        scope["query_string"] = address.query or b""
        before, self.cycle = self.cycle, self._cycle(keep_alive=version != "1.0" and parser.should_keep_alive())
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:  # the next of a pipeline waits for its turn
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def _cycle(self, *, keep_alive: bool) -> Cycle:
        return Cycle(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=keep_alive,
            on_response=self.on_response_complete,
        )

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._look_after(self.timeout_keep_alive)

    def _unset_keepalive_if_required(self) -> None:
        self._idle_since = None

    def _look_after(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        self.timeout_keep_alive_task = None
        if self._idle_since is None:
            return  # set again when the request is answered
        rest = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if rest > IDLE_SLACK_SECONDS:
            self._look_after(rest)
        elif not self.transport.is_closing():
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None
        if self._cut is not None:
            self._cut.lost()
