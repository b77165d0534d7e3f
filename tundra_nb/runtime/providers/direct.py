"""HTTP/1.1 to a provider, straight over its connections: kept ones, one request at a time on each.

Why not a library: what a call needs is one request written and one answer read. httptools parses as fast as C can, and
the rest is little; aiohttp's session, request and response objects cost three times as much CPU as all of it. What
goes through a proxy goes over aiohttp all the same (`proxied.py`).

**One timer per connection.** Time limits are points of time that the timer looks at when it fires; a call arms none of
its own, because the one that its connection has fires soon enough. The same timer ends connections that idle.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import os
import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Final

import aiohappyeyeballs
import httptools
import httpx

from tundra_nb import descriptors

KEEPALIVE_SECONDS: Final = 30.0
"""Idle connections are closed after this long; common providers close theirs after 60 s or more."""
HEAD_BYTES: Final = 128 * 1024
"""So much without a byte of a body is refused: a status line with its headers, what frames a chunk, trailers."""
HIGH_BYTES: Final = 256 * 1024
"""So much of a body that nobody has taken stops the provider."""
LOW_BYTES: Final = 64 * 1024
PIECE_BYTES: Final = 64
"""What a part of a body takes beside its letters: a hundred thousand of one letter are not little."""
LARGE_BODY_BYTES: Final = 64 * 1024
"""From here on a body is written apart from its head, and so not copied."""
ADDRESSES_SECONDS: Final = 10.0
"""How long a host's addresses are not looked up again."""
STAGGER_SECONDS: Final = 0.25
"""Between attempts at the several addresses of a host (RFC 8305)."""
RACE_SECONDS: Final = 1.0
"""A kept connection that ends so soon after a request was written on it, without a byte of an answer, was being closed
by the server already: the request is sent once more, on a new one. Later the server may have worked on it."""

_SIZED = re.compile(rb"content-length", re.IGNORECASE)
_ENCODING = b"transfer-encoding"

Origin = tuple[bool, str, int]
"""Over TLS or not, host, port."""
LookUp = Callable[..., Awaitable[list[aiohappyeyeballs.AddrInfoType]]]
RawHeaders = list[tuple[bytes, bytes]]


class Address:
    """Where a request goes: a URL, and what is written of it. Made once for many requests: reading one is slow."""

    __slots__ = ("login", "origin", "target", "url")

    def __init__(self, url: httpx.URL) -> None:
        self.url = url
        scheme, host = url.raw_scheme, url.raw_host
        is_tls = scheme == b"https"
        self.origin: Origin | None = None
        """None: that is no address of a provider."""
        if host and scheme in (b"http", b"https"):
            self.origin = (is_tls, host.decode("ascii"), url.port or (443 if is_tls else 80))
        self.target = url.raw_path
        """Its path and query, as they are written."""
        self.login = b""
        """The header that a name and password in it stand for."""
        if url.userinfo:
            login = base64.b64encode(f"{url.username}:{url.password}".encode())
            self.login = b"authorization: Basic " + login

    def __repr__(self) -> str:
        return f"<Address {self.url}>"


class DisconnectedError(ConnectionError):
    """The server hung up between two messages."""


class Received:
    """One answer: its head, and its body as it arrives. Whoever has it closes it."""

    __slots__ = ("_buffered", "_chunks", "_error", "_is_done", "_line", "_waiter", "headers", "reason", "status")

    def __init__(self, line: _Line) -> None:
        self._line: _Line | None = line
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._is_done = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.status = 0
        """0 until the head is here."""
        self.reason = b""
        self.headers: RawHeaders = []
        """As sent: order, case and repeats."""

    def __repr__(self) -> str:
        return f"<Received {self.status} {'whole' if self._is_done else 'under way'}, {self._buffered} bytes wait>"

    @property
    def is_here(self) -> bool:
        """Whether `next` returns at once."""
        return bool(self._chunks) or self._is_done or self._error is not None

    async def next(self) -> bytes | None:
        """What of the body has come since the last time, waited for; None at its end.

        Raises:
            httpx.TransportError: the body is cut short, malformed, or does not go on in time.
            TimeoutError: the time for the whole call is over.
        """
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self._is_done:
                return None
            await self._more()
        chunks = self._chunks
        self._chunks = []
        chunk = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._buffered = 0
        if self._line is not None:
            self._line.resume()
        return chunk

    async def head(self) -> None:
        """Wait for the head."""
        while not self.status:
            if self._error is not None:
                raise self._error
            await self._more()

    async def _more(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    async def aclose(self) -> None:
        """Hang up, unless the body is whole: then the connection serves others already."""
        self.hang_up()

    def hang_up(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.abort()

    # --- told by the connection

    def add(self, chunk: bytes) -> int:
        """Take a part of the body; how many bytes wait now."""
        self._chunks.append(chunk)
        self._buffered += len(chunk) + PIECE_BYTES
        self.wake()
        return self._buffered

    def finish(self) -> None:
        self._line = None
        self._is_done = True
        self.wake()

    def fail(self, error: Exception) -> None:
        self._line = None
        self._error = error
        self.wake()

    def wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class _Line(asyncio.Protocol):
    """One connection. `pool` is where it goes when it is free."""

    def __init__(self, pool: Connections, origin: Origin) -> None:
        self._pool = pool
        self._origin = origin
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        # as aiohttp, curl and browsers read: servers write bare line feeds, and odd header values
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self._answer: Received | None = None
        self._is_head_request = False
        self._headers: RawHeaders = []
        self._reason = b""
        self._head_bytes = 0
        self._encoding = b""
        """How the body is framed: chunked, or not at all."""
        self._is_interim = False
        """A 1xx answer is read over."""
        self._has_heard = False
        """A byte of the answer has come."""
        self._is_paused = False
        self._heard_at = 0.0
        self._read_seconds: float | None = None
        self._until: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self.is_used = False
        """It has served a request before the present one."""

    def __repr__(self) -> str:
        return f"<_Line {self._origin[1]}:{self._origin[2]} {'busy' if self._answer else 'idle'}>"

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    @property
    def was_heard(self) -> bool:
        return self._has_heard

    @property
    def age(self) -> float:
        """Seconds since the request was written, or since a byte of its answer came."""
        return self._loop.time() - self._heard_at

    def ask(self, method: str, head: bytes, body: bytes, read_seconds: float | None, until: float | None) -> Received:
        """Write a request; its answer comes."""
        assert self._transport is not None
        answer = self._answer = Received(self)
        self._is_head_request = method == "HEAD"
        self._has_heard = False
        self._head_bytes = 0
        self._read_seconds, self._until = read_seconds, until
        self._heard_at = self._loop.time()
        self._arm()
        if len(body) < LARGE_BODY_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)
        return answer

    def abort(self) -> None:
        """Hang up at once."""
        if self._transport is not None:
            self._transport.abort()

    def resume(self) -> None:
        """There is room for more of the body."""
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._heard_at = self._loop.time()
            self._arm()
            self._transport.resume_reading()

    # --- the one timer

    def _arm(self) -> None:
        """Have the timer fire no later than the next limit."""
        due = self._due()
        if due is None or (self._timer is not None and self._timer_at <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = due
        self._timer = self._loop.call_at(due, self._look)

    def _due(self) -> float | None:
        if self._answer is None:
            return self._heard_at + KEEPALIVE_SECONDS
        until = self._until
        if self._read_seconds is None or self._is_paused:  # who reads slowly is not let down by the provider
            return until
        silent_at = self._heard_at + self._read_seconds
        return silent_at if until is None or silent_at < until else until

    def _look(self) -> None:
        self._timer = None
        due = self._due()
        if due is None:
            return
        if due > self._loop.time():
            self._arm()
        elif self._answer is None:
            self.abort()
        elif self._until is not None and due >= self._until:
            self.fail(TimeoutError("the time for the whole call is over"))
        else:
            self.fail(httpx.ReadTimeout(f"nothing came for {self._read_seconds:g} s"))

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._pool.lines.add(self)

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:
            self.abort()  # nobody asked for that: what would come next could be anything
            return
        self._heard_at = self._loop.time()
        self._has_heard = True
        self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            if self._answer is answer:
                # not the parser's own words: they may quote what the server sent
                self.fail(httpx.RemoteProtocolError(f"the answer is no HTTP/1.1 ({type(exc).__name__})"))
            else:
                self.abort()  # something behind a whole answer
            return
        if self._head_bytes > HEAD_BYTES and self._answer is answer:
            self.fail(_too_long(answer.status))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._pool.lost(self, self._origin)
        answer, self._answer = self._answer, None
        if answer is None:
            return
        if exc is not None:
            error: Exception = httpx.ReadError(_words(exc))
            error.__cause__ = exc
            answer.fail(error)
        elif not answer.status:
            problem = "the server hung up in the head of its answer" if self._has_heard else "the server hung up"
            error = httpx.RemoteProtocolError(problem)
            error.__cause__ = DisconnectedError(problem)
            answer.fail(error)
        elif self._encoding or any(_SIZED.fullmatch(name) for name, _ in answer.headers):
            answer.fail(httpx.RemoteProtocolError("the server hung up before the end of the body"))
        else:
            answer.finish()  # its end was the end of the connection

    def fail(self, error: Exception) -> None:
        """Fail the answer under way, and hang up."""
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.fail(error)
        self.abort()

    # --- httptools

    def on_message_begin(self) -> None:
        self._headers = []
        self._reason = b""
        self._encoding = b""
        if self._answer is None:
            self.abort()  # an answer behind the answer

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        value = value.rstrip(b" \t")
        self._headers.append((name, value))
        if len(name) == len(_ENCODING) and name.lower() == _ENCODING and (told := value.lower()) != b"identity":
            self._encoding = told

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        self._is_interim = 100 <= status < 200
        answer = self._answer
        if self._is_interim or answer is None:
            return
        if self._head_bytes > HEAD_BYTES and sum(len(name) + len(value) for name, value in self._headers) > HEAD_BYTES:
            self.fail(_too_long(0))
            return
        if status < 100:
            self.fail(httpx.RemoteProtocolError(f"the answer has status {status:03}, and HTTP has none below 100"))
            return
        if self._encoding not in (b"", b"chunked"):
            told = self._encoding.decode("latin-1")
            self.fail(
                httpx.RemoteProtocolError(f"the answer's Transfer-Encoding is {told!r}, and only chunked is read")
            )
            return
        answer.reason, answer.headers, answer.status = self._reason, self._headers, status
        self._headers = []  # a trailer's are nobody's
        answer.wake()
        if self._is_head_request:
            self._answer = None
            answer.finish()
            self.abort()  # the parser waits for a body that does not come

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        answer = self._answer
        if answer is not None and answer.add(body) > HIGH_BYTES and not self._is_paused:
            self._is_paused = True
            if self._transport is not None:
                self._transport.pause_reading()

    def on_message_complete(self) -> None:
        answer = self._answer
        if self._is_interim or answer is None:
            return
        self._answer = None
        answer.finish()
        if self._is_paused:
            self.resume()
        if self.is_open and self._parser.should_keep_alive():
            self.is_used = True
            self._pool.free(self, self._origin)
            self._arm()
        else:
            self.abort()


class Connections:
    """The connections of one event loop; as many as there are requests under way.

    Args:
        load_tls: gives the context for TLS.
    """

    def __init__(self, load_tls: Callable[[], Awaitable[ssl.SSLContext]]) -> None:
        self._load_tls = load_tls
        self._idle: dict[Origin, list[_Line]] = {}
        self._addresses: dict[tuple[str, int], tuple[float, list[aiohappyeyeballs.AddrInfoType]]] = {}
        self._lookups: dict[tuple[str, int], asyncio.Lock] = {}
        self.lines: set[_Line] = set()
        self.look_up: LookUp | None = None
        """In place of the loop's own `getaddrinfo`."""

    def __repr__(self) -> str:
        return f"<Connections {len(self.lines)} open, {sum(map(len, self._idle.values()))} idle>"

    async def send(
        self,
        method: str,
        address: Address,
        headers: RawHeaders,
        body: bytes,
        *,
        connect: float | None,
        read: float | None,
        until: float | None,
    ) -> Received:
        """Send a request; return once the head of its answer is here. Cancelling hangs up at once.

        Args:
            method: GET, POST, …
            address: of an absolute URL.
            headers: sent as they are; they name the host and the body's length.
            body: b"" for none.
            connect: seconds for finding the host, connecting and the TLS handshake.
            read: longest silence of the server, in seconds.
            until: when all of it must be over, in seconds of the loop's clock; not for connecting alone.

        Raises:
            httpx.TransportError: why there is no answer.
            TimeoutError: `until` is past.
        """
        if (origin := address.origin) is None:
            raise httpx.UnsupportedProtocol(f"{address.url.scheme}:// is no address of a provider")
        head = _head(method, address, headers)
        is_again = False
        while True:
            line = (None if is_again else self._kept(origin)) or await self._opened(origin, connect, until)
            is_kept = line.is_used
            if not line.is_open:  # hung up on in the moment of its opening
                raise httpx.RemoteProtocolError("the server hung up") from DisconnectedError()
            answer = line.ask(method, head, body, read, until)
            try:
                await answer.head()
            except (httpx.RemoteProtocolError, httpx.ReadError) as exc:
                answer.hang_up()
                is_gone = isinstance(exc.__cause__, ConnectionError) and not line.was_heard
                if not is_kept or not is_gone or line.age > RACE_SECONDS:
                    raise
                is_again = True
            except BaseException:
                answer.hang_up()
                raise
            else:
                return answer

    def free(self, line: _Line, origin: Origin) -> None:
        """A connection can serve the next request."""
        self._idle.setdefault(origin, []).append(line)

    def lost(self, line: _Line, origin: Origin) -> None:
        """A connection is gone."""
        self.lines.discard(line)
        idle = self._idle.get(origin)
        if idle is not None and line in idle:
            idle.remove(line)
            if not idle:
                del self._idle[origin]

    def close(self) -> None:
        """Hang up everywhere, also where a call is under way."""
        for line in list(self.lines):
            line.fail(httpx.ReadError("the transport was closed"))
        self._idle.clear()

    def _kept(self, origin: Origin) -> _Line | None:
        idle = self._idle.get(origin)
        while idle:
            line = idle.pop()  # the one used last: the others may end
            if line.is_open:
                return line
        return None

    async def _opened(self, origin: Origin, connect: float | None, until: float | None) -> _Line:
        loop = asyncio.get_running_loop()
        limit = None if connect is None else loop.time() + connect
        is_last = until is not None and (limit is None or until < limit)
        try:
            async with asyncio.timeout_at(until if is_last else limit):
                return await self._connected(origin, loop)
        except TimeoutError as exc:
            if is_last:
                raise
            raise httpx.ConnectTimeout(f"no connection within {connect:g} s") from exc
        except (OSError, ValueError) as exc:  # ssl.SSLError and socket.gaierror are OSErrors
            if (error := descriptors.exhausted(exc)) is not None:
                raise error from exc
            raise httpx.ConnectError(_words(exc)) from exc

    async def _connected(self, origin: Origin, loop: asyncio.AbstractEventLoop) -> _Line:
        is_tls, host, port = origin
        context = await self._load_tls() if is_tls else None
        addresses = await self._found(host, port, loop)
        connection = await aiohappyeyeballs.start_connection(
            addresses, happy_eyeballs_delay=STAGGER_SECONDS, interleave=1, loop=loop
        )
        try:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            _, line = await loop.create_connection(
                lambda: _Line(self, origin), sock=connection, ssl=context, server_hostname=host if is_tls else None
            )
        except BaseException:
            with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: the loop has taken it, and closes it
                connection.close()
            raise
        return line

    async def _found(
        self, host: str, port: int, loop: asyncio.AbstractEventLoop
    ) -> list[aiohappyeyeballs.AddrInfoType]:
        """The addresses of a host; many who ask at once are answered by one lookup."""
        if (literal := _literal(host, port)) is not None:
            return [literal]
        place = (host, port)
        if (found := self._fresh(place, loop)) is not None:
            return found
        lookup = self._lookups.setdefault(place, asyncio.Lock())
        async with lookup:
            if (found := self._fresh(place, loop)) is None:
                found = list(await (self.look_up or loop.getaddrinfo)(host, port, type=socket.SOCK_STREAM))
                self._addresses[place] = (loop.time() + ADDRESSES_SECONDS, found)
        return found

    def _fresh(
        self, place: tuple[str, int], loop: asyncio.AbstractEventLoop
    ) -> list[aiohappyeyeballs.AddrInfoType] | None:
        until, found = self._addresses.get(place, (0.0, []))
        return list(found) if until > loop.time() else None


def _literal(host: str, port: int) -> aiohappyeyeballs.AddrInfoType | None:
    """An address that is written as numbers: it needs no lookup, and so no thread."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if address.version == 4:
        return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))
    if address.scope_id is not None:  # whose number only a lookup knows
        return None
    return (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port, 0, 0))


def _too_long(status: int) -> httpx.RemoteProtocolError:
    what = "what frames the body" if status else "the head of the answer"
    return httpx.RemoteProtocolError(f"{what} is longer than {HEAD_BYTES} bytes")


def _head(method: str, address: Address, headers: RawHeaders) -> bytes:
    """The request's head.

    Raises:
        httpx.LocalProtocolError: a name or value holds what would end its line.
    """
    lines = [b"%s %s HTTP/1.1" % (method.encode("ascii"), address.target)]
    lines += [b"%s: %s" % header for header in headers]
    if address.login and not any(name.lower() == b"authorization" for name, _ in headers):
        lines.append(address.login)
    head = b"\r\n".join(lines)
    if head.count(b"\n") != len(lines) - 1 or head.count(b"\r") != len(lines) - 1 or b"\0" in head:
        raise httpx.LocalProtocolError("a header holds a line feed, a carriage return or a zero byte")
    return head + b"\r\n\r\n"


def _words(exc: Exception) -> str:
    """An error's cause in words, without addresses of objects or hosts: the message says already to whom."""
    if isinstance(exc, OSError):
        if exc.errno and not isinstance(exc, ssl.SSLError | socket.gaierror):
            return os.strerror(exc.errno)
        return str(exc.strerror or exc) or type(exc).__name__
    return str(exc) or type(exc).__name__
