"""Spool, store worker and frames beside stock sqlite3 and `pandas.read_sql`, in one run; the ratios are the goals.

Run as `python tests/benchmarks/bench_history.py [ROWS]`.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pyarrow as pa

from tundra_nb.paths import Paths
from tundra_nb.runtime.clock import Ids, SystemClock
from tundra_nb.runtime.history.query import FrameQuery
from tundra_nb.runtime.history.service import ArrowStream, History
from tundra_nb.settings import StoreSettings
from tundra_nb.types import KEY_OF, LimitEvent, Operation, columns

Result = tuple[str, str, str, bool]
COLUMNS = 12
"""Columns of the stock table that is read with pandas; ours has more (`operation` has 23)."""


def main(rows: int = 1_000_000) -> list[Result]:
    """Measure everything, print a table, return (what, measured, goal, reached)."""
    with tempfile.TemporaryDirectory(prefix="tundra-bench-") as folder:
        results = asyncio.run(_ours(Path(folder), rows))
    width = max(len(what) for what, *_ in results)
    for what, measured, goal, is_reached in results:
        print(f"{what:<{width}}  {measured:>18}  goal {goal:<22} {'ok' if is_reached else 'NOT REACHED'}")
    return results


async def _ours(folder: Path, rows: int) -> list[Result]:
    clock = SystemClock()
    ids = Ids(clock)
    paths = Paths(data_dir=folder / "data", socket=folder / "s", connection_file=folder / "c")
    history = History(paths, StoreSettings(), ids, clock)
    await history.open()
    results: list[Result] = []
    try:
        await history.settled(5)
        rate, p99 = _append(history, ids, clock, min(rows, 100_000))
        results.append(("spool.append, events/s", f"{rate:,.0f}", ">= 150,000", rate >= 150_000))
        results.append(("spool.append, p99", f"{p99:.1f} µs", "<= 15 µs", p99 <= 15))
        await _settle(history)
        done = history.stats().rows
        events = [_operation(ids, clock) for _ in range(rows)]
        for start in range(0, rows, 1000):
            history.append(*events[start : start + 1000])
        del events
        began = time.perf_counter()
        await _settle(history)
        stored = history.stats().rows - done
        seconds = time.perf_counter() - began
        behind = stored / seconds
        results.append(
            ("worker, rows/s of 23 columns (catching up)", f"{behind:,.0f}", ">= 100,000", behind >= 100_000)
        )
        results += await _read(history, folder, rows)
    finally:
        await history.aclose()
    return results


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


def _append(history: History, ids: Ids, clock: SystemClock, count: int) -> tuple[float, float]:
    events = [
        LimitEvent(
            limit_event_id=ids.next(),
            at=clock.now_us(),
            tier="global",
            limit_key="global",
            resource="requests",
            decision="wait",
            requested=1.0,
        )
        for _ in range(count)
    ]
    taken = []
    began = time.perf_counter()
    for event in events:
        start = time.perf_counter_ns()
        history.append(event)
        taken.append(time.perf_counter_ns() - start)
    total = time.perf_counter() - began
    return count / total, sorted(taken)[int(count * 0.99)] / 1000


async def _settle(history: History) -> None:
    while not await history.settled(30):
        pass


async def _read(history: History, folder: Path, rows: int) -> list[Result]:
    table = await _collect(history.query(FrameQuery(table="operation", limit=rows)))
    _write_stock(folder / "stock.db", table.select(range(COLUMNS)))
    ours, peak = await _timed_read(history, FrameQuery(table="operation", limit=rows))
    stock = _best(lambda: _read_stock(folder / "stock.db"), 1)
    pin = await history.call("commit", message="pin", author="bench <bench@localhost>")
    pinned, _ = await _timed_read(history, FrameQuery(table="operation", limit=rows, at=pin))
    query = FrameQuery(table="operation", limit=1000, newest_first=True)
    last = min([(await _timed_read(history, query))[0] for _ in range(5)])
    goal = rows / 1_000_000 * 2
    return [
        (f"{rows:,} rows x 23 into pandas", f"{ours:.2f} s", f"<= {goal * 2:.1f} s", ours <= goal * 2),
        ("  the same at a pin", f"{pinned:.2f} s", f"<= {goal * 2:.1f} s", pinned <= goal * 2),
        (f"  stock sqlite3 + read_sql, {COLUMNS} columns", f"{stock:.2f} s", "-", True),
        ("  ratio per cell", f"{stock / COLUMNS / (ours / 23):.1f} x", ">= 3 x", stock / COLUMNS / (ours / 23) >= 3),
        ("  peak memory of the worker", f"{peak:.0f} MB", "<= 400 MB", peak <= 400),
        ("last 1,000 rows", f"{last * 1000:.1f} ms", "<= 10 ms", last <= 0.010),
    ]


async def _collect(stream: ArrowStream) -> pa.Table:
    return pa.ipc.open_stream(b"".join([piece async for piece in stream])).read_all()


async def _timed_read(history: History, query: FrameQuery) -> tuple[float, float]:
    worker = psutil.Process(history.stats().worker_pid)
    peak = 0
    began = time.perf_counter()
    pieces = []
    async for piece in history.query(query):
        pieces.append(piece)
        if len(pieces) % 64 == 0:
            peak = max(peak, worker.memory_info().rss)
    pa.ipc.open_stream(b"".join(pieces)).read_all().to_pandas()
    return time.perf_counter() - began, max(peak, worker.memory_info().rss) / 1e6


def _write_stock(path: Path, table: pa.Table) -> None:
    names = [column.name for column in columns("operation")][:COLUMNS]
    plain = [table[name].cast(pa.int64()) if pa.types.is_timestamp(table[name].type) else table[name] for name in names]
    with sqlite3.connect(path) as db:
        db.execute(f"CREATE TABLE operation ({KEY_OF['operation']} INTEGER PRIMARY KEY, {', '.join(names[1:])})")
        values = zip(*(column.to_pylist() for column in plain), strict=True)
        db.executemany(f"INSERT INTO operation VALUES ({', '.join('?' * COLUMNS)})", values)


def _read_stock(path: Path) -> pd.DataFrame:
    with sqlite3.connect(path) as db:
        return pd.read_sql("SELECT * FROM operation", db)


def _best(action: Callable[[], Any], tries: int) -> float:
    best = float("inf")
    for _ in range(tries):
        began = time.perf_counter()
        action()
        best = min(best, time.perf_counter() - began)
    return best


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
