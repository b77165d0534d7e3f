"""HTTP/1.1 over a Unix socket or TCP, blocking: the one way in which this package speaks to a daemon without a loop.

Why not a library: httpx and aiohttp take 60 to 180 ms to import and `%load_ext` may take 60 in all; the standard
library's http.client adds 0.16 ms to a round trip of 0.03, because it reads headers as those of an e-mail. The parser
is that of httptools, which the daemon uses too.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping

import httptools

from tundra_nb.errors import IpcError

from .place import Place, dial

CONNECT_TIMEOUT = 10.0
"""Seconds to connect; a Unix socket answers at once or never."""
RECEIVE_BYTES = 262_144
MAX_HEAD_BYTES = 1_048_576
"""Longest head of an answer: the daemon's and Jupyter's have a few hundred bytes."""
MAX_HEADERS = 256

SILENT_SECONDS = 2.0
"""After so much silence of a Unix socket the daemon is asked whether it is still there …"""
ASK_SECONDS = 2.0
"""… and given so long to answer; below 5 s together."""
ASK_AGAIN_SECONDS = 15.0

Hung = Callable[[str, float], IpcError | None]
"""Tells, by socket and within so many seconds, whether a daemon hangs."""

GONE = (OSError,)
"""What is raised when the other side went away, or does not speak HTTP."""


class BadAnswer(ConnectionError):
    """What came is not HTTP, or ended in its middle."""


class Wire:
    """One connection to a place; it carries one exchange at a time.

    With `hung` (`running.hung`), a daemon on this machine that says nothing is asked for a sign of life.
    """

    def __init__(self, place: Place, *, connect_timeout: float = CONNECT_TIMEOUT, hung: Hung | None = None) -> None:
        self.place = place
        self.sock: socket.socket | None = None
        self._connect_timeout = connect_timeout
        self._hung = hung
        self._timeout: float | None = connect_timeout

    def connect(self) -> None:
        """Connect, unless it is connected.

        Raises:
            IpcError: the socket belongs to another user.
            OSError: nobody listens.
        """
        if self.sock is not None:
            return
        place = self.place
        if place.socket is not None:
            sock = dial(place.socket, self._connect_timeout)
        else:
            port = place.port or (443 if place.is_https else 80)
            sock = socket.create_connection((place.host, port), self._connect_timeout)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if place.is_https:
                import ssl

                sock = ssl.create_default_context().wrap_socket(sock, server_hostname=place.host)
        self.sock = sock
        self.set_timeout(self._timeout)

    @property
    def is_stale(self) -> bool:
        """The other side has closed it meanwhile: readable although nothing was asked."""
        if self.sock is None:
            return True
        try:
            readable, _, _ = select.select([self.sock], [], [], 0)
        except (OSError, ValueError):  # ValueError: closed, or a descriptor beyond select's reach
            return True
        return bool(readable)

    def set_timeout(self, timeout: float | None) -> None:
        """Seconds of silence after which a wait is given up with TimeoutError."""
        self._timeout = timeout
        if self.sock is not None:
            self.sock.settimeout(timeout)

    def close(self) -> None:
        if self.sock is not None:
            self.sock.close()
            self.sock = None

    def exchange(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None = None) -> Response:
        """Send a request; the answer's head has come when this returns."""
        self.connect()
        assert self.sock is not None
        lines = [f"{method} {self.place.prefix}{target} HTTP/1.1", f"Host: {self.place.authority}"]
        lines += [f"{name}: {value}" for name, value in {**self.place.headers, **headers}.items()]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        self.sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b""))
        return Response(self)

    def receive(self) -> bytes:
        """What has come, at least one byte; empty when the other side has closed."""
        if self.sock is None:
            raise BadAnswer("the connection was closed here")
        if self._hung is None or self.place.socket is None:
            return self.sock.recv(RECEIVE_BYTES)
        return self._watched(self.place.socket)

    def _watched(self, path: str) -> bytes:
        """What comes from a daemon on this machine, which is asked for a sign of life when it says nothing.

        Raises:
            IpcError: it hangs.
        """
        assert self.sock is not None
        silence, ask_at = 0.0, SILENT_SECONDS
        while True:
            rest = ask_at - silence if self._timeout is None else min(ask_at, self._timeout) - silence
            self.sock.settimeout(rest)
            try:
                return self.sock.recv(RECEIVE_BYTES)
            except TimeoutError:
                silence += rest
                if self._timeout is not None and silence >= self._timeout:
                    raise
            if self._hung is not None and (error := self._hung(path, ASK_SECONDS)) is not None:
                raise error
            ask_at = silence + ASK_AGAIN_SECONDS


class Response:
    """An answer whose body is still to be read. Header names are lower case."""

    def __init__(self, wire: Wire) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._wire = wire
        self._pieces: list[bytes] = []
        self._has_head = False
        self._may_keep = False
        self._is_whole = False
        self._has_more = False
        self._count = 0
        self._parser = httptools.HttpResponseParser(self)
        size = 0
        while not self._has_head:
            size += self._feed()
            if size > MAX_HEAD_BYTES or self._count > MAX_HEADERS:
                raise BadAnswer("the head of the answer has no end")

    @property
    def keeps_alive(self) -> bool:
        """The connection can carry another exchange once the body was read."""
        return self._may_keep and self._is_whole and not self._has_more

    def read(self) -> bytes:
        """The whole body."""
        return b"".join(self.pieces())

    def pieces(self) -> Iterator[bytes]:
        """The body as it comes.

        Raises:
            BadAnswer: it ends before its end.
        """
        while True:
            pieces, self._pieces = self._pieces, []
            yield from pieces
            if self._is_whole and not self._pieces:
                return
            if not self._pieces:
                self._feed()

    def _feed(self) -> int:
        """Take what comes next; returns how much it was."""
        chunk = self._wire.receive()
        if not chunk:
            told = self.headers
            if not self._has_head or "content-length" in told or "chunked" in told.get("transfer-encoding", "").lower():
                raise BadAnswer("the connection was closed")
            self._is_whole = self._has_more = True  # the close was the end of its body
            return 0
        try:
            self._parser.feed_data(chunk)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            raise BadAnswer(f"the answer is not HTTP: {exc}") from None
        return len(chunk)

    # what the parser calls:

    def on_message_begin(self) -> None:
        self._has_more = self._is_whole  # more than was asked for

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count += 1
        if not self._has_head:
            self.headers[name.decode("latin-1").lower()] = value.strip().decode("latin-1")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:  # something for in between: the answer itself follows
            self.headers.clear()
        elif not self._has_head:
            self.status = status
            self._has_head = True
            self._may_keep = bool(self._parser.should_keep_alive())

    def on_body(self, body: bytes) -> None:
        if not self._is_whole:
            self._pieces.append(body)

    def on_message_complete(self) -> None:
        self._is_whole = self._has_head


class Pool:
    """Kept connections, at most one per thread; a fork starts with none."""

    def __init__(self, hung: Hung | None = None) -> None:
        self._hung = hung
        self._local = threading.local()
        self._all: weakref.WeakSet[Wire] = weakref.WeakSet()
        self._pid = os.getpid()

    def take(self, place: Place) -> Wire:
        """A connection to the place, kept or new; a new one connects when it is used."""
        kept: Wire | None = getattr(self._local, "wire", None)
        self._local.wire = None
        if kept is not None:
            if self._pid == os.getpid() and kept.place == place and not kept.is_stale:
                return kept
            kept.close()
        self._pid = os.getpid()
        wire = Wire(place, hung=self._hung)
        self._all.add(wire)
        return wire

    def put(self, wire: Wire) -> None:
        """Keep a connection whose answer was read to its end."""
        other: Wire | None = getattr(self._local, "wire", None)
        if other is not None:
            other.close()
        self._local.wire = wire

    def close(self) -> None:
        for wire in list(self._all):
            with contextlib.suppress(OSError):
                wire.close()
        self._local = threading.local()
