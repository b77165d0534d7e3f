"""The newest part of an output, in fixed blocks; sequence number = byte offset since the start.

Blocks are filled in place by `os.readv` and never grow, because a growing buffer cannot have views. A reader is only a
number, so a slow one costs nothing and holds nothing back: what it missed, it is told.
"""

from __future__ import annotations

from collections import deque

CAPACITY_BYTES = 1 << 20
FIRST_BLOCK_BYTES = 4096
"""An idle session costs one page …"""
BLOCK_BYTES = 1 << 16
"""… a busy one is written to disk in units of this."""


class _Block:
    __slots__ = ("buffer", "flushed", "start", "used")

    def __init__(self, start: int, size: int) -> None:
        self.buffer = bytearray(size)
        self.start = start
        self.used = 0
        self.flushed = 0

    @property
    def end(self) -> int:
        return self.start + self.used


class Ring:
    """Bounded history of a byte stream.

    Filling: `space`, read into it, `commit`; or `write`. Whoever persists it takes `unflushed` whenever
    `is_block_full`.
    """

    def __init__(self, capacity: int = CAPACITY_BYTES) -> None:
        self._capacity = capacity
        self._blocks: deque[_Block] = deque([_Block(0, min(FIRST_BLOCK_BYTES, capacity))])
        self._spare: bytearray | None = None
        self.end = 0
        """Offset after the newest byte."""

    def __repr__(self) -> str:
        return f"<Ring {self.start:,} … {self.end:,}>"

    @property
    def start(self) -> int:
        """Offset of the oldest byte that is still here."""
        return self._blocks[0].start

    @property
    def is_block_full(self) -> bool:
        block = self._blocks[-1]
        return block.used == len(block.buffer)

    def space(self) -> memoryview:
        """Where the next bytes go: at least one; valid until `commit`."""
        block = self._blocks[-1]
        if block.used == len(block.buffer):
            block = self._next_block()
        return memoryview(block.buffer)[block.used :]

    def commit(self, count: int) -> None:
        """The first `count` bytes of `space` are filled."""
        self._blocks[-1].used += count
        self.end += count

    def write(self, data: bytes) -> int:
        """Copy what fits into the current block, return how much that was."""
        space = self.space()
        count = min(len(space), len(data))
        space[:count] = data[:count]
        self.commit(count)
        return count

    def read(self, since: int, limit: int) -> bytes:
        """At most `limit` bytes from offset `since`, which must lie within `start … end`."""
        if not self.start <= since <= self.end:
            raise IndexError(f"offset {since} is outside {self!r}")
        parts: list[bytes] = []
        for block in self._blocks:
            if limit <= 0:
                break
            if block.end > since:
                begin = since - block.start
                stop = min(block.used, begin + limit)
                parts.append(bytes(memoryview(block.buffer)[begin:stop]))
                since += stop - begin
                limit -= stop - begin
        return b"".join(parts)

    def unflushed(self) -> list[memoryview]:
        """Views of all bytes that were not taken before; they count as taken."""
        views: list[memoryview] = []
        for block in reversed(self._blocks):
            if block.flushed == block.used:
                break
            views.append(memoryview(block.buffer)[block.flushed : block.used])
            block.flushed = block.used
        return views[::-1]

    def _next_block(self) -> _Block:
        held = sum(len(block.buffer) for block in self._blocks)
        while len(self._blocks) > 1 and held + BLOCK_BYTES > self._capacity:
            old = self._blocks.popleft().buffer
            held -= len(old)
            if len(old) == BLOCK_BYTES:
                self._spare = old
        block = _Block(self.end, 0)
        if self._spare is not None:
            block.buffer, self._spare = self._spare, None
        else:
            block.buffer = bytearray(min(BLOCK_BYTES, self._capacity))
        self._blocks.append(block)
        return block
