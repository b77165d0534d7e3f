"""Dialect 1: doltlite, the embedded engine; one file, one writer, any number of readers.

`loading` has put it under `sqlite3` before this module is imported. What is peculiar here:

- `isolation_level=None` throughout: with Python's implicit transactions the statement after a `dolt_commit` would run
  in a stale one.
- A view at a commit is a connection to `file.db@<hash>`: all indexes work there, and nothing can be written.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import logging
import os
import re
import shutil
import sqlite3
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tundra_nb import environment
from tundra_nb.errors import (
    QueryRefused,
    RefNotFound,
    StoreBusy,
    StoreDamaged,
    StoreError,
    StoreUnavailable,
    TundraError,
    UsageError,
)
from tundra_nb.nearest import nearest
from tundra_nb.types import KEY_OF, TABLES

from . import changes, length, schema, sql_guard
from .authorizer import guard
from .contract import SQL_BYTES, SQL_ROWS, WORKING, Frame, Stop, Written
from .exact_sums import OVERFLOW, sum_exactly
from .migrations import migrate
from .query import FrameQuery
from .readers import BUSY_SECONDS, OLD, ReadConnection, Readers, refuse_other, uri
from .rules import (
    EVENT_TABLES,
    HASH_START,
    REF,
    EngineWords,
    apart_problem,
    beside,
    conflict,
    free_node,
    known_table,
    named,
    newest_id,
    no_common_commit,
    not_a_history,
    nothing,
    parted,
    pieces,
    ref_problem,
    refuse_newer,
    refuse_revert_of_events,
    remote_url,
    rows_statement,
    selection,
    split_rows,
    sql_problem,
    store_with_care,
    summary,
    unknown_table,
    valid_name,
    with_rows,
)
from .spool import SpoolPlace
from .values import Commit, Merge, RefInfo, Rows, Strategy, TableInfo, TableStat

if TYPE_CHECKING:  # the worker loads it when the first frame is asked for
    import pyarrow as pa

    from . import arrow

log = logging.getLogger("tundra.history")

GC_FROM_BYTES = 64 << 20
GC_MORE_BYTES = 256 << 20
"""gc when the file is larger than `GC_FROM_BYTES` and than twice its size after the last one and this."""
CACHE_KB = 200
"""Most of the pages that a writing connection keeps: more makes it no faster."""
RENEW_BYTES = 8 << 20
RENEW_SHARE = 8
"""A new writing connection after so many bytes, and this part of the file: the engine keeps 40 kB about each MB that a
connection has written, and opens a file of 58 MB in 9 ms."""

DIALECT = EngineWords(placeholder="?", array="json_group_array", comma=",")

_MISSING = re.compile(r"chunk is missing .*: ([0-9a-f]{40})")
_BAD_ROW = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, OverflowError)


class DoltliteStore:
    """`contract.EventStore` in one file."""

    engine = "doltlite"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._owner = ""
        self._node = 0
        self._step_ms = 0
        self._opened: tuple[int, int] | None = None
        self._written: tuple[tuple[int, int] | None, int] = (None, 0)
        """The file, and its size when the last rows were written."""
        self._renewed_at = 0
        self._inserts = {table: schema.doltlite_insert(table, schema.names_of(table)) for table in TABLES}
        self._writer: sqlite3.Connection | None = None
        self._readers = Readers(path)

    def __repr__(self) -> str:
        return f"<DoltliteStore {self._path}: {'open' if self._writer else 'closed'}>"

    # --- writing side ---

    def create(self) -> None:
        """`open` makes the file."""

    def open(self, owner: str, node: int) -> int:
        self._owner, self._node = owner, node
        with self._seam():
            # left behind by a gc that was killed
            self._path.with_name(self._path.name + "-gc-tmp").unlink(missing_ok=True)
            refuse_other(self._path)
            self._refuse_shorter()
            if words := length.cut(self._path):
                raise self._damaged(words)
            if self._file() is None:
                length.forget(self._path)
            self._written = (None, 0)
            self._writer = writer = self._connect(str(self._path))
            self._opened, self._renewed_at = self._file(), self.size()
            try:
                self._create_or_check(writer)
                migrate(self)
                self._node = self._claim(writer, node)
                self._step_ms = self._clock_step(writer)
                self._written = (self._file(), self.size())
                length.keep(self._path)
            except BaseException:
                self.close()
                raise
        return self._node

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            self._keep_length()

    def place(self) -> SpoolPlace:
        with self._seam():
            row = self._db.execute(
                "SELECT segment, position FROM spool_place WHERE owner = ?", (self._owner,)
            ).fetchone()
        return SpoolPlace(*row)

    def write(self, rows: Rows, place: SpoolPlace) -> Written:
        with self._seam():
            self._refuse_shorter()
            try:
                with self._transaction() as db:
                    for table, some in rows.items():
                        names, values = schema.filled(table, some)
                        db.executemany(schema.doltlite_insert(table, names), values)
                    self._save_place(db, place)
                self._written = (self._opened, self.size())
            except _BAD_ROW:
                return self._write_with_care(rows, place)
            finally:
                if self.size() >= self._renewed_at + max(RENEW_BYTES, self._renewed_at // RENEW_SHARE):
                    self._renew()
            return Written()

    def _renew(self) -> None:
        """Write through a new connection, where one is to be had; not to another file that bears the name now."""
        if self._file() != self._opened:
            return
        self._renewed_at = self.size()
        with contextlib.suppress(sqlite3.Error):
            unused = self._connect(uri(str(self._path), "rw"), is_uri=True)
            try:
                unused.execute("SELECT 1 FROM meta").fetchone()
                self._writer, unused = unused, self._db
            finally:
                unused.close()
        self._keep_length()
        environment.return_freed_memory()

    def _keep_length(self) -> None:
        """Unless something has cut the file, or another one bears its name."""
        if self._file() == self._opened and self.size() >= self._written[1]:
            length.keep(self._path)

    def _write_with_care(self, rows: Rows, place: SpoolPlace) -> Written:
        with self._transaction() as db:

            def insert(table: str, row: Sequence[Any]) -> None:
                db.execute(self._inserts[table], row)

            def fetch(text: str, *values: Any) -> Sequence[Sequence[Any]]:
                return db.execute(text, values).fetchall()

            written = store_with_care(rows, insert, fetch, placeholder="?", bad_row=_BAD_ROW)
            self._save_place(db, place)
        return written

    def newest_id(self) -> int:
        with self._seam():
            return newest_id(lambda text: self._db.execute(text).fetchall())

    def widen(self, step_ms: int) -> None:
        with self._seam():
            self._db.execute(
                schema.widening("?", "ON CONFLICT (writer_id) DO UPDATE SET clock_step_ms = excluded.clock_step_ms"),
                schema.widening_row(self._owner, self._node, step_ms),
            )
            self._step_ms = max(self._step_ms, step_ms)

    def _save_place(self, db: sqlite3.Connection, place: SpoolPlace) -> None:
        db.execute(
            "UPDATE spool_place SET segment = ?, position = ? WHERE owner = ?",
            (place.segment, place.offset, self._owner),
        )

    def commit(self, message: str, author: str, *, allow_empty: bool = True) -> str | None:
        with self._seam():
            before, tables = parted(self._changed())
            if before:
                self._commit(before, None, schema.AUTHOR)
            if not tables and not allow_empty:
                return None
            return self._commit(tables, message, author)

    def commit_events(self) -> str | None:
        with self._seam():
            changed = [table for table in self._changed() if table in EVENT_TABLES]
            if not changed:
                return None
            return self._commit(changed, None, schema.AUTHOR)

    def _commit(self, tables: Sequence[str], message: str | None, author: str) -> str:
        """With no message, it says what changed."""
        counted, rows = summary(self._stat("HEAD", WORKING, tables))
        for table in tables:
            self._db.execute("SELECT dolt_add(?)", (table,)).fetchone()
        return self._one(
            "SELECT dolt_commit('-m', ?, '--author', ?, '--allow-empty')", with_rows(message or counted, rows), author
        )

    def leads(self) -> bool:
        return True

    def branch(self, name: str, ref: str = "HEAD", *, delete: bool = False) -> None:
        valid_name(name, "branch")
        with self._seam(name):
            if delete:
                self._one("SELECT dolt_branch('-D', ?)", name)
            else:
                self._one("SELECT dolt_branch(?, ?)", name, self.resolve(ref))

    def tag(self, name: str, ref: str = "HEAD", message: str = "", *, delete: bool = False) -> None:
        valid_name(name, "tag")
        with self._seam(name):
            if delete:
                self._one("SELECT dolt_tag('-d', ?)", name)
            else:
                self._one("SELECT dolt_tag(?, ?, '-m', ?)", name, self.resolve(ref), message or name)

    def propose(self, branch: str, rows: Rows, message: str, author: str) -> str:
        if not any(ref.kind == "branch" and ref.name == branch for ref in self.refs()):
            self.branch(branch)
        with self._seam(), contextlib.closing(self._connect(f"{self._path}@{branch}")) as db:
            version = _schema_version(db)  # the branch may be older than the last migration
            db.execute("BEGIN IMMEDIATE")
            for table, some in rows.items():
                names = schema.names_of(table, version)
                db.executemany(schema.doltlite_insert(table, names), [row[: len(names)] for row in some])
            db.execute("COMMIT")
            count = sum(len(some) for some in rows.values())
            found = db.execute(
                "SELECT dolt_commit('-am', ?, '--author', ?, '--allow-empty')", (with_rows(message, count), author)
            ).fetchone()
            return str(found[0])

    def change(self, branch: str, statements: Sequence[str], message: str) -> None:
        """See `migrations.Migratable`."""
        with self._seam(), contextlib.closing(self._connect(f"{self._path}@{branch}")) as db:
            db.execute("BEGIN IMMEDIATE")
            for statement in statements:
                db.execute(statement)
            db.execute("COMMIT")
            db.execute("SELECT dolt_commit('-Am', ?, '--author', ?)", (message, schema.AUTHOR)).fetchone()

    def reset(self, ref: str) -> None:
        """Make `main` what a ref names; only the place in the spool stays."""
        with self._seam():
            places = self._db.execute("SELECT * FROM spool_place").fetchall()
            self._db.execute("SELECT dolt_reset('--hard', ?)", (ref,)).fetchone()
            with self._transaction() as db:
                db.executemany("REPLACE INTO spool_place VALUES (?, ?, ?, ?, ?)", places)

    def schema_version(self) -> int:
        """See `migrations.Migratable`."""
        with self._seam():
            return _schema_version(self._db)

    def merge(self, branch: str, message: str, author: str, strategy: Strategy | None = None) -> Merge:
        self.resolve(branch)
        with self._seam():
            self.commit_events()
            db = self._db
            db.execute("BEGIN IMMEDIATE")
            try:
                with self._author(author):
                    try:
                        db.execute("SELECT dolt_merge(?, '--no-ff', '-m', ?)", (branch, message)).fetchone()
                    except sqlite3.OperationalError as exc:
                        if "conflict" not in str(exc):
                            raise
                        conflicts = self._conflicts()
                        if strategy is None:
                            db.execute("ROLLBACK")
                            return Merge(None, conflicts)
                        for table in {conflict["table"] for conflict in conflicts}:
                            db.execute("SELECT dolt_conflicts_resolve(?, ?)", (f"--{strategy}", table)).fetchone()
                        db.execute("SELECT dolt_commit('-Am', ?)", (message,)).fetchone()
                db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")
            return Merge(self._one("SELECT dolt_hashof('HEAD')"))

    def _conflicts(self) -> list[dict[str, Any]]:
        found = []
        for (table,) in self._db.execute('SELECT "table" FROM dolt_conflicts').fetchall():
            cursor = self._db.execute(f"SELECT * FROM dolt_conflicts_{known_table(table)}")  # noqa: S608 - checked name
            names = [entry[0] for entry in cursor.description]
            found += [conflict(table, dict(zip(names, row, strict=True))) for row in cursor.fetchall()]
        return found

    def revert(self, ref: str, author: str) -> str:
        commit = self.resolve(ref)
        with self._seam(commit):
            self.commit_events()
            rows = self._db.execute("SELECT table_name FROM dolt_diff WHERE commit_hash = ?", (commit,)).fetchall()
            refuse_revert_of_events(ref, {row[0] for row in rows})
            with self._author(author):
                return self._one("SELECT dolt_revert(?)", commit)

    def push(self, remote: str) -> None:
        with beside(remote, self.check), self._seam(remote):
            name = self._remote(remote)
            for ref in self.refs():
                if ref.kind == "branch":
                    self._one("SELECT dolt_push(?, ?)", name, ref.name)
            self._one("SELECT dolt_push(?, '--tags')", name)

    def pull(self, remote: str) -> str:
        with beside(remote, self.check), self._seam(remote):
            self.commit_events()
            name = self._remote(remote)
            self._one("SELECT dolt_fetch(?, ?)", name, schema.MAIN)
            base = "SELECT dolt_merge_base('HEAD', ?) IS NULL"  # of which the engine says only `SQL logic error`
            if self._one(base, f"{name}/{schema.MAIN}") == "1":
                raise no_common_commit(remote)
            self._one("SELECT dolt_pull(?, ?)", name, schema.MAIN)
            return self._one("SELECT dolt_hashof('HEAD')")

    def clone(self, remote: str, into: str) -> None:
        if Path(into).exists():
            raise UsageError(
                problem=f"{into} exists already", field="into", remedy="Name a file that is not there yet."
            )
        with beside(remote), self._seam(remote), contextlib.closing(self._connect(into)) as db:
            try:
                db.execute("SELECT dolt_clone(?)", (remote_url(remote),)).fetchone()
                for (name,) in db.execute("SELECT name FROM dolt_remote_branches").fetchall():
                    branch = str(name).removeprefix("remotes/").partition("/")[2]
                    if branch != schema.MAIN:
                        db.execute("SELECT dolt_branch(?, ?)", (branch, f"origin/{branch}")).fetchone()
            except sqlite3.Error:
                Path(into).unlink(missing_ok=True)
                raise

    def backup(self, target: str) -> None:
        self.commit_events()
        self.push(target)

    def restore(self, source: str) -> str | None:
        draft = self._path.with_name(self._path.name + ".restoring")
        lock = draft.with_name(f".{draft.name}-lock")  # which the engine leaves behind
        draft.unlink(missing_ok=True)
        try:
            self.clone(source, str(draft))
            with beside(source), self._seam(source), contextlib.closing(self._connect(str(draft))) as db:
                if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone() is None:
                    raise not_a_history(source, "it lacks the tables of one")
                self._create_or_check(db)
                if problems := integrity(db):
                    raise not_a_history(source, problems[0])
            with self._seam():
                self.close()
                self._readers.drop()
                kept = self._keep_aside()
                length.forget(self._path)
                draft.replace(self._path)
                self._written = (None, 0)
        finally:
            draft.unlink(missing_ok=True)
            lock.unlink(missing_ok=True)
        self.open(self._owner, self._node)
        return kept

    def _keep_aside(self) -> str | None:
        """Move the history's file to a name that no earlier one has; None where there is no file."""
        if not self._path.exists():
            return None
        name = f"{self._path.name}.before-restore"
        names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        kept = next(place for place in map(self._path.with_name, names) if not os.path.lexists(place))
        shutil.move(self._path, kept)
        return str(kept)

    def gc_is_due(self) -> bool:
        size = self.size()
        if size < GC_FROM_BYTES:
            return False
        with self._seam():
            (after_last,) = self._db.execute("SELECT max(gc_bytes) FROM spool_place").fetchone()
        return size > 2 * int(after_last) + GC_MORE_BYTES

    def gc(self) -> None:
        with self._seam():
            length.forget(self._path)
            try:
                self._one("SELECT dolt_gc()")
            finally:
                self._keep_length()
            self._opened = self._file()
            self._written = (self._opened, self.size())  # a later file may have the number of an earlier one
            self._readers.drop()  # they would hold the old file's space
            self._db.execute("UPDATE spool_place SET gc_bytes = ? WHERE owner = ?", (self.size(), self._owner))
            self._renew()

    # --- reading side ---

    def deleted(self, *, at_once: bool = False) -> StoreUnavailable | None:
        # the open file lives on without a name, and all that is written to it dies with this process
        del at_once
        if self._writer is None or (now := self._file()) == self._opened:
            return None
        self._readers.drop()
        if now is not None:
            return StoreUnavailable(
                problem=f"{self._path} was replaced by another file while the daemon ran; the history goes on in that",
                remedy="`tundra restore` brings a backup back.",
                kind="replaced",
            )
        return StoreUnavailable(
            problem=f"{self._path} was deleted while the daemon ran; a new history begins",
            remedy="`tundra restore` brings a backup back.",
            kind="deleted",
        )

    def _file(self) -> tuple[int, int] | None:
        """Which file bears the history's name; None where there is none."""
        try:
            seen = self._path.stat()
        except OSError:
            return None
        return seen.st_dev, seen.st_ino

    def size(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError:
            return 0

    def frame(self, query: FrameQuery, stop: Stop) -> Frame:
        from . import arrow

        table, made_schema = query.table, arrow.table_schema(query.table, query.names)
        made = arrow.builders(made_schema, table)
        at = None if query.at in (None, WORKING) else str(query.at)
        db = self._take(at, stop)

        def fetch(text: str, given: Sequence[Any]) -> Sequence[Any]:
            with self._seam(stop=stop):
                return db.execute(text, given).fetchone() or ()

        parts, truncated = nothing(), False
        try:
            with self._seam(stop=stop):
                db.execute("BEGIN")  # one snapshot for all pieces
                there = self._columns_there(db, table)
            if there:
                source = schema.with_all_columns(table, table, there)
                selected, truncated = selection(query, source, DIALECT, self._step_ms).limited(fetch)
                parts = pieces(fetch, selected, made, stop)
        except BaseException:
            self._readers.give_back(db)
            raise
        batches = self._batches(db, parts, made_schema, made)
        return Frame(made_schema, batches, {"commit": at, "truncated": truncated})

    def _batches(
        self,
        db: ReadConnection,
        parts: Generator[list[pa.Array], None, None],
        made_schema: pa.Schema,
        made: list[arrow.ColumnBuilder],
    ) -> Generator[pa.RecordBatch, None, None]:
        import pyarrow as pa

        from . import arrow

        try:
            with contextlib.closing(parts):
                yield arrow.empty_batch(made_schema, made)
                for arrays in parts:
                    yield pa.record_batch(arrays, schema=made_schema)
        finally:
            self._readers.give_back(db)

    def rows(self, query: FrameQuery, stop: Stop) -> list[dict[str, Any]]:
        at = None if query.at in (None, WORKING) else str(query.at)
        with self._seam(stop=stop), self._readers.lent(at, stop) as db:
            there = self._columns_there(db, query.table)
            if not there:
                return []
            source = schema.with_all_columns(query.table, query.table, there)
            statement, values = rows_statement(selection(query, source, DIALECT, self._step_ms))
            return named(query, db.execute(statement, values).fetchall())

    def sql(self, text: str, at: str | None, limit: int | None, stop: Stop) -> Frame:
        statement = sql_guard.checked(text, sql_guard.DOLTLITE)
        most = min(SQL_ROWS, limit) if limit is not None else SQL_ROWS
        with self._seam(stop=stop, is_sql=True), self._readers.lent(at, stop, guard) as db:
            self._refuse_shorter()
            try:
                rows, truncated = _fetched(db.execute(statement), most)
            except sqlite3.OperationalError as exc:
                if at in (None, WORKING) and unknown_table(str(exc)) in TABLES:
                    raise self._damaged(str(exc)) from exc
                if OVERFLOW not in str(exc):
                    raise
                sum_exactly(db)
                db.generation = OLD  # not lent again
                rows, truncated = _fetched(db.execute(statement), most)
        made_schema, batches = rows.result()
        return Frame(made_schema, (batch for batch in batches), {"commit": at, "truncated": truncated})

    def resolve(self, ref: str | int) -> str:
        with self._seam(), self._readers.lent() as db:
            if isinstance(ref, int):
                moment = dt.datetime.fromtimestamp(ref // 1_000_000, dt.UTC)
                found = db.execute(
                    "SELECT commit_hash FROM dolt_log WHERE date <= ? LIMIT 1", (f"{moment:%Y-%m-%d %H:%M:%S}",)
                ).fetchone()
                if found is None:
                    (first,) = db.execute("SELECT min(date) FROM dolt_log").fetchone()
                    raise RefNotFound(
                        ref=f"{moment:%Y-%m-%dT%H:%M:%SZ}", begins=f"{str(first)[:19].replace(' ', 'T')}Z"
                    )
                return str(found[0])
            if ref == WORKING:
                return ref
            if REF.fullmatch(ref):
                try:
                    return str(db.execute("SELECT dolt_hashof(?)", (ref,)).fetchone()[0])
                except sqlite3.OperationalError:
                    pass
                except sqlite3.DatabaseError as exc:
                    # no damage where it is what was asked for: so a cloned or restored history says that it lacks it
                    if (missing := _MISSING.search(str(exc))) is None or missing[1] not in ref.lower():
                        raise
                if HASH_START.fullmatch(ref):
                    rows = db.execute(
                        "SELECT commit_hash FROM dolt_log WHERE commit_hash LIKE ?", (ref + "%",)
                    ).fetchall()
                    if len(rows) == 1:
                        return str(rows[0][0])
        raise RefNotFound(ref=ref, nearest=nearest(ref, [*(known.name for known in self.refs()), "HEAD", schema.MAIN]))

    def log(self, limit: int | None = None, ref: str = "HEAD") -> list[Commit]:
        start = self.resolve(ref)
        with self._seam(), self._readers.lent() as db:
            rows = db.execute(
                "SELECT commit_hash, date, committer, message FROM dolt_log(?) LIMIT ?",
                (start, -1 if limit is None else limit),
            ).fetchall()
        return [Commit(row[0], _microseconds(row[1]), row[2], *split_rows(row[3])) for row in rows]

    def diff(self, a: str, b: str, table: str, limit: int | None, stop: Stop) -> Frame:
        from . import arrow

        before, after = self.resolve(a), self.resolve(b)
        made_schema = arrow.diff_schema(known_table(table))
        made = arrow.builders(made_schema, table)
        names = [changes.in_doltlite(name) for name in made_schema.names if name != "table"]
        key = KEY_OF[table]
        text = (
            f"SELECT ?, {', '.join(names)} FROM dolt_diff_{table}(?, ?) "  # noqa: S608 - checked names
            f"ORDER BY coalesce(to_{key}, from_{key}) LIMIT ?"
        )
        db = self._take(None, stop)
        parts = self._rows(db, text, (table, before, after, -1 if limit is None else limit), made, stop)
        meta = {"from_commit": before, "to_commit": after, "commit": after, "truncated": False}
        return Frame(made_schema, self._batches(db, parts, made_schema, made), meta)

    def _rows(
        self,
        db: sqlite3.Connection,
        text: str,
        values: tuple[Any, ...],
        made: list[arrow.ColumnBuilder],
        stop: Stop,
    ) -> Generator[list[pa.Array], None, None]:
        with self._seam(stop=stop):
            cursor = db.execute(text, values)
            while rows := cursor.fetchmany(4096):
                yield [
                    builder.from_values(column) for builder, column in zip(made, zip(*rows, strict=True), strict=True)
                ]

    def stat(self, a: str, b: str) -> list[TableStat]:
        before, after = self.resolve(a), self.resolve(b)
        with self._seam(), self._readers.lent() as db:
            return _stat(db, before, after, TABLES)

    def history(self, table: str, key: int | None, stop: Stop, writer: str | None = None) -> Frame:
        changes.check_table(table)
        log = {commit.commit: commit for commit in self.log()}
        with self._seam(stop=stop), self._readers.lent(stop=stop) as db:
            head = str(db.execute("SELECT dolt_hashof('HEAD')").fetchone()[0])
            ancestors = db.execute("SELECT commit_hash, parent_hash, parent_index FROM dolt_commit_ancestors")
            steps = changes.first_parents(head, ancestors.fetchall())
            touching = db.execute("SELECT commit_hash FROM dolt_diff WHERE table_name = ?", (table,))
            touched = {row[0] for row in touching.fetchall()}
            text = f"SELECT {changes.diff_columns(table)} FROM dolt_diff_{table}(?, ?)"  # noqa: S608 - checked name
            return changes.row_history(
                table, key, steps, touched, log, lambda *states: db.execute(text, states).fetchall(), writer
            )

    def tables(self) -> list[TableInfo]:
        with self._seam(), self._readers.lent() as db:
            changed = _changed(db)
            return [
                TableInfo(table, db.execute(f"SELECT count(*) FROM {table}").fetchone()[0], table in changed)  # noqa: S608
                for table in TABLES
            ]

    def refs(self) -> list[RefInfo]:
        with self._seam(), self._readers.lent() as db:
            branches = db.execute("SELECT name, hash FROM dolt_branches ORDER BY name").fetchall()
            tags = db.execute("SELECT tag_name, tag_hash FROM dolt_tags ORDER BY tag_name").fetchall()
        return [RefInfo(n, "branch", h) for n, h in branches] + [RefInfo(n, "tag", h) for n, h in tags]

    def check(self) -> list[str]:
        with self._seam(), self._readers.lent() as db:
            return integrity(db)

    # --- inside ---

    @property
    def _db(self) -> sqlite3.Connection:
        if self._writer is None:
            raise StoreUnavailable(problem="the history's database is not open", kind="closed")
        return self._writer

    def _one(self, text: str, *values: Any) -> str:
        return str(self._db.execute(text, values).fetchone()[0])

    @staticmethod
    def _connect(name: str, *, is_uri: bool = False) -> sqlite3.Connection:
        db = sqlite3.connect(name, uri=is_uri, timeout=BUSY_SECONDS, isolation_level=None)
        db.execute(f"PRAGMA cache_size = -{CACHE_KB}")
        return db

    def _take(self, at: str | None, stop: Stop) -> ReadConnection:
        """A connection that outlives the call: `_batches` gives it back."""
        with self._seam(stop=stop):
            return self._readers.take(at, stop)

    def _columns_there(self, db: ReadConnection, table: str) -> set[str]:
        """The columns of a table; none where an older commit lacks it.

        Raises:
            StoreDamaged: the present state lacks it, or the file is shorter than it was.
        """
        if db.at is None:
            self._refuse_shorter()
        there = {row[0] for row in db.execute("SELECT name FROM pragma_table_info(?)", (table,))}
        if not there and db.at is None:
            raise self._damaged(f"it has no table {table}")
        return there

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def _author(self, author: str) -> Iterator[None]:
        """For commands that take no `--author`."""
        self._set_author(author)
        try:
            yield
        finally:
            self._set_author(schema.AUTHOR)

    def _set_author(self, author: str) -> None:
        name, _, mail = author.rstrip(">").partition(" <")
        self._db.execute("SELECT dolt_config('user.name', ?)", (name,)).fetchone()
        self._db.execute("SELECT dolt_config('user.email', ?)", (mail,)).fetchone()

    def _create_or_check(self, db: sqlite3.Connection) -> None:
        there = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "meta" not in there:
            if there - {"dolt_ignore", "spool_place"}:
                raise StoreDamaged(
                    problem=f"{self._path} is a database of something else",
                    remedy="Move it away, or choose another data directory with TUNDRA_DATA_DIR.",
                    kind="foreign",
                )
            db.execute("SELECT 1 FROM dolt_log LIMIT 1").fetchone()  # a damaged file looks empty until it is asked this
            db.execute("BEGIN IMMEDIATE")
            for statement in schema.doltlite_ddl():
                db.execute(statement)
            db.execute("COMMIT")
            db.execute("SELECT dolt_commit('-Am', 'Create the history', '--author', ?)", (schema.AUTHOR,)).fetchone()
        refuse_newer(_schema_version(db))
        db.execute(schema.LOCAL_DDL)

    @staticmethod
    def _clock_step(db: sqlite3.Connection) -> int:
        return int(db.execute("SELECT max(clock_step_ms) FROM writer").fetchone()[0] or 0)

    def _claim(self, db: sqlite3.Connection, node: int) -> int:
        db.execute("BEGIN IMMEDIATE")
        mine = db.execute("SELECT node FROM spool_place WHERE owner = ?", (self._owner,)).fetchone()
        if mine is None:
            taken = {row[0] for row in db.execute("SELECT node FROM spool_place")}
            mine = (free_node(node, taken),)
            db.execute("INSERT INTO spool_place VALUES (?, ?, 0, 0, 0)", (self._owner, mine[0]))
        db.execute("COMMIT")
        return int(mine[0])

    def _remote(self, remote: str) -> str:
        url = remote_url(remote)
        known = {row[1]: row[0] for row in self._db.execute("SELECT name, url FROM dolt_remotes").fetchall()}
        if remote in known.values():
            return remote
        if url not in known:
            known[url] = f"remote{len(known) + 1}"
            self._one("SELECT dolt_remote('add', ?, ?)", known[url], url)
        return str(known[url])

    def _changed(self) -> list[str]:
        return _changed(self._db)

    def _stat(self, a: str, b: str, tables: Sequence[str]) -> list[TableStat]:
        return _stat(self._db, self._one("SELECT dolt_hashof(?)", a), b, tables)

    @contextlib.contextmanager
    def _seam(self, name: str = "", *, stop: Stop | None = None, is_sql: bool = False) -> Iterator[None]:
        """Where the engine's errors become ours."""
        try:
            yield
        except TundraError:
            raise
        except sqlite3.Error as exc:
            raise self._translated(exc, name, stop, is_sql) from exc
        except OSError as exc:
            raise StoreUnavailable(problem=f"{self._path}: {exc.strerror or exc}", kind="file") from exc

    def _refuse_shorter(self) -> None:
        """Raise when something has cut the file: the engine would take what is left for the whole, as it once was.

        A gc makes another file.
        """
        file, size = self._written
        if file is not None and file == self._file() and self.size() < size:
            raise self._damaged(length.shortening(size, self.size()))

    def _damaged(self, why: str) -> StoreDamaged:
        return StoreDamaged(
            problem=f"{self._path} is damaged, or not a history: {why}",
            remedy="`tundra restore` brings a backup back; or move the file away and start a new history.",
            kind="corrupt",
        )

    def _translated(self, exc: sqlite3.Error, name: str, stop: Stop | None, is_sql: bool) -> TundraError:
        kind = str(getattr(exc, "sqlite_errorname", "")).removeprefix("SQLITE_").split("_")[0]
        text = str(exc)
        if kind == "INTERRUPT" and stop is not None:
            return stop.error()
        if kind in ("CORRUPT", "NOTADB"):
            return self._damaged(text)
        if kind == "FULL":
            return StoreUnavailable(
                problem=f"no space left for {self._path}",
                remedy="Free disk space; `tundra clean` shows what can go. Events wait in the spool.",
                kind="disk_full",
            )
        if name and (apart := apart_problem(text, name)):
            return apart
        if name and "remote" in text:
            return UsageError(problem=f"{name}: {text}", field="remote", remedy="Is it there, and a history?")
        if kind in ("BUSY", "LOCKED"):
            return StoreBusy(problem=f"{self._path} is locked by another program", kind="locked")
        if is_sql:
            return QueryRefused(problem=sql_problem(text))
        if kind in ("CANTOPEN", "READONLY", "PERM", "IOERR"):
            return StoreUnavailable(
                problem=f"{self._path} cannot be used: {text}",
                remedy="Check the permissions of the data directory and its disk.",
                kind="file",
            )
        if name:
            return ref_problem(text, name)
        return StoreError(problem=f"the history's database refused: {text}")


def _fetched(cursor: sqlite3.Cursor, most: int) -> tuple[arrow.LooseRows, bool]:
    """The rows of a statement, as many as allowed, and whether there are more."""
    from . import arrow

    rows = arrow.LooseRows([entry[0] for entry in cursor.description])
    while some := cursor.fetchmany(min(4096, most - rows.rows + 1)):
        if rows.rows + len(some) > most:
            rows.add(some[: most - rows.rows])
            return rows, True
        rows.add(some)
        if rows.bytes > SQL_BYTES:
            return rows, True
    return rows, False


def _schema_version(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT content FROM meta WHERE name = 'schema_version'").fetchone()[0])


def integrity(db: sqlite3.Connection) -> list[str]:
    """What is wrong with the pages of the file; empty where nothing is."""
    found = [row[0] for row in db.execute("PRAGMA integrity_check")]
    return [] if found == ["ok"] else found


def _changed(db: sqlite3.Connection) -> list[str]:
    there = {row[0] for row in db.execute("SELECT table_name FROM dolt_status").fetchall()}
    return [table for table in TABLES if table in there]


def _stat(db: sqlite3.Connection, before: str, after: str, tables: Any) -> list[TableStat]:
    names = "table_name, rows_added, rows_deleted, rows_modified, old_row_count, new_row_count"
    rows = db.execute(f"SELECT {names} FROM dolt_diff_stat(?, ?)", (before, after)).fetchall()  # noqa: S608
    found = {row[0]: TableStat(*row) for row in rows}
    return [found[table] for table in tables if table in found]


def _microseconds(text: str) -> int:
    moment = dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)
    return int(moment.timestamp()) * 1_000_000
