"""A pinned frame never changes: whatever is written, merged, collected, restarted or moved afterwards."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tundra_nb.paths import Paths
from tundra_nb.runtime.clock import Ids, SystemClock
from tundra_nb.runtime.history.query import FrameQuery
from tundra_nb.runtime.history.service import History
from tundra_nb.runtime.id_layout import id_floor
from tundra_nb.settings import StoreSettings
from tundra_nb.types import Operation, Setting

from .conftest import Store, table_of

pytestmark = pytest.mark.anyio

T0 = 1_760_000_000_000_000
ROWS = 20_000
FURTHER = 100_000
OUTCOMES = ("ok", "error", "refused")


def operations(first: int, count: int) -> list[Operation]:
    return [
        Operation(
            operation_id=id_floor(T0 + n * 1000) + n % 4096,
            at=T0 + n * 1000,
            outcome=OUTCOMES[n % 3],  # type: ignore[arg-type]  # one of them
            profile=f"p{n % 7}",
            latency_ms=n / 3,
            cost_usd=None if n % 5 else n * 1e-6,
            message=f"say {n} é 漢" if n % 11 == 0 else None,
        )
        for n in range(first, first + count)
    ]


def digest(frame: pa.Table) -> str:
    """SHA-256 of the canonical Arrow form: plain columns in one piece each."""
    plain = [
        pa.field(f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type, f.nullable)
        for f in frame.schema
    ]
    canonical = frame.cast(pa.schema(plain)).combine_chunks()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, canonical.schema) as writer:
        writer.write_table(canonical, max_chunksize=1 << 30)
    return hashlib.sha256(sink.getvalue()).hexdigest()


async def pinned(history: History, ref: str) -> tuple[str, pa.Schema, list[dict[str, Any]]]:
    frame = await table_of(history.query(FrameQuery(table="operation", at=ref)))
    return digest(frame), frame.schema, frame.slice(0, 50).to_pylist()


async def test_a_pin_outlives_rows_gc_merge_restart_and_a_move(store: Store, tmp_path: Path) -> None:
    """Values, types, order and digest are the same each time."""
    history = store.history
    for start in range(0, ROWS, 2000):
        history.append(*operations(start, 2000))
    assert await history.settled(20)
    commit = await store.commit("pin")
    await history.call("tag", name="pin")
    first = await pinned(history, "pin")
    frame = await table_of(history.query(FrameQuery(table="operation", at=commit)))
    assert frame.num_rows == ROWS
    assert frame["operation_id"].to_pylist() == [row.operation_id for row in operations(0, ROWS)]

    for start in range(ROWS, ROWS + FURTHER, 2000):
        history.append(*operations(start, 2000))
    assert await history.settled(60)
    await store.commit("later")
    assert await pinned(history, "pin") == first, "after further rows"
    await history.call("gc")
    assert await pinned(history, "pin") == first, "after gc"
    row = Setting(setting_id=7, path="a.b", value="1", source="file", at=T0, author="ada")
    proposed = {"setting": [[getattr(row, name) for name in row.__struct_fields__]]}
    await history.call("propose", branch="side", rows=proposed, message="m", author="Ada <ada@example.org>")
    await history.call("merge", branch="side", message="merge", author="Ada <ada@example.org>")
    assert await pinned(history, commit) == first, "after a merge"

    await history.aclose()
    again = History(store.paths, store.settings, store.ids, SystemClock())
    await again.open()
    try:
        assert await pinned(again, "pin") == first, "after a restart"
        remote = tmp_path / "remote"
        if store.engine == "dolt":
            remote.mkdir()
        await again.call("push", remote=str(remote))
        into = f"{store.settings.database}moved" if store.engine == "dolt" else str(tmp_path / "moved" / "history.db")
        (tmp_path / "moved").mkdir()
        await again.call("clone", remote=str(remote), into=into)
    finally:
        await again.aclose()
    moved = StoreSettings(
        engine=store.settings.engine, port=store.settings.port, database=f"{store.settings.database}moved"
    )
    clock = SystemClock()
    elsewhere = History(Paths(tmp_path / "moved", tmp_path / "s2", tmp_path / "c2"), moved, Ids(clock), clock)
    await elsewhere.open()
    try:
        assert await pinned(elsewhere, "pin") == first, "in a clone"
        assert await elsewhere.call("resolve", ref="pin") == commit
    finally:
        await elsewhere.aclose()


@pytest.mark.part("doltlite", "dolt")
@pytest.mark.parametrize("further", [ROWS, pytest.param(FURTHER, marks=pytest.mark.soak)])
async def test_a_pin_is_the_same_on_the_other_engine_after_the_move(
    tmp_path: Path, dolt_port: int, further: int
) -> None:
    """Taken on the embedded engine, and after `migrate-store` on a Dolt server: by its tag and by its commit's twin."""
    paths, clock = Paths(tmp_path, tmp_path / "s", tmp_path / "c"), SystemClock()
    embedded = History(paths, StoreSettings(), Ids(clock), clock)
    await embedded.open()
    try:
        for start in range(0, ROWS, 2000):
            embedded.append(*operations(start, 2000))
        assert await embedded.settled(20)
        commit = await embedded.call("commit", message="pin", author="Ada <ada@example.org>")
        await embedded.call("tag", name="pin")
        first = await pinned(embedded, "pin")
        for start in range(ROWS, ROWS + further, 2000):
            embedded.append(*operations(start, 2000))
        assert await embedded.settled(60)
    finally:
        await embedded.aclose()
    store = StoreSettings(engine="dolt", port=dolt_port, database=f"t{uuid.uuid4().hex[:10]}")
    setup = {"spool": str(paths.spool), "store": str(paths.store), "password": ""}
    setup["begun"] = str(paths.data_dir / "migrating-to")
    setup |= {name: getattr(store, name) for name in ("host", "port", "database", "user")}
    command = [sys.executable, "-P", "-m", "tundra_nb.runtime.history.migrate"]
    moved = await asyncio.to_thread(
        subprocess.run, command, input=json.dumps(setup), capture_output=True, text=True, check=False, timeout=100
    )
    assert moved.returncode == 0, moved.stdout[-2000:] + moved.stderr
    twins = json.loads(moved.stdout.splitlines()[-1])["mapped"]
    server = History(paths, store, Ids(clock), clock)
    await server.open()
    try:
        assert await pinned(server, "pin") == first
        assert await pinned(server, twins[commit]) == first
        server.append(*operations(ROWS + further, 1))
        assert await server.settled(20)
        frame = await table_of(server.query(FrameQuery(table="operation", columns=["operation_id"])))
        assert frame.num_rows == ROWS + further + 1
        assert await pinned(server, "pin") == first
    finally:
        await server.aclose()
