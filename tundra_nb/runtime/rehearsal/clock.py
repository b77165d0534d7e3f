"""A clock that stands still until it is told to advance."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from types import TracebackType
from typing import Self

SETTLING_ROUNDS = 20
"""Turns of the loop that woken tasks get, at least, before time moves on: what they wait for may come from outside."""
SETTLING_CAP = 100_000
"""Turns after which time moves on though somebody is still busy: whoever spins must not stop the clock."""
ROUNDING = 1e-9
"""Seconds. What is due at the end of an advance but for the rounding of a sum is due."""


class VirtualTimer:
    """A callback that waits for its time."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self._callback = None

    @property
    def is_pending(self) -> bool:
        return self._callback is not None

    def fire(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class VirtualClock:
    """A `tundra_nb.runtime.clock.Clock` under the test's control.

    `advance` moves time at once and fires what falls due, in order, each at its own moment; it works with no loop at
    all. `elapse` does the same from a coroutine and lets the tasks it wakes run before it moves on, so that a task that
    sleeps twice wakes twice, on time.
    """

    def __init__(
        self, start: float = 1000.0, epoch_us: int = 1_750_000_000_000_000, *, rounds: int = SETTLING_ROUNDS
    ) -> None:
        self._rounds = rounds
        self._now = start
        self._start = start
        self._epoch_us = epoch_us
        self._timers: list[tuple[float, int, VirtualTimer]] = []
        self._count = 0

    def __repr__(self) -> str:
        return f"<VirtualClock {self._now:g} s, {self.waiting} waiting>"

    @property
    def waiting(self) -> int:
        """How many sleepers and timers are still to come."""
        return sum(timer.is_pending for _, _, timer in self._timers)

    def monotonic(self) -> float:
        return self._now

    def now_us(self) -> int:
        return self._epoch_us + round((self._now - self._start) * 1_000_000)

    def call_later(self, delay: float, callback: Callable[[], None]) -> VirtualTimer:
        timer = VirtualTimer(callback)
        self._count += 1
        heapq.heappush(self._timers, (self._now + max(0.0, delay), self._count, timer))
        return timer

    async def sleep(self, delay: float) -> None:
        """Wait until time has been advanced by `delay`; zero or less only gives way to other tasks."""
        if delay <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        timer = self.call_later(delay, lambda: None if woken.done() else woken.set_result(None))
        try:
            await woken
        finally:
            timer.cancel()

    def timeout(self, delay: float) -> VirtualDeadline:
        """As `asyncio.timeout`, but that only `advance` and `elapse` bring it nearer."""
        return VirtualDeadline(self, delay)

    def advance(self, seconds: float) -> None:
        """Move time forward and fire what falls due. Woken tasks run when the loop next does."""
        end = self._end(seconds)
        while self._fire_next(end):
            pass
        self._now = end

    async def elapse(self, seconds: float) -> None:
        """Move time forward; let the woken tasks run after each moment."""
        end = self._end(seconds)
        await self._settle()
        while self._fire_next(end):
            await self._settle()
        self._now = end
        await self._settle()

    async def _settle(self) -> None:
        """Let woken tasks run until all of them wait again."""
        ready = getattr(asyncio.get_running_loop(), "_ready", ())  # what else is to run in this turn; uvloop hides it
        for turn in range(SETTLING_CAP):
            await asyncio.sleep(0)
            if turn >= self._rounds and not ready:
                return

    def _end(self, seconds: float) -> float:
        if not seconds >= 0:
            raise ValueError(f"time cannot go back by {seconds} s")
        return self._now + seconds

    def _fire_next(self, end: float) -> bool:
        while self._timers and self._timers[0][0] <= end + ROUNDING:
            at, _, timer = heapq.heappop(self._timers)
            if timer.is_pending:
                self._now = max(self._now, min(at, end))
                timer.fire()
                return True
        return False


class VirtualDeadline:
    """A time limit on the virtual clock. asyncio's own does the cancelling: a timer of ours only tells it when."""

    def __init__(self, clock: VirtualClock, delay: float) -> None:
        self._clock = clock
        self._delay = delay
        self._scope = asyncio.timeout(None)
        self._timer: VirtualTimer | None = None

    async def __aenter__(self) -> Self:
        await self._scope.__aenter__()
        self._timer = self._clock.call_later(self._delay, lambda: self._scope.reschedule(0.0))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._timer is not None
        self._timer.cancel()
        await self._scope.__aexit__(kind, error, trace)

    def expired(self) -> bool:
        return self._scope.expired()
