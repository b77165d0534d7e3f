"""Does load on the daemon get in the way of notebooks, and do reads of the history get in the way of calls?

    python -m tests.benchmarks responsive

`1+1` in a kernel while 200 calls per second run through the daemon, beside the same load straight to the provider
(goal: ratio ≤ 1.3); how late the daemon's loop is while a million rows are read (goal: p99 ≤ 5 ms).
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
from jupyter_client.manager import KernelManager

from tests.benchmarks.homes import LAG_PATH, Lag, home, lagging_daemon
from tests.benchmarks.table import Table
from tundra_nb import paths
from tundra_nb.client.sync import Client
from tundra_nb.runtime.clock import Ids, SystemClock
from tundra_nb.runtime.history.spool import Spool
from tundra_nb.testing.scripted_provider import scripted_process
from tundra_nb.types import Operation

RATE = 200.0
SETTINGS = """
[limits.global]
enabled = false
[[profile]]
name = "scripted"
kind = "openai"
base_url = "{base_url}"
model = "m"
"""
STEADY_RATE = 110.0
STEADY_SECONDS = 180.0
STEADY_MB = 0.5
"""A minute; 5 % of the worker over ten of them."""
PAUSE_SECONDS = 0.01
"""Between two cells, as of somebody who types very fast."""


@contextlib.contextmanager
def kernel(env: dict[str, str]) -> Iterator[KernelManager]:
    """A plain kernel, without the extension: somebody else's notebook."""
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(env=env)
    try:
        yield manager
    finally:
        manager.shutdown_kernel(now=True)


@contextlib.contextmanager
def load(env: dict[str, str], rate: float, where: str) -> Iterator[None]:
    """A load in a process of its own; fails when a call did."""
    command = [sys.executable, "-m", "tests.benchmarks.load", str(rate), where]
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            assert process.stdout.readline() == "begun\n"
            yield
            process.stdin.close()
            answered, failed = map(int, process.stdout.readline().split())
            assert answered > 0
            assert failed == 0, f"{failed} calls failed"
        finally:
            process.kill()


def cells(manager: KernelManager, seconds: float) -> list[float]:
    """Milliseconds of `1+1`, from the request to idle, again and again for so long."""
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=30)
        times = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            began = time.perf_counter()
            client.execute_interactive("1+1", timeout=30, output_hook=lambda _: None)
            times.append((time.perf_counter() - began) * 1000)
            time.sleep(PAUSE_SECONDS)
        return times
    finally:
        client.stop_channels()


def notebooks(rate: float = RATE, seconds: float = 4.0, rounds: int = 4) -> tuple[list[float], list[float]]:
    """Milliseconds of cells beside a direct load, and beside the same load through the daemon, in turns."""
    direct: list[float] = []
    through: list[float] = []
    with (
        scripted_process() as provider,
        home(SETTINGS.format(base_url=provider.base_url)) as env,
        lagging_daemon(env),
        kernel(env) as manager,
    ):
        cells(manager, 0.5)
        for _ in range(rounds):
            for where, times in ((provider.base_url, direct), ("daemon", through)):
                with load(env, rate, where):
                    times.extend(cells(manager, seconds))
    return direct, through


def lag(client: Client, env: dict[str, str]) -> Lag:
    """How late the daemon's loop was since this was asked for last."""
    with _connection(env) as connection:
        connection.request("GET", LAG_PATH)
        return msgspec.json.decode(connection.getresponse().read(), type=Lag)


def read_all(env: dict[str, str]) -> tuple[int, float]:
    """Read the whole frame of calls as a client does, without decoding it: bytes, and seconds."""
    began = time.perf_counter()
    with _connection(env) as connection:
        connection.request("GET", "/api/history/calls?since=all")
        response = connection.getresponse()
        assert response.status == 200, response.read()
        size = 0
        while piece := response.read(1 << 18):
            size += len(piece)
    return size, time.perf_counter() - began


@contextlib.contextmanager
def _connection(env: dict[str, str]) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("daemon", timeout=120)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(paths.find(None, env).socket))
    try:
        yield connection
    finally:
        connection.close()


def fill(env: dict[str, str], rows: int) -> None:
    """Put so many calls into the spool of a daemon that does not run yet."""
    clock = SystemClock()
    ids = Ids(clock)
    spool = Spool(Path(env["TUNDRA_DATA_DIR"]) / "spool")
    spool.open()
    for start in range(0, rows, 1000):
        now = clock.now_us()
        spool.append(
            *(
                Operation(
                    operation_id=ids.next(),
                    at=now,
                    requested_model="m",
                    profile=f"profile-{number % 7}",
                    model=f"model-{number % 11}",
                    outcome="ok",
                    attempts=1,
                    latency_ms=number * 0.1,
                    input_tokens=number,
                    output_tokens=number // 2,
                    cost_usd=number * 1e-6,
                    user_name="bench",
                    caller="kernel",
                )
                for number in range(start, min(start + 1000, rows))
            )
        )
    spool.close()


def reads(rows: int = 1_000_000, times: int = 3) -> tuple[Lag, Lag, float]:
    """The loop's lag without and with reads of so many rows, and the rows read per second."""
    with home(SETTINGS.format(base_url="http://127.0.0.1:9/v1")) as env:
        fill(env, rows)
        with lagging_daemon(env) as client:
            deadline = time.monotonic() + 60 + rows / 20_000
            while int(client.sql("select count(*) as n from operation")["n"].iloc[0]) < rows:
                assert time.monotonic() < deadline, "the worker has not stored the rows"
                time.sleep(0.1)
            time.sleep(0.2)
            lag(client, env)
            time.sleep(1.0)
            idle = lag(client, env)
            seconds = statistics.median(read_all(env)[1] for _ in range(times))
            return idle, lag(client, env), rows / seconds


def growth(seconds: float = STEADY_SECONDS) -> float:
    """MB a minute by which the store worker grows beside steady calls, once it is warm: after half of the time."""
    with (
        scripted_process() as provider,
        home(SETTINGS.format(base_url=provider.base_url)) as env,
        lagging_daemon(env) as client,
    ):
        (worker,) = psutil.Process(client.status()["pid"]).children()
        with load(env, STEADY_RATE, "daemon"):
            time.sleep(seconds / 2)
            sizes: list[tuple[float, float]] = []
            end = time.monotonic() + seconds / 2
            while time.monotonic() < end:
                sizes.append((time.monotonic() / 60, worker.memory_info().rss / 1e6))
                time.sleep(1.0)
    return statistics.linear_regression(*zip(*sizes, strict=True)).slope


def main() -> None:
    """Measure and print."""
    table = Table(f"a kernel beside {RATE:.0f} calls per second: through the daemon, to straight to the provider, ms")
    direct, through = notebooks()
    for what, pick, goal in (
        ("1+1: p50", statistics.median, "≤ 1.3"),
        ("1+1: p90", lambda times: statistics.quantiles(times, n=10)[8], ""),
    ):
        table.add(what, pick(direct), pick(through), pick(through) / pick(direct), goal)
    print(table, end="\n\n")
    idle, busy, rate = reads()
    table = Table("the daemon's loop while 1,000,000 rows are read: lag in ms, to the same daemon idle")
    table.add("lag p50", idle.p50_ms, busy.p50_ms, busy.p50_ms / max(idle.p50_ms, 0.001))
    table.add("lag p99 (ratio: to 5 ms)", idle.p99_ms, busy.p99_ms, busy.p99_ms / 5, "≤ 1")
    table.add("own CPU between timers p99", idle.own_p99_ms, busy.own_p99_ms, busy.own_p99_ms / idle.own_p99_ms)
    table.add("lag max", idle.max_ms, busy.max_ms, busy.max_ms / max(idle.max_ms, 0.001))
    print(table)
    print(f"{busy.count} samples, {rate:,.0f} rows/s over the socket\n")
    table = Table(f"memory beside {STEADY_RATE:.0f} calls per second; `make soak` looks for half an hour")
    table.add("store worker: growth, MB a minute", STEADY_MB, mine := growth(), mine / STEADY_MB, "≤ 1")
    print(table)


if __name__ == "__main__":
    main()
