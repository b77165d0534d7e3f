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
