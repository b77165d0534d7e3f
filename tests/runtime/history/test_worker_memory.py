"""The store worker's memory, transaction after transaction: its caches are bounded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.runtime.history.test_service import opened
from tundra_nb.types import Attempt, Operation

pytestmark = [pytest.mark.anyio, pytest.mark.part("doltlite")]
CALLS_A_TRANSACTION = 25
WARM, FURTHER = 600, 1800
"""Transactions."""
MOST_GROWTH = 10_000_000
"""Bytes; unbounded caches grew by some 30 million in so many."""


async def test_the_worker_does_not_grow_with_what_it_writes(tmp_path: Path) -> None:
    async with opened(tmp_path) as history:
        at = 0

        async def write(transactions: int) -> int:
            nonlocal at
            for _ in range(transactions):
                for _ in range(CALLS_A_TRANSACTION):
                    at += 2
                    history.append(
                        Operation(operation_id=at, at=at, kind="chat", outcome="ok", profile="p", model="m"),
                        Attempt(attempt_id=at + 1, operation_id=at, seq=1, at=at, profile="p", outcome="ok"),
                    )
                await history.settled(30)
            pid = history.stats().worker_pid
            assert pid is not None
            return int(psutil.Process(pid).memory_info().rss)

        warm = await write(WARM)
        assert await write(FURTHER) - warm < MOST_GROWTH


RENEWED = """
import resource, sys
from pathlib import Path
from tundra_nb.runtime.history import loading
loading.load()
from tundra_nb.errors import StoreUnavailable
from tundra_nb.runtime.history import arrow, contract, doltlite, query
from tundra_nb.runtime.history.spool import SpoolPlace
from tundra_nb.types import Note
import msgspec
path = Path(sys.argv[1]) / "a ? b#%41.db"
doltlite.RENEW_BYTES = 1 << 16
store = doltlite.DoltliteStore(path)
store.open("owner", 1)
count = 0
def write(transactions):
    "How many connections have written them."
    global count
    used = [store._writer]
    for _ in range(transactions):
        note = Note(note_id=count, at=count, author="a", subject="s", body="b" * 500)
        written = store.write({"note": [msgspec.structs.astuple(note)]}, SpoolPlace(1, count))
        assert not written.refused and not written.moved
        count += 1
        if store._writer is not used[-1]:
            used.append(store._writer)
    return len(used)
assert write(400) > 3
store.gc()
assert write(400) > 3
descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, descriptors[1]))
assert write(200) == 1  # with the one that it has
resource.setrlimit(resource.RLIMIT_NOFILE, descriptors)
assert write(400) > 3
frame = store.frame(query.FrameQuery(table="note"), contract.Stop())
assert [row["note_id"] for row in arrow.rows(frame.batches)] == list(range(count))
assert store.place() == SpoolPlace(1, count - 1)
assert store.check() == []
path.unlink()
doltlite.RENEW_BYTES = 0
try:
    write(1)
except StoreUnavailable:
    pass
else:
    raise AssertionError("written to a file without a name")
assert not path.exists()
assert store.deleted() is not None
"""


def test_a_new_connection_writes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RENEWED, str(tmp_path)], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
