"""Time limits of many tasks by one timer of the loop.

`asyncio.timeout` arms a timer of its own and disarms it again, and that costs more than all else around a call that
ends in time, as nearly every call does. Here a limit that is kept costs one entry of a dictionary; the timer fires when
the earliest of those that were ever entered would have passed, and looks which are still there.
"""

from __future__ import annotations

import asyncio
import math
from types import TracebackType
from typing import Any

SLACK_SECONDS = 0.001
"""uvloop's timers count in milliseconds, and may fire that much before their time."""


class Deadlines:
    """The limits of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._entered: dict[TaskDeadline, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._fires_at = math.inf

    def __repr__(self) -> str:
        return f"<Deadlines {len(self._entered)} entered>"

    def add(self, deadline: TaskDeadline) -> None:
        self._entered[deadline] = None
        if deadline.at < self._fires_at:
            self._fire_at(deadline.at)

    def remove(self, deadline: TaskDeadline) -> None:
        self._entered.pop(deadline, None)

    def _fire_at(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._fires_at = at
        self._timer = self.loop.call_at(at, self._look)

    def _look(self) -> None:
        self._timer = None
        self._fires_at = math.inf
        now = self.loop.time() + SLACK_SECONDS
        for deadline in [deadline for deadline in self._entered if deadline.at <= now]:
            self.remove(deadline)
            deadline.expire()
        if self._entered:
            self._fire_at(min(deadline.at for deadline in self._entered))


class TaskDeadline:
    """A time limit, as `asyncio.timeout` sets one: enter it once, with `async with`."""

    __slots__ = ("_all", "_cancelling", "_delay", "_has_passed", "_task", "at")

    def __init__(self, deadlines: Deadlines, delay: float) -> None:
        self._all = deadlines
        self._delay = delay
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._has_passed = False
        self.at = math.inf
        """Seconds of the loop's clock."""

    async def __aenter__(self) -> None:
        task = self._task = asyncio.current_task(self._all.loop)
        if task is None:
            raise RuntimeError("a time limit is entered by a task")
        self._cancelling = task.cancelling()
        self.at = self._all.loop.time() + self._delay
        self._all.add(self)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._all.remove(self)
        if not self._has_passed or self._task is None:
            return
        if self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        """The time is over."""
        self._has_passed = True
        if self._task is not None:
            self._task.cancel()

    def expired(self) -> bool:
        return self._has_passed
