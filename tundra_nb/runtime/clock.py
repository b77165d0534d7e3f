"""Time and ids, injected everywhere so that tests can drive them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from .deadlines import Deadlines, TaskDeadline
from .id_layout import LAST_MS, MAX_ID, MAX_NODE, NODE_BITS, SEQUENCE_BITS


class Timer(Protocol):
    """A callback that is still to come."""

    def cancel(self) -> None: ...


class Deadline(Protocol):
    """A time limit to enter with `async with`, once."""

    async def __aenter__(self) -> object: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None: ...

    def expired(self) -> bool:
        """Whether it has passed while it was entered."""
        ...


class Clock(Protocol):
    """Where a part gets its time from."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back."""
        ...

    def now_us(self) -> int:
        """Microseconds since the epoch, UTC."""
        ...

    async def sleep(self, delay: float) -> None:
        """Wait `delay` seconds of this clock."""
        ...

    def timeout(self, delay: float) -> Deadline:
        """What is awaited inside is cancelled `delay` seconds of this clock after the entry; then TimeoutError."""
        ...

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` in the running loop `delay` seconds from now, unless cancelled before."""
        ...


class SystemClock:
    """The machine's own clock."""

    def __init__(self) -> None:
        self._deadlines: Deadlines | None = None

    monotonic = staticmethod(time.monotonic)
    """Without a call of ours around it: the limiter's decision is hardly longer."""

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    async def sleep(self, delay: float) -> None:
        await asyncio.sleep(delay)

    def timeout(self, delay: float) -> Deadline:
        loop = asyncio.get_running_loop()
        if self._deadlines is None or self._deadlines.loop is not loop:
            self._deadlines = Deadlines(loop)
        return TaskDeadline(self._deadlines, delay)

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        return asyncio.get_running_loop().call_later(delay, callback)


MACHINE = SystemClock()
"""For defaults, where no clock is handed in."""


class Ids:
    """Time-ordered 63-bit ids, put together as `id_layout` says.

    Strictly increasing within one maker, also when the clock goes back, more than 4,096 ids fall into a millisecond (it
    then runs ahead of the clock) or the clock is past `LAST_MS` (it counts on from there). `node` (0 to 1023) keeps the
    makers of one database apart.
    """

    def __init__(self, clock: Clock, node: int = 0) -> None:
        if not 0 <= node <= MAX_NODE:
            raise ValueError(f"node {node} is not within 0 … {MAX_NODE}")
        self._clock = clock
        self._node = node << SEQUENCE_BITS
        self._last_ms = 0
        self._sequence = 0

    def renumber(self, node: int) -> None:
        """Go on as another node; ids stay strictly increasing from the next millisecond on."""
        if not 0 <= node <= MAX_NODE:
            raise ValueError(f"node {node} is not within 0 … {MAX_NODE}")
        if node << SEQUENCE_BITS != self._node:
            self._node = node << SEQUENCE_BITS
            self._last_ms += 1
            self._sequence = 0

    def begin_above(self, newest: int) -> None:
        """Make no id that is not above `newest`, however far the clock has gone back since that one was made."""
        taken = newest >> (NODE_BITS + SEQUENCE_BITS)
        if taken >= self._last_ms:
            self._last_ms = min(taken + 1, MAX_ID >> (NODE_BITS + SEQUENCE_BITS))
            self._sequence = 0

    def next(self) -> int:
        now = min(self._clock.now_us() // 1000, LAST_MS)
        if now > self._last_ms:
            self._last_ms = now
            self._sequence = 0
        else:
            self._sequence += 1
            if self._sequence >> SEQUENCE_BITS:
                self._last_ms += 1
                self._sequence = 0
        return self._last_ms << (NODE_BITS + SEQUENCE_BITS) | self._node | self._sequence
