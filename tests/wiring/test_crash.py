"""`kill -9` of the daemon and of the store worker under load: what was answered is in the history, exactly once.

The moments are random but drawn from a fixed seed; a failing seed is in the test's name and can be run again.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import os
import random
import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

import tundra_nb
from tests.conftest import Home, wait_until
from tundra_nb.client.aio import AsyncClient
from tundra_nb.errors import IpcError, TundraError
from tundra_nb.testing.scripted_provider import ScriptedProcess, ScriptedStep, scripted_process
from tundra_nb.types import Reply

pytestmark = [pytest.mark.part("doltlite"), pytest.mark.anyio]

CALLERS = 32
ANSWERED = 200
"""Answers that clients hold before each kill."""
ROUNDS = 5
RANDOM_SECONDS = 0.25
"""The kill comes at a random moment within so long after that."""
SETTINGS = """
[limits.global]
enabled = false
[router]
backoff_seconds = 0.01
retries = 9
[breaker]
failures = 1000
[[profile]]
name = "scripted"
kind = "openai"
base_url = "{base_url}"
model = "scripted-1"
"""


@dataclasses.dataclass
class Traffic:
    """Callers that ask without pause, and what they were told."""

    client: AsyncClient
    answered: list[Reply] = dataclasses.field(default_factory=list)
    failed: list[TundraError] = dataclasses.field(default_factory=list)
    is_over: bool = False

    async def caller(self, number: int) -> None:
        for turn in itertools.count():
            if self.is_over:
                return
            try:
                self.answered.append(await self.ask(f"{number}.{turn}", stream=turn % 2 == 1))
            except TundraError as error:
                self.failed.append(error)
                return

    async def ask(self, text: str, *, stream: bool) -> Reply:
        if not stream:
            return await self.client.ask(text)
        pieces = self.client.ask(text, stream=True)
        async for _ in pieces:
            pass
        return pieces.reply

    async def until_answered(self, count: int) -> None:
        async with asyncio.timeout(30):
            while len(self.answered) < count:
                assert not self.failed, self.failed[0]
                await asyncio.sleep(0.002)


@pytest.fixture
def provider() -> Iterator[ScriptedProcess]:
    """Answers after a few milliseconds, so that calls are always under way; one request in ten fails and is retried."""
    with scripted_process(delay=0.005) as running:
        bad = ScriptedStep(status=500, text="scripted failure")
        running.script("*", *(ScriptedStep(delay=0.005, repeat=9), bad) * 300)
        yield running


async def rows(client: AsyncClient) -> tuple[list[dict[Any, Any]], dict[str, list[dict[Any, Any]]]]:
    """All operations, and the attempts by operation."""
    calls: list[dict[Any, Any]] = (await client.calls(since="all")).to_dict("records")
    attempts: dict[str, list[dict[Any, Any]]] = {}
    for attempt in (await client.attempts(since="all")).to_dict("records"):
        attempts.setdefault(str(attempt["operation_id"]), []).append(attempt)
    return calls, attempts


def check(calls: list[dict[Any, Any]], attempts: dict[str, list[dict[Any, Any]]], answered: list[Reply]) -> None:
    """Everything that the history promises about calls which clients hold, or do not hold, an answer of."""
    times = Counter(str(call["operation_id"]) for call in calls)
    assert not [key for key, count in times.items() if count > 1], "no operation is stored twice"
    assert not {reply.operation_id for reply in answered} - set(times), "no answered operation is lost"
    by_id = {str(call["operation_id"]): call for call in calls}
    assert set(attempts) <= set(by_id), "no attempt is left without its operation"
    for reply in answered:
        call = by_id[reply.operation_id]
        assert (call["outcome"], call["attempts"]) == ("ok", reply.attempts)
    for key, call in by_id.items():
        tries = sorted(attempts.get(key, []), key=lambda attempt: attempt["seq"])
        assert [attempt["seq"] for attempt in tries] == list(range(1, call["attempts"] + 1)), call
        if call["outcome"] == "ok":
            assert [attempt["outcome"] for attempt in tries] == ["error"] * (len(tries) - 1) + ["ok"]
        else:
            assert call["outcome"] == "interrupted"
            assert {attempt["outcome"] for attempt in tries} <= {"error", "interrupted", "ok"}


@pytest.mark.parametrize("seed", [20261124])
async def test_what_a_client_was_told_survives_kill_9_of_the_daemon(
    home: Home, provider: ScriptedProcess, seed: int
) -> None:
    home.write_settings(SETTINGS.format(base_url=provider.base_url))
    moments = random.Random(seed)
    answered: list[Reply] = []
    for _ in range(ROUNDS):
        async with tundra_nb.connect_async() as client:
            pid = int((await client.status())["pid"])
            traffic = Traffic(client)
            async with asyncio.TaskGroup() as group:
                callers = [group.create_task(traffic.caller(number)) for number in range(CALLERS)]
                await traffic.until_answered(ANSWERED)
                await asyncio.sleep(moments.random() * RANDOM_SECONDS)
                os.kill(pid, signal.SIGKILL)
                traffic.is_over = True
                await asyncio.wait(callers, timeout=20)
            assert traffic.failed, "some were under way"
            assert all(isinstance(error, IpcError) for error in traffic.failed), traffic.failed
            answered += traffic.answered
    async with tundra_nb.connect_async() as client:
        calls, attempts = await rows(client)
    check(calls, attempts, answered)
    unanswered = len(calls) - len(answered)
    interrupted = sum(call["outcome"] == "interrupted" for call in calls)
    assert 0 < interrupted <= unanswered <= ROUNDS * CALLERS
    assert provider.stats["served"] <= sum(map(len, attempts.values())), "every request sent has its attempt"


@pytest.mark.parametrize("seed", [20261125])
async def test_calls_never_notice_kill_9_of_the_store_worker(home: Home, provider: ScriptedProcess, seed: int) -> None:
    home.write_settings(SETTINGS.format(base_url=provider.base_url))
    moments = random.Random(seed)
    async with tundra_nb.connect_async() as client:
        pid = int((await client.status())["pid"])
        traffic = Traffic(client)
        async with asyncio.TaskGroup() as group:
            for number in range(CALLERS):
                group.create_task(traffic.caller(number))
            for _ in range(ROUNDS):
                await traffic.until_answered(len(traffic.answered) + ANSWERED)
                await asyncio.sleep(moments.random() * RANDOM_SECONDS)
                worker = await asyncio.to_thread(wait_until, lambda: worker_of(pid), 20, "a store worker lives")
                worker.kill()
            traffic.is_over = True
        assert not traffic.failed
        await asyncio.to_thread(wait_until, lambda: worker_of(pid), 20, "a store worker lives")
        for _ in range(400):
            if (await client.status())["store"]["state"] == "ready":
                break
            await asyncio.sleep(0.05)
        calls, attempts = await rows(client)
        assert (await client.status())["store"]["restarts"] == ROUNDS
    check(calls, attempts, traffic.answered)
    assert len(calls) == len(traffic.answered)
    assert provider.stats["served"] == sum(map(len, attempts.values()))


def worker_of(pid: int) -> psutil.Process | None:
    """The living store worker of a daemon, if there is one just now."""
    for process in psutil.Process(pid).children(recursive=True):
        try:
            is_worker = "tundra_nb.runtime.history.worker" in process.cmdline()
            if is_worker and process.status() != psutil.STATUS_ZOMBIE:
                return process
        except psutil.Error:
            continue
    return None
