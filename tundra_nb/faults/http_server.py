"""A very small HTTP/1.1 server core that can also misbehave on purpose.

A web framework would spend more time per request than what is measured against it, and would not let a handler cut an
answer at byte n or reset the connection. So: httptools' parser on a raw asyncio protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import struct
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, Self, cast

import httptools
import msgspec

_log = logging.getLogger(__name__)

REASONS: Final = {
    200: b"OK", 400: b"Bad Request", 401: b"Unauthorized", 402: b"Payment Required", 403: b"Forbidden",
    404: b"Not Found", 408: b"Request Timeout", 409: b"Conflict", 413: b"Content Too Large",
    422: b"Unprocessable Content", 429: b"Too Many Requests", 500: b"Internal Server Error", 502: b"Bad Gateway",
    503: b"Service Unavailable", 504: b"Gateway Timeout", 529: b"Overloaded",
}  # fmt: skip


class ReceivedRequest:
    """One request as it came over the wire."""

    __slots__ = ("at", "body", "method", "raw_headers", "target")

    def __init__(self, method: str, target: str, raw_headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.method = method
        self.target = target
        self.raw_headers = raw_headers
        self.body = body
        self.at = time.monotonic()

    @property
    def path(self) -> str:
        """Without the query."""
        return self.target.partition("?")[0]

    @property
    def headers(self) -> dict[str, str]:
        """By lower-case name; of repeated headers the last."""
        return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in self.raw_headers}

    @property
    def json(self) -> Any:
        """The body as JSON; None when it is empty."""
        return msgspec.json.decode(self.body) if self.body else None

    def __repr__(self) -> str:
        return f"Request({self.method} {self.target}, {len(self.body)} bytes)"


class AnswerWriter:
    """Where a handler writes its answer, well-formed or not."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self.write: Callable[[bytes], None] = connection.transport.write

    @property
    def is_open(self) -> bool:
        return not self._connection.transport.is_closing()

    async def drain(self) -> None:
        """Wait until the client has taken most of what was written.

        Raises:
            ConnectionResetError: it has gone.
        """
        await self._connection.drain()

    def close(self) -> None:
        """Hang up politely, after what was written."""
        self._connection.transport.close()

    def reset(self) -> None:
        """Hang up with a TCP reset; what is still unsent is lost."""
        sock = self._connection.transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._connection.transport.abort()

    async def closed(self) -> None:
        """Wait until the client has hung up."""
        await self._connection.lost.wait()


Handler = Callable[[ReceivedRequest, AnswerWriter], Awaitable[None] | None]
"""Answers one request: either at once, or by the coroutine it returns, which is cancelled when the client goes away."""


class HttpServer:
    """Listens on loopback and hands each request to a handler. An async context manager.

    `abandoned` counts answers that the client did not wait for, `connections` the open connections.
    """

    def __init__(
        self, handler: Handler, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        self.handler = handler
        self._host = host
        self._port = port
        self._tls = tls
        self._server: asyncio.Server | None = None
        self.open: set[_Connection] = set()
        self.abandoned = 0
        self.accepted = 0

    @property
    def port(self) -> int:
        return self._port

    @property
    def url(self) -> str:
        """Without a trailing slash and without `/v1`."""
        return f"{'https' if self._tls else 'http'}://{self._host}:{self._port}"

    @property
    def urls(self) -> dict[str, str]:
        return {"url": self.url}

    @property
    def connections(self) -> int:
        return len(self.open)

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self), self._host, self._port, ssl=self._tls, backlog=1024
        )
        self._port = self._server.sockets[0].getsockname()[1]

    async def aclose(self) -> None:
        """Stop listening and hang up on everybody. May be called twice."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        open_now = list(self.open)
        for connection in open_now:
            connection.transport.abort()
        await asyncio.gather(*(connection.gone() for connection in open_now))
        await server.wait_closed()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()


class _Connection(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._waiting: deque[tuple[ReceivedRequest, bool]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._writable: asyncio.Event | None = None
        self._is_lost = False
        self._lost: asyncio.Event | None = None

    @property
    def lost(self) -> asyncio.Event:
        if self._lost is None:
            self._lost = asyncio.Event()
            if self._is_lost:
                self._lost.set()
        return self._lost

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._server.accepted += 1
        self._server.open.add(self)
        self._wire = AnswerWriter(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # only CONNECT and Upgrade get here, and the handler has seen the request
        except httptools.HttpParserError:
            self.transport.write(head(400, (), 0))
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's name)
        self._is_lost = True
        self._server.open.discard(self)
        if self._task is not None:
            self._server.abandoned += 1
            self._task.cancel()
        if self._lost is not None:
            self._lost.set()
        self.resume_writing()

    def pause_writing(self) -> None:
        self._writable = asyncio.Event()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None:
            writable.set()

    async def drain(self) -> None:
        if self._writable is not None:
            await self._writable.wait()
        if self._is_lost:
            raise ConnectionResetError("the client has gone")

    async def gone(self) -> None:
        await self.lost.wait()
        if self._task is not None:
            await asyncio.wait([self._task])

    # httptools' side

    def on_message_begin(self) -> None:
        self._target = b""
        self._headers = []
        self._body = []

    def on_url(self, piece: bytes) -> None:
        self._target += piece

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        if any(name.lower() == b"expect" for name, _ in self._headers):
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, piece: bytes) -> None:
        self._body.append(piece)

    def on_message_complete(self) -> None:
        request = ReceivedRequest(
            self._parser.get_method().decode("latin-1"),
            self._target.decode("latin-1"),
            self._headers,
            self._body[0] if len(self._body) == 1 else b"".join(self._body),
        )
        keeps_alive = self._parser.should_keep_alive()
        if self._task is None:
            self._answer(request, keeps_alive)
        else:  # pipelined
            self._waiting.append((request, keeps_alive))

    def _answer(self, request: ReceivedRequest, keeps_alive: bool) -> None:
        pending = self._server.handler(request, self._wire)
        if pending is not None:
            self._task = asyncio.ensure_future(self._finish(pending, keeps_alive))
        elif not keeps_alive:
            self.transport.close()

    async def _finish(self, pending: Awaitable[None], keeps_alive: bool) -> None:
        try:
            await pending
        except ConnectionResetError:
            pass
        except Exception:  # noqa: BLE001 (the top of a handler)
            _log.exception("the handler of a test server failed")
            self.transport.abort()
        finally:
            self._task = None
        if not keeps_alive:
            self.transport.close()
        while self._waiting and self._task is None:
            self._answer(*self._waiting.popleft())


def head(status: int, headers: tuple[tuple[str, str], ...], length: int | None) -> bytes:
    """Status line and headers; `length` None means chunked."""
    lines = b"".join(f"{name}: {value}\r\n".encode() for name, value in headers)
    framing = b"transfer-encoding: chunked\r\n" if length is None else b"content-length: %d\r\n" % length
    return b"HTTP/1.1 %d %s\r\n%s%s\r\n" % (status, REASONS.get(status, b"Unknown"), lines, framing)


def chunk(piece: bytes) -> bytes:
    """One piece of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(piece), piece)


LAST_CHUNK: Final = b"0\r\n\r\n"
