"""The event bus: what happens in the runtime, to whoever watches, without anybody being able to slow it down."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
from collections.abc import Collection
from typing import Any, Self

QUEUE_EVENTS = 1000
"""Events a subscriber may be behind before the oldest are dropped; at 200 calls a second about 1 s of everything."""


@dataclasses.dataclass(frozen=True)
class BusEvent:
    """`kind` is a history table's name, or `operation_opened`, `attempt_opened`, `status`; `value` a msgspec struct."""

    kind: str
    value: Any


@dataclasses.dataclass(frozen=True)
class Missed:
    """A slow subscriber lost `count` events, the oldest it had not read."""

    count: int


class Subscription:
    """One subscriber's bounded queue. Read it with `next`; close it when done (`async with` does)."""

    def __init__(self, bus: EventBus, kinds: Collection[str] | None, size: int) -> None:
        self._bus = bus
        self._kinds = frozenset(kinds) if kinds else None
        self._queue: collections.deque[BusEvent] = collections.deque(maxlen=size)
        self._missed = 0
        self._ready = asyncio.Event()
        self._closed = False

    def offer(self, event: BusEvent) -> None:
        if self._kinds is not None and event.kind not in self._kinds:
            return
        if len(self._queue) == self._queue.maxlen:
            self._missed += 1
        self._queue.append(event)
        self._ready.set()

    async def next(self) -> BusEvent | Missed | None:
        """The next event, or how many were missed before it; None once the bus is closed and all is read.

        Cancelling it loses nothing.
        """
        while not self._queue:
            if self._closed:
                return None
            self._ready.clear()
            await self._ready.wait()
        if self._missed:
            missed, self._missed = Missed(self._missed), 0
            return missed
        return self._queue.popleft()

    def close(self) -> None:
        self._closed = True
        self._ready.set()
        self._bus.forget(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()


class EventBus:
    """Fan-out to any number of subscribers. Publishing never waits."""

    def __init__(self) -> None:
        self._subscribers: set[Subscription] = set()

    @property
    def is_watched(self) -> bool:
        return bool(self._subscribers)

    def publish(self, kind: str, value: Any) -> None:
        event = BusEvent(kind, value)
        for subscriber in self._subscribers:
            subscriber.offer(event)

    def subscribe(self, kinds: Collection[str] | None = None, size: int = QUEUE_EVENTS) -> Subscription:
        subscription = Subscription(self, kinds, size)
        self._subscribers.add(subscription)
        return subscription

    def forget(self, subscription: Subscription) -> None:
        self._subscribers.discard(subscription)

    def close(self) -> None:
        """End every subscription; their readers see the end after what is queued."""
        for subscription in tuple(self._subscribers):
            subscription.close()
