"""Long rounds of bad luck under load, on both engines: what was answered is in the history, exactly once.

`make soak`. Each test ends with the same reckoning (`test_crash.check`), and with what `status` says of it.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import datetime as dt
import functools
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import tundra_nb
from tests.conftest import Home, stop_processes, wait_until
from tests.wiring.test_crash import CALLERS, SETTINGS, Traffic, worker_of
from tests.wiring.test_versions import ENGINES, free_port, section
from tundra_nb.client.aio import AsyncClient
from tundra_nb.errors import TundraError
from tundra_nb.local import dolt_server
from tundra_nb.paths import find
from tundra_nb.settings import StoreSettings
from tundra_nb.testing.scripted_provider import ScriptedProcess, ScriptedStep, scripted_process
from tundra_nb.types import Reply

pytestmark = [pytest.mark.soak, pytest.mark.anyio, pytest.mark.timeout(3600)]

ROUNDS = int(os.environ.get("SOAK_ROUNDS", "20"))
ANSWERED = 100
"""Answers that clients hold before each blow, and after it where callers must not notice."""
RANDOM_SECONDS = 0.25
CATCH_UP_SECONDS = 120.0
DAY_SECONDS = 86_400
SEED = 20261129
DISK_MB = {"doltlite": 16, "dolt": 200}


@pytest.fixture
def provider() -> Iterator[ScriptedProcess]:
    """One request in ten fails and is asked again: nine times, for one call in 100,000 meets five of them in a row."""
    with scripted_process(delay=0.005) as running:
        bad = ScriptedStep(status=500, text="scripted failure")
        running.script("*", *(ScriptedStep(delay=0.005, repeat=9), bad) * 2000)
        yield running


class Place:
    """A home on one engine, whose Dolt server can be started and killed."""

    def __init__(self, home: Home, engine: str) -> None:
        self.home = home
        self.store = StoreSettings(engine="dolt", port=free_port()) if engine == "dolt" else None
        self.answered: list[Reply] = []
        self.failed: list[TundraError] = []

    def start_dolt(self) -> None:
        if self.store is not None:
            dolt_server.start(find(self.home.data_dir), self.store)

    def dolt(self) -> psutil.Process:
        assert self.store is not None
        pid = dolt_server.status(find(self.home.data_dir), self.store).pid
        assert pid is not None
        return psutil.Process(pid)

    def write_settings(self, provider: ScriptedProcess) -> None:
        store = section(self.store) if self.store is not None else ""
        self.home.write_settings(store + SETTINGS.format(base_url=provider.base_url))

    @contextlib.asynccontextmanager
    async def traffic(self) -> AsyncIterator[Traffic]:
        """32 callers until the block ends; then everybody has been answered or refused."""
        async with tundra_nb.connect_async() as client:
            traffic = Traffic(client)
            async with asyncio.TaskGroup() as group:
                callers = [group.create_task(traffic.caller(number)) for number in range(CALLERS)]
                try:
                    yield traffic
                finally:
                    traffic.is_over = True
                    await asyncio.wait(callers, timeout=60)
            self.answered += traffic.answered
            self.failed += traffic.failed

    async def reckon(self, outcomes: set[str]) -> dict[str, Any]:
        """0 lost, 0 doubled, and no attempt without its operation; returns the status."""
        async with tundra_nb.connect_async() as client:
            await caught_up(client)
            calls = (await client.calls(since="all")).to_dict("records")
            attempts = (await client.attempts(since="all")).to_dict("records")
            status = dict(await client.status())
        times = collections.Counter(str(call["operation_id"]) for call in calls)
        doubled = [key for key, count in times.items() if count > 1]
        lost = {reply.operation_id for reply in self.answered} - set(times)
        print(f"{len(calls):,} calls, {len(self.answered):,} answered, {len(lost)} lost, {len(doubled)} doubled")
        print(collections.Counter(call["outcome"] for call in calls))
        assert (lost, doubled) == (set(), [])
        by_id = {str(call["operation_id"]): call for call in calls}
        tries: dict[str, list[int]] = {}
        for attempt in attempts:
            tries.setdefault(str(attempt["operation_id"]), []).append(attempt["seq"])
        assert set(tries) <= set(by_id), "no attempt is left without its operation"
        wrong = {
            key: call for key, call in by_id.items() if sorted(tries.get(key, [])) != [*range(1, call["attempts"] + 1)]
        }
        assert wrong == {}
        assert {by_id[reply.operation_id]["outcome"] for reply in self.answered} == {"ok"}
        assert set(collections.Counter(call["outcome"] for call in calls)) <= outcomes
        return status


async def caught_up(client: AsyncClient) -> dict[str, Any]:
    """Wait until everything is in the store."""
    async with asyncio.timeout(CATCH_UP_SECONDS):
        while True:
            status = await client.status()
            store = status["store"]
            if store["state"] == "ready" and not store["is_behind"] and store.get("error") is None:
                return dict(status)
            await asyncio.sleep(0.2)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def place(home: Home, engine: str, provider: ScriptedProcess) -> Iterator[Place]:
    made = Place(home, engine)
    made.start_dolt()
    made.write_settings(provider)
    yield made
    stop_processes(home)
    if made.store is not None:
        dolt_server.stop(find(home.data_dir))


def guard_of(pid: int) -> psutil.Process:
    guard = psutil.Process(pid).parent()
    assert guard is not None
    return guard


async def found(condition: Callable[[], Any], what: str) -> Any:
    return await asyncio.to_thread(wait_until, condition, 30, what)


async def test_rounds_of_kill_9(place: Place) -> None:
    """The daemon, its guard, the store worker and the Dolt server in turn, each at a random moment under 32 callers."""
    moments = random.Random(SEED)
    for _ in range(ROUNDS):
        for victim in ("worker", "dolt", "daemon", "guard"):
            if victim == "dolt" and place.store is None:
                continue
            before = len(place.failed)
            async with place.traffic() as traffic:
                pid = int((await traffic.client.status())["pid"])
                await traffic.until_answered(ANSWERED)
                await asyncio.sleep(moments.random() * RANDOM_SECONDS)
                match victim:
                    case "daemon":
                        os.kill(pid, signal.SIGKILL)
                    case "guard":
                        guard = psutil.Process(pid).parent()
                        assert guard is not None
                        guard.kill()
                        await found(functools.partial(is_gone, pid), "the daemon stops without its guard")
                    case "worker":
                        (await found(functools.partial(worker_of, pid), "a store worker lives")).kill()
                    case "dolt":
                        place.dolt().kill()
                if victim in ("worker", "dolt"):
                    await traffic.until_answered(len(traffic.answered) + ANSWERED)
                if victim == "dolt":
                    await asyncio.to_thread(place.start_dolt)
            async with tundra_nb.connect_async() as client:
                status = await caught_up(client)
            over = {row["what"]: row["message"] for row in status["over"]}
            match victim:  # `status` says what happened
                case "worker":
                    assert "SIGKILL" in status["store"]["last_end"]
                case "dolt":
                    assert "database" in over
                case _:
                    assert f"(pid {pid}) did not stop in order" in over["predecessor"]
            if victim in ("worker", "dolt"):
                assert place.failed[before:] == [], f"nobody notices the end of the {victim}"
    await place.reckon({"ok", "interrupted", "cancelled", "error"})


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid)


@pytest.fixture
def small_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, provider: ScriptedProcess
) -> Iterator[Place]:
    """A place whose data directory is a small file system."""
    folder = tmp_path / "small"
    folder.mkdir()
    size = f"size={DISK_MB[engine]}m"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    monkeypatch.setenv("TUNDRA_DATA_DIR", str(folder / "data"))
    monkeypatch.setenv("TUNDRA_CONFIG", str(tmp_path / "tundra.toml"))
    made = Place(Home(tmp_path, dict(os.environ)), engine)
    try:
        made.start_dolt()
        made.write_settings(provider)
        yield made
        stop_processes(made.home)
    finally:
        if made.store is not None:
            dolt_server.stop(find(made.home.data_dir))
        subprocess.run(["umount", "-l", str(folder)], check=True)


def has_failed(traffic: Traffic, count: int) -> bool:
    return len(traffic.failed) >= count


def fill(folder: Path) -> Path:
    """Take all that is left of a file system."""
    file = folder / "fill"
    with file.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(b"x" * 65536)
    return file


async def test_a_disk_that_is_full_again_and_again(small_place: Place) -> None:
    """Refused while it is full, goes on by itself when it is not, and nothing that was answered is missing."""
    place = small_place
    for _ in range(max(ROUNDS // 4, 2)):
        async with place.traffic() as traffic:
            await traffic.until_answered(ANSWERED)
            filling = await asyncio.to_thread(fill, place.home.data_dir.parent)
            await found(functools.partial(has_failed, traffic, CALLERS), "every caller is refused")
        assert not [error.to_wire() for error in place.failed if error.code != "StoreUnavailable"]
        filling.unlink()
        async with tundra_nb.connect_async() as client:
            await client.ask("one more")
            await caught_up(client)  # a Dolt server that gave up, or says so for good, is started anew
    status = await place.reckon({"ok", "error", "interrupted", "refused"})
    assert any("no space left" in row["message"] for row in status["over"]), status["over"]


OFFSET = """
import time
FILE = {file!r}
real, real_ns = time.time, time.time_ns
def offset():
    try:
        return int(open(FILE).read() or 0)
    except OSError:
        return 0
time.time = lambda: real() + offset()
time.time_ns = lambda: real_ns() + offset() * 10**9
"""


async def test_a_clock_that_is_a_day_ahead_then_a_day_behind(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon's wall clock is set under load, and across restarts: by a module that its Python loads first.

    Worker and client keep the true time. libfaketime would shift all, but makes `time.sleep` fail (0.9.10).
    """
    patch, file = tmp_path / "patch", tmp_path / "offset"
    patch.mkdir()
    (patch / "sitecustomize.py").write_text(OFFSET.format(file=str(file)))
    monkeypatch.setenv("PYTHONPATH", str(patch))
    for offset in (0, DAY_SECONDS, 0, -DAY_SECONDS, 0, DAY_SECONDS, -DAY_SECONDS, 0):
        async with place.traffic() as traffic:
            await traffic.until_answered(ANSWERED)
            await asyncio.to_thread(file.write_text, str(offset))
            await traffic.until_answered(len(traffic.answered) + ANSWERED)
        assert place.failed == []
        stop = [sys.executable, "-m", "tundra_nb.cli", "daemon", "stop"]
        await asyncio.to_thread(subprocess.run, stop, env=place.home.env, check=True, capture_output=True)
        await asyncio.to_thread(subprocess.run, [*stop[:-1], "start"], env=os.environ, check=True, capture_output=True)
    await place.reckon({"ok"})
    now, half = dt.datetime.now(dt.UTC), dt.timedelta(days=0.5)
    async with tundra_nb.connect_async() as client:
        whole = await client.calls(since="all")
        for middle in (now - 2 * half, now, now + 2 * half):
            window = await client.calls(between=(middle - half, middle + half))
            within = whole[(whole["at"] >= middle - half) & (whole["at"] < middle + half)]
            assert len(within) >= ANSWERED
            assert set(window["operation_id"]) == set(within["operation_id"]), f"around {middle}"


async def test_many_callers_and_few_descriptors(place: Place, provider: ScriptedProcess) -> None:
    """64 callers with a connection each, and 60 descriptors: an answer, or a refusal that names the limit."""
    start = f"ulimit -n 60; exec {sys.executable} -m tundra_nb.cli daemon start"
    await asyncio.to_thread(subprocess.run, ["bash", "-c", start], env=place.home.env, check=True, capture_output=True)
    refused: list[TundraError] = []

    async def caller() -> None:
        for _ in range(ROUNDS):
            try:
                async with tundra_nb.connect_async(start=False) as client:
                    place.answered.append(await client.ask("hi"))
            except TundraError as error:
                refused.append(error)

    async with asyncio.TaskGroup() as group:
        for _ in range(64):
            group.create_task(caller())
    assert {(error.code, error.reason) for error in refused} <= {("IpcError", "descriptors")}
    assert len(place.answered) > ROUNDS
    await place.reckon({"ok", "cancelled", "error"})  # of callers that went away
