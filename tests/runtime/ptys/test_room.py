"""Who gets a slot, who waits for one, and what the transcripts of all may take."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.runtime.ptys.conftest import until
from tundra_nb.errors import AtCapacity, UsageError
from tundra_nb.runtime.ptys import budget, processes
from tundra_nb.runtime.ptys.pool import QUEUE, PtyPool
from tundra_nb.runtime.ptys.spawn import Size
from tundra_nb.settings import PtySettings

pytestmark = pytest.mark.anyio


async def test_a_command_that_has_exited_holds_no_slot(make_pool: Callable[..., PtyPool]) -> None:
    """Although what it left is still being ended: the next command starts, and is not told of exited ones."""
    async with make_pool(capacity=1, grace=5.0) as pool:
        stubborn = "(trap '' HUP; while :; do sleep 0.1; done) & exit 0"
        for _ in range(3):
            pty = await pool.spawn(stubborn)
            await pty.exited.wait()
        assert len(pool.list()) > 1
        assert pool.running == []
        last = await pool.spawn("sleep 4711")
        with pytest.raises(AtCapacity) as refused:
            await pool.spawn("true")
        assert refused.value.holders == [f"{last.id} 'sleep 4711' for 0 s"]


async def test_whoever_waits_gets_a_slot_in_turn(make_pool: Callable[..., PtyPool]) -> None:
    """200 commands from 40 callers at once in two slots: none is refused, never more than two run."""
    async with make_pool(capacity=2) as pool:
        most = 0
        order: list[int] = []

        async def call(number: int) -> None:
            nonlocal most
            for _ in range(5):
                pty = await pool.spawn(["true"], wait=60)
                most = max(most, len(pool.running))
                await pty.exited.wait()
            order.append(number)

        await asyncio.gather(*map(call, range(40)))
        assert most <= 2
        assert len(order) == 40


async def test_waiting_has_an_end_and_a_bound(make_pool: Callable[..., PtyPool]) -> None:
    """After its time, or behind too many others, a caller is refused; one that goes away gives its turn on."""
    async with make_pool(capacity=1) as pool:
        holder = await pool.spawn("read x")
        with pytest.raises(AtCapacity, match="read x"):
            await pool.spawn("true", wait=0.05)
        waiting = [asyncio.create_task(pool.spawn(["true"], wait=30)) for _ in range(QUEUE)]
        await asyncio.sleep(0)
        with pytest.raises(AtCapacity, match=f"{QUEUE} callers wait"):
            await pool.spawn("true", wait=30)
        for task in waiting[1:]:
            task.cancel()
        await asyncio.gather(*waiting[1:], return_exceptions=True)
        await holder.write(b"\n")
        assert (await waiting[0]).command == "true"
        await (await pool.spawn(["true"], wait=5)).exited.wait()


async def test_a_closed_pool_lets_nobody_wait(make_pool: Callable[..., PtyPool]) -> None:
    pool = make_pool(capacity=1)
    await pool.open()
    await pool.spawn("sleep 4711")
    waiting = asyncio.create_task(pool.spawn("true", wait=30))
    await asyncio.sleep(0)
    await pool.aclose()
    with pytest.raises(UsageError, match="closed"):
        await waiting


async def test_the_oldest_transcripts_of_ended_sessions_go_first(make_pool: Callable[..., PtyPool]) -> None:
    """Three megabytes in all: of five ended sessions the newest remain, and the running one is whole."""
    async with make_pool() as pool:
        pool.configure(PtySettings(transcripts_mb=3.0))
        ended = []
        for _ in range(5):
            pty = await pool.spawn("head -c 1000000 /dev/zero | tr '\\0' x")
            await pty.released.wait()
            ended.append(pty)
            await until(lambda: not pool.budget.over_bytes)
        live = await pool.spawn("head -c 1500000 /dev/zero | tr '\\0' y; sleep 4711")
        await until(lambda: live.end == 1_500_000 and not pool.budget.over_bytes)
        kept = [pty.id for pty in ended if pty.transcript.exists()]
        assert kept == [pty.id for pty in ended][-len(kept) :] != []
        assert len(kept) < 3
        assert live.info().warning is None
        assert sum(path.stat().st_size for path in pool.transcripts.glob("*.out")) <= 3.2e6


async def test_a_flood_stops_at_the_budget_and_its_session_goes_on(make_pool: Callable[..., PtyPool]) -> None:
    """With nothing left to delete, its own transcript ends; it says so, and the child is not held up."""
    async with make_pool() as pool:
        pool.configure(PtySettings(transcripts_mb=1.0))
        pty = await pool.spawn("head -c 8000000 /dev/zero | tr '\\0' x; read x")
        await until(lambda: pty.end == 8_000_000)
        assert pty.end == 8_000_000
        assert "pty.transcripts_mb" in (pty.info().warning or "")
        assert pty.transcript.stat().st_size <= 3.1e6


async def test_what_a_command_says_is_kept_while_another_one_has_spent_the_budget(
    make_pool: Callable[..., PtyPool],
) -> None:
    async with make_pool() as pool:
        pool.configure(PtySettings(transcripts_mb=1.0))
        flood = await pool.spawn("yes")
        await until(lambda: flood.info().warning)
        for number in range(3):
            pty = await pool.spawn(f"echo fine {number}")
            await pty.released.wait()
            assert pty.transcript.read_bytes() == f"fine {number}\r\n".encode()
            assert pty.info().warning is None


async def test_transcripts_stop_before_the_disk_does(make_pool: Callable[..., PtyPool], tmp_path: Path) -> None:
    """With less than the reserve free, nothing is written, and what can go is named."""
    disk = os.statvfs(tmp_path)
    more_than_free = 2 * disk.f_bavail * disk.f_frsize
    kept = budget.Budget(tmp_path, lambda: 1 << 40, lambda: more_than_free, lambda: None)
    assert "store.reserve_mb" in kept.take(1, 1)
    assert kept.is_disk_short
    roomy = budget.Budget(tmp_path, lambda: 1 << 40, lambda: 0, lambda: None)
    assert roomy.take(1, 1) == ""
    assert not roomy.is_disk_short


async def test_hundreds_of_processes_are_ended_in_slices(make_pool: Callable[..., PtyPool]) -> None:
    """No single turn of the loop looks at more of them than fit into a slice."""
    async with make_pool(grace=0.2) as pool:
        pty = await pool.spawn("trap '' HUP; for i in $(seq 300); do sleep 4711 & done; wait")
        await until(lambda: len(processes.descendants([pty.pid])) == 301)
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        counting = asyncio.create_task(count())
        await pool.release(pty.id)
        counting.cancel()
        assert turns > 20
        assert processes.living([pty.pid]) == []


@pytest.mark.parametrize("size", [Size(10_000, 10_000), Size(1001, 1), Size(1, 1001), Size(600, 600), Size(0, 24)])
async def test_a_window_that_could_not_be_drawn_is_refused(pool: PtyPool, size: Size) -> None:
    with pytest.raises(UsageError, match="terminal of"):
        await pool.spawn("true", size=size)
