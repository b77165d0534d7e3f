"""Spool, store worker, frames and versions on both engines, beside stock sqlite3 and `pandas.read_sql`, in one run.

    python -m tests.benchmarks history
    python -m tests.benchmarks.bench_history 1000000

The argument is the number of rows, for the goals that are stated for a million; goals for large reads scale with it.
Dolt, which is slower to fill, gets a tenth, and is left out where it is not installed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pandas as pd
import psutil
import pyarrow as pa

from tests.benchmarks.table import Table
from tundra_nb.paths import Paths
from tundra_nb.runtime.clock import Ids, SystemClock
from tundra_nb.runtime.history.line import ArrowStream
from tundra_nb.runtime.history.query import FrameQuery
from tundra_nb.runtime.history.service import History
from tundra_nb.settings import StoreSettings
from tundra_nb.types import KEY_OF, LimitEvent, Operation, columns

ROWS = 100_000
CHANGED = 1_000
"""Rows between the two commits that are compared."""
NAMES = [column.name for column in columns("operation")][:12]
"""Columns of the stock table, and of the frames beside it."""
FIRST = [column.name for column in columns("operation", 1)]
"""The 23 columns that the table had in its first version: the goal for many columns is stated for them."""
AUTHOR = "bench <bench@localhost>"
MB = 1e6


def main(rows: int = ROWS) -> None:
    """Measure everything and print a table per engine."""
    with tempfile.TemporaryDirectory(prefix="tundra-bench-") as name:
        folder = Path(name)
        print(asyncio.run(_engine(StoreSettings(), folder / "doltlite", rows)))
        with _dolt_server(folder) as port:
            if port is None:
                print("dolt is not installed: left out")
            else:
                settings = StoreSettings(engine="dolt", port=port, database="bench")
                print(asyncio.run(_engine(settings, folder / "dolt", rows // 10)))


async def _engine(settings: StoreSettings, folder: Path, rows: int) -> Table:
    table = Table(f"{settings.engine}, {rows:,} rows; peers: stock sqlite3 and pandas.read_sql, or the goal itself")
    clock = SystemClock()
    ids = Ids(clock)
    paths = Paths(data_dir=folder, socket=folder / "s", connection_file=folder / "c")
    history = History(paths, settings, ids, clock)
    await history.open()
    try:
        await history.call("create")
        if settings.engine == "doltlite":
            _appending(table, history, ids, clock, min(rows, 100_000))
        events = [_operation(ids, clock) for _ in range(rows)]
        stock = _Stock(folder / "stock.db", events)
        table.add("store rows, rows/s", stock.rate, rate := await _storing(history, events), rate / stock.rate)
        goal = 25_000 if settings.engine == "dolt" else 100_000
        table.add("  beside the goal", goal, rate, rate / goal, "≥ 1")
        await _reading(table, history, stock, rows, is_dolt=settings.engine == "dolt")
        await _versions(table, history, ids, clock)
    finally:
        await history.aclose()
    return table


def _operation(ids: Ids, clock: SystemClock) -> Operation:
    return Operation(
        operation_id=ids.next(),
        at=clock.now_us(),
        profile=random.choice(("anthropic-primary", "openrouter", "local")),
        model="some-model-of-today",
        outcome=random.choice(("ok", "ok", "ok", "error")),
        attempts=1,
        latency_ms=random.random() * 1000,
        input_tokens=random.randrange(4000),
        output_tokens=random.randrange(1000),
        cost_usd=random.random() / 100,
    )


def _appending(table: Table, history: History, ids: Ids, clock: SystemClock, count: int) -> None:
    """The spool, in the caller's path: one write per event."""
    event = LimitEvent(
        limit_event_id=ids.next(),
        at=clock.now_us(),
        tier="global",
        limit_key="global",
        resource="requests",
        decision="wait",
    )
    taken = []
    began = time.perf_counter()
    for _ in range(count):
        start = time.perf_counter_ns()
        history.append(event)
        taken.append(time.perf_counter_ns() - start)
    rate = count / (time.perf_counter() - began)
    table.add("append to the spool, events/s", 150_000, rate, rate / 150_000, "≥ 1")
    p99 = sorted(taken)[int(count * 0.99)] / 1000
    table.add("  p99, µs", 15, p99, p99 / 15, "≤ 1")


async def _storing(history: History, events: list[Operation]) -> float:
    await _settle(history)
    for start in range(0, len(events), 1000):
        history.append(*events[start : start + 1000])
    began = time.perf_counter()
    await _settle(history)
    return len(events) / (time.perf_counter() - began)


async def _settle(history: History) -> None:
    while not await history.settled(30):
        pass


async def _reading(table: Table, history: History, stock: _Stock, rows: int, *, is_dolt: bool) -> None:
    first, _ = await _read(history, FrameQuery(table="operation", limit=1))  # the worker loads Arrow for it
    table.add("the first frame of a worker, ms", first * 1000, first * 1000, 1)
    many, peak = await _read(history, FrameQuery(table="operation", limit=rows, columns=FIRST))
    some, _ = await _read(history, FrameQuery(table="operation", limit=rows, columns=NAMES))
    table.add(f"all rows x {len(NAMES)} into pandas, s", stock.read, some, stock.read / some, "≥ 4")
    ratio = stock.read / len(NAMES) / (many / len(FIRST))
    table.add(f"all rows x {len(FIRST)} into pandas, s", stock.read, many, ratio, "≥ 3")
    goal = rows * (3.5e-6 if is_dolt else 2e-6)
    table.add(f"  {len(NAMES)} columns beside the goal, s", goal, some, some / goal, "≤ 1")
    table.add("  peak memory of the worker, MB", 400, peak, peak / 400, "≤ 1")
    pin = str(await history.call("commit", message="pin", author=AUTHOR))
    pinned, _ = await _read(history, FrameQuery(table="operation", limit=rows, at=pin, columns=NAMES))
    table.add("  the same at a commit, s", stock.read, pinned, stock.read / pinned, "≥ 3")
    newest = FrameQuery(table="operation", limit=1000, newest_first=True)
    last = min([(await _read(history, newest))[0] for _ in range(5)])
    goal = 15 if is_dolt else 4
    table.add("the last 1,000 rows, ms", goal, last * 1000, last * 1000 / goal, "≤ 1")
    at_pin = FrameQuery(table="operation", limit=1000, newest_first=True, at=pin)
    last = min([(await _read(history, at_pin))[0] for _ in range(5)])
    table.add("  the same at a commit, ms", 10, last * 1000, last / 0.010, "≤ 1")


async def _versions(table: Table, history: History, ids: Ids, clock: SystemClock) -> None:
    """What stock sqlite3 has no peer for, beside what facts/dolt measured on the bare engine."""
    commits = []
    for _ in range(5):
        history.append(*(_operation(ids, clock) for _ in range(CHANGED)))
        await _settle(history)
        commits.append(await _seconds(lambda: history.call("commit", message="m", author=AUTHOR)))
    table.add(f"commit {CHANGED:,} rows, ms", 20, min(commits) * 1000, min(commits) / 0.020, "≤ 1")
    diff = min([await _seconds(lambda: _collect(history.stream("diff", a="HEAD~1", b="HEAD", table="operation")))
                for _ in range(3)])  # fmt: skip
    table.add(f"diff of {CHANGED:,} rows, ms", 100, diff * 1000, diff / 0.100, "≤ 1")
    stat = min([await _seconds(lambda: history.call("stat", a="HEAD~5", b="HEAD")) for _ in range(3)])
    table.add("stat over five commits, ms", 50, stat * 1000, stat / 0.050, "≤ 1")


async def _seconds(action: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await action()
    return time.perf_counter() - began


async def _collect(stream: ArrowStream) -> pa.Table:
    return pa.ipc.open_stream(b"".join([piece async for piece in stream])).read_all()


async def _read(history: History, query: FrameQuery) -> tuple[float, float]:
    """Seconds until the frame is there, and the worker's peak memory in MB."""
    worker = psutil.Process(history.stats().worker_pid)
    peak = 0
    began = time.perf_counter()
    pieces = []
    async for piece in history.query(query):
        pieces.append(piece)
        if len(pieces) % 64 == 0:
            peak = max(peak, worker.memory_info().rss)
    frame = pa.ipc.open_stream(b"".join(pieces)).read_all().to_pandas()
    seconds = time.perf_counter() - began
    assert len(frame) == query.limit
    return seconds, max(peak, worker.memory_info().rss) / MB


class _Stock:
    """The same rows, 12 of their columns, in stock SQLite: how fast they are stored and read with pandas."""

    def __init__(self, path: Path, events: list[Operation]) -> None:
        rows = [tuple(getattr(event, name) for name in NAMES) for event in events]
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute(f"CREATE TABLE operation ({KEY_OF['operation']} INTEGER PRIMARY KEY, {', '.join(NAMES[1:])})")
            began = time.perf_counter()
            for start in range(0, len(rows), 1000):
                with db:
                    marks = ", ".join("?" * len(NAMES))
                    db.executemany(f"INSERT INTO operation VALUES ({marks})", rows[start : start + 1000])
            self.rate = len(rows) / (time.perf_counter() - began)
            self.read = min(self._read(db) for _ in range(2))

    @staticmethod
    def _read(db: sqlite3.Connection) -> float:
        began = time.perf_counter()
        pd.read_sql("SELECT * FROM operation", db)
        return time.perf_counter() - began


@contextlib.contextmanager
def _dolt_server(folder: Path) -> Iterator[int | None]:
    """The port of a server that ends with the block; None without a `dolt` on the PATH."""
    binary = shutil.which("dolt")
    if binary is None:
        yield None
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    data = folder / "server"
    data.mkdir()
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "DOLT_ROOT_PATH": str(folder)}
    for name, value in (("user.name", "b"), ("user.email", "b@localhost"), ("metrics.disabled", "true")):
        subprocess.run([binary, "config", "--global", "--add", name, value], env=env, check=True, capture_output=True)
    command = [binary, "sql-server", "-H", "127.0.0.1", "-P", str(port), "--data-dir", str(data), "--loglevel", "error"]
    server = subprocess.Popen(command, env=env, cwd=data, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline and server.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield port
    finally:
        server.terminate()
        server.wait(10)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROWS)
