"""Replays the history of a doltlite file into a Dolt database: `python -m tundra_nb.runtime.history.migrate`.

The engines share neither files nor hashes, so commit by commit of the line of first parents is done again, with its
message, author and date; the commits of a merged branch become part of the merge. Branches and tags follow, and at
the end each table is read on both sides and compared. The setup comes as JSON on standard input, progress goes as JSON
lines to standard output. The daemon must be stopped: nothing may be written meanwhile.

A copy may be broken off at any moment, and the next one begins anew: it drops what the file `begun` and the database
together prove to be the part of a copy of this history, and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tundra_nb.errors import StoreDamaged, TundraError, UsageError
from tundra_nb.types import KEY_OF, TABLES, columns

from . import arrow, changes, loading
from .contract import EventStore, Stop
from .protocol import Config
from .query import FrameQuery
from .spool import identity

if TYPE_CHECKING:
    import sqlite3

    from .dolt import DoltStore
    from .endpoint import Connection

ROWS = 1000
"""In one statement."""
Report = Callable[[dict[str, Any]], None]


class Setup(msgspec.Struct, kw_only=True):
    """Where the history is read, and where it is written."""

    spool: str
    store: str
    host: str
    port: int
    database: str
    user: str
    password: str
    tls: bool = False
    ca_file: str = ""


class CopySetup(Setup, kw_only=True):
    """The same of a copy."""

    begun: str
    """The file that says where a copy has begun, until the history there is in use."""


class Begun(msgspec.Struct):
    """A copy into a database that was empty."""

    where: str
    commit: str
    """The one that made its tables: another database of the same name does not have it."""
    place: tuple[int, int]
    """How far the spool was stored; a daemon that uses the copy is beyond that with its first row."""


def migrate(setup: CopySetup, report: Report) -> dict[str, str]:
    """Do it; returns the new hash by the old one.

    Raises:
        UsageError: the Dolt database holds events already.
        StoreDamaged: a table differs afterwards.
    """
    loading.load()
    import sqlite3  # the engine has just been put under it

    from .dolt import DoltStore
    from .doltlite import DoltliteStore

    own = identity(Path(setup.spool))
    given = msgspec.structs.asdict(setup)
    begun = Path(given.pop("begun"))
    config = Config(**given, engine="dolt", owner=own.owner, node=own.node, commit_rows=1, commit_seconds=1)
    source, target = DoltliteStore(Path(config.store)), DoltStore(config)
    where = f"{config.host}:{config.port}/{config.database}"
    source.open(config.owner, config.node)
    try:
        target.create()
        target.open(config.owner, config.node)
        try:
            if _is_part_of_a_copy(target, where, begun, config.owner):
                target.drop()
                target.create()
                target.open(config.owner, config.node)
            if any(info.rows for info in target.tables()):
                raise UsageError(
                    problem=f"the database {config.database} holds a history already",
                    remedy="Set `store.database` to a new name.",
                )
            place = source.place()
            begun.write_bytes(msgspec.json.encode(Begun(where, target.log()[0].commit, (place.segment, place.offset))))
            with contextlib.closing(sqlite3.connect(config.store, isolation_level=None)) as db:
                mapped = _replay(db, target, report)
            _compare(source, target)
            target.write({}, place)
        finally:
            target.close()
    finally:
        source.close()
    return mapped


def _is_part_of_a_copy(target: DoltStore, where: str, begun: Path, owner: str) -> bool:
    """Whether all that the database holds was brought by a copy of this history that was broken off."""
    from .endpoint import run

    try:
        known = msgspec.json.decode(begun.read_bytes(), type=Begun)
    except (FileNotFoundError, msgspec.MsgspecError):
        return False
    if known.where != where or all(known.commit != commit.commit for commit in target.log()):
        return False
    with contextlib.closing(target.connect_to("main")) as db:
        tables = {row[0] for row in run(db, "SHOW TABLES")}
        places = run(db, "SELECT owner, segment, position FROM spool_place")
    unused = [((owner, *place),) for place in ((0, 0), known.place)]
    return tables <= {*TABLES, "meta", "spool_place"} and places in unused


def _replay(db: sqlite3.Connection, target: DoltStore, report: Report) -> dict[str, str]:
    ancestors = db.execute("SELECT commit_hash, parent_hash, parent_index FROM dolt_commit_ancestors").fetchall()
    branches = dict(db.execute("SELECT name, hash FROM dolt_branches").fetchall())
    line = changes.first_parents(branches["main"], ancestors)
    total = len(line)
    made = target.log()
    mapped = {line[0].parent: made[-1].commit, line[0].commit: made[0].commit}  # the empty state, and the tables
    with contextlib.closing(target.connect_to("main")) as there:
        for number, step in enumerate(line[1:], 2):
            mapped[step.commit] = _replay_commit(db, there, step)
            report({"commit": number, "of": total})
    for name, head in branches.items():
        own = [step for step in changes.first_parents(head, ancestors) if step.commit not in mapped]
        if name == "main" or (own and own[0].parent not in mapped):
            continue
        target.branch(name, mapped[own[0].parent] if own else mapped[head])
        with contextlib.closing(target.connect_to(name)) as there:
            for step in own:
                mapped[step.commit] = _replay_commit(db, there, step)
    for name, commit, message in db.execute("SELECT tag_name, tag_hash, message FROM dolt_tags").fetchall():
        if commit in mapped:
            target.tag(name, mapped[commit], message)
        else:
            report({"left_out": f"tag {name}: its commit is inside a merged branch"})
    return mapped


def _replay_commit(db: sqlite3.Connection, there: Connection, step: changes.CommitStep) -> str:
    author, mail, date, message = db.execute(
        "SELECT committer, email, date, message FROM dolt_log(?) LIMIT 1", (step.commit,)
    ).fetchone()
    there.begin()
    with there.cursor() as cursor:
        for table in TABLES:
            names = [column.name for column in columns(table)]
            replace = f"REPLACE INTO {table} VALUES ({', '.join(['%s'] * len(names))})"  # noqa: S608 - our names
            delete = f"DELETE FROM {table} WHERE {KEY_OF[table]} = %s"  # noqa: S608
            key = names.index(KEY_OF[table])
            found = db.execute(
                f"SELECT {changes.diff_columns(table)} FROM dolt_diff_{table}(?, ?)",  # noqa: S608
                (step.parent, step.commit),
            )
            while rows := found.fetchmany(ROWS):
                cursor.executemany(replace, [row[1 + len(names) :] for row in rows if row[0] != "removed"])
                cursor.executemany(delete, [(row[1 + key],) for row in rows if row[0] == "removed"])
        there.commit()
        cursor.execute(
            "CALL DOLT_COMMIT('-Am', %s, '--author', %s, '--date', %s, '--allow-empty')",
            (message, f"{author} <{mail or 'tundra@localhost'}>", f"{date.replace(' ', 'T')}Z"),
        )
        (made,) = cursor.fetchone() or ("",)
    return str(made)


def _compare(source: EventStore, target: EventStore) -> None:
    """Raise when a table is not the same on both sides."""
    for table in TABLES:
        pairs = zip(_rows(source, table), _rows(target, table), strict=False)
        counts = [{info.table: info.rows for info in store.tables()}[table] for store in (source, target)]
        if counts[0] != counts[1] or any(one != other for one, other in pairs):
            raise StoreDamaged(problem=f"the table {table} differs after the migration: {counts}", kind="migration")


def _rows(store: EventStore, table: str) -> Iterator[dict[str, Any]]:
    with contextlib.closing(store.frame(FrameQuery(table=table), Stop(3600)).batches) as batches:
        for batch in batches:
            yield from arrow.rows([batch])


def main() -> int:
    """Run; the last line of the output is the map, or the error. The exit code is 1 after an error."""
    setup = msgspec.json.decode(sys.stdin.buffer.read(), type=CopySetup)

    def say(told: dict[str, Any]) -> None:
        sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
        sys.stdout.flush()

    try:
        say({"mapped": migrate(setup, say)})
    except TundraError as error:
        say({"error": error.to_wire()})
        return 1
    except BrokenPipeError:  # whoever asked was killed; nothing more can be said
        os._exit(1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
