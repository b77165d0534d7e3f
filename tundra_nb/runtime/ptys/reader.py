"""Read many terminals in one loop: a flood takes what is left over, never what a key press needs.

Two epolls nested in the event loop. `quick` is served at once. Whoever gives more than 8 KiB in 50 ms moves to `bulk`,
which gets one millisecond per turn, a few reads per session in the kernel's own rotation, and then rests for one
millisecond if there is more than one in it. Back to `quick` only after a quiet period *and* after bulk was seen empty:
otherwise sessions that were merely starved come back, and it flaps. With one `add_reader` per session, 100 floods delay
an echo by 20 to 170 ms; so by 2.

Where there is no epoll: `add_reader`, one read per call.
"""

from __future__ import annotations

import asyncio
import select
import time
from typing import Protocol

TURN_SECONDS = 0.001
REST_SECONDS = 0.001
READS_PER_SESSION = 4
"""A read gives 4 KiB at most; the kernel holds 16."""
WINDOW_SECONDS = 0.05
BULK_BYTES = 8192
"""More than this in one window: bulk."""
QUIET_BYTES = 2048
"""Less than this in one window, with bulk empty: quick again."""
QUICK_EVENTS = 32
BULK_EVENTS = 4
"""Few at a time: whoever was reported goes to the end of the kernel's queue, also when the turn ends before it is
served."""

_HAS_EPOLL = hasattr(select, "epoll")


class PtySource(Protocol):
    """A session as the reader sees it."""

    def fill(self, reads: int) -> int:
        """Read at most `reads` times; return the bytes, negative at the end of file."""
        ...


class _Entry:
    __slots__ = ("bytes", "descriptor", "is_bulk", "source", "window")

    def __init__(self, descriptor: int, source: PtySource) -> None:
        self.descriptor = descriptor
        self.source = source
        self.is_bulk = False
        self.window = 0.0
        self.bytes = 0


class PtyReader:
    """Serves the sources of one event loop between `open` and `close`."""

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}
        self._bulk_count = 0
        self._rest: asyncio.TimerHandle | None = None

    def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        if _HAS_EPOLL:
            self._quick, self._bulk = select.epoll(), select.epoll()
            self._loop.add_reader(self._quick.fileno(), self._serve_quick)
            self._loop.add_reader(self._bulk.fileno(), self._serve_bulk)

    def close(self) -> None:
        """Let go of everything; sources still present are no longer read."""
        for descriptor in list(self._entries):
            self.remove(descriptor)
        if self._rest:
            self._rest.cancel()
            self._rest = None
        if _HAS_EPOLL:
            self._loop.remove_reader(self._quick.fileno())
            self._loop.remove_reader(self._bulk.fileno())
            self._quick.close()
            self._bulk.close()

    def add(self, descriptor: int, source: PtySource) -> None:
        """Read this descriptor from now on."""
        entry = self._entries[descriptor] = _Entry(descriptor, source)
        if _HAS_EPOLL:
            self._quick.register(descriptor, select.EPOLLIN)
        else:
            self._loop.add_reader(descriptor, self._serve, entry, 1)

    def has(self, descriptor: int) -> bool:
        """Whether it is still read; at the end of file that stops by itself."""
        return descriptor in self._entries

    def remove(self, descriptor: int) -> None:
        """Read it no more; before it is closed. Nothing happens the second time."""
        entry = self._entries.pop(descriptor, None)
        if entry is None:
            return
        if not _HAS_EPOLL:
            self._loop.remove_reader(descriptor)
            return
        (self._bulk if entry.is_bulk else self._quick).unregister(descriptor)
        self._bulk_count -= entry.is_bulk

    def _serve_quick(self) -> None:
        now = time.monotonic()
        for descriptor, _ in self._quick.poll(0, QUICK_EVENTS):
            entry = self._entries.get(descriptor)
            if entry is None:
                continue
            count = self._serve(entry, READS_PER_SESSION)
            if now - entry.window > WINDOW_SECONDS:
                entry.window, entry.bytes = now, 0
            entry.bytes += count
            if entry.bytes > BULK_BYTES and descriptor in self._entries:
                self._quick.unregister(descriptor)
                self._bulk.register(descriptor, select.EPOLLIN)
                entry.is_bulk, entry.window, entry.bytes = True, now, 0
                self._bulk_count += 1

    def _serve_bulk(self) -> None:
        until = time.monotonic() + TURN_SECONDS
        while True:
            events = self._bulk.poll(0, BULK_EVENTS)
            now = time.monotonic()
            if not events:
                self._calm_down(now)
                break
            for descriptor, _ in events:
                entry = self._entries.get(descriptor)
                if entry is not None:
                    entry.bytes += self._serve(entry, READS_PER_SESSION)
                if time.monotonic() >= until:
                    break
            else:
                continue
            break
        if self._bulk_count > 1:
            if self._rest:
                self._rest.cancel()
            self._loop.remove_reader(self._bulk.fileno())
            self._rest = self._loop.call_later(REST_SECONDS, self._wake_bulk)
        elif self._bulk_count and self._rest is None:
            # An empty epoll reports nothing, so nobody would see that its last session has become quiet.
            self._rest = self._loop.call_later(WINDOW_SECONDS, self._wake_bulk)

    def _wake_bulk(self) -> None:
        self._rest = None
        self._loop.add_reader(self._bulk.fileno(), self._serve_bulk)
        if self._bulk_count:
            self._serve_bulk()

    def _calm_down(self, now: float) -> None:
        for entry in [entry for entry in self._entries.values() if entry.is_bulk]:
            if now - entry.window < WINDOW_SECONDS:
                continue
            if entry.bytes < QUIET_BYTES:
                self._bulk.unregister(entry.descriptor)
                self._quick.register(entry.descriptor, select.EPOLLIN)
                entry.is_bulk = False
                self._bulk_count -= 1
            entry.window, entry.bytes = now, 0

    def _serve(self, entry: _Entry, reads: int) -> int:
        count = entry.source.fill(reads)
        if count < 0:
            self.remove(entry.descriptor)
            return 0
        return count
