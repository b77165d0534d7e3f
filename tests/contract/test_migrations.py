"""Migrations on both engines, with a further schema that was made up; each step in a process of its own.

The store is opened there directly, because the embedded engine cannot be loaded beside a `sqlite3` that is in use.
"""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from tundra_nb.runtime.history.migrations import MIGRATIONS
from tundra_nb.runtime.history.schema import SCHEMA_VERSION

NEXT = SCHEMA_VERSION + 1
GOOD = ("CREATE TABLE mood (mood_id BIGINT PRIMARY KEY, word VARCHAR(20))", "UPDATE note SET subject = 'migrated'")
BAD = (*GOOD, "UPDATE no_such_table SET x = 1")

PROGRAM = """
import json, os, sys
from pathlib import Path
from tundra_nb import errors
from tundra_nb.runtime.history import contract, loading, migrations, protocol, query, schema, spool
given = json.load(sys.stdin)
config = protocol.Config(**given["config"])
if config.engine == "doltlite":
    loading.load()
    from tundra_nb.runtime.history.doltlite import DoltliteStore
    store = DoltliteStore(Path(config.store))
else:
    from tundra_nb.runtime.history.dolt import DoltStore
    store = DoltStore(config)
if given["statements"]:
    step = migrations.Migration(given["number"], "moods", tuple(given["statements"]), tuple(given["statements"]))
    migrations.MIGRATIONS, schema.SCHEMA_VERSION = (*migrations.MIGRATIONS, step), given["number"]
if given["dies_in"] == "after the merge":
    migrations._tag = lambda _, name, **__: os._exit(9) if name.endswith("after") else store.tag(name)
elif given["dies_in"]:
    setattr(type(store), given["dies_in"], lambda *_, **__: os._exit(9))
store.create()
try:
    store.open("owner", 1)
except errors.TundraError as exc:
    print(json.dumps({"error": exc.to_wire()}))
    sys.exit()
if given["note"]:
    store.write({"note": [(given["note"], 1, "ada", "first", "body", None)]}, spool.SpoolPlace(1, given["note"]))
notes = store.frame(query.FrameQuery(table="note"), contract.Stop())
from tundra_nb.runtime.history import arrow
print(json.dumps({
    "version": store.schema_version(),
    "place": store.place().offset,
    "notes": {row["note_id"]: row["subject"] for row in arrow.rows(notes.batches)},
    "refs": sorted(ref.name for ref in store.refs()),
    "log": [commit.message for commit in store.log()],
    "at_before": None if not given["statements"] else [
        row["subject"] for row in arrow.rows(store.frame(
            query.FrameQuery(table="note", at=store.resolve(f"schema-{given['number']}-before")),
            contract.Stop()).batches)],
}))
store.close()
"""


class Process:
    """Opens one and the same store again and again."""

    def __init__(self, engine: str, folder: Path, port: int) -> None:
        self.config = {
            "engine": engine,
            "spool": str(folder),
            "store": str(folder / "history.db"),
            "owner": "owner",
            "node": 1,
            "host": "127.0.0.1",
            "port": port,
            "database": f"t{uuid.uuid4().hex[:10]}",
            "user": "root",
            "commit_rows": 1000,
            "commit_seconds": 60.0,
        }

    def run(self, statements: tuple[str, ...] = (), note: int = 0, dies_in: str = "") -> dict[str, Any]:
        given = json.dumps(
            {"config": self.config, "statements": statements, "number": NEXT, "note": note, "dies_in": dies_in}
        )
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], check=False, input=given, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == (9 if dies_in else 0), done.stderr
        found: dict[str, Any] = json.loads(done.stdout or "{}")
        return found


@pytest.fixture(
    params=[
        pytest.param("doltlite", marks=pytest.mark.part("doltlite")),
        pytest.param("dolt", marks=pytest.mark.part("dolt")),
    ]
)
def process(request: pytest.FixtureRequest, tmp_path: Path) -> Process:
    port = request.getfixturevalue("dolt_port") if request.param == "dolt" else 0
    return Process(request.param, tmp_path, port)


def test_a_migration_is_one_commit_between_two_tags(process: Process) -> None:
    assert process.run(note=1)["version"] == SCHEMA_VERSION
    found = process.run(GOOD, note=2)
    assert (found["version"], found["place"]) == (NEXT, 2)
    assert found["notes"] == {"1": "migrated", "2": "first"}
    assert found["refs"] == ["main", f"schema-{NEXT}-after", f"schema-{NEXT}-before"]
    assert found["log"][0] == f"Migrate to schema {NEXT}: moods"
    assert found["at_before"] == ["first"]
    assert process.run(GOOD)["log"] == found["log"]


def test_a_migration_that_fails_changes_nothing_and_says_so(process: Process) -> None:
    process.run(note=1)
    error = process.run(BAD)["error"]
    assert (error["code"], error["reason"]) == ("StoreDamaged", "migration")
    assert f"schema {NEXT} (moods)" in error["message"]
    again = process.run(note=2)
    assert (again["version"], again["place"], again["notes"]) == (SCHEMA_VERSION, 2, {"1": "first", "2": "first"})
    assert again["refs"] == ["main", f"schema-{NEXT}-before"]
    assert process.run(GOOD)["notes"] == {"1": "migrated", "2": "migrated"}


@pytest.mark.parametrize("dies_in", ["change", "merge", "after the merge"])
def test_a_migration_that_was_interrupted_is_finished_at_the_next_start(process: Process, dies_in: str) -> None:
    process.run(note=1)
    process.run(GOOD, dies_in=dies_in)
    found = process.run(GOOD)
    assert (found["version"], found["notes"], found["place"]) == (NEXT, {"1": "migrated"}, 1)
    assert found["refs"] == ["main", f"schema-{NEXT}-after", f"schema-{NEXT}-before"]


def test_a_history_of_a_newer_program_is_refused(process: Process) -> None:
    process.run(note=1)
    process.run(GOOD)
    error = process.run()["error"]
    assert (error["code"], error["reason"]) == ("StoreDamaged", "newer")
    assert f"schema {NEXT}" in error["message"]


def test_the_newest_schema_is_the_last_migrations() -> None:
    assert [step.number for step in MIGRATIONS] == list(range(2, SCHEMA_VERSION + 1))
