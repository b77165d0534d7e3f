"""A call that is cancelled leaves nothing behind, at whichever of its awaits that happens.

Each scenario is run again and again, cancelled at its first, second, third … suspension, until one run gets through.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from tests.runtime.calls import QUICK, Calls, calls
from tests.runtime.test_operations import check_rows
from tundra_nb import errors
from tundra_nb.runtime.resilience.limiter import Reservation
from tundra_nb.settings import BreakerSettings, LimitsSettings, RouterSettings, TierSettings
from tundra_nb.testing.scripted_provider import ScriptedStep
from tundra_nb.types import Reply

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
MOST_SUSPENSIONS = 400


class CancelAt:
    """Awaits a coroutine, and has the task cancelled exactly at the coroutine's suspension number `n`."""

    def __init__(self, coroutine: Coroutine[Any, Any, Reply], n: int) -> None:
        self._coroutine = coroutine
        self._n = n
        self.suspensions = 0

    def __await__(self) -> Generator[Any, Any, Reply]:
        task = asyncio.current_task()
        assert task is not None
        thrown: BaseException | None = None
        while True:
            try:
                awaited = self._coroutine.send(None) if thrown is None else self._coroutine.throw(thrown)
            except StopIteration as stop:
                reply: Reply = stop.value
                return reply
            self.suspensions += 1
            if self.suspensions == self._n:
                task.cancel()
            try:
                yield awaited
                thrown = None
            except BaseException as exc:  # noqa: BLE001 (handed on to where it would have been raised)
                thrown = exc


@asynccontextmanager
async def plain() -> AsyncIterator[tuple[Calls, Coroutine[Any, Any, Reply]]]:
    async with calls("only") as c:
        yield c, c.ask()


@asynccontextmanager
async def streaming() -> AsyncIterator[tuple[Calls, Coroutine[Any, Any, Reply]]]:
    async with calls("only") as c:
        c.servers["only"].script(CHAT, ScriptedStep(gap=0.002))
        yield c, c.ask(stream=True)


@asynccontextmanager
async def retrying() -> AsyncIterator[tuple[Calls, Coroutine[Any, Any, Reply]]]:
    async with calls("first", "second", router=QUICK) as c:
        c.servers["first"].script(CHAT, ScriptedStep(status=500, repeat=3))
        yield c, c.ask()


@asynccontextmanager
async def choosing_a_model() -> AsyncIterator[tuple[Calls, Coroutine[Any, Any, Reply]]]:
    async with calls("only", profiles={"only": {"model": ""}}) as c:
        yield c, c.ask()


@asynccontextmanager
async def in_line() -> AsyncIterator[tuple[Calls, Coroutine[Any, Any, Reply]]]:
    limits = LimitsSettings(global_=TierSettings(rate=50.0, burst=1.0))
    async with calls("only", limits=limits) as c:
        await c.ask()
        c.rows.clear()
        yield c, c.ask()


@asynccontextmanager
async def cooling() -> AsyncIterator[tuple[Calls, Coroutine[Any, Any, Reply]]]:
    async with calls("only") as c:
        c.router.cool("only", c.clock.monotonic() + 0.02)
        yield c, c.ask()


@asynccontextmanager
async def probing() -> AsyncIterator[tuple[Calls, Coroutine[Any, Any, Reply]]]:
    rules = BreakerSettings(failures=1, successes=1, open_seconds=0.01)
    async with calls("only", breaker=rules, router=RouterSettings(retries=0)) as c:
        c.servers["only"].script(CHAT, ScriptedStep(status=500))
        with pytest.raises(errors.AllProvidersExhausted):
            await c.ask()
        c.rows.clear()
        await asyncio.sleep(c.slots["only"].breaker.open_for)
        c.servers["only"].script(CHAT, ScriptedStep(gap=0.002))
        yield c, c.ask(stream=True)


@asynccontextmanager
async def looking_for_a_larger_context() -> AsyncIterator[tuple[Calls, Coroutine[Any, Any, Reply]]]:
    async with calls("first", "second") as c:
        body = b'{"error":{"message":"maximum context length is 10","code":"context_length_exceeded"}}'
        listed = b'{"object":"list","data":[{"id":"scripted-1","object":"model","context_length":100000}]}'
        c.servers["first"].script(CHAT, ScriptedStep(status=400, body=body))
        c.servers["second"].script("/v1/models", ScriptedStep(body=listed))
        yield c, c.ask()


@pytest.mark.parametrize(
    "scenario",
    [plain, streaming, retrying, choosing_a_model, in_line, cooling, probing, looking_for_a_larger_context],
)
async def test_a_call_cancelled_at_any_await_leaves_no_reservation_no_connection_and_no_task(
    scenario: Callable[[], AbstractAsyncContextManager[tuple[Calls, Coroutine[Any, Any, Reply]]]],
) -> None:
    outcomes = []
    for n in range(1, MOST_SUSPENSIONS):
        async with scenario() as (c, call):
            driven = CancelAt(call, n)
            task = asyncio.create_task(_await(driven))
            await asyncio.wait((task,), timeout=10)
            assert task.done(), f"it went on after being cancelled at suspension {n}"
            if not task.cancelled():
                assert task.exception() is None, f"cancelled at {n}: {task.exception()!r}"
            outcome = c.operation.outcome
            outcomes.append(outcome)
            assert (outcome == "cancelled") == task.cancelled(), n
            check_rows(c, 1)
            if task.cancelled():
                assert not c.attempts or c.attempts[-1].outcome in ("cancelled", "error"), n
                assert not c.errors
            await _check_nothing_left(c, n)
            if driven.suspensions < n:
                break
    assert outcomes[-1] == "ok"
    assert outcomes.count("cancelled") == len(outcomes) - 1 > 1


async def _await(driven: CancelAt) -> Reply:
    return await driven


async def _check_nothing_left(c: Calls, n: int) -> None:
    assert not c.running
    assert c.limiter.waiting == 0
    assert not any(slot.breaker.is_probing for slot in c.slots.values()), n
    # by type(): isinstance() asks a weak proxy that another test left for what it stands for, which is gone
    held = [each for each in gc.get_objects() if type(each) is Reservation]
    mine = [each for each in held if each._limiter is c.limiter._own]
    still = [each for each in mine if " open" in repr(each)]
    assert not still, (n, still)
    # A cancelled request has hung up; one that was answered has given its connection back. The provider sees it.
    async with asyncio.timeout(5):
        while _others():  # noqa: ASYNC110 (another task's end has no event)
            await asyncio.sleep(0.001)
    assert all(server.connections <= 1 for server in c.servers.values()), n


def _others() -> list[asyncio.Task[Any]]:
    """Tasks besides the test's own: of calls, and of a provider whose client has not gone."""
    tests_own = ("anyio", "TestRunner")
    return [
        task
        for task in asyncio.all_tasks()
        if task is not asyncio.current_task() and not any(word in repr(task.get_coro()) for word in tests_own)
    ]
