"""Terminals: ours beside terminado, pexpect, ptyprocess and a bare `os.read` loop, in the same run.

    python -m tests.benchmarks ptys

Goals: spawn at most 1.5 ms whatever the size of the process, at least 50 MB/s into ring and transcript, an echo within
0.4 ms (p50) and 1 ms (p99), no stall of others above 5 ms, 500 sessions.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import pty as stdlib_pty
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pexpect
import psutil
import ptyprocess
import uvloop

from tests.benchmarks.table import Table
from tundra_nb.runtime.clock import Ids, SystemClock
from tundra_nb.runtime.ptys import processes
from tundra_nb.runtime.ptys.pool import PtyPool
from tundra_nb.runtime.ptys.pty import Pty
from tundra_nb.settings import PtySettings

SPAWNS = 40
ECHOES = 300
FLOODS = 10
BULK_MB = 100
SESSIONS = 500
PROCESSES = 500
"""In one session."""
ROUNDS = 3
BULK = f"head -c {BULK_MB}000000 /dev/zero"
CAT = ["sh", "-c", "stty raw -echo; echo up; exec cat"]


class Rows(Table):
    """One row per peer with the ratio to it, and one for an absolute goal."""

    def row(self, what: str, ours: float, goal: str = "", **peers: float) -> None:
        for peer, theirs in peers.items():
            self.add(f"{what}: {peer}", theirs, ours, ours / theirs)
        if goal or not peers:
            sign, _, number = goal.partition(" ")
            wanted = float(number or ours)
            self.add(f"{what}{': goal' if goal else ''}", wanted, ours, ours / wanted, f"{sign} 1" if goal else "")


@asynccontextmanager
async def opened(capacity: int = 600) -> AsyncIterator[PtyPool]:
    clock = SystemClock()
    with tempfile.TemporaryDirectory() as folder:
        pool = PtyPool(
            PtySettings(capacity=capacity),
            Path(folder),
            ids=Ids(clock),
            clock=clock,
            on_event=lambda _: None,
            secrets=lambda: {"API_KEY": "sk-ant-api03-0123456789abcdef0123456789abcdef"},
            key_variables=lambda: (),
            environ=dict(os.environ),
            adopter=os.getpid(),
        )
        async with pool:
            yield pool


def quantiles(times: list[float]) -> tuple[float, float]:
    """Median and 99th percentile, in milliseconds."""
    return statistics.median(times) * 1e3, statistics.quantiles(times, n=100)[98] * 1e3


# --- spawn ----------------------------------------------------------------------------------------------------------


def spawned_by(make: Callable[[], Any], close: Callable[[Any], None]) -> float:
    times = []
    for _ in range(SPAWNS // 2):
        started = time.perf_counter()
        made = make()
        times.append(time.perf_counter() - started)
        close(made)
    return statistics.median(times) * 1e3


def end_ptyprocess(child: Any) -> None:
    """At once: `close` would wait for 100 ms."""
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(child.pid, 9)
        os.waitpid(child.pid, 0)
    child.fileobj.close()
    child.closed = child.terminated = True


def end_pexpect(child: Any) -> None:
    end_ptyprocess(child.ptyproc)
    child.closed = child.terminated = True


async def spawned_by_us(pool: PtyPool) -> float:
    times, ptys = [], []
    for _ in range(SPAWNS):
        started = time.perf_counter()
        ptys.append(await pool.spawn(["sleep", "60"]))
        times.append(time.perf_counter() - started)
    await asyncio.gather(*(pool.release(pty.id) for pty in ptys))
    return statistics.median(times) * 1e3


async def spawn_row(table: Rows, label: str) -> None:
    # The peers first and without a pool: its sweep would reap their children.
    theirs = spawned_by(lambda: pexpect.spawn("sleep", ["60"]), end_pexpect)
    plain = spawned_by(lambda: ptyprocess.PtyProcess.spawn(["sleep", "60"]), end_ptyprocess)
    async with opened() as pool:
        ours = await spawned_by_us(pool)
    table.row(f"spawn, {label}, ms", ours, "≤ 1.5", ptyprocess=plain, pexpect=theirs)


# --- echo -------------------------------------------------------------------------------------------------------------


async def echo(pty: Pty) -> tuple[float, float]:
    viewer = pty.viewer()
    await viewer.read()
    times = []
    for _ in range(ECHOES):
        started = time.perf_counter()
        await pty.write(b"x")
        await viewer.read()
        times.append(time.perf_counter() - started)
        await asyncio.sleep(0.001)
    return quantiles(times)


def raw_echo() -> tuple[float, float]:
    pid, master = stdlib_pty.fork()
    if pid == 0:
        os.execvp(CAT[0], CAT)
    os.read(master, 100)
    times = []
    for _ in range(ECHOES):
        started = time.perf_counter()
        os.write(master, b"x")
        os.read(master, 100)
        times.append(time.perf_counter() - started)
        time.sleep(0.001)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    os.close(master)
    return quantiles(times)


async def lag(stop: asyncio.Event, times: list[float]) -> None:
    """How late a timer of one millisecond fires."""
    while not stop.is_set():
        started = time.perf_counter()
        await asyncio.sleep(0.001)
        times.append(time.perf_counter() - started - 0.001)


async def echo_rows(table: Rows) -> None:
    raw = raw_echo()
    terminado = await terminado_echo()
    async with opened() as pool:
        idle = await echo(await pool.spawn(CAT))
        floods = [await pool.spawn("cat /dev/zero") for _ in range(FLOODS)]
        stop, late = asyncio.Event(), list[float]()
        watching = asyncio.create_task(lag(stop, late))
        busy = await echo(await pool.spawn(CAT))
        stop.set()
        await watching
        shares = [flood.end for flood in floods]
    for number, (name, echo_goal, lag_goal) in enumerate((("p50", "≤ 0.4", ""), ("p99", "≤ 1", "≤ 5"))):
        table.row(f"echo {name}, ms", idle[number], echo_goal, os_read=raw[number], terminado=terminado[number])
        table.row(f"echo beside {FLOODS} floods {name}, ms", busy[number])
        table.row(f"loop lag beside {FLOODS} floods {name}, ms", quantiles(late)[number], lag_goal)
    table.row(f"largest share of {FLOODS} floods / smallest", max(shares) / min(shares))


class Client:
    """What terminado calls a client: gets each piece of output."""

    def __init__(self) -> None:
        self.got = asyncio.Event()
        self.bytes = 0
        self.size = (None, None)

    def on_pty_read(self, text: str) -> None:
        self.bytes += len(text)
        self.got.set()

    def on_pty_died(self) -> None:
        self.got.set()


def terminado_terminal(argv: list[str]) -> tuple[Any, Client]:
    from terminado import UniqueTermManager  # type: ignore[attr-defined]

    manager = UniqueTermManager(shell_command=argv)
    terminal = manager.new_terminal()
    manager.start_reading(terminal)
    client = Client()
    terminal.clients.append(client)
    return terminal, client


def end_terminado(terminal: Any) -> None:
    from tornado.ioloop import IOLoop

    IOLoop.current().remove_handler(terminal.ptyproc.fd)
    end_ptyprocess(terminal.ptyproc)


async def terminado_echo() -> tuple[float, float]:
    terminal, client = terminado_terminal(CAT)
    await client.got.wait()
    times = []
    for _ in range(ECHOES):
        client.got.clear()
        started = time.perf_counter()
        terminal.ptyproc.write("x")
        await client.got.wait()
        times.append(time.perf_counter() - started)
        await asyncio.sleep(0.001)
    end_terminado(terminal)
    return quantiles(times)


# --- bulk -------------------------------------------------------------------------------------------------------------


def raw_bulk() -> float:
    pid, master = stdlib_pty.fork()
    if pid == 0:
        os.execvp("sh", ["sh", "-c", BULK])
    started = time.perf_counter()
    try:
        while os.read(master, 65536):
            pass
    except OSError:
        pass
    seconds = time.perf_counter() - started
    os.waitpid(pid, 0)
    os.close(master)
    return BULK_MB / seconds


def pexpect_bulk() -> float:
    """A tenth of it: it is slow."""
    child = pexpect.spawn("sh", ["-c", BULK.replace("00000 ", "0000 ")], timeout=60)
    started = time.perf_counter()
    child.read()
    seconds = time.perf_counter() - started
    end_pexpect(child)
    return BULK_MB / 10 / seconds


async def terminado_bulk() -> float:
    terminal, client = terminado_terminal(["sh", "-c", BULK])
    started = time.perf_counter()
    while client.bytes < BULK_MB * 1_000_000:
        client.got.clear()
        await asyncio.wait_for(client.got.wait(), 30)
    seconds = time.perf_counter() - started
    end_terminado(terminal)
    return BULK_MB / seconds


async def bulk_row(table: Rows) -> None:
    raw, theirs, terminado = raw_bulk(), pexpect_bulk(), await terminado_bulk()
    async with opened() as pool:
        started = time.perf_counter()
        pty = await pool.spawn(BULK)
        await pty.wait(60)
        ours = BULK_MB / (time.perf_counter() - started)
    table.row(f"{BULK_MB} MB of output, MB/s", ours, "≥ 90", os_read=raw, terminado=terminado, pexpect=theirs)


# --- many -------------------------------------------------------------------------------------------------------------


async def many_rows(table: Rows) -> None:
    own = psutil.Process()
    async with opened() as pool:
        before = own.memory_info().rss
        ptys = [await pool.spawn(["sleep", "60"]) for _ in range(100)]
        await asyncio.sleep(0.1)
        table.row("memory for 100 sessions, MB", (own.memory_info().rss - before) / 1e6)
        await asyncio.gather(*(pool.release(pty.id) for pty in ptys))
    async with opened() as pool:
        stop, late = asyncio.Event(), list[float]()
        watching = asyncio.create_task(lag(stop, late))
        started = time.perf_counter()
        ptys = []
        for _ in range(SESSIONS):
            ptys.append(await pool.spawn(["sleep", "60"]))
            await asyncio.sleep(0)
        opened_after = time.perf_counter() - started
        started = time.perf_counter()
        await asyncio.gather(*(pool.release(pty.id) for pty in ptys))
        closed_after = time.perf_counter() - started
        stop.set()
        await watching
    table.row(f"{SESSIONS} sessions opened, s", opened_after)
    table.row(f"{SESSIONS} sessions closed at once, s", closed_after)
    table.row("loop lag meanwhile p99, ms", quantiles(late)[1], "≤ 5")


async def release_row(table: Rows) -> None:
    """A session of many processes is released; how long the loop stands at a time, and how much of that it works."""
    command = f"i=1; while [ $i -lt {PROCESSES} ]; do sleep 60 & i=$((i+1)); done; wait"
    stands, worked = [], []
    for _ in range(ROUNDS):
        async with opened() as pool:
            pty = await pool.spawn(["sh", "-c", command])
            while len(psutil.Process().children(recursive=True)) < PROCESSES:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.1)
            stop, late, own = asyncio.Event(), list[float](), list[float]()
            watching = asyncio.gather(lag(stop, late), work_between_timers(stop, own))
            await pool.release(pty.id)
            stop.set()
            await watching
            stands.append(max(late) * 1000)
            worked.append(max(own) * 1000)
    table.row(f"release of {PROCESSES} processes: longest stand of the loop, ms", statistics.median(stands), "≤ 5")
    table.row("  most that the loop itself works at a time, ms of CPU", statistics.median(worked))


async def work_between_timers(stop: asyncio.Event, times: list[float]) -> None:
    """CPU time of this thread between two timers of one millisecond: what is left of a stand on an idle machine."""
    while not stop.is_set():
        started = time.thread_time()
        await asyncio.sleep(0.001)
        times.append(time.thread_time() - started)


async def measure(table: Rows) -> None:
    await spawn_row(table, "small process")
    await echo_rows(table)
    await bulk_row(table)
    await many_rows(table)
    await release_row(table)
    ballast = bytearray(os.urandom(1 << 20) * 1024)
    await spawn_row(table, "1 GiB process")
    del ballast


def main() -> None:
    processes.become_subreaper()
    gc.freeze()  # as the daemon does once it is ready
    table = Rows("Terminals (ours / peer; for a goal: ours / goal)")
    uvloop.run(measure(table))
    print(table)


if __name__ == "__main__":
    main()
