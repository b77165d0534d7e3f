"""A token's budget: never passed, settled with the real cost, and rebuilt after a restart."""

from __future__ import annotations

import asyncio
import random

import pytest

from tundra_nb.errors import BudgetSpent
from tundra_nb.runtime.caller import DAY_US, Budgets, Caller
from tundra_nb.testing.clock import VirtualClock

pytestmark = pytest.mark.anyio

CALLER = Caller("agent", usd_per_day=1.0)


def budgets(clock: VirtualClock, before: float = 0.0) -> Budgets:
    async def spent_since(name: str, since_us: int) -> float:
        assert since_us % DAY_US == 0
        await asyncio.sleep(0)
        return before

    return Budgets(clock, spent_since)


async def test_what_is_reserved_and_settled_is_never_more_than_the_budget() -> None:
    made = budgets(VirtualClock())
    chance = random.Random(7)
    spent = 0.0

    async def call() -> None:
        nonlocal spent
        await made.ready(CALLER)
        needed = chance.uniform(0.01, 0.2)
        try:
            money = made.reserve(CALLER, "p", needed)
        except BudgetSpent as refused:
            assert 0 < (refused.retry_after or 0) <= 86_400  # noqa: PT017 - checked on each refusal
            return
        assert money is not None
        await asyncio.sleep(0)
        cost = needed * chance.random()
        money.settle(cost)
        money.settle(cost)  # a second time says nothing
        spent += cost

    for _ in range(20):
        await asyncio.gather(*(call() for _ in range(16)))
        settled, reserved = await made.spent("agent")
        assert settled + reserved <= 1.0 + 1e-9
    assert reserved == pytest.approx(0)
    assert settled == pytest.approx(spent)
    assert settled > 0.8


async def test_after_a_restart_the_counter_goes_on_where_the_history_says() -> None:
    made = budgets(VirtualClock(), before=0.95)
    await made.ready(CALLER)
    with pytest.raises(BudgetSpent):
        made.reserve(CALLER, "p", 0.06)
    assert made.reserve(CALLER, "p", 0.04) is not None


async def test_what_was_spent_is_told_before_the_first_call_after_a_restart() -> None:
    assert await budgets(VirtualClock(), before=0.95).spent("agent") == (0.95, 0.0)


async def test_a_clock_that_steps_back_over_midnight_gives_no_budget_twice() -> None:
    today = DAY_US * 20_000
    times = {"now": today}
    clock = VirtualClock()
    clock.now_us = lambda: times["now"]  # type: ignore[method-assign]
    made = budgets(clock)

    async def take() -> None:
        await made.ready(CALLER)
        money = made.reserve(CALLER, "p", 1.0)
        assert money is not None
        money.settle(1.0)

    for day in (0, 1):
        times["now"] = today + day * DAY_US
        await take()
    for day in (0, 1):
        times["now"] = today + day * DAY_US
        with pytest.raises(BudgetSpent):
            await take()


async def test_a_model_without_a_price_is_refused_and_a_caller_without_a_budget_is_not_counted() -> None:
    made = budgets(VirtualClock())
    await made.ready(CALLER)
    with pytest.raises(BudgetSpent, match="no known price"):
        made.reserve(CALLER, "p", None)
    assert made.reserve(Caller("free"), "p", None) is None
