"""What a runtime knows again after it was killed: open breakers and parked profiles, read back from the history."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tundra_nb import errors, paths, settings
from tundra_nb.runtime.history.query import FrameQuery
from tundra_nb.runtime.runtime import Runtime
from tundra_nb.runtime.telemetry.redact import Redactor
from tundra_nb.testing.scripted_provider import ScriptedProvider, ScriptedStep
from tundra_nb.types import Ask

pytestmark = [pytest.mark.anyio, pytest.mark.part("doltlite")]

CHAT = "/v1/chat/completions"
ASK = Ask(messages=[{"role": "user", "content": "hi"}])
TOML = """
[router]
retries = 0
[breaker]
failures = 2
open_seconds = {open_seconds}
[[profile]]
name = "first"
kind = "local"
base_url = "{first}"
model = "{model}"
[[profile]]
name = "second"
kind = "local"
base_url = "{second}"
model = "scripted-1"
priority = 1
"""


class Place:
    """A data directory that runtimes follow each other in."""

    def __init__(self, folder: Path, first: ScriptedProvider, second: ScriptedProvider) -> None:
        self.folder = folder
        self.first = first
        self.second = second
        self.write()

    def write(self, open_seconds: float = 30.0, model: str = "scripted-1") -> None:
        text = TOML.format(
            open_seconds=open_seconds, model=model, first=self.first.base_url, second=self.second.base_url
        )
        (self.folder / "tundra.toml").write_text(text)

    @contextlib.asynccontextmanager
    async def runtime(self) -> AsyncIterator[Runtime]:
        environ = {"TUNDRA_DATA_DIR": str(self.folder / "data")}
        loaded = settings.load(self.folder / "tundra.toml", environ)
        found = paths.find(self.folder / "data", environ)
        async with Runtime(loaded, found, environ, redactor=Redactor()) as runtime:
            yield runtime


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with ScriptedProvider() as first, ScriptedProvider() as second:
        yield Place(tmp_path, first, second)


async def ask(runtime: Runtime, **options: Any) -> str:
    return (await runtime.operations.ask(Ask(messages=ASK.messages, **options), user="me")).profile


async def park_first(place: Place) -> None:
    place.first.script(CHAT, ScriptedStep(status=401))
    async with place.runtime() as runtime:
        assert await ask(runtime) == "second"


async def test_an_open_breaker_is_open_for_the_rest_of_its_time(place: Place) -> None:
    place.first.script(CHAT, ScriptedStep(status=500, repeat=2))
    async with place.runtime() as runtime:
        await ask(runtime)
        await ask(runtime)
        left = runtime.slots["first"].breaker.open_for
        assert left > 25
    async with place.runtime() as runtime:
        breaker = runtime.slots["first"].breaker
        assert breaker.state == "open"
        assert left - 10 < breaker.open_for < left
        assert breaker.failures == 2
        assert await ask(runtime) == "second"
        assert runtime.slots["second"].breaker.state == "closed"
    assert len(place.first.requests) == 2


async def test_an_open_period_that_ended_meanwhile_leaves_it_half_open(place: Place) -> None:
    place.write(open_seconds=0.05)
    place.first.script(CHAT, ScriptedStep(status=500, repeat=2))
    async with place.runtime() as runtime:
        await ask(runtime)
        await ask(runtime)
    await asyncio.sleep(0.05)
    async with place.runtime() as runtime:
        assert runtime.slots["first"].breaker.state == "half_open"
        assert await ask(runtime) == "first"


async def test_a_breaker_that_was_reset_stays_closed(place: Place) -> None:
    place.first.script(CHAT, ScriptedStep(status=500, repeat=2))
    async with place.runtime() as runtime:
        await ask(runtime)
        await ask(runtime)
        runtime.slots["first"].breaker.reset()
    async with place.runtime() as runtime:
        assert runtime.slots["first"].breaker.state == "closed"


async def test_a_parked_profile_is_still_parked_with_its_reason(place: Place) -> None:
    await park_first(place)
    async with place.runtime() as runtime:
        error = runtime.profiles.unavailable("first")
        assert isinstance(error, errors.KeyRejected)
        assert error.status == 401
        assert await ask(runtime) == "second"
        await runtime.profiles.recheck("first")
    async with place.runtime() as runtime:
        assert runtime.profiles.unavailable("first") is None


async def test_a_reason_that_cannot_be_read_any_more_keeps_it_parked(place: Place) -> None:
    await park_first(place)
    async with place.runtime() as runtime:
        slot = runtime.slots["first"]
        runtime.router.unpark("first")
        (row, *_) = await runtime.history.rows(FrameQuery(table="breaker_event", newest_first=True))
        runtime.profiles.take_up(slot, [row | {"message": '{"code": "[masked]}'}])
        assert isinstance(runtime.profiles.unavailable("first"), errors.Parked)


async def test_a_change_of_its_settings_takes_a_parked_profile_back_in_for_good(place: Place) -> None:
    await park_first(place)
    async with place.runtime() as runtime:
        place.write(model="scripted-2")
        runtime.in_force.apply(settings.load(runtime.loaded.file, runtime.environ))
        assert runtime.profiles.unavailable("first") is None
        rows = await runtime.history.rows(FrameQuery(table="breaker_event", newest_first=True))
        assert [(row["parked"], row["reason"]) for row in rows] == [
            (False, "settings_changed"), (True, "key_rejected"),
        ]  # fmt: skip
    async with place.runtime() as runtime:
        assert runtime.profiles.unavailable("first") is None


async def test_a_change_while_nothing_ran_takes_it_back_in_too(place: Place) -> None:
    await park_first(place)
    place.write(model="scripted-2")
    async with place.runtime() as runtime:
        assert runtime.profiles.unavailable("first") is None
        assert await ask(runtime) == "first"


async def test_a_change_of_other_settings_leaves_it_parked(place: Place) -> None:
    await park_first(place)
    async with place.runtime() as runtime:
        place.write(open_seconds=7)
        runtime.in_force.apply(settings.load(runtime.loaded.file, runtime.environ))
        assert isinstance(runtime.profiles.unavailable("first"), errors.KeyRejected)


async def test_many_moves_of_another_breaker_do_not_bury_a_parked_profile(place: Place) -> None:
    await park_first(place)
    async with place.runtime() as runtime:
        breaker = runtime.slots["second"].breaker
        for _ in range(600):
            for _ in range(2):
                breaker.admit().failure("api_error")
            breaker.reset()
    async with place.runtime() as runtime:
        assert isinstance(runtime.profiles.unavailable("first"), errors.KeyRejected)


async def test_calls_under_way_are_counted_across_a_change_of_settings(place: Place) -> None:
    place.first.script(CHAT, ScriptedStep(delay=30))
    async with place.runtime() as runtime:
        call = asyncio.create_task(ask(runtime))
        async with asyncio.timeout(5):
            while not place.first.requests:  # noqa: ASYNC110 (the server has no event)
                await asyncio.sleep(0.002)
        place.write(open_seconds=7)
        runtime.in_force.apply(settings.load(runtime.loaded.file, runtime.environ))
        assert len(runtime.running) == 1
        call.cancel()
        await asyncio.wait((call,))
        assert not runtime.running
