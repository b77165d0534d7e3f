"""The daemon's side of a worker's control line: requests, their answers, and streams of Arrow."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any, Protocol

import msgspec

from tundra_nb import descriptors
from tundra_nb.errors import StoreBusy, StoreUnavailable, from_wire

from .protocol import ARROW, CHUNK_BYTES, END, ERROR, HANDOVER, JSON, META, REQUEST, WorkerRequest, pack, read_frame

READ_TRIES = 3
START_DESCRIPTORS = 12
"""About as many are open while a worker is started: pipes, and both ends of its line."""


class WorkerLine(Protocol):
    """The way to a worker process, which may be started anew while we wait."""

    @property
    def lives(self) -> int:
        """How many workers there have been."""

    async def ask(self, request: WorkerRequest) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Send one request, on a connection of its own that the caller closes."""

    async def notice_end(self, life: int) -> None:
        """After a request was lost: wait until the end of that worker is known, lest it get the next try, too."""


class ArrowStream(AsyncIterator[bytes]):
    """An Arrow IPC stream under way, in pieces of at most 256 kB; it is asked for when first awaited.

    Whoever iterates sets the pace: the worker stops while nobody reads. Closing it, or cancelling the task that awaits
    it, breaks off the query.
    """

    def __init__(self, line: WorkerLine, request: WorkerRequest, tries: int = READ_TRIES) -> None:
        self._line = line
        self._request = request
        self._tries = tries
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._meta: dict[str, Any] | None = None
        self._is_over = False

    async def meta(self) -> dict[str, Any]:
        """What the result is: `store`, `commit`, `truncated`, `behind`. Raises what the query raised."""
        for left in reversed(range(self._tries)):
            if self._meta is not None or self._is_over:
                break
            life = self._line.lives
            try:
                await self._begin()
            except (asyncio.IncompleteReadError, ConnectionError):
                await self.aclose()
                if not left:
                    raise lost() from None
                await self._line.notice_end(life)
                self._is_over = False
        return self._meta or {}

    async def _begin(self) -> None:
        self._reader, self._writer = await self._line.ask(self._request)
        kind, payload = await self._read()
        if kind == ERROR:
            await self.aclose()
            raise from_wire(msgspec.json.decode(payload))
        assert kind == META
        self._meta = msgspec.json.decode(payload)

    async def __anext__(self) -> bytes:
        if self._meta is None:
            await self.meta()
        if self._is_over:
            raise StopAsyncIteration
        try:
            kind, payload = await self._read()
        except (asyncio.IncompleteReadError, ConnectionError):
            await self.aclose()
            raise lost() from None
        if kind == ARROW:
            return payload
        await self.aclose()
        if kind == END:
            raise StopAsyncIteration
        raise from_wire(msgspec.json.decode(payload))

    async def _read(self) -> tuple[bytes, bytes]:
        assert self._reader is not None
        try:
            return await read_frame(self._reader)
        except asyncio.CancelledError:
            if self._writer is not None:
                self._writer.close()  # the query ends with the one who waited for it
            raise

    async def aclose(self) -> None:
        """Break off what is not read yet. May be called twice."""
        self._is_over = True
        writer, self._writer = self._writer, None
        if writer is not None:
            await close(writer)


async def hand_over(
    control: socket.socket, request: WorkerRequest, *inputs: socket.socket
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a request on a connection of its own, whose far end goes over a worker's control line.

    Args:
        control: that line.
        request: what is asked.
        inputs: what the worker is to read for it: answers of another worker (`handed_over`), still unread.

    Raises:
        StoreBusy: too many requests wait there.
        ConnectionResetError: nobody is at its other end.
    """
    ours = await handed_over(control, request, *inputs)
    return await asyncio.open_unix_connection(sock=ours, limit=CHUNK_BYTES)


async def handed_over(control: socket.socket, request: WorkerRequest, *inputs: socket.socket) -> socket.socket:
    """The same; returns the near end, from which the answer is to be read. The caller closes it."""
    try:
        ours, theirs = socket.socketpair()
    except OSError as exc:
        raise descriptors.exhausted(exc) or exc from exc
    try:
        ours.setblocking(False)
        socket.send_fds(control, [HANDOVER], [theirs.fileno(), *(one.fileno() for one in inputs)])
        theirs.close()
        await asyncio.get_running_loop().sock_sendall(ours, pack(REQUEST, msgspec.json.encode(request)))
    except BlockingIOError:
        ours.close()
        raise StoreBusy(problem="too many requests wait for the store worker", kind="requests") from None
    except OSError as exc:
        ours.close()
        raise ConnectionResetError("the store worker is gone") from exc
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return ours


async def asked(line: WorkerLine, request: WorkerRequest, tries: int = READ_TRIES) -> Any:
    """The answer to a request: a JSON value, or the bytes of a whole Arrow stream; asked again when a worker dies.

    Raises:
        TundraError: what the worker refused, or `StoreUnavailable` when it was lost `tries` times.
    """
    for left in reversed(range(tries)):
        life = line.lives
        try:
            return await answered(*await line.ask(request))
        except (asyncio.IncompleteReadError, ConnectionError):
            if not left:
                raise lost() from None
            await line.notice_end(life)
    raise AssertionError("not reached")


async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Any:
    """What a worker answers to one request; closes the connection."""
    try:
        data = bytearray()
        while True:
            kind, payload = await read_frame(reader)
            if kind == JSON:
                return msgspec.json.decode(payload)
            if kind == ERROR:
                raise from_wire(msgspec.json.decode(payload))
            if kind == END:
                return bytes(data)
            if kind == ARROW:
                data += payload
    finally:
        await close(writer)


def not_started(what: str, exc: OSError) -> StoreUnavailable:
    """Why there is no worker."""
    if descriptors.exhausted(exc) is None and not descriptors.lacks(START_DESCRIPTORS):
        return StoreUnavailable(problem=f"{what} cannot be started: {exc}", kind="worker")
    return StoreUnavailable(
        problem=f"{what} cannot be started: the daemon has no file descriptors left for it, it may open"
        f" {descriptors.limit()} (RLIMIT_NOFILE)",
        remedy=descriptors.REMEDY,
        kind="worker",
    )


def lost() -> StoreUnavailable:
    return StoreUnavailable(
        problem="the worker that was asked ended in the middle of the request",
        remedy="It is started again by itself: repeat the request. If that ends it again, it needs too much memory: ask"
        " for fewer rows or columns, or shorter lists.",
        kind="worker",
    )


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
