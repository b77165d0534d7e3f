"""Dialect 2: a Dolt sql-server, through PyMySQL.

What is peculiar here:

- A view at a commit is `AS OF '<hash>'` for frames, and a connection to the database `name/<hash>` for free SQL.
- Free SQL runs in a READ ONLY transaction, as a SELECT-only user where one is set up, behind `sql_guard`.
- Nothing in the server watches our deadline: `Stop` kills the query from a second connection.
- After a lost connection a COMMIT may have happened or not: inserting is idempotent, so it is simply done again.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import re
import socket
import sys
import time
from collections.abc import Collection, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pymysql
import pymysql.cursors

from tundra_nb._version import __version__
from tundra_nb.errors import (
    QueryRefused,
    RefNotFound,
    StoreBusy,
    StoreDamaged,
    StoreError,
    StoreUnavailable,
    UsageError,
)
from tundra_nb.nearest import nearest
from tundra_nb.runtime.id_layout import MAX_NODE
from tundra_nb.types import KEY_OF, TABLES, columns, stable_id

from . import changes, dolt_sums, migrations, schema, sql_guard
from .contract import SQL_BYTES, SQL_ROWS, WORKING, Frame, Stop, Written
from .endpoint import UNKNOWN_DATABASE, Connection, DoltAddress, drop, run
from .migrations import migrate
from .protocol import COPIED, Config
from .query import FrameQuery
from .rules import (
    EVENT_TABLES,
    HASH_START,
    REF,
    EngineWords,
    beside,
    conflict,
    free_node,
    known_table,
    named,
    newest_id,
    nothing,
    parted,
    pieces,
    refuse_newer,
    refuse_revert_of_events,
    remote_url,
    rows_statement,
    selection,
    split_rows,
    store_with_care,
    summary,
    valid_name,
    with_rows,
)
from .spool import WRITER_CHARACTERS, SpoolPlace, writer_id
from .values import Commit, Merge, RefInfo, Rows, Strategy, TableInfo, TableStat

if TYPE_CHECKING:  # the worker loads it when the first frame is asked for
    import pyarrow as pa

    from . import arrow

log = logging.getLogger("tundra.history")

LOCK_SECONDS = 30
"""Longest wait for another daemon's migration, or for it to take its number."""
SEEN_US = 6 * 3600 * 1_000_000
"""So often a daemon that writes says that it is there …"""
UNSEEN_US = 24 * 3600 * 1_000_000
"""… and one that has not for so long gives up its number, when none is free."""
NAMES = {"setting": "path", "profile": "name"}
"""Tables in which each daemon has rows of its own, and what people call a row there."""
REVERTING = "tundra_reverting"
"""The branch on which a revert is made."""
NO_SUCH_TABLE = 1146
LOOK_SECONDS = 15.0
"""So often a daemon that writes looks whether the database has still files: that takes a connection of its own."""
SHOWN_SECONDS = 10.0
"""A new database is in every session by then."""
DIALECT = EngineWords(placeholder="%s", array="json_arrayagg", comma=", ")
_BAD_ROW = (pymysql.err.DataError, pymysql.err.IntegrityError)
_DATABASE = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_EPOCH = dt.datetime(1970, 1, 1)  # noqa: DTZ001 - the server's times are UTC without saying so


class DoltStore:
    """`contract.EventStore` in one database of a Dolt server."""

    engine = "dolt"

    def __init__(self, config: Config) -> None:
        self._config = config
        self._endpoint = endpoint = DoltAddress(config)
        self._connect, self._seam = endpoint.connect, endpoint.seam
        self._owner = config.owner
        self._writer_id = writer_id(config.owner)
        self._node = 0
        self._seen_us = 0
        self._inserts = {table: schema.dolt_insert(table, schema.names_of(table)) for table in TABLES}
        self._writer: Connection | None = None
        self._looked_at = 0.0
        self._has_written = False

    def __repr__(self) -> str:
        where = f"{self._config.host}:{self._config.port}/{self._config.database}"
        return f"<DoltStore {where}: {'open' if self._writer else 'closed'}>"

    # --- writing side ---

    def create(self) -> None:
        with self._seam(), contextlib.closing(self._connect("")) as db:
            self._endpoint.refuse_others(db)
            self._refuse_deleted(db)  # such a server makes files that it cannot read when it starts again
            run(db, f"CREATE DATABASE IF NOT EXISTS `{self._config.database}`")
            if self._config.reader_user:  # on a server of ours it was set up for the database that there was first
                try:
                    run(db, f"GRANT SELECT ON `{self._config.database}`.* TO %s@'%%'", self._config.reader_user)
                except pymysql.MySQLError as exc:  # whoever runs the server has to
                    log.warning("%s is not granted SELECT by us: %s", self._config.reader_user, exc)
            self._await_database()

    def _refuse_deleted(self, db: Connection) -> None:
        if deleted := self._endpoint.deleted_under(db):
            raise deleted

    def _await_database(self) -> None:
        """A busy server can show a new database to other sessions a moment late."""
        deadline = time.monotonic() + SHOWN_SECONDS
        while True:
            try:
                with contextlib.closing(self._connect(self._config.database)) as db:
                    run(db, "SHOW TABLES")  # a database whose files are gone lets us in, and does nothing
            except pymysql.MySQLError as exc:
                if exc.args[:1] != (UNKNOWN_DATABASE,) or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return

    def open(self, owner: str, node: int) -> int:
        self._owner, self._node, self._seen_us = owner, node, 0
        self._writer_id = writer_id(owner)
        with self._seam():
            self._writer = writer = self._connect(self._config.database)
            try:
                self._endpoint.refuse_others(writer)
                self._create_or_check(writer)
                with self._alone(writer):
                    migrate(self)
                self._node = self._claim(writer, node)
            except BaseException:
                self.close()
                raise
        return self._node

    def close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None and writer.open:
            with contextlib.suppress(pymysql.MySQLError, OSError):
                writer.close()

    def drop(self) -> None:
        """Remove the database with all that it holds; it is closed then."""
        self.close()
        with self._seam(), contextlib.closing(self._connect("")) as db:
            run(db, f"DROP DATABASE `{self._config.database}`")

    def place(self) -> SpoolPlace:
        with self._seam():
            rows = run(self._db, "SELECT segment, position FROM spool_place WHERE owner = %s", self._owner)
            return SpoolPlace(*rows[0])

    def write(self, rows: Rows, place: SpoolPlace) -> Written:
        with self._seam():
            try:
                with self._transaction() as cursor:
                    if rows:
                        self._sign_in(cursor)
                    for table, some in rows.items():
                        names, values = schema.filled(table, self._as_own(cursor, table, some))
                        cursor.executemany(schema.dolt_insert(table, names), values)
                    self._save_place(cursor, place)
                self._has_written = self._has_written or bool(rows)
            except _BAD_ROW:
                return self._write_with_care(rows, place)
            return Written()

    def _sign_in(self, cursor: pymysql.cursors.Cursor) -> None:
        """Say who writes, once and then every few hours; the place of what is written must still be ours.

        Raises:
            StoreUnavailable: another daemon has begun to write under this identity: one is a copy of the other.
            StoreBusy: this daemon was not seen for so long that its number was given away.
        """
        cursor.execute(
            "SELECT node, (SELECT started_at FROM writer WHERE writer_id = %s) FROM spool_place WHERE owner = %s",
            (self._writer_id, self._owner),
        )
        there = cursor.fetchone()
        if there is None:
            raise StoreBusy(problem="this daemon was away for long, and its number was given to another", kind="nodes")
        config, now = self._config, time.time_ns() // 1000
        if there[1] == config.life and now - self._seen_us < SEEN_US:
            return
        if there[1] is not None and there[1] > config.life_before and there[1] != config.life:
            raise StoreUnavailable(
                problem="another daemon writes under the identity of this one: one data directory is a copy",
                remedy="This one goes on under a new identity by itself.",
                kind=COPIED,
            )
        who = (self._writer_id, now, socket.gethostname(), config.user_name, config.data_dir, there[0])
        cursor.execute(schema.SIGN_IN, (*who, config.life, now, __version__))
        self._seen_us = now

    def _as_own(
        self, cursor: pymysql.cursors.Cursor, table: str, rows: Sequence[tuple[Any, ...]]
    ) -> Sequence[tuple[Any, ...]]:
        """Rows of settings and profiles under the keys of this daemon, because others have settings of the same names.

        That is the key of the row which it has already, or which nobody has signed; else one of its own.
        """
        if table not in NAMES or not rows:
            return rows
        names = [column.name for column in columns(table)]
        key, name, writer = (names.index(one) for one in (KEY_OF[table], NAMES[table], "writer_id"))
        text = f"SELECT {NAMES[table]}, {KEY_OF[table]} FROM {table} WHERE writer_id "  # noqa: S608 - our names
        known: dict[str, int] = {}
        for whose, values in (("IS NULL", ()), ("= %s", (self._writer_id,))):
            cursor.execute(text + whose, values or None)
            known |= dict(cursor.fetchall())
        own = []
        for row in rows:
            if row[writer] in (None, self._writer_id):
                made = known.get(row[name]) or stable_id(table, self._writer_id, row[name])
                own.append((*row[:key], made, *row[key + 1 : writer], self._writer_id, *row[writer + 1 :]))
            else:
                own.append(row)
        return own

    def _write_with_care(self, rows: Rows, place: SpoolPlace) -> Written:
        with self._transaction() as cursor:
            if rows:
                self._sign_in(cursor)
            rows = {table: self._as_own(cursor, table, some) for table, some in rows.items()}

            def insert(table: str, row: Sequence[Any]) -> None:
                cursor.execute(self._inserts[table], row)

            def fetch(text: str, *values: Any) -> Sequence[Sequence[Any]]:
                cursor.execute(text, values or None)
                return tuple(cursor.fetchall())

            written = store_with_care(rows, insert, fetch, placeholder="%s", bad_row=_BAD_ROW)
            self._save_place(cursor, place)
        return written

    def newest_id(self) -> int:
        with self._seam():
            return newest_id(lambda text: run(self._db, text))

    def widen(self, step_ms: int) -> None:
        with self._seam():
            text = schema.widening("%s", "ON DUPLICATE KEY UPDATE clock_step_ms = VALUES(clock_step_ms)")
            run(self._db, text, *schema.widening_row(self._owner, self._node, step_ms))

    def _save_place(self, cursor: pymysql.cursors.Cursor, place: SpoolPlace) -> None:
        text = "UPDATE spool_place SET segment = %s, position = %s WHERE owner = %s"
        cursor.execute(text, (place.segment, place.offset, self._owner))

    def commit(self, message: str, author: str, *, allow_empty: bool = True) -> str | None:
        with self._seam():
            before, tables = parted(_changed(self._db))
            if before:
                self._commit(before, None, schema.AUTHOR)
            if not tables and not allow_empty:
                return None
            return self._commit(tables, message, author)

    def commit_events(self) -> str | None:
        with self._seam():
            changed = [table for table in _changed(self._db) if table in EVENT_TABLES]
            if not changed:
                return None
            return self._commit(changed, None, schema.AUTHOR)

    def leads(self) -> bool:
        with self._seam():  # held until the connection ends: then the next that asks is the one
            return run(self._db, "SELECT GET_LOCK(%s, 0)", self._lock("commits")) == ((1,),)

    def _commit(self, tables: Sequence[str], message: str | None, author: str) -> str:
        """With no message, it says what changed."""
        counted, rows = summary(_stat(self._db, "HEAD", WORKING, tables))
        for table in tables:
            run(self._db, "CALL DOLT_ADD(%s)", table)
        text = "CALL DOLT_COMMIT('-m', %s, '--author', %s, '--allow-empty')"
        return self._one(text, with_rows(message or counted, rows), author)

    def branch(self, name: str, ref: str = "HEAD", *, delete: bool = False) -> None:
        valid_name(name, "branch")
        with self._seam(name):
            if delete:
                self._one("CALL DOLT_BRANCH('-D', %s)", name)
            else:
                self._one("CALL DOLT_BRANCH(%s, %s)", name, self.resolve(ref))

    def tag(self, name: str, ref: str = "HEAD", message: str = "", *, delete: bool = False) -> None:
        valid_name(name, "tag")
        with self._seam(name):
            if delete:
                self._one("CALL DOLT_TAG('-d', %s)", name)
            else:
                self._one("CALL DOLT_TAG(%s, %s, '-m', %s)", name, self.resolve(ref), message or name)

    def propose(self, branch: str, rows: Rows, message: str, author: str) -> str:
        if not any(ref.kind == "branch" and ref.name == branch for ref in self.refs()):
            self.branch(branch)
        with self._seam(), contextlib.closing(self._connect(f"{self._config.database}/{branch}")) as db:
            version = _schema_version(db)  # the branch may be older than the last migration
            db.begin()
            with db.cursor() as cursor:
                for table, some in rows.items():
                    names = schema.names_of(table, version)
                    own = self._as_own(cursor, table, some) if version > 1 else some
                    cursor.executemany(schema.dolt_insert(table, names), [row[: len(names)] for row in own])
            db.commit()
            count = sum(len(some) for some in rows.values())
            text = "CALL DOLT_COMMIT('-am', %s, '--author', %s, '--allow-empty')"
            return str(run(db, text, with_rows(message, count), author)[0][0])

    def change(self, branch: str, statements: Sequence[str], message: str) -> None:
        """See `migrations.Migratable`."""
        with self._seam(), contextlib.closing(self._connect(f"{self._config.database}/{branch}")) as db:
            for statement in statements:
                run(db, statement)
            run(db, "CALL DOLT_COMMIT('-Am', %s, '--author', %s)", message, schema.AUTHOR)

    def reset(self, ref: str) -> None:
        """Make `main` what a ref names; only the places in the spool stay."""
        with self._seam():
            places = run(self._db, "SELECT * FROM spool_place")
            run(self._db, "CALL DOLT_RESET('--hard', %s)", ref)
            with self._transaction() as cursor:
                cursor.executemany("REPLACE INTO spool_place VALUES (%s, %s, %s, %s, %s)", places)

    def schema_version(self) -> int:
        """See `migrations.Migratable`."""
        with self._seam():
            return _schema_version(self._db)

    def merge(self, branch: str, message: str, author: str, strategy: Strategy | None = None) -> Merge:
        self.resolve(branch)
        with self._seam():
            self.commit_events()
            db = self._db
            db.autocommit(False)  # with it, a conflict would roll back before it could be seen
            try:
                db.begin()
                text = "CALL DOLT_MERGE(%s, '--no-ff', '-m', %s, '--author', %s)"
                if run(db, text, branch, message, author)[0][2]:
                    conflicts = self._conflicts()
                    if strategy is None:
                        return Merge(None, conflicts)
                    for table in {conflict["table"] for conflict in conflicts}:
                        run(db, "CALL DOLT_CONFLICTS_RESOLVE(%s, %s)", f"--{strategy}", table)
                    run(db, "CALL DOLT_COMMIT('-Am', %s, '--author', %s)", message, author)
                db.commit()
            finally:
                db.rollback()
                db.autocommit(True)
            return Merge(self._one("SELECT DOLT_HASHOF('HEAD')"))

    def _conflicts(self) -> list[dict[str, Any]]:
        found = []
        for (table,) in run(self._db, "SELECT `table` FROM dolt_conflicts"):
            with self._db.cursor(pymysql.cursors.DictCursor) as cursor:
                cursor.execute(f"SELECT * FROM dolt_conflicts_{known_table(table)}")  # noqa: S608 - checked name
                found += [conflict(table, row) for row in cursor.fetchall()]
        return found

    def revert(self, ref: str, author: str) -> str:
        commit = self.resolve(ref)
        with self._seam(commit):
            self.commit_events()
            rows = run(self._db, "SELECT table_name FROM dolt_diff WHERE commit_hash = %s", commit)
            refuse_revert_of_events(ref, {row[0] for row in rows})
            # A revert refuses to run beside the uncommitted `spool_place`, a merge does not: so it is made on a branch.
            self._one("CALL DOLT_BRANCH('-f', %s, 'HEAD')", REVERTING)
            try:
                with contextlib.closing(self._connect(f"{self._config.database}/{REVERTING}")) as db:
                    run(db, "CALL DOLT_REVERT(%s, '--author', %s)", commit, author)
                self._one("CALL DOLT_MERGE(%s)", REVERTING)
            finally:
                self._one("CALL DOLT_BRANCH('-D', %s)", REVERTING)
            return self._one("SELECT DOLT_HASHOF('HEAD')")

    def push(self, remote: str) -> None:
        with beside(remote, self.check), self._seam(remote):
            name = self._remote(remote)
            for ref in self.refs():
                self._one("CALL DOLT_PUSH(%s, %s)", name, ref.name)

    def pull(self, remote: str) -> str:
        with beside(remote, self.check), self._seam(remote):
            self.commit_events()
            name = self._remote(remote)  # not DOLT_PULL: it refuses to run beside the uncommitted `spool_place`
            self._one("CALL DOLT_FETCH(%s, %s)", name, schema.MAIN)
            self._one("CALL DOLT_MERGE(%s, '--author', %s)", f"{name}/{schema.MAIN}", schema.AUTHOR)
            return self._one("SELECT DOLT_HASHOF('HEAD')")

    def clone(self, remote: str, into: str) -> None:
        if not _DATABASE.fullmatch(into):
            raise UsageError(
                problem=f"{into[:40]!r} cannot be the name of a database",
                field="into",
                remedy="Letters, digits, `_` and `-`, beginning with a letter.",
            )
        if (into,) in run(self._db, "SHOW DATABASES"):
            raise UsageError(problem=f"database {into} exists already", field="into", remedy="Choose another name.")
        with beside(remote), self._seam(remote):
            self._one("CALL DOLT_CLONE(%s, %s)", remote_url(remote), into)

    def backup(self, target: str) -> None:
        with beside(target, self.check), self._seam(target):
            self.commit_events()
            self._one("CALL DOLT_BACKUP('sync-url', %s)", remote_url(target))

    def restore(self, source: str) -> str | None:
        # on a connection of its own to no database: ours may be damaged, or gone
        with beside(source), self._seam(source), contextlib.closing(self._connect("")) as db:
            self._endpoint.refuse_others(db)
            self._refuse_deleted(db)  # on such a server that is the server's end
            run(db, "CALL DOLT_BACKUP('restore', %s, %s, '--force')", remote_url(source), self._config.database)
            self.close()
        self.open(self._owner, self._node)
        return None  # the server drops what was there

    def gc_is_due(self) -> bool:
        return False  # the server does it by itself

    def gc(self) -> None:
        with self._seam():
            self._one("CALL DOLT_GC()")

    # --- reading side ---

    def deleted(self, *, at_once: bool = False) -> StoreUnavailable | None:
        # the server goes on taking what comes on our connection, into files that have no name any more; it says that
        # they are gone only to whoever connects anew
        now = time.monotonic()
        if self._writer is None or not (at_once or (self._has_written and now - self._looked_at >= LOOK_SECONDS)):
            return None
        self._looked_at, self._has_written = now, False
        try:
            with contextlib.closing(self._connect(self._config.database)) as db:
                run(db, "SHOW TABLES")
        except (StoreUnavailable, pymysql.MySQLError, OSError) as exc:
            is_gone = exc.args[:1] == (UNKNOWN_DATABASE,)
            return self._endpoint.unknown_database() if is_gone else None  # the rest is met by whoever writes or reads
        return None

    def size(self) -> int:
        return 0

    def frame(self, query: FrameQuery, stop: Stop) -> Frame:
        from . import arrow

        table, made_schema = query.table, arrow.table_schema(query.table, query.names)
        made = arrow.builders(made_schema, table)
        at = None if query.at in (None, WORKING) else str(query.at)
        source = table if at is None else f"{table} AS OF '{at}'"
        db = self._reader(stop)

        def fetch(text: str, given: Sequence[Any]) -> Sequence[Any]:
            with self._seam(stop=stop):
                found = run(db, text, *given)
                return found[0] if found else ()

        parts, truncated = nothing(), False
        try:
            with self._seam(stop=stop):
                run(db, "START TRANSACTION READ ONLY")  # one snapshot for all pieces
                step_ms = int(run(db, "SELECT max(clock_step_ms) FROM writer")[0][0] or 0)  # of any daemon, at any time
                there = _columns_of(db, source)
            if there:
                source = schema.with_all_columns(source, table, there)
                selected, truncated = selection(query, source, DIALECT, step_ms).limited(fetch)
                parts = pieces(fetch, selected, made, stop)
        except BaseException:
            db.close()
            raise
        batches = self._batches(db, parts, made_schema, made, stop)
        return Frame(made_schema, batches, {"commit": at, "truncated": truncated})

    def _batches(
        self,
        db: Connection,
        parts: Generator[list[pa.Array], None, None],
        made_schema: pa.Schema,
        made: list[arrow.ColumnBuilder],
        stop: Stop,
    ) -> Generator[pa.RecordBatch, None, None]:
        import pyarrow as pa

        from . import arrow

        try:
            with contextlib.closing(parts):
                yield arrow.empty_batch(made_schema, made)
                for arrays in parts:
                    yield pa.record_batch(arrays, schema=made_schema)
        finally:
            stop.set_hook(None)
            drop(db)

    def rows(self, query: FrameQuery, stop: Stop) -> list[dict[str, Any]]:
        source = query.table if query.at in (None, WORKING) else f"{query.table} AS OF '{query.at}'"
        db = self._reader(stop)
        try:
            with self._seam(stop=stop):
                step_ms = int(run(db, "SELECT max(clock_step_ms) FROM writer")[0][0] or 0)
                there = _columns_of(db, source)
                if not there:
                    return []
                source = schema.with_all_columns(source, query.table, there)
                statement, values = rows_statement(selection(query, source, DIALECT, step_ms))
                return named(query, run(db, statement, *values))
        finally:
            stop.set_hook(None)
            drop(db)

    def sql(self, text: str, at: str | None, limit: int | None, stop: Stop) -> Frame:
        statement = dolt_sums.exact(sql_guard.checked(text, sql_guard.DOLT))
        most = min(SQL_ROWS, limit) if limit is not None else SQL_ROWS
        database = self._config.database if at in (None, WORKING) else f"{self._config.database}/{at}"
        # the server declares numbers in a plan that are none, and the driver would trip over them
        is_plan = statement.lstrip().lower().startswith("explain")
        db = self._reader(stop, database, as_reader=True, as_text=is_plan)
        try:
            with self._seam(stop=stop, is_sql=True):
                # the guard reads strings as this mode does, whatever the server's own is
                run(db, "SET SESSION sql_select_limit = %s, sql_mode = 'STRICT_TRANS_TABLES'", most + 1)
                run(db, "START TRANSACTION READ ONLY")
                cursor = db.cursor(pymysql.cursors.SSCursor)
                cursor.execute(statement)
                if cursor.description is None:
                    raise QueryRefused(problem="the statement has no rows to show")
                from . import arrow

                rows = arrow.LooseRows([entry[0] for entry in cursor.description])
                truncated = False
                while not truncated and (some := cursor.fetchmany(min(4096, most - rows.rows + 1))):
                    if rows.rows + len(some) > most:
                        some, truncated = some[: most - rows.rows], True
                    if some:
                        rows.add(some)
                    truncated = truncated or rows.bytes > SQL_BYTES
        finally:
            stop.set_hook(None)
            drop(db)
        made_schema, batches = rows.result()
        return Frame(made_schema, (batch for batch in batches), {"commit": at, "truncated": truncated})

    def resolve(self, ref: str | int) -> str:
        with self._seam(), contextlib.closing(self._reader()) as db:
            if isinstance(ref, int):
                moment = _EPOCH + dt.timedelta(microseconds=ref)
                text = "SELECT commit_hash FROM dolt_log WHERE date <= %s ORDER BY date DESC LIMIT 1"
                rows = run(db, text, moment.isoformat(" "))
                if not rows:
                    first = run(db, "SELECT min(date) FROM dolt_log")[0][0]
                    raise RefNotFound(ref=f"{moment:%Y-%m-%dT%H:%M:%SZ}", begins=f"{first:%Y-%m-%dT%H:%M:%SZ}")
                return str(rows[0][0])
            if ref == WORKING:
                return ref
            if REF.fullmatch(ref):
                with contextlib.suppress(pymysql.err.OperationalError):
                    return str(run(db, "SELECT DOLT_HASHOF(%s)", ref)[0][0])
                if HASH_START.fullmatch(ref):
                    rows = run(db, "SELECT commit_hash FROM dolt_log WHERE commit_hash LIKE %s", ref + "%")
                    if len(rows) == 1:
                        return str(rows[0][0])
        raise RefNotFound(ref=ref, nearest=nearest(ref, [*(known.name for known in self.refs()), "HEAD", schema.MAIN]))

    def log(self, limit: int | None = None, ref: str = "HEAD") -> list[Commit]:
        start = self.resolve(ref)
        with self._seam(), contextlib.closing(self._reader()) as db:
            text = "SELECT commit_hash, date, committer, message FROM dolt_log(%s) LIMIT %s"
            rows = run(db, text, start, 1 << 40 if limit is None else limit)
        return [
            Commit(row[0], (row[1] - _EPOCH) // dt.timedelta(microseconds=1), row[2], *split_rows(row[3]))
            for row in rows
        ]

    def diff(self, a: str, b: str, table: str, limit: int | None, stop: Stop) -> Frame:
        from . import arrow

        before, after = self.resolve(a), self.resolve(b)
        made_schema = arrow.diff_schema(known_table(table))
        made = arrow.builders(made_schema, table)
        key = KEY_OF[table]
        db = self._reader(stop)
        try:
            with self._seam(stop=stop):
                there = _columns_of(db, "dolt_diff(%s, %s, %s)", before, after, table)
        except BaseException:
            drop(db)
            raise
        names = _or_null([name for name in made_schema.names if name != "table"], there)
        text = f"SELECT %s, {names} FROM dolt_diff(%s, %s, %s) ORDER BY coalesce(to_{key}, from_{key})"  # noqa: S608
        parts = self._rows(db, text, (table, before, after, table), limit, made, stop) if there else nothing()
        meta = {"from_commit": before, "to_commit": after, "commit": after, "truncated": False}
        return Frame(made_schema, self._batches(db, parts, made_schema, made, stop), meta)

    def _rows(
        self,
        db: Connection,
        text: str,
        values: tuple[Any, ...],
        limit: int | None,
        made: list[arrow.ColumnBuilder],
        stop: Stop,
    ) -> Generator[list[pa.Array], None, None]:
        left = sys.maxsize if limit is None else limit
        with self._seam(stop=stop):
            cursor = db.cursor(pymysql.cursors.SSCursor)
            cursor.execute(text, values)
            # no LIMIT in the text: with ORDER BY the server takes memory for so many rows before it reads the first
            while left and (rows := cursor.fetchmany(min(4096, left))):
                left -= len(rows)
                stop.renew()
                yield [
                    builder.from_values(column) for builder, column in zip(made, zip(*rows, strict=True), strict=True)
                ]

    def stat(self, a: str, b: str) -> list[TableStat]:
        before, after = self.resolve(a), self.resolve(b)
        with self._seam(), contextlib.closing(self._reader()) as db:
            return _stat(db, before, after, TABLES)

    def history(self, table: str, key: int | None, stop: Stop, writer: str | None = None) -> Frame:
        changes.check_table(table)
        log = {commit.commit: commit for commit in self.log()}
        with self._seam(stop=stop), contextlib.closing(self._reader(stop)) as db:
            head = str(run(db, "SELECT DOLT_HASHOF('HEAD')")[0][0])
            ancestors = run(db, "SELECT commit_hash, parent_hash, parent_index FROM dolt_commit_ancestors")
            steps = changes.first_parents(head, ancestors)
            touched = {row[0] for row in run(db, "SELECT commit_hash FROM dolt_diff WHERE table_name = %s", table)}

            def fetch(before: str, after: str) -> Sequence[Sequence[Any]]:
                there = _columns_of(db, "dolt_diff(%s, %s, %s)", before, after, table)
                if not there:
                    return ()
                names = _or_null(changes.diff_names(table), there)
                text = f"SELECT {names} FROM dolt_diff(%s, %s, %s)"  # noqa: S608 - checked names
                return run(db, text, before, after, table)

            return changes.row_history(table, key, steps, touched, log, fetch, writer)

    def tables(self) -> list[TableInfo]:
        with self._seam(), contextlib.closing(self._reader()) as db:
            changed = _changed(db)
            counts = {table: run(db, f"SELECT count(*) FROM {table}")[0][0] for table in TABLES}  # noqa: S608
            return [TableInfo(table, count, table in changed) for table, count in counts.items()]

    def refs(self) -> list[RefInfo]:
        with self._seam(), contextlib.closing(self._reader()) as db:
            branches = run(db, "SELECT name, hash FROM dolt_branches ORDER BY name")
            tags = run(db, "SELECT tag_name, tag_hash FROM dolt_tags ORDER BY tag_name")
        return [RefInfo(n, "branch", h) for n, h in branches] + [RefInfo(n, "tag", h) for n, h in tags]

    def check(self) -> list[str]:
        """The server has no check of its own: read every value that there is, and what each commit changed."""
        sums = {
            table: ", ".join(f"max({'length' if 'text' in c.type else ''}({c.name}))" for c in columns(table))
            for table in TABLES
        }
        problems = []
        with self._seam(), contextlib.closing(self._reader()) as db:
            for text in ("SELECT count(*) FROM dolt_diff", *(f"SELECT {sums[t]} FROM {t}" for t in TABLES)):  # noqa: S608
                try:
                    with self._endpoint.seam():
                        run(db, text)
                except StoreUnavailable:
                    raise
                except StoreError as exc:
                    problems.append(exc.message)
        return problems

    # --- inside ---

    @property
    def _db(self) -> Connection:
        if self._writer is None:
            raise StoreUnavailable(problem="the history's database is not open", kind="closed")
        return self._writer

    def _one(self, text: str, *values: Any) -> str:
        rows = run(self._db, text, *values)
        return str(rows[0][0]) if rows else ""

    def connect_to(self, branch: str) -> Connection:
        """A connection of its own to a branch, for work that is no method of the contract; the caller closes it."""
        return self._connect(f"{self._config.database}/{branch}")

    def _reader(
        self, stop: Stop | None = None, database: str = "", *, as_reader: bool = False, as_text: bool = False
    ) -> Connection:
        """A connection for one request, whose query is broken off when `stop` is due."""
        with self._seam():
            return self._connect(database or self._config.database, stop, as_reader=as_reader, as_text=as_text)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[pymysql.cursors.Cursor]:
        db = self._db
        db.begin()
        try:
            with db.cursor() as cursor:
                yield cursor
            db.commit()
        except BaseException:
            with contextlib.suppress(pymysql.MySQLError, OSError):
                db.rollback()
            raise

    def _create_or_check(self, db: Connection) -> None:
        there = {row[0] for row in run(db, "SHOW TABLES")}
        if "meta" not in there:
            if there - {"spool_place"} - set(TABLES):
                raise StoreDamaged(
                    problem=f"database {self._config.database} holds something else",
                    remedy="Set `store.database` to another name.",
                    kind="foreign",
                )
            for statement in schema.dolt_ddl():
                run(db, re.sub("^CREATE TABLE ", "CREATE TABLE IF NOT EXISTS ", statement))
            run(db, "CALL DOLT_COMMIT('-Am', 'Create the history', '--author', %s)", schema.AUTHOR)
        refuse_newer(_schema_version(db))
        run(db, schema.LOCAL_DDL)

    @contextlib.contextmanager
    def _alone(self, db: Connection) -> Iterator[None]:
        """While it holds, no other daemon of this database migrates it."""
        if _schema_version(db) == schema.SCHEMA_VERSION and not self._was_interrupted(db):
            yield
            return
        with self._locked(db, "migration", "another daemon migrates the history"):
            yield

    @staticmethod
    def _was_interrupted(db: Connection) -> bool:
        return bool(run(db, "SELECT 1 FROM dolt_branches WHERE name = %s", migrations.BRANCH))

    def _claim(self, db: Connection, node: int) -> int:
        mine = run(db, "SELECT node FROM spool_place WHERE owner = %s", self._owner)
        if mine:
            return int(mine[0][0])
        with self._locked(db, "nodes", "another daemon takes its number"):  # else two take the same
            taken = {row[0] for row in run(db, "SELECT node FROM spool_place")}
            if len(taken) > MAX_NODE:
                taken -= self._free_unseen(db)
            granted = free_node(node, taken)
            run(db, "INSERT INTO spool_place VALUES (%s, %s, 0, 0, 0)", self._owner, granted)
        return granted

    @staticmethod
    def _free_unseen(db: Connection) -> set[int]:
        """Take the numbers of daemons that have not been seen for a day; one that comes back is given another."""
        unseen = run(
            db,
            "SELECT owner, spool_place.node FROM spool_place"
            " LEFT JOIN writer ON writer.writer_id = left(spool_place.owner, %s)"
            " WHERE writer.seen_at IS NULL OR writer.seen_at < %s",
            WRITER_CHARACTERS,
            time.time_ns() // 1000 - UNSEEN_US,
        )
        for owner, node in unseen:
            log.info("number %d of a daemon that was not seen for long is free again", node)
            run(db, "DELETE FROM spool_place WHERE owner = %s", owner)
        return {node for _, node in unseen}

    @contextlib.contextmanager
    def _locked(self, db: Connection, what: str, problem: str) -> Iterator[None]:
        """Hold a lock of this database's daemons.

        Raises:
            StoreBusy: another one holds it for too long.
        """
        name = self._lock(what)
        if run(db, "SELECT GET_LOCK(%s, %s)", name, LOCK_SECONDS) != ((1,),):
            raise StoreBusy(problem=problem, kind=what)
        try:
            yield
        finally:
            with contextlib.suppress(pymysql.MySQLError, OSError):  # a lost connection has let go of it already
                run(db, "SELECT RELEASE_LOCK(%s)", name)

    def _lock(self, what: str) -> str:
        """The name of a lock that the daemons of this database share."""
        return f"tundra_{what}_{self._config.database}"[:64]

    def _remote(self, remote: str) -> str:
        url = remote_url(remote)
        known = {row[1]: row[0] for row in run(self._db, "SELECT name, url FROM dolt_remotes")}
        if remote in known.values():
            return remote
        if url not in known:
            known[url] = f"remote{len(known) + 1}"
            self._one("CALL DOLT_REMOTE('add', %s, %s)", known[url], url)
        return str(known[url])


def _schema_version(db: Connection) -> int:
    return int(run(db, "SELECT content FROM meta WHERE name = 'schema_version'")[0][0])


def _or_null(names: Sequence[str], there: Collection[str]) -> str:
    """What to select: the server's version tables have the columns of then, ours have those of today."""
    return ", ".join(name if name in there else f"NULL AS {name}" for name in names)


def _columns_of(db: Connection, source: str, *values: Any) -> set[str]:
    """The columns that a table has at a state, or a version table has; none when it was not there."""
    with db.cursor() as cursor:
        try:
            cursor.execute(f"SELECT * FROM {source} LIMIT 0", values or None)  # noqa: S608 - names of ours, a checked hash
        except pymysql.err.ProgrammingError as exc:
            if exc.args[0] != NO_SUCH_TABLE:
                raise
            return set()
        return {entry[0] for entry in cursor.description}


def _changed(db: Connection) -> list[str]:
    there = {row[0] for row in run(db, "SELECT table_name FROM dolt_status")}
    return [table for table in TABLES if table in there]


def _stat(db: Connection, before: str, after: str, tables: Any) -> list[TableStat]:
    names = "table_name, rows_added, rows_deleted, rows_modified, old_row_count, new_row_count"
    rows = run(db, f"SELECT {names} FROM dolt_diff_stat(%s, %s)", before, after)  # noqa: S608 - a constant
    found = {row[0]: TableStat(*row) for row in rows}
    return [found[table] for table in tables if table in found]
