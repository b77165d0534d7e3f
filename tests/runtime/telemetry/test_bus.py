"""The event bus: fan-out that nobody can slow down."""

from __future__ import annotations

import asyncio

import pytest

from tundra_nb.runtime.telemetry.bus import BusEvent, EventBus, Missed


@pytest.mark.anyio
async def test_every_subscriber_gets_every_event_in_order() -> None:
    bus = EventBus()
    async with bus.subscribe() as one, bus.subscribe() as two:
        for number in range(3):
            bus.publish("attempt", number)

        for subscription in (one, two):
            assert [await subscription.next() for _ in range(3)] == [BusEvent("attempt", n) for n in range(3)]


@pytest.mark.anyio
async def test_a_slow_subscriber_is_told_how_many_it_missed_and_keeps_the_newest() -> None:
    bus = EventBus()
    async with bus.subscribe(size=2) as subscription:
        for number in range(5):
            bus.publish("attempt", number)

        assert await subscription.next() == Missed(3)
        assert [await subscription.next() for _ in range(2)] == [BusEvent("attempt", 3), BusEvent("attempt", 4)]


@pytest.mark.anyio
async def test_a_subscriber_gets_only_the_kinds_it_asked_for() -> None:
    bus = EventBus()
    async with bus.subscribe(["breaker_event"]) as subscription:
        bus.publish("attempt", 1)
        bus.publish("breaker_event", 2)

        assert await subscription.next() == BusEvent("breaker_event", 2)


@pytest.mark.anyio
async def test_closing_the_bus_ends_its_readers_after_what_is_queued() -> None:
    bus = EventBus()
    subscription = bus.subscribe()
    bus.publish("attempt", 1)
    waiting = bus.subscribe()
    task = asyncio.create_task(waiting.next())
    await asyncio.sleep(0)

    bus.close()

    assert await subscription.next() == BusEvent("attempt", 1)
    assert await subscription.next() is None
    assert await task is None


@pytest.mark.anyio
async def test_cancelling_a_reader_loses_nothing() -> None:
    bus = EventBus()
    async with bus.subscribe() as subscription:
        task = asyncio.create_task(subscription.next())
        await asyncio.sleep(0)
        task.cancel()
        bus.publish("attempt", 1)

        assert await subscription.next() == BusEvent("attempt", 1)
