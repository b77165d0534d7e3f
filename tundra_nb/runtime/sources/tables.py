"""A source's Parquet tables, read by the same questions as the history: frames and read-only SQL."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from tundra_nb.errors import QueryRefused, StoreDamaged, UsageError
from tundra_nb.protocol.query import Condition, FrameQuery
from tundra_nb.protocol.sources import Source
from tundra_nb.runtime.history import arrow, sql_guard
from tundra_nb.runtime.history.authorizer import guard
from tundra_nb.runtime.history.contract import SQL_BYTES, SQL_ROWS, Frame, Stop
from tundra_nb.runtime.history.rules import sql_problem
from tundra_nb.types import KEY_OF, TABLES, columns

BATCH_ROWS = 8192
DATABASE = "sql.db"
PROGRESS_STEPS = 20_000
"""Steps of the engine between two looks at the clock."""


def storage(kind: pa.DataType) -> pa.DataType:
    """How a column stands in the file: words plainly, because each file would have a dictionary of its own."""
    return pa.string() if pa.types.is_dictionary(kind) else kind


def stored_schema(table: str) -> pa.Schema:
    return pa.schema([pa.field(field.name, storage(field.type), field.nullable) for field in arrow.table_schema(table)])


class SourceTables:
    """One source, read by any thread."""

    def __init__(self, folder: Path, source: Source) -> None:
        self._folder = folder
        self._source = source

    @property
    def meta(self) -> dict[str, Any]:
        """What every frame says of where it is from."""
        return {
            "store": "parquet",
            "source": self._source.name,
            "commit": self._source.about.get("commit"),
            "sha256": self._source.sha256,
        }

    def check_at(self, at: str | int | None) -> None:
        """Refuse a state that this source is not of.

        Raises:
            UsageError: it has no commits.
        """
        about = self._source.about
        if at is not None and at not in (about.get("ref"), about.get("commit")):
            raise UsageError(
                problem=f"a source has no commits: {self._source.name!r} cannot be read at {str(at)[:64]!r}",
                field="at",
                remedy="Leave `--at` out: a source never changes.",
            )

    def frame(self, query: FrameQuery, stop: Stop) -> Frame:
        """Rows of one table in the order of its key."""
        made_schema = arrow.table_schema(query.table, query.names)
        builders = arrow.builders(made_schema, query.table)
        stored = self._dataset(query.table)
        names = [name for name in query.names if stored is not None and name in stored.schema.names]
        where = _expression(query)
        if stored is None:
            chunks: Iterator[pa.RecordBatch] = iter(())
            truncated = False
        elif query.limit is None and not query.newest_first:
            chunks = stored.scanner(columns=names, filter=where, batch_size=BATCH_ROWS).to_batches()
            truncated = False
        else:
            rows = stored.to_table(columns=names, filter=where, batch_size=BATCH_ROWS)
            most = rows.num_rows if query.limit is None else min(query.limit, rows.num_rows)
            truncated = most < rows.num_rows
            if query.newest_first:
                rows = rows.slice(rows.num_rows - most).take(pa.array(range(most - 1, -1, -1), pa.int64()))
            else:
                rows = rows.slice(0, most)
            chunks = iter(rows.to_batches(max_chunksize=BATCH_ROWS))
        return Frame(
            made_schema, self._batches(chunks, made_schema, builders, stop), self.meta | {"truncated": truncated}
        )

    def _batches(
        self, chunks: Iterator[pa.RecordBatch], made_schema: pa.Schema, builders: list[arrow.ColumnBuilder], stop: Stop
    ) -> Generator[pa.RecordBatch, None, None]:
        yield arrow.empty_batch(made_schema, builders)
        with _seam(self._source.name):
            for chunk in chunks:
                if stop.is_due:
                    raise stop.error()
                if chunk.num_rows:
                    there = set(chunk.schema.names)
                    yield pa.record_batch(
                        [
                            builder.from_arrow(chunk.column(field.name))
                            if field.name in there
                            else builder.repeated(None, chunk.num_rows)
                            for field, builder in zip(made_schema, builders, strict=True)
                        ],
                        schema=made_schema,
                    )
                    stop.renew()

    def _dataset(self, table: str) -> ds.Dataset | None:
        """The table's files, columns of the wrong type refused; None when the source has no rows of it."""
        parts = self._source.parts.get(table)
        if not parts:
            return None
        files = [str(self._folder / part) for part in parts]  # an absolute part stays as it is
        with _seam(self._source.name):
            for file in files:
                os.stat(file)
            wanted = stored_schema(table)
            there = ds.dataset(files, format="parquet").schema.names
            return ds.dataset(files, format="parquet", schema=pa.schema([f for f in wanted if f.name in there]))

    def sql(self, text: str, limit: int | None, stop: Stop) -> Frame:
        """One read-only statement over the tables, in the embedded engine's dialect.

        Raises:
            QueryRefused: it is not one reading statement over our tables, or it does not parse.
        """
        statement = sql_guard.checked(text, sql_guard.DOLTLITE)
        most = min(SQL_ROWS, limit) if limit is not None else SQL_ROWS
        file = self._database()
        stop.renew()
        try:
            with contextlib.closing(sqlite3.connect(f"file:{_quoted(file)}?mode=ro", uri=True)) as db:
                guard(db)
                db.set_progress_handler(lambda: int(stop.is_due), PROGRESS_STEPS)
                cursor = db.execute(statement)
                rows = arrow.LooseRows([entry[0] for entry in cursor.description])
                truncated = False
                while not truncated and (some := cursor.fetchmany(min(4096, most - rows.rows + 1))):
                    truncated = rows.rows + len(some) > most
                    if kept := some[: most - rows.rows]:
                        rows.add(kept)
                    truncated = truncated or rows.bytes > SQL_BYTES
        except sqlite3.Error as exc:
            if stop.is_due:
                raise stop.error() from exc
            raise QueryRefused(problem=sql_problem(str(exc))) from exc
        made_schema, batches = rows.result()
        return Frame(made_schema, (batch for batch in batches), self.meta | {"truncated": truncated})

    def _database(self) -> Path:
        """The tables as a database, made at the first statement and kept."""
        file = self._folder / DATABASE
        if file.exists():
            return file
        made = self._folder / f"{DATABASE}.{os.getpid()}-{id(self)}"
        with contextlib.closing(sqlite3.connect(made)) as db:
            db.execute("PRAGMA journal_mode = OFF")
            db.execute("PRAGMA synchronous = OFF")
            for table in TABLES:
                names = [column.name for column in columns(table)]
                db.execute(f"CREATE TABLE {table} ({', '.join(names)}, PRIMARY KEY ({KEY_OF[table]}))")
                stored = self._dataset(table)
                if stored is None:
                    continue
                there = [name for name in names if name in stored.schema.names]
                insert = f"INSERT OR IGNORE INTO {table} ({', '.join(there)}) VALUES ({', '.join('?' * len(there))})"  # noqa: S608 - names of ours
                with _seam(self._source.name):
                    for chunk in stored.scanner(columns=there, batch_size=BATCH_ROWS).to_batches():
                        db.executemany(insert, zip(*(_plain(column) for column in chunk.columns), strict=True))
            db.commit()
        os.replace(made, file)
        return file


def _plain(column: pa.Array) -> list[Any]:
    if pa.types.is_timestamp(column.type) or pa.types.is_boolean(column.type):
        return list(column.cast(pa.int64()).to_pylist())
    return list(column.to_pylist())


def _quoted(file: Path) -> str:
    return str(file).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _expression(query: FrameQuery) -> pc.Expression | None:
    """The query's window and conditions; they mean the same as in `runtime.history.query.condition`."""
    parts = []
    at = pc.field("at")
    if query.since_us is not None:
        parts.append(at >= _moment(query.since_us))
    if query.until_us is not None:
        parts.append(at < _moment(query.until_us))
    kinds = {column.name: column.type for column in columns(query.table)}
    parts += [_condition(query.table, condition, kinds[condition.column] == "time") for condition in query.where]
    if not parts:
        return None
    whole = parts[0]
    for part in parts[1:]:
        whole &= part
    return whole


def _condition(table: str, condition: Condition, is_time: bool) -> pc.Expression:
    name, op, value = condition.column, condition.op, condition.value
    field = pc.field(name)
    if is_time and op != "null":
        value = [_moment(one) for one in value] if op == "in" else _moment(value)
    if table == "operation" and name == "profile" and op in ("eq", "in"):
        # a call that nobody answered belongs to the profile that was asked first
        names = [value] if op == "eq" else list(value)
        asked = pc.field("asked")
        whole = field.isin(names)
        for one in names:
            whole |= field.is_null() & ((asked == one) | pc.starts_with(asked, f"{one},"))
        return whole
    match op:
        case "ne":
            return (field != value) | field.is_null()
        case "eq_or_null":
            return (field == value) | field.is_null()
        case "in":
            return field.isin(list(value))
        case "contains":
            return pc.match_substring(field, value)
        case "prefix":
            return pc.starts_with(field, value)
        case "null":
            return field.is_null() if value else field.is_valid()
        case "lt":
            return field < value
        case "le":
            return field <= value
        case "gt":
            return field > value
        case "ge":
            return field >= value
        case _:
            return field == value


def _moment(at_us: int) -> pa.Scalar:
    return pa.scalar(at_us, pa.timestamp("us", "UTC"))


@contextlib.contextmanager
def _seam(name: str) -> Iterator[None]:
    """Where what is wrong with a source's files becomes an error of ours."""
    try:
        yield
    except FileNotFoundError as exc:
        raise StoreDamaged(
            problem=f"a file of source {name!r} is gone: {exc.filename}",
            remedy=f"Bring it back; or `%tundra sources remove {name}`.",
            kind="missing",
        ) from exc
    except (pa.ArrowException, OSError) as exc:
        raise StoreDamaged(
            problem=f"the files of source {name!r} cannot be read: {str(exc)[:300]}",
            remedy=f"`%tundra sources remove {name}`, then import its file again.",
            kind="corrupt",
        ) from exc
