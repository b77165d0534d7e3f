"""HTTP over a Unix socket or TCP with the standard library: one kept connection per thread.

Why not httpx or aiohttp: those take 60 to 180 ms to import, `%load_ext` may take 60 in all, and a magic is synchronous.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import select
import socket
import threading
import weakref

from .link import Place

CONNECT_TIMEOUT = 10.0
"""Seconds to connect; a Unix socket answers at once or never."""

GONE = (OSError, http.client.HTTPException)
"""What the standard library raises when the other side went away."""


class Wire(http.client.HTTPConnection):
    """One connection to a place."""

    def __init__(self, place: Place) -> None:
        super().__init__(place.host, place.port, timeout=CONNECT_TIMEOUT)
        self.place = place

    def connect(self) -> None:
        if self.place.socket is None:
            super().connect()
            if self.place.is_https:
                import ssl

                context = ssl.create_default_context()
                self.sock = context.wrap_socket(self.sock, server_hostname=self.place.host)
            return
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self.timeout)
            sock.connect(self.place.socket)
        except BaseException:
            sock.close()
            raise
        self.sock = sock

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
        self.timeout = timeout
        if self.sock is not None:
            self.sock.settimeout(timeout)


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
