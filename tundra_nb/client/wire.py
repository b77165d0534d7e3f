"""HTTP/1.1 over a Unix socket or TCP: one kept connection per thread.

Why not a library: httpx and aiohttp take 60 to 180 ms to import and `%load_ext` may take 60 in all; the standard
library's http.client adds 0.16 ms to a round trip of 0.03, because it reads headers as those of an e-mail.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import weakref
from collections.abc import Iterator, Mapping

from .link import Place

CONNECT_TIMEOUT = 10.0
"""Seconds to connect; a Unix socket answers at once or never."""
RECEIVE_BYTES = 262_144
MAX_LINE_BYTES = 262_144
"""Longest status, header or chunk line."""
MAX_HEADERS = 256

GONE = (OSError,)
"""What is raised when the other side went away, or does not speak HTTP."""


class BadAnswer(ConnectionError):
    """What came is not HTTP, or ended in its middle."""


class Wire:
    """One connection to a place; it carries one exchange at a time."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.sock: socket.socket | None = None
        self._timeout: float | None = CONNECT_TIMEOUT
        self._buffer = bytearray()

    def connect(self) -> None:
        """Connect, unless it is connected."""
        if self.sock is not None:
            return
        place = self.place
        if place.socket is not None:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.settimeout(CONNECT_TIMEOUT)
                sock.connect(place.socket)
            except BaseException:
                sock.close()
                raise
        else:
            sock = socket.create_connection(
                (place.host, place.port or (443 if place.is_https else 80)), CONNECT_TIMEOUT
            )
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if place.is_https:
                import ssl

                sock = ssl.create_default_context().wrap_socket(sock, server_hostname=place.host)
        self.sock = sock
        self.set_timeout(self._timeout)

    @property
    def is_stale(self) -> bool:
        """The other side has closed it meanwhile: readable although nothing was asked."""
        if self.sock is None or self._buffer:
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
        self._buffer.clear()

    def exchange(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None = None) -> Response:
        """Send a request; the answer's head has come when this returns."""
        self.connect()
        assert self.sock is not None
        lines = [f"{method} {self.place.prefix}{target} HTTP/1.1", f"Host: {self.place.authority}"]
        lines += [f"{name}: {value}" for name, value in {**self.place.headers, **headers}.items()]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        self.sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b""))
        status = 100
        while 100 <= status < 200:
            status, told = self._head()
        return Response(self, status, told)

    def line(self) -> bytes:
        """The next line, without its end."""
        start = 0
        while (end := self._buffer.find(b"\n", start)) < 0:
            start = len(self._buffer)
            if start > MAX_LINE_BYTES:
                raise BadAnswer("a header line without end")
            self._fill()
        found = bytes(self._buffer[:end]).rstrip(b"\r")
        del self._buffer[: end + 1]
        return found

    def take(self, most: int) -> bytes:
        """The next bytes, as many as are there, at least one."""
        if not self._buffer:
            self._fill()
        found = bytes(self._buffer[:most])
        del self._buffer[:most]
        return found

    def rest(self) -> Iterator[bytes]:
        """All bytes until the other side closes."""
        while True:
            try:
                yield self.take(RECEIVE_BYTES)
            except BadAnswer:
                return

    def _fill(self) -> None:
        if self.sock is None:
            raise BadAnswer("the connection was closed here")
        chunk = self.sock.recv(RECEIVE_BYTES)
        if not chunk:
            raise BadAnswer("the connection was closed")
        self._buffer += chunk

    def _head(self) -> tuple[int, dict[str, str]]:
        version, _, told = self.line().partition(b" ")
        if not version.startswith(b"HTTP/1.") or not told[:3].isdigit():
            raise BadAnswer("the answer is not HTTP")
        headers: dict[str, str] = {}
        for _ in range(MAX_HEADERS):
            line = self.line()
            if not line:
                return int(told[:3]), headers
            name, _, value = line.partition(b":")
            headers[name.decode("latin-1").lower()] = value.strip().decode("latin-1")
        raise BadAnswer("too many headers")


class Response:
    """An answer whose body is still to be read. Header names are lower case."""

    def __init__(self, wire: Wire, status: int, headers: dict[str, str]) -> None:
        self.status = status
        self.headers = headers
        self._wire = wire
        self._is_chunked = "chunked" in headers.get("transfer-encoding", "").lower()
        length = headers.get("content-length", "")
        self._length: int | None = int(length) if length.isdigit() else None
        if status in (204, 304):
            self._length, self._is_chunked = 0, False
        self.keeps_alive = (self._is_chunked or self._length is not None) and headers.get("connection") != "close"

    def read(self) -> bytes:
        """The whole body."""
        return b"".join(self.pieces())

    def pieces(self) -> Iterator[bytes]:
        """The body as it comes.

        Raises:
            BadAnswer: it ends before its end.
        """
        if self._is_chunked:
            yield from self._chunks()
        elif self._length is None:
            yield from self._wire.rest()
        else:
            yield from self._bytes(self._length)

    def _chunks(self) -> Iterator[bytes]:
        while True:
            size = self._wire.line().partition(b";")[0]
            try:
                length = int(size, 16)
            except ValueError:
                raise BadAnswer("the answer's chunks cannot be read") from None
            if length == 0:
                while self._wire.line():
                    pass
                return
            yield from self._bytes(length)
            self._wire.line()

    def _bytes(self, left: int) -> Iterator[bytes]:
        while left:
            piece = self._wire.take(left)
            left -= len(piece)
            yield piece


class Pool:
    """Kept connections, at most one per thread; a fork starts with none."""

    def __init__(self) -> None:
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
        wire = Wire(place)
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
