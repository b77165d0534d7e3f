"""What the daemon and the store worker say to each other.

Between them stands one Unix socket pair, the *control* line. Each request travels on a socket pair of its own, whose
far end the daemon hands over the control line: no name in the file system, no port, nobody else can connect. Closing
a request's socket cancels it; closing the control line ends the worker.

    daemon → worker, control:   one byte with one file descriptor, per request
    worker → daemon, control:   Hello once, then Progress and TraceStats as they change, or Fatal and the end
    daemon → worker, request:   Request
    worker → daemon, request:   META, then ARROW …, then END · or JSON · or ERROR

Everything is a frame: kind (1 byte), length (u32), payload.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from .spool import SpoolPlace

if TYPE_CHECKING:
    import asyncio  # the worker does without

HELLO = b"H"
PROGRESS = b"P"
FATAL = b"F"
TRACES = b"T"
REQUEST = b"R"
META = b"M"
ARROW = b"A"
JSON = b"J"
ERROR = b"E"
END = b"Z"

COPIED = "copied"
"""The `kind` of the error when another daemon writes under the identity of this one."""
HANDOVER = b"+"
"""The byte that carries a request's descriptor over the control line."""
CHUNK_BYTES = 256 * 1024
"""Longest ARROW frame."""

_HEAD = struct.Struct("<cI")


class Config(msgspec.Struct, kw_only=True):
    """How the worker is set up; given as one JSON object on its standard input, because it may hold a password."""

    engine: Literal["doltlite", "dolt"]
    spool: str
    store: str
    """Path of the database file (doltlite)."""
    owner: str
    node: int
    life: int = 0
    """When this daemon began, µs since 1970 …"""
    life_before: int = 0
    """… and the one before it that wrote this spool."""
    user_name: str = ""
    data_dir: str = ""
    """Hash of its path."""
    host: str = ""
    port: int = 0
    database: str = ""
    user: str = ""
    password: str = ""
    reader_user: str = ""
    """A user with nothing but SELECT, for free SQL; empty: the same user, guarded by checks alone."""
    reader_password: str = ""
    tls: bool = False
    ca_file: str = ""
    commit_rows: int
    commit_seconds: float
    traces: dict[str, Any] = {}
    """`telemetry.sender.Traces`; empty: no traces are sent, and nothing of it is imported."""


class WorkerRequest(msgspec.Struct, kw_only=True):
    """One question. `after`: answer only when the spool has been followed up to here."""

    method: str
    params: dict[str, Any] = {}
    after: SpoolPlace | None = None
    wait: float | None = None
    """Longest wait for that in seconds; the worker's own when None. Reads then answer with what there is."""


class Hello(msgspec.Struct, kw_only=True):
    """The worker is up and takes requests."""

    pid: int
    engine: str


class Progress(msgspec.Struct, kw_only=True):
    """How far the worker has come."""

    place: SpoolPlace
    rows: int = 0
    """Rows written in this life."""
    refused_rows: int = 0
    """Rows that the database would not take, logged and left out."""
    moved_rows: int = 0
    """Rows whose id another row had; they are kept under an id of their own."""
    newest_id: int = 0
    """The highest id in the database when it was opened."""
    damaged_bytes: int = 0
    """How much of the spool was unreadable and stepped over."""
    unknown_events: int = 0
    """Events in the spool of a form that only a newer version knows."""
    commits: int = 0
    """Commits that the worker has made itself, in this life."""
    size_bytes: int = 0
    node: int | None = None
    """The node number that the database gave this daemon."""
    error: dict[str, Any] | None = None
    """Wire form of what keeps the writer from writing; None when it writes."""


def pack(kind: bytes, payload: bytes) -> bytes:
    return _HEAD.pack(kind, len(payload)) + payload


async def read_frame(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """The next frame, for the daemon. Raises `asyncio.IncompleteReadError` when the worker is gone."""
    kind, length = _HEAD.unpack(await reader.readexactly(_HEAD.size))
    return kind, await reader.readexactly(length)


def receive_frame(sock: socket.socket) -> tuple[bytes, bytes]:
    """The next frame, for the worker. Raises `ConnectionError` when the daemon is gone."""
    kind, length = _HEAD.unpack(_receive_exactly(sock, _HEAD.size))
    return kind, _receive_exactly(sock, length)


def _receive_exactly(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            raise ConnectionError("the other side has closed")
        data += part
    return bytes(data)
