"""Sessions of every awkward kind come and go without leaving anything."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tundra_nb.runtime.ptys import processes
from tundra_nb.runtime.ptys.pool import PtyPool

HOPPER = """
import os, time
end = time.time() + 120  # when nobody ends it: a test run that was killed
while time.time() < end:
    if os.fork(): os._exit(0)
    os.setsid(); time.sleep(0.002)
"""
KINDS: dict[str, str | list[str]] = {
    "ends by itself": "true",
    "sleeps": "sleep 4711",
    "ignores HUP": "trap '' HUP; sleep 4711; sleep 4711",
    "ignores HUP, TERM and INT": "trap '' HUP TERM INT; while :; do sleep 1; done",
    "nohup": "nohup sleep 4711 >/dev/null 2>&1 & sleep 4711",
    "another session": "setsid sleep 4711 & sleep 4711",
    "daemonises": "(setsid sh -c 'trap \"\" HUP; sleep 4711; sleep 1' &); sleep 4711",
    "stopped": "kill -STOP $$; sleep 4711",
    "jobs": ["bash", "--norc", "-ic", "sleep 4711 & sleep 4712 & sleep 4713"],
    "floods": "yes",
    "keeps the PTY": "(trap '' HUP; sleep 4711) & exit 3",
    "hops to a new session": [sys.executable, "-S", "-c", HOPPER],
}


def remains(pool: PtyPool) -> list[int]:
    mark = pool._instance
    return [pid for pid in processes.all_pids() if processes.marker(pid).startswith(mark)]


def zombies() -> set[int]:
    found = [processes.look(pid) for pid in processes.children(os.getpid())]
    return {process.pid for process in found if process is not None and not process.is_alive}


@pytest.fixture
def left_by_others() -> set[int]:
    """Zombies that earlier tests left in this very process."""
    return zombies()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("cycles", "grace"), [(200, 0.25), pytest.param(2000, 2.0, marks=[pytest.mark.soak, pytest.mark.timeout(1200)])]
)
async def test_sessions_of_12_kinds_ten_at_a_time_leave_nothing(
    make_pool: Callable[..., PtyPool], cycles: int, grace: float, left_by_others: set[int]
) -> None:
    async with make_pool(grace=grace) as pool:
        warm = await pool.spawn("true")
        await warm.released.wait()
        before = descriptors(), threading.active_count()
        kinds = list(KINDS.values())

        async def cycle(number: int, slots: asyncio.Semaphore) -> None:
            async with slots:
                pty = await pool.spawn(kinds[number % len(kinds)])
                await asyncio.sleep(0.03 * (number % 3))
                if pty.released.is_set():
                    return
                if not pty.exited.is_set():
                    await pool.release(pty.id, "test")
                await asyncio.wait_for(pty.released.wait(), 10 + grace)

        slots = asyncio.Semaphore(10)
        await asyncio.gather(*(cycle(number, slots) for number in range(cycles)))
        assert pool.list() == []
        assert remains(pool) == []
        await pool._sweep(is_work_looked_at=False)
        assert zombies() <= left_by_others
        assert (descriptors(), threading.active_count()) == before


@pytest.mark.anyio
async def test_50_grandchildren_that_left_the_session_end_with_it(pool: PtyPool) -> None:
    pty = await pool.spawn("for i in $(seq 50); do setsid sleep 4711 & done; echo up; wait")
    await pty.viewer().read()
    await pool.release(pty.id, "test")
    assert remains(pool) == []


@pytest.mark.anyio
async def test_closing_the_pool_ends_every_session_and_reaps_it(
    make_pool: Callable[..., PtyPool], left_by_others: set[int]
) -> None:
    pool = make_pool(grace=0.2, capacity=20)
    await pool.open()
    ptys = [await pool.spawn(command) for command in KINDS.values()]
    await pool.aclose()
    await pool.aclose()
    assert all(pty.released.is_set() for pty in ptys)
    assert remains(pool) == []
    assert zombies() <= left_by_others


@pytest.mark.anyio
async def test_processes_that_outlive_their_command_are_ended_and_told(pool: PtyPool, events: list[object]) -> None:
    pty = await pool.spawn("sleep 4711 & exit 3")
    assert (await pty.wait(5)).code == 3
    await asyncio.wait_for(pty.released.wait(), 5)
    assert events.of(pty.id)[0:2] == ["started", "exited"]  # type: ignore[attr-defined]
    assert remains(pool) == []


@pytest.mark.anyio
async def test_an_ordinary_release_takes_no_grace(pool: PtyPool) -> None:
    pty = await pool.spawn("sleep 4711")
    started = time.monotonic()
    await pool.release(pty.id)
    assert time.monotonic() - started < 1.0


@pytest.mark.anyio
async def test_a_release_whose_waiter_is_cancelled_goes_on(pool: PtyPool) -> None:
    pty = await pool.spawn("sleep 4711")
    waiter = asyncio.create_task(pool.release(pty.id))
    await asyncio.sleep(0)
    waiter.cancel()
    await asyncio.wait_for(pty.released.wait(), 5)
    assert pool.list() == []


@pytest.mark.anyio
async def test_a_straggler_of_a_released_session_is_ended_by_the_sweep(pool: PtyPool, tmp_path: Path) -> None:
    # A process that appears with the mark of a session which no longer exists.
    env = {**os.environ, processes.MARKER: f"{pool._instance}/gone"}
    script = "setsid sleep 4711 >/dev/null 2>&1 & echo $!"
    done = subprocess.run(["sh", "-c", script], env=env, capture_output=True, text=True, check=True)  # noqa: ASYNC221
    straggler = int(done.stdout)
    deadline = time.monotonic() + 5
    while (process := processes.look(straggler)) is not None and process.is_alive:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
