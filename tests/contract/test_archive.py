"""The archive over both engines: copied, proven, read together with the store; killed, damaged, attacked."""

from __future__ import annotations

import asyncio
import datetime as dt
import errno
import hashlib
import json
import os
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.contract.conftest import Store, random_operation, rows_of, table_of
from tests.contract.test_grouping import same
from tundra_nb.errors import ArchiveDamaged, ConfigError, QueryRefused, StoreBusy, UsageError
from tundra_nb.protocol.archive import Archive, Archiving
from tundra_nb.protocol.digest import digest
from tundra_nb.protocol.query import Condition, FrameQuery
from tundra_nb.runtime.archive.place import MANIFEST, ArchiveFolder
from tundra_nb.runtime.archive.reading import ArchiveReading
from tundra_nb.runtime.archive.service import Archives
from tundra_nb.runtime.clock import SystemClock
from tundra_nb.runtime.id_layout import id_floor
from tundra_nb.types import ErrorEvent, Operation, columns

pytestmark = pytest.mark.anyio

DAY = 86_400_000_000
TODAY = int(dt.datetime.now(dt.UTC).timestamp() * 1e6) // DAY * DAY
"""Days are counted back from here."""


def days(first: int, last: int, each: int = 40, seed: int = 7) -> list[Operation]:
    """Calls of the days so many days ago, the oldest first."""
    chance = random.Random(seed)
    return [
        random_operation(TODAY - ago * DAY + number * (DAY // each), number, chance)
        for ago in range(first, last - 1, -1)
        for number in range(each)
    ]


@pytest.fixture
async def archives(store: Store) -> AsyncIterator[Archives]:
    made = Archives(store.paths.archive, store.history, os.environ, SystemClock(), lambda: 0)
    try:
        yield made
    finally:
        await made.aclose()


async def run(archives: Archives, ago: int | None = 30, *, verify: bool = False) -> Archive:
    steps = [step async for step in archives.run(None if ago is None else TODAY - ago * DAY, verify=verify)]
    assert isinstance(steps[-1], Archive)
    return steps[-1]


def files(store: Store) -> list[Path]:
    return sorted(store.paths.archive.rglob("*.parquet"))


async def both(store: Store, archives: Archives, **query: Any) -> dict[str, Any]:
    """A grouped question to archive and store together, which must answer as the store alone does."""
    asked = FrameQuery(table="operation", **query)
    alone = (await table_of(store.history.query(asked))).to_pylist()
    stream = archives.reads.query(asked)
    meta = await stream.meta()
    found = await table_of(stream)
    same(found.to_pylist(), alone)
    assert found.schema.equals((await table_of(store.history.query(asked))).schema)
    return meta


async def test_old_days_are_copied_and_proven_and_nothing_is_deleted(store: Store, archives: Archives) -> None:
    """Whole UTC days before the age, a file per table and day, private, with a manifest of digests."""
    rows = days(34, 28)
    store.history.append(
        *rows,
        ErrorEvent(
            error_id=id_floor(TODAY - 33 * DAY),
            at=TODAY - 33 * DAY,
            source="t",
            code="X",
            severity="low",
            retryable=False,
            message="m",
        ),
    )
    told = await run(archives)
    assert (told.rows, told.copied_rows, told.tables) == (4 * 40 + 1, 4 * 40 + 1, {"operation": 160, "error_event": 1})
    assert (told.since, told.until) == (_day(34), _day(30))
    assert len(files(store)) == told.files == 5
    manifest = json.loads((store.paths.archive / MANIFEST).read_bytes())
    parts = [part for day in manifest["tables"]["operation"]["days"].values() for part in day["parts"]]
    assert all(len(part["sha256"]) == len(part["digest"]) == 64 for part in parts)
    for path in [store.paths.archive, *store.paths.archive.rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
    assert len(await store.rows("operation")) == len(rows)
    again = await run(archives)
    assert (again.copied_rows, again.rows) == (0, told.rows)
    assert (await run(archives, None, verify=True)).verified_files == 5


def _day(ago: int) -> str:
    return dt.datetime.fromtimestamp((TODAY - ago * DAY) / 1e6, dt.UTC).date().isoformat()


QUERIES: list[dict[str, Any]] = [
    {"by": ["profile", "day"]},
    {"by": ["profile", "hour"], "since_us": TODAY - 33 * DAY + 5_000_000, "until_us": TODAY - 29 * DAY + 77},
    {"by": ["outcome"], "where": [Condition("profile", "eq", "beta")], "quantiles": [0.1, 0.99]},
    {"by": ["streamed", "code"], "where": [Condition("latency_ms", "gt", 3), Condition("message", "null", False)]},
    {"by": ["profile"], "since_us": TODAY - 33 * DAY, "until_us": TODAY - 32 * DAY},
    {"by": ["profile"], "since_us": TODAY - 29 * DAY},
    {"by": [], "every": 7_200},
    {"by": ["minute"], "where": [Condition("at", "ge", TODAY - 31 * DAY), Condition("code", "in", ["Timeout"])]},
    {"by": ["day"], "where": [Condition("asked", "prefix", "beta"), Condition("outcome", "ne", "ok")]},
]


async def test_groups_over_archive_and_store_are_those_of_the_store_alone(store: Store, archives: Archives) -> None:
    """Same rows, same columns, same types, whatever part of the window is archived; each row counts once."""
    store.history.append(*days(34, 28))
    await run(archives)
    for query in QUERIES:
        meta = await both(store, archives, **query)
        is_recent = query.get("since_us", 0) >= TODAY - 29 * DAY
        assert ("archive" in meta) is not is_recent, query
        if "archive" in meta:
            assert meta["approximate"] is False
            assert meta["archive"]["rows"] > 0


def test_a_long_question_writes_no_progress_to_the_output(tmp_path: Path) -> None:
    """DuckDB draws a bar there after two seconds."""
    reading = ArchiveReading(tmp_path, {})
    try:
        assert reading.db.execute("select current_setting('enable_progress_bar')").fetchall() == [(False,)]
    finally:
        reading.close()


async def test_sql_goes_over_archive_and_store_together(store: Store, archives: Archives) -> None:
    """One SELECT in DuckDB's own SQL; `at` needs no quotes; tables that people change come from the store."""
    store.history.append(*days(34, 28))
    await run(archives)

    async def sql(text: str, limit: int | None = None) -> list[dict[str, Any]]:
        return await rows_of(archives.reads.archive_sql(text, limit))

    assert await sql("select count(*) as n from operation") == [{"n": 280}]
    found = await sql("select at::date as day, count(*) as n from operation group by day order by day limit 1")
    assert [(row["day"].date().isoformat(), row["n"]) for row in found] == [(_day(34), 40)]
    found = await sql("select date_trunc('day', at at time zone 'UTC') d, median(latency_ms) from operation group by 1")
    assert len(found) == 7
    assert await sql(
        "with a as (from operation) select count(distinct o.at) n from a o join operation p using (at)"
    ) == [{"n": 280}]
    assert await sql("select count(*) n from setting") == [{"n": 0}]
    assert await sql("select 1::hugeint a, 1.5::decimal(9,2) b, [1, 2] c, null d, 'x'::blob e, date '2026-01-01' f")
    assert len(await sql("select * from operation", 7)) == 7
    stream = archives.reads.archive_sql("select 1 from operation", 10)
    assert (await stream.meta())["truncated"] is True
    await stream.aclose()


ATTACKS = [
    "copy (select 1) to '{file}' (use_tmp_file false)",
    "copy operation to '{folder}/x.csv'",
    "with x as (copy (select 1) to '{file}' (use_tmp_file false)) select 1",
    "with x as materialized (copy (select 1) to '{file}' (use_tmp_file false)) select 1 from operation",
    "select * from query('with x as (copy (select 1) to ''{file}'' (use_tmp_file false)) select 1')",
    "select * from \"query\"('select 1')",
    "with x as (insert into operation select * from operation returning *) select * from x",
    "with x as (delete from operation returning *) select * from x",
    "with x as (update operation set code = 'x' returning *) select * from x",
    "attach '{folder}/x.db'",
    "detach memory",
    "select * from read_csv('/etc/passwd')",
    "select * from read_text('/etc/passwd')",
    "select * from read_blob('/proc/self/environ')",
    "select * from read_parquet('{file}')",
    "select * from read_json('https://127.0.0.1:9/x')",
    "select * from 'https://127.0.0.1:9/x.parquet'",
    "select * from '/etc/passwd'",
    'select * from "{file}"',
    "select * from glob('/**')",
    "select * from sniff_csv('/etc/passwd')",
    "select * from parquet_metadata('{file}')",
    "select * from duckdb_settings()",
    "select * from duckdb_secrets()",
    "select * from pragma_database_list()",
    "select * from information_schema.tables",
    "select * from fresh_operation",
    "select * from arrow_scan(1, 2, 3)",
    "select * from query_table('operation')",
    "select current_setting('allowed_paths')",
    "select getenv('HOME')",
    "pragma database_list",
    "pragma memory_limit='100GB'",
    "set memory_limit = '100GB'",
    "set enable_external_access = true",
    "reset memory_limit",
    "install httpfs",
    "load httpfs",
    "call pragma_version()",
    "export database '{folder}/out'",
    "import database '{folder}/out'",
    "create table x as select 1",
    "create or replace view operation as select 1",
    "create macro f(a) as a",
    "prepare p as select 1",
    "use memory",
    "checkpoint",
    "vacuum",
    "select 1; select 2",
    "select 1; copy (select 1) to '{file}' (use_tmp_file false)",
    "explain analyze select 1",
    "select",
    "",
    ";",
    "select 'unfinished",
    "select \x00 1",
    "select ?",
    "select $1",
    "select * from operatoin",
    "select " + "(" * 5000 + "1" + ")" * 5000,
]


@pytest.mark.part("doltlite")
@pytest.mark.parametrize("store", ["doltlite"], indirect=True)
async def test_sql_over_the_archive_only_reads_tables_of_the_history(store: Store, archives: Archives) -> None:
    """Files, network, settings, other statements, and what hides in a WITH or in text that is run: refused."""
    store.history.append(*days(33, 31))
    await run(archives)
    before = {file: file.read_bytes() for file in files(store)}
    file = str(files(store)[0])
    for attack in ATTACKS:
        text = attack.replace("{file}", file).replace("{folder}", str(store.paths.archive))
        with pytest.raises(QueryRefused) as refused:
            await rows_of(archives.reads.archive_sql(text))
        assert "\n" not in refused.value.message, text
        assert "EXPLAIN" not in refused.value.hint, "it is refused here, too"
    assert {file: file.read_bytes() for file in files(store)} == before
    assert await rows_of(archives.reads.archive_sql("select count(*) n from operation")) == [{"n": 120}]
    assert (await run(archives, None, verify=True)).verified_files == 3


BOMBS = [
    "select length(repeat('a', 8000000000))",
    "select list(repeat('a', 1000000)) from range(100000)",
    "select count(distinct a.range * 1000000007 + b.range) from range(100000000) a, range(1000) b",
    "select * from range(100000000000) a order by md5(a.range::varchar)",
    "select range(100000000) as a",
    "select {'a': range(30000000)} as a",
    "select list(repeat('a', 1000)) a from range(400000)",
    "select repeat('a', 900000000) as a",
    "with recursive r as (select repeat('a', 1000) a union all select a || a from r) select max(length(a)) from r",
]


@pytest.mark.part("doltlite")
@pytest.mark.check
@pytest.mark.parametrize("store", ["doltlite"], indirect=True)
@pytest.mark.parametrize("bomb", BOMBS)
async def test_a_memory_bomb_is_refused_and_the_next_question_answered(
    store: Store, archives: Archives, bomb: str
) -> None:
    """Typed, within the deadline, whatever DuckDB counts among its memory."""
    store.history.append(*days(33, 31))
    await run(archives)
    with pytest.raises((StoreBusy, QueryRefused)):
        await rows_of(archives.reads.archive_sql(bomb))
    assert await rows_of(archives.reads.archive_sql("select count(*) n from operation")) == [{"n": 120}]


@pytest.mark.part("doltlite")
@pytest.mark.parametrize("store", ["doltlite"], indirect=True)
@pytest.mark.check
async def test_an_answer_has_as_many_rows_as_find_room_and_none_that_is_too_long_alone(archives: Archives) -> None:
    """However long its texts and lists are: what is left out is told, and one row beyond the bound is refused."""
    line = archives.reads.archive_sql("select repeat('a', 1000000 * (1 + range)) as a from range(20)")
    meta = await line.meta()
    found = await table_of(line)
    assert (meta["truncated"], 8 <= found.num_rows <= 15) == (True, True)
    with pytest.raises(StoreBusy, match=r"one row of the answer has 7\d\d MB") as caught:
        await rows_of(archives.reads.archive_sql("select range(100000000) as a"))
    assert "shorter texts and lists" in caught.value.hint


async def test_a_changed_or_missing_file_is_refused_by_name_and_copied_anew(store: Store, archives: Archives) -> None:
    """Also with its size and time put back; `verify` says which, and repairs what the history still has."""
    store.history.append(*days(33, 31))
    await run(archives)
    query = FrameQuery(table="operation", by=["day"])
    await both(store, archives, by=["day"])
    first, second, _ = files(store)
    was = first.stat()
    data = bytearray(first.read_bytes())
    data[len(data) // 2] ^= 1
    first.write_bytes(data)
    os.utime(first, ns=(was.st_atime_ns, was.st_mtime_ns))
    with pytest.raises(ArchiveDamaged, match=first.name):
        await table_of(archives.reads.query(query))
    with pytest.raises(ArchiveDamaged, match=first.name):
        await rows_of(archives.reads.archive_sql("select * from operation"))
    assert await archives.reads.rows(FrameQuery(table="operation", by=["day"], since_us=TODAY - 30 * DAY)) == []
    second.unlink()
    told = await run(archives, None, verify=True)
    assert len(told.repaired) == 2
    assert first.name in " ".join(told.repaired)
    assert "gone" in " ".join(told.repaired)
    await both(store, archives, by=["day"])
    assert (await run(archives, None, verify=True)).repaired == []


def rewritten(store: Store, file: Path, change: Callable[[pa.Table], pa.Table], *, digests: bool) -> Path:
    """A file of the archive with other rows, and the manifest with the hashes that belong to them."""
    rows = change(pq.read_table(file))
    pq.write_table(rows, file)
    sha = hashlib.sha256(file.read_bytes()).hexdigest()
    renamed = file.rename(file.with_name(f"{file.stem.rsplit('-', 1)[0]}-{sha[:16]}.parquet"))
    place = ArchiveFolder(store.paths.archive)
    manifest = place.load()
    for table, day, part in list(manifest.parts()):
        if part.file.endswith(file.name):
            entry = manifest.tables[table].days[day]
            names = [column.name for column in columns(table, entry.frame_version)]
            new = msgspec.structs.replace(
                part,
                file=f"{table}/{renamed.name}",
                sha256=sha,
                size_bytes=renamed.stat().st_size,
                digest=digest(rows, names) if digests else part.digest,
            )
            parts = [new if one is part else one for one in entry.parts]
            manifest.tables[table].days[day] = msgspec.structs.replace(entry, parts=parts)
    place.save(manifest)
    return renamed


@pytest.mark.parametrize("digests", [False, True])
async def test_files_and_manifest_that_were_rewritten_together_are_not_the_historys(
    store: Store, archives: Archives, digests: bool
) -> None:
    """`verify` compares the rows with the history's, and copies them anew; late rows are no damage."""
    store.history.append(*days(33, 31))
    await run(archives)

    def cheaper(rows: pa.Table) -> pa.Table:
        place = rows.schema.get_field_index("latency_ms")
        return rows.set_column(
            place, rows.schema.field(place), pa.array([1] * len(rows), rows.schema.field(place).type)
        )

    forged = rewritten(store, files(store)[0], cheaper, digests=digests)
    told = await run(archives, None, verify=True)
    assert told.repaired == [f"operation/{forged.name}: it has other rows than the history"]
    await both(store, archives, by=["day"])
    assert (await run(archives, None, verify=True)).verified_files == 3
    store.history.append(random_operation(TODAY - 32 * DAY + 1_234_567, 999, random.Random(1)))
    told = await run(archives, None, verify=True)
    assert (told.repaired, told.late) == ([], {"operation": 1})


def without_a_day(text: bytes) -> bytes:
    """A manifest that leaves the rows of a day out."""
    manifest = json.loads(text)
    manifest["tables"]["operation"]["days"].popitem()
    return json.dumps(manifest).encode()


async def test_a_manifest_that_names_other_files_is_refused(store: Store, archives: Archives) -> None:
    """Or is cut: what DuckDB may open is what stands there."""
    store.history.append(*days(33, 31))
    await run(archives)
    file = store.paths.archive / MANIFEST
    good = file.read_bytes()
    name = files(store)[0].name
    for bad in (
        good.replace(f"operation/{name}".encode(), b"/etc/passwd"),
        good[:-20],
        b"{}x",
        b"\xff",
        good.replace(b'"format": 1', b'"format": 2'),
        without_a_day(good),
    ):
        file.write_bytes(bad)
        with pytest.raises(ArchiveDamaged, match=MANIFEST.replace(".", "\\.")):
            await rows_of(archives.reads.query(FrameQuery(table="operation", by=["day"])))
        with pytest.raises(ArchiveDamaged, match=MANIFEST.replace(".", "\\.")):
            await run(archives)
    file.write_bytes(good)
    await both(store, archives, by=["day"])


async def test_rows_that_come_late_into_archived_days_are_counted_at_once(store: Store, archives: Archives) -> None:
    """The table is read from the store alone until the next run has copied them; `late` says so."""
    store.history.append(*days(34, 28))
    await run(archives)
    late = random_operation(TODAY - 32 * DAY + 1_234_567, 999, random.Random(1))
    store.history.append(late)
    meta = await both(store, archives, by=["day"])
    assert "archive" not in meta
    assert await rows_of(archives.reads.archive_sql("select count(*) n from operation")) == [{"n": 281}]
    assert (await archives.state()).late == {"operation": 1}
    told = await run(archives)
    assert (told.copied_rows, told.late, told.rows) == (41, {}, 161)
    assert len(files(store)) == 4
    assert "archive" in await both(store, archives, by=["day"])


async def test_a_later_run_takes_the_days_that_have_grown_old(store: Store, archives: Archives) -> None:
    """And an earlier age afterwards gives nothing back."""
    store.history.append(*days(34, 28))
    assert (await run(archives, 32)).rows == 80
    told = await run(archives, 29)
    assert (told.copied_rows, told.rows, told.until) == (120, 200, _day(29))
    told = await run(archives, 33)
    assert (told.copied_rows, told.rows, told.until) == (0, 200, _day(29))
    await both(store, archives, by=["profile", "day"])


async def test_a_run_that_is_broken_off_anywhere_is_taken_up(store: Store, archives: Archives) -> None:
    """Closed at each of its steps: what is there is whole, and reads are right meanwhile."""
    store.history.append(*days(34, 28, each=5))
    step = 0
    while True:
        step += 1
        steps = archives.run(TODAY - 30 * DAY, verify=False)
        taken: list[Archiving | Archive] = []
        async for one in steps:
            taken.append(one)
            if len(taken) == step:
                break
        await steps.aclose()  # type: ignore[attr-defined]  # it is a generator
        await both(store, archives, by=["day"])
        if isinstance(taken[-1], Archive):
            break
    assert (await archives.state()).rows == 20
    assert not list(store.paths.archive.rglob(".part-*"))
    first = archives.run(TODAY - 30 * DAY, verify=False)
    await anext(first)
    with pytest.raises(StoreBusy, match="already"):
        await run(archives)
    await first.aclose()  # type: ignore[attr-defined]


@pytest.mark.part("doltlite")
@pytest.mark.parametrize("store", ["doltlite"], indirect=True)
async def test_a_full_disk_leaves_nothing_half(
    store: Store, archives: Archives, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither of a file nor of the manifest; with room again, the next run does the rest."""
    store.history.append(*days(34, 28))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("tundra_nb.runtime.archive.place.tempfile.mkstemp", full)
        with pytest.raises(ConfigError, match="No space left"):
            await run(archives)
    await both(store, archives, by=["day"])
    with monkeypatch.context() as patched:
        patched.setattr(
            Archives, "_free", lambda _: (_ for _ in ()).throw(ConfigError(where="x", problem="full", remedy="free"))
        )
        with pytest.raises(ConfigError):
            await run(archives)
    assert files(store) == []
    await both(store, archives, by=["day"])
    assert (await run(archives)).rows == 160


async def test_a_day_is_archived_when_it_is_over(archives: Archives) -> None:
    """The least age is a day."""
    with pytest.raises(UsageError, match="over"):
        await run(archives, 0)


async def test_the_worker_may_die_under_a_copy(store: Store, archives: Archives) -> None:
    """kill -9 of it: the run fails by name, and the next one goes on."""
    store.history.append(*days(34, 28))
    steps = archives.run(TODAY - 30 * DAY, verify=False)
    async for step in steps:
        if isinstance(step, Archiving) and step.doing == "copying" and step.done_rows:
            break
    process = archives.worker._process
    assert process is not None
    process.kill()
    await asyncio.wait_for(process.wait(), 10)
    rest = [step async for step in steps]
    assert isinstance(rest[-1], Archive)
    await both(store, archives, by=["day"])
