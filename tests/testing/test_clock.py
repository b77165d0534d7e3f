"""The clock that tests drive."""

from __future__ import annotations

import asyncio

import pytest

from tundra_nb.testing.clock import VirtualClock


def test_time_stands_still_until_it_is_advanced() -> None:
    clock = VirtualClock()
    before = clock.monotonic(), clock.now_us()
    clock.advance(1.5)
    assert (clock.monotonic() - before[0], clock.now_us() - before[1]) == (1.5, 1_500_000)


def test_time_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="go back"):
        VirtualClock().advance(-1)


def test_timers_fire_in_order_each_at_its_own_moment_without_a_loop() -> None:
    clock = VirtualClock(start=0)
    fired: list[tuple[str, float]] = []

    def first() -> None:
        fired.append(("a", clock.monotonic()))
        clock.call_later(0.5, lambda: fired.append(("again", clock.monotonic())))

    clock.call_later(2, lambda: fired.append(("b", clock.monotonic())))
    clock.call_later(1, first)
    clock.call_later(9, lambda: fired.append(("late", clock.monotonic())))
    clock.call_later(1, lambda: fired.append(("never", 0))).cancel()

    assert clock.waiting == 3
    clock.advance(5)
    assert fired == [("a", 1), ("again", 1.5), ("b", 2)]
    assert repr(clock) == "<VirtualClock 5 s, 1 waiting>"


@pytest.mark.anyio
async def test_a_sleeper_that_sleeps_again_wakes_on_time() -> None:
    clock = VirtualClock(start=0)
    woken: list[float] = []

    async def sleeper() -> None:
        await clock.sleep(0)
        for _ in range(3):
            await clock.sleep(1.5)
            woken.append(clock.monotonic())

    task = asyncio.ensure_future(sleeper())
    await clock.elapse(10)
    await task
    assert woken == [1.5, 3, 4.5]


@pytest.mark.anyio
async def test_a_cancelled_sleeper_leaves_no_timer() -> None:
    clock = VirtualClock()
    task = asyncio.ensure_future(clock.sleep(5))
    await asyncio.sleep(0)
    assert clock.waiting == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert clock.waiting == 0


@pytest.mark.anyio
async def test_a_time_limit_passes_when_the_clock_is_moved_and_not_before() -> None:
    clock = VirtualClock()
    ended: list[str] = []

    async def limited() -> None:
        limit = clock.timeout(5)
        try:
            async with limit:
                await asyncio.Event().wait()
        except TimeoutError:
            ended.append(f"{clock.monotonic() - 1000:g} s, {limit.expired()}")

    task = asyncio.create_task(limited())
    await clock.elapse(4.9)
    assert ended == []
    await clock.elapse(0.1)
    assert ended == ["5 s, True"]
    await task


@pytest.mark.anyio
async def test_a_time_limit_that_was_left_in_time_leaves_nothing_behind() -> None:
    clock = VirtualClock()
    async with clock.timeout(5) as limit:
        pass
    assert clock.waiting == 0
    await clock.elapse(10)
    assert not limit.expired()
