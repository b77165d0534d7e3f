"""An answer of another worker, read from the connection that the daemon handed over (`line.handed_over`)."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import msgspec
import pyarrow as pa

from tundra_nb.errors import StoreUnavailable, from_wire

from .protocol import ARROW, ERROR, META, receive_frame

SILENCE_SECONDS = 60.0
"""Longest wait for the next piece: the other worker's own deadline is shorter."""


class IncomingFrame:
    """A frame under way: `meta`, then its batches.

    Raises:
        TundraError: what the other worker refused; `StoreUnavailable` when it ended.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        sock.settimeout(SILENCE_SECONDS)
        kind, payload = self._next()
        if kind != META:
            raise StoreUnavailable(problem="the store worker's answer is none", kind="worker")
        self.meta: dict[str, Any] = msgspec.json.decode(payload)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, as they come."""
        with pa.ipc.open_stream(pa.PythonFile(_Bytes(self), mode="r")) as reader:
            yield from reader

    def _next(self) -> tuple[bytes, bytes]:
        try:
            kind, payload = receive_frame(self._sock)
        except OSError as exc:
            raise StoreUnavailable(
                problem="the store worker ended in the middle of its answer",
                remedy="It is started again by itself; repeat the request.",
                kind="worker",
            ) from exc
        if kind == ERROR:
            raise from_wire(msgspec.json.decode(payload))
        return kind, payload

    def piece(self) -> bytes:
        """The next piece of the stream; empty at its end."""
        kind, payload = self._next()
        return payload if kind == ARROW else b""


class _Bytes:
    """The stream as a file."""

    closed = False

    def __init__(self, incoming: IncomingFrame) -> None:
        self._incoming = incoming
        self._held = memoryview(b"")
        self._is_over = False

    def read(self, size: int = -1) -> bytes:
        made = bytearray()
        while not self._is_over and (size < 0 or len(made) < size):
            if not self._held:
                self._held = memoryview(self._incoming.piece())
                self._is_over = not self._held
            take = len(self._held) if size < 0 else min(len(self._held), size - len(made))
            made += self._held[:take]
            self._held = self._held[take:]
        return bytes(made)

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        """The connection is the request's."""
