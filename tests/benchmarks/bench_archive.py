"""Rows by profile and hour: out of the store, and out of its archive.

    python -m tests.benchmarks archive
    python -m tests.benchmarks.bench_archive 10000000

The argument is the number of rows. Goals are stated for 10 million, and scale with the rows; with more than 20 million
quantiles are approximate. CPU seconds are of the process that does the work, and tell more than the wall's on a busy
machine.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pyarrow as pa

from tests.benchmarks.table import Table
from tundra_nb.paths import Paths
from tundra_nb.protocol.query import FrameQuery
from tundra_nb.runtime.archive.service import Archives
from tundra_nb.runtime.clock import Ids, SystemClock
from tundra_nb.runtime.history.line import ArrowStream
from tundra_nb.runtime.history.service import History
from tundra_nb.settings import StoreSettings

ROWS = 500_000
DAYS = 30
GOAL_ROWS = 10_000_000
GOAL_SECONDS = 3.0
STORE_SECONDS = 15.0
"""While nothing is archived."""
DAY_US = 86_400_000_000

FILL = """
import random, sys
from pathlib import Path
from tundra_nb.runtime.history import loading
loading.load()
from tundra_nb.runtime.id_layout import id_floor
from tundra_nb.runtime.history.doltlite import DoltliteStore
from tundra_nb.runtime.history.spool import START
from tundra_nb.types import columns
path, rows, first, step = Path(sys.argv[1]), *map(int, sys.argv[2:])
names = [column.name for column in columns("operation")]
store = DoltliteStore(path)
store.create(); store.open("bench", 1)
chance = random.Random(7)
def row(number):
    at = first + number * step
    made = {"operation_id": id_floor(at) + number % 4096, "at": at, "kind": "chat", "attempts": 1, "waited_ms": 0.0,
            "profile": chance.choice(("main", "spare", "local")), "model": "some-model", "streamed": 1,
            "outcome": "ok" if chance.random() < 0.9 else "error", "latency_ms": chance.random() * 1e4,
            "input_tokens": chance.randrange(4000), "output_tokens": chance.randrange(1000),
            "cost_usd": chance.random() / 100, "user_name": "bench", "caller": "python"}
    return tuple(made.get(name) for name in names)
for begin in range(0, rows, 20_000):
    store.write({"operation": [row(number) for number in range(begin, min(rows, begin + 20_000))]}, START)
store.commit("filled", "bench <bench@localhost>")
store.close()
"""


def main(rows: int = ROWS) -> None:
    """Fill a store, archive it, and ask both."""
    with tempfile.TemporaryDirectory(prefix="tundra-bench-") as name:
        print(asyncio.run(_measured(Path(name), rows)))


async def _measured(folder: Path, rows: int) -> Table:
    table = Table(f"archive, {rows:,} rows over {DAYS} days; peer: the doltlite store itself, or the goal")
    clock = SystemClock()
    first = (int(dt.datetime.now(dt.UTC).timestamp() * 1e6) // DAY_US - DAYS - 2) * DAY_US
    step = DAYS * DAY_US // rows
    arguments = [str(folder / "history.db"), str(rows), str(first), str(step)]
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", FILL, *arguments], check=True)
    paths = Paths(data_dir=folder, socket=folder / "s", connection_file=folder / "c")
    history = History(paths, StoreSettings(), Ids(clock), clock)
    await history.open()
    archives = Archives(paths.archive, history, os.environ, clock, lambda: 0)
    try:
        query = FrameQuery(table="operation", by=["profile", "hour"])
        alone, alone_cpu = await _asked(lambda: history.query(query), history)
        began = time.perf_counter()
        told = [step async for step in archives.run(first + (DAYS + 1) * DAY_US, verify=False)][-1]
        took = time.perf_counter() - began
        await _asked(lambda: archives.reads.query(query), archives)  # DuckDB starts
        both, both_cpu = await _asked(lambda: archives.reads.query(query), archives)
        goal = GOAL_SECONDS * rows / GOAL_ROWS
        table.add("copied and proven, rows/s", 1e5, rows / took, rows / took / 1e5)
        table.add("  MB", folder.joinpath("history.db").stat().st_size / 1e6, told.size_bytes / 1e6, 0)  # type: ignore[union-attr]
        table.add("by profile and hour, s", alone, both, both / alone, "≤ 1")
        table.add("  CPU, s", alone_cpu, both_cpu, both_cpu / alone_cpu, "≤ 1")
        table.add("  beside 3 s for 10 million", goal, both, both / goal, "≤ 1")
        goal = STORE_SECONDS * rows / GOAL_ROWS
        table.add("  out of the store alone, beside 15 s for 10 million", goal, alone, alone / goal, "≤ 1")
    finally:
        await archives.aclose()
        await history.aclose()
    return table


async def _asked(ask: Callable[[], ArrowStream], of: History | Archives) -> tuple[float, float]:
    """Wall and CPU seconds of a question, the latter of the worker that answers."""
    before, began = _cpu(of), time.perf_counter()
    found = pa.ipc.open_stream(b"".join([piece async for piece in ask()])).read_all()
    assert found.num_rows > DAYS
    return time.perf_counter() - began, _cpu(of) - before


def _cpu(of: History | Archives) -> float:
    process = of._process if isinstance(of, History) else of.worker._process
    if process is None:
        return 0.0
    times = psutil.Process(process.pid).cpu_times()
    return times.user + times.system


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROWS)
