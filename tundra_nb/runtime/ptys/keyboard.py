"""Input of a session: a bounded queue in front of a descriptor that takes a few kilobytes at a time."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import deque

if sys.platform != "win32":
    import termios

QUEUE_BYTES = 1 << 18
"""More than this waits at the caller's side."""
WRITE_BYTES = 4096
"""Larger single writes fill the kernel's buffer and are cut anyway."""
MAX_CANONICAL_BYTES = 4095
"""Linux, N_TTY_BUF_SIZE - 1: the rest of a longer line is dropped silently while the terminal is in line mode."""


class KeyFeed:
    """Writes to a non-blocking descriptor, in order, as fast as the other side reads."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._queue: deque[memoryview] = deque()
        self._queued = 0
        self._is_waiting = False
        self._is_closed = False
        self._drained: set[asyncio.Future[None]] = set()

    async def write(self, data: bytes) -> None:
        """Queue `data`; return when all of it fits into the bounded queue. `BrokenPipeError` after the end."""
        rest = memoryview(data)
        while rest and not self._is_closed:
            part = rest[: max(QUEUE_BYTES - self._queued, 0)]
            if part:
                self._queue.append(part)
                self._queued += len(part)
                rest = rest[len(part) :]
                if not self._is_waiting:
                    self._pump()
            while self._queued >= QUEUE_BYTES and not self._is_closed:  # a fast reader may have taken all of it
                await self._room()
        if self._is_closed:
            raise BrokenPipeError

    def close(self) -> None:
        """Drop what is queued and wake whoever waits."""
        self._is_closed = True
        self._stop_waiting()
        self._queue.clear()
        self._queued = 0
        self._wake()

    async def _room(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self._drained.add(future)
        try:
            await future
        finally:
            self._drained.discard(future)

    def _pump(self) -> None:
        while self._queue:
            view = self._queue[0]
            try:
                count = os.write(self._descriptor, view[:WRITE_BYTES])
            except BlockingIOError:
                if not self._is_waiting:
                    self._is_waiting = True
                    asyncio.get_running_loop().add_writer(self._descriptor, self._pump)
                self._wake()
                return
            except OSError:
                self.close()
                return
            self._queued -= count
            if count == len(view):
                self._queue.popleft()
            else:
                self._queue[0] = view[count:]
        self._stop_waiting()
        self._wake()

    def _stop_waiting(self) -> None:
        if self._is_waiting:
            self._is_waiting = False
            asyncio.get_running_loop().remove_writer(self._descriptor)

    def _wake(self) -> None:
        if self._queued < QUEUE_BYTES:
            for future in self._drained:
                if not future.done():
                    future.set_result(None)


class Keyboard(KeyFeed):
    """The input of a terminal."""

    def __init__(self, master: int) -> None:
        super().__init__(master)
        self._master = master
        self._line_bytes = 0

    async def type(self, data: bytes) -> str:
        """`write`, and a warning when the kernel will cut a line; else an empty string."""
        length = self.cut(data)
        lines = _lines(data)
        self._line_bytes = len(lines[-1]) + (self._line_bytes if len(lines) == 1 else 0)
        await self.write(data)
        if not length:
            return ""
        return f"a line of {length:,} bytes: in line mode the terminal drops all beyond {MAX_CANONICAL_BYTES:,}"

    def cut(self, data: bytes) -> int:
        """Bytes of the longest line of `data` that the kernel would cut now; 0 when it would cut none."""
        lines = _lines(data)
        longest = max(self._line_bytes + len(lines[0]), *map(len, lines[1:]), 0)
        if longest <= MAX_CANONICAL_BYTES or not sys.platform.startswith("linux"):
            return 0
        try:
            modes = termios.tcgetattr(self._master)
        except termios.error:
            return 0
        return longest if modes[3] & termios.ICANON else 0


def _lines(data: bytes) -> list[bytes]:
    return data.replace(b"\r", b"\n").split(b"\n")
