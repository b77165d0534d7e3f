"""Time limits by one timer: as `asyncio.timeout` keeps them."""

from __future__ import annotations

import asyncio
import time

import pytest

from tundra_nb.runtime.clock import SystemClock

pytestmark = pytest.mark.anyio


async def test_what_ends_in_time_is_left_alone() -> None:
    limit = SystemClock().timeout(60)
    async with limit:
        await asyncio.sleep(0)
    assert not limit.expired()


async def test_what_takes_too_long_ends_with_a_timeout_error_and_the_task_goes_on() -> None:
    limit = SystemClock().timeout(0.02)
    with pytest.raises(TimeoutError):
        async with limit:
            await asyncio.sleep(60)
    assert limit.expired()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_the_earliest_limit_passes_first_in_whatever_order_they_are_entered() -> None:
    clock = SystemClock()
    ended: list[float] = []

    async def wait(seconds: float) -> None:
        with pytest.raises(TimeoutError):
            async with clock.timeout(seconds):
                await asyncio.sleep(60)
        ended.append(seconds)

    began = time.monotonic()
    await asyncio.gather(*map(wait, (0.12, 0.04, 0.08, 0.04)))
    assert ended == [0.04, 0.04, 0.08, 0.12]
    assert time.monotonic() - began >= 0.119


async def test_limits_that_were_left_do_not_bring_others_forward() -> None:
    clock = SystemClock()

    async def work() -> None:
        async with clock.timeout(0.15):
            for _ in range(3):
                async with clock.timeout(0.03):
                    await asyncio.sleep(0)
            await asyncio.sleep(60)

    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await work()
    assert time.monotonic() - began >= 0.149


async def test_the_inner_limit_alone_passes_where_one_lies_in_the_other() -> None:
    clock = SystemClock()
    outer = clock.timeout(60)
    async with outer:
        with pytest.raises(TimeoutError):
            async with clock.timeout(0.02):
                await asyncio.sleep(60)
    assert not outer.expired()


async def test_a_task_that_is_cancelled_from_outside_is_told_so_and_not_of_a_timeout() -> None:
    limit = SystemClock().timeout(60)
    began = asyncio.Event()

    async def work() -> None:
        async with limit:
            began.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not limit.expired()


async def test_an_error_of_the_last_moment_is_not_hidden_by_the_limit() -> None:
    async def fail() -> None:
        async with SystemClock().timeout(0.02):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                raise KeyError from None

    with pytest.raises(KeyError):
        await fail()
    await asyncio.sleep(0)


def test_one_clock_serves_one_loop_after_the_other() -> None:
    clock = SystemClock()

    async def work() -> None:
        with pytest.raises(TimeoutError):
            async with clock.timeout(0.01):
                await asyncio.sleep(60)

    for _ in range(2):
        asyncio.run(work())
