"""A store of the first schema comes with the second: whole, with a way back, and with its pins as they were."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from tundra_nb.types import TABLES, columns

BASE = """
import json, sys
from pathlib import Path
from tundra_nb.runtime.history import arrow, contract, loading, migrations, protocol, query, schema, spool
from tundra_nb.types import columns, TABLES
given = json.load(sys.stdin)
config = protocol.Config(**given)
if config.engine == "doltlite":
    loading.load()
    from tundra_nb.runtime.history.doltlite import DoltliteStore
    make = lambda: DoltliteStore(Path(config.store))
else:
    from tundra_nb.runtime.history.dolt import DoltStore
    make = lambda: DoltStore(config)
AUTHOR = "Ada <ada@example.org>"

def rows(store, table, **wanted):
    found = query.FrameQuery(table=table, **wanted)
    return arrow.rows(store.frame(query.checked(found), contract.Stop()).batches)

def cut(table, row):
    return row[:len(columns(table, 1))]
"""
FIRST = (
    BASE
    + """
import functools
import msgspec
from tundra_nb.types import Note, Operation, Setting
schema.SCHEMA_VERSION, migrations.MIGRATIONS = 1, ()
for name in ("doltlite_ddl", "dolt_ddl"):
    setattr(schema, name, functools.partial(getattr(schema, name), version=1))
schema.names_of = lambda table, version=1: [column.name for column in columns(table, version)]
schema.filled = lambda table, rows: (schema.names_of(table), rows)
store = make()
type(store)._clock_step = staticmethod(lambda _: 0)
type(store)._sign_in = lambda *_: None
type(store)._as_own = lambda _store, _cursor, _table, rows: rows
store.create()
store.open("owner", 1)
def write(offset, **events):
    store.write({t: [cut(t, msgspec.structs.astuple(e)) for e in some] for t, some in events.items()},
                spool.SpoolPlace(1, offset))
setting = lambda value: Setting(setting_id=7, path="a.b", value=value, source="file", at=1, author="ada")
note = Note(note_id=3, at=3, author="ada", subject="", body="b")
write(10, operation=[Operation(operation_id=n << 22, at=n * 1000, outcome="ok", profile="p") for n in range(1, 4)],
      setting=[setting("1")], note=[note])
pin = store.commit("pin", AUTHOR)
store.tag("pin")
store.propose("side", {"setting": [cut("setting", msgspec.structs.astuple(setting("2")))]}, "raise it", AUTHOR)
write(20, operation=[Operation(operation_id=9 << 22, at=9000, outcome="ok")])
print(json.dumps({"pin": pin, "version": store.schema_version()}))
store.close()
"""
)
SECOND = (
    BASE
    + """
import msgspec
from tundra_nb.types import Operation, Setting
store = make()
store.open("owner", 1)
told = {"version": store.schema_version(), "place": store.place().offset}
told["refs"] = sorted(ref.name for ref in store.refs())
told["pinned"] = rows(store, "operation", at=store.resolve("pin"))
told["first_frame"] = rows(store, "operation", at=store.resolve("pin"),
                           columns=[c.name for c in columns("operation", 1)])
told["no_table_then"] = rows(store, "connection_event", at=store.resolve("pin"))
told["asked_then"] = rows(store, "operation", at=store.resolve("pin"),
                          where=[query.Condition("asked", "eq", "p")], limit=5)
row = Operation(operation_id=10 << 22, at=10_000, outcome="error", asked="p,q", writer_id="me", retry_count=2)
store.write({"operation": [msgspec.structs.astuple(row)]}, spool.SpoolPlace(1, 30))
told["now"] = rows(store, "operation", columns=["operation_id", "asked", "writer_id", "retry_count"])
told["diff"] = arrow.rows(store.diff("pin", "WORKING", "operation", None, contract.Stop()).batches)
told["old_diff"] = arrow.rows(store.diff("pin~2", "pin", "operation", None, contract.Stop()).batches)
told["no_diff"] = arrow.rows(store.diff("pin~2", "pin", "agent_run", None, contract.Stop()).batches)
told["settings_across"] = arrow.rows(
    store.diff("schema-2-before", "schema-2-after", "setting", None, contract.Stop()).batches)
told["settings_at"] = rows(store, "setting", at=store.resolve("side"))
new = Setting(setting_id=8, path="c.d", value="3", source="file", at=2, author="ada")
store.propose("side", {"setting": [msgspec.structs.astuple(new)]}, "and another", AUTHOR)
told["merged"] = store.merge("side", "merge side", AUTHOR).commit is not None
told["settings"] = {row["path"]: row["value"] for row in rows(store, "setting")}
told["history"] = [
    (row["diff_type"], row["value"]) for row in arrow.rows(store.history("setting", 7, contract.Stop()).batches)]
told["notes"] = len(arrow.rows(store.history("note", None, contract.Stop()).batches))
told["stat"] = [s.table for s in store.stat("pin", "WORKING")]
told["columns"] = {t: list(store.frame(query.FrameQuery(table=t), contract.Stop()).schema.names) for t in TABLES}
told["sql"] = {t: list(store.sql(f"select * from {t}", None, 1, contract.Stop()).schema.names) for t in TABLES}
told["problems"] = store.check()
print(json.dumps(told))
store.close()
"""
)


def run(program: str, config: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        input=json.dumps(config),
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(
    params=[
        pytest.param("doltlite", marks=pytest.mark.part("doltlite")),
        pytest.param("dolt", marks=pytest.mark.part("dolt")),
    ]
)
def config(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    return {
        "engine": request.param,
        "spool": str(tmp_path),
        "store": str(tmp_path / "history.db"),
        "owner": "owner",
        "node": 1,
        "host": "127.0.0.1",
        "port": request.getfixturevalue("dolt_port") if request.param == "dolt" else 0,
        "database": f"t{uuid.uuid4().hex[:10]}",
        "user": "root",
        "commit_rows": 1000,
        "commit_seconds": 60.0,
    }


def test_a_store_of_the_first_schema_comes_with_the_second_and_its_pins_stay(config: dict[str, Any]) -> None:
    first = run(FIRST, config)
    assert first["version"] == 1
    told = run(SECOND, config)
    assert (told["version"], told["place"], told["problems"]) == (2, 20, [])
    assert told["refs"] == ["main", "pin", "schema-2-after", "schema-2-before", "side"]
    ids = [n << 22 for n in range(1, 4)]
    assert [row["operation_id"] for row in told["pinned"]] == ids
    assert all(row["asked"] is None and row["writer_id"] is None for row in told["pinned"])
    names = [column.name for column in columns("operation", 1)]
    assert [list(row) for row in told["first_frame"]] == [names] * 3
    assert told["first_frame"] == [{name: row[name] for name in names} for row in told["pinned"]]
    assert told["no_table_then"] == told["no_diff"] == told["asked_then"] == []
    assert told["now"][-1] == {"operation_id": 10 << 22, "asked": "p,q", "writer_id": "me", "retry_count": 2}
    assert [row["operation_id"] for row in told["now"]] == [*ids, 9 << 22, 10 << 22]
    assert [(r["diff_type"], r["to_operation_id"], r["to_asked"]) for r in told["diff"]] == [
        ("added", 9 << 22, None),
        ("added", 10 << 22, "p,q"),
    ]
    assert [r["to_operation_id"] for r in told["old_diff"]] == ids
    assert told["settings_across"] == []
    assert [row["value"] for row in told["settings_at"]] == ["2"]
    assert told["merged"]
    assert told["settings"] == {"a.b": "2", "c.d": "3"}
    assert told["history"] == [["added", "1"], ["modified", "2"]]
    assert told["notes"] == 1
    assert {"operation", "setting"} <= set(told["stat"])
    wanted = {table: [column.name for column in columns(table)] for table in TABLES}
    assert told["columns"] == told["sql"] == wanted


AFTERWARDS = (
    BASE
    + """
store = make()
store.open("owner", 1)
told = {"version": store.schema_version(), "refs": sorted(ref.name for ref in store.refs())}
told["rows"] = {t: rows(store, t) for t in TABLES}
told["pinned"] = rows(store, "operation", at=store.resolve("pin"))
told["before"] = rows(store, "operation", at=store.resolve("schema-2-before"))
told["messages"] = [commit.message for commit in store.log()]
print(json.dumps(told))
store.close()
"""
)


@pytest.mark.part("doltlite", "dolt")
def test_a_store_that_came_with_the_second_schema_moves_to_the_other_engine(tmp_path: Path, dolt_port: int) -> None:
    config: dict[str, Any] = {
        "engine": "doltlite",
        "spool": str(tmp_path),
        "store": str(tmp_path / "history.db"),
        "owner": "owner",
        "node": 1,
        "host": "127.0.0.1",
        "port": dolt_port,
        "database": f"t{uuid.uuid4().hex[:10]}",
        "user": "root",
        "commit_rows": 1000,
        "commit_seconds": 60.0,
    }
    run(FIRST, config)
    run(SECOND, config)
    here = run(AFTERWARDS, config)
    setup = {name: config[name] for name in ("spool", "store", "host", "port", "database", "user")}
    setup |= {"password": "", "begun": str(tmp_path / "begun")}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tundra_nb.runtime.history.migrate"],
        check=False,
        input=json.dumps(setup),
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    there = run(AFTERWARDS, config | {"engine": "dolt"})
    assert there["version"] == here["version"] == 2
    assert there["rows"] == here["rows"]
    assert there["pinned"] == here["pinned"]
    assert there["before"] == here["before"]
    assert {"pin", "schema-2-before", "side"} <= set(there["refs"])
    merged = {"raise it", "and another"}  # commits of a merged branch become part of the merge
    assert set(here["messages"]) - set(there["messages"]) == merged


def back(config: dict[str, Any]) -> dict[str, Any]:
    names = ("engine", "spool", "store", "host", "port", "database", "user")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tundra_nb.runtime.history.back"],
        check=False,
        input=json.dumps({name: config[name] for name in names} | {"password": ""}),
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode in (0, 1), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


THE_FIRST_AGAIN = (
    FIRST.partition("store.create()")[0]
    + """
store.open("owner", 1)
told = {"version": store.schema_version(), "place": store.place().offset}
found = arrow.rows(store.sql("select operation_id from operation order by 1", None, 9, contract.Stop()).batches)
told["ids"] = [row["operation_id"] for row in found]
told["refs"] = sorted(ref.name for ref in store.refs())
print(json.dumps(told))
store.close()
"""
)


def test_the_first_version_can_use_a_store_that_was_set_back_and_nothing_is_lost(config: dict[str, Any]) -> None:
    run(FIRST, config)
    run(SECOND, config)
    assert back(config) == {"back": {"schema": 1, "kept": "schema-2-kept"}}
    told = run(THE_FIRST_AGAIN, config)
    assert (told["version"], told["place"]) == (1, 30)
    assert told["ids"] == [1 << 22, 2 << 22, 3 << 22, 9 << 22]
    assert "schema-2-kept" in told["refs"]
    again = run(AFTERWARDS, config)  # the newer version migrates it once more
    assert again["version"] == 2
    assert [row["operation_id"] for row in again["rows"]["operation"]] == told["ids"]
    assert back(config)["back"]["schema"] == 1


def test_a_store_that_began_with_this_schema_has_no_way_back(config: dict[str, Any]) -> None:
    create = BASE + "store = make()\nstore.create()\nstore.open('owner', 1)\nstore.close()\nprint('{}')\n"
    run(create, config)
    assert back(config)["error"]["code"] == "UsageError"
