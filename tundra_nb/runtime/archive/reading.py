"""The archive's files and the store's rows, read together by DuckDB.

Each question has a database of its own, in memory: before anything of a user's runs, files other than those of the
manifest are closed to it, as are the network, extensions and its own settings, and memory and time are bounded. A row
comes from the archive when its day is archived, and from the store otherwise, so that none is counted twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from tundra_nb.errors import QueryRefused, StoreBusy
from tundra_nb.protocol.query import QUANTILES, TIMES, FrameQuery
from tundra_nb.runtime.history import arrow, grouping
from tundra_nb.runtime.history.contract import SQL_BYTES, SQL_ROWS, Frame, Stop
from tundra_nb.runtime.history.query import LEAST, condition, summed
from tundra_nb.types import Column, columns

from .statement import checked, told

MEMORY_MB = 1_500
"""Of DuckDB's own; with what Python and Arrow need beside it, the worker stays within 2 GB."""
THREADS = 4
EXACT_ROWS = 20_000_000
"""Beyond so many rows quantiles are approximate: exact ones would hold every value in memory."""
FRESH_BYTES = 512 << 20
"""Most of a table's rows that are not archived, as Arrow, which a question may need."""
BATCH_ROWS = 8_192

_TYPES = {
    "id": "BIGINT",
    "int": "BIGINT",
    "float": "DOUBLE",
    "text": "VARCHAR",
    "long_text": "VARCHAR",
    "category": "VARCHAR",
    "time": "TIMESTAMP WITH TIME ZONE",
    "bool": "BOOLEAN",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TablePiece:
    """What one question reads of a table."""

    files: Sequence[str] = ()
    """Of the archive, below its folder."""
    frame_version: int = 0
    """The newest of them."""
    rows: int = 0
    """In these files."""
    fresh: pa.Table | None = None
    """Rows of the store, words as words."""


def fresh(batches: Iterator[pa.RecordBatch], wanted: pa.Schema, stop: Stop) -> pa.Table:
    """The store's rows, held in memory; where there are none, a table of the schema `wanted`.

    Raises:
        StoreBusy: they are too many.
    """
    held: list[pa.RecordBatch] = []
    size = 0
    for batch in grouping.plain(batches):
        if stop.is_due:
            raise stop.error()
        size += batch.nbytes
        if size > FRESH_BYTES:
            raise StoreBusy(
                problem=f"the rows that are not archived take more than {FRESH_BYTES >> 20} MB",
                remedy="`%tundra archive --older-than 1d` archives newer days; or narrow the window.",
                kind="memory",
            )
        if batch.num_rows:
            held.append(batch)
        stop.renew()
    return pa.Table.from_batches(held) if held else wanted.empty_table()


class ArchiveReading:
    """One question's database."""

    def __init__(self, folder: Path, pieces: Mapping[str, TablePiece]) -> None:
        self._folder = folder
        self._pieces = pieces
        self.db = duckdb.connect(
            ":memory:",
            config={
                "memory_limit": f"{MEMORY_MB}MB",
                "threads": str(THREADS),
                "temp_directory": "",  # what does not fit is refused, and fills no disk
                "python_enable_replacements": "false",
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
                "allow_community_extensions": "false",
            },
        )
        files = [str(folder / file) for piece in pieces.values() for file in piece.files]
        self.db.execute("SET TimeZone = 'UTC'")
        self.db.execute("SET enable_progress_bar = false")  # it would be written to the output of the process
        self.db.execute(f"SET allowed_paths = {_listed(files)}")
        self.db.execute("SET enable_external_access = false")
        for table, piece in pieces.items():
            if piece.fresh is not None:
                self.db.register(f"fresh_{table}", piece.fresh)
            self.db.execute(f"CREATE VIEW {table} AS {self._relation(table)}")
        self.db.execute("SET lock_configuration = true")

    def close(self) -> None:
        self.db.close()

    def _relation(self, table: str) -> str:
        """A table's rows, of the archive and of the store, with all its columns."""
        piece = self._pieces[table]
        parts = []
        if piece.files:
            there = {column.name for column in columns(table, piece.frame_version)}
            names = ", ".join(_column(column, column.name in there) for column in columns(table))
            files = _listed([str(self._folder / file) for file in piece.files])
            parts.append(f"SELECT {names} FROM read_parquet({files}, union_by_name = true)")  # noqa: S608 - names of ours
        if piece.fresh is not None:
            there = set(piece.fresh.column_names)
            names = ", ".join(_column(column, column.name in there) for column in columns(table))
            parts.append(f"SELECT {names} FROM fresh_{table}")  # noqa: S608
        if not parts:
            names = ", ".join(_column(column, is_there=False) for column in columns(table))
            parts.append(f"SELECT {names} WHERE false")
        return " UNION ALL ".join(parts)

    def sql(self, text: str, limit: int | None, stop: Stop) -> Frame:
        """One statement, of which `checked` has been asked."""
        statement, _ = checked(text, self.db)
        most = min(SQL_ROWS, limit) if limit is not None else SQL_ROWS
        held: list[pa.RecordBatch] = []
        rows = size = 0
        with seam(stop):
            relation = self.db.sql(statement)
            reader = relation.to_arrow_reader(BATCH_ROWS)
            made_schema = reader.schema
            truncated = False
            for batch in reader:
                if stop.is_due:
                    raise stop.error()
                fits = _fitting(batch.slice(0, most - rows), SQL_BYTES - size, is_first=not rows)
                held.append(fits)
                rows, size = rows + fits.num_rows, size + fits.nbytes
                if truncated := fits.num_rows < batch.num_rows:
                    break
            found = _plain(pa.Table.from_batches(held, schema=made_schema))
        return Frame(found.schema, _batches(found), {"truncated": truncated})

    def grouped(self, query: FrameQuery, stop: Stop) -> Frame:
        """Groups of a table's rows, as `grouping.grouped` makes them."""
        piece = self._pieces[query.table]
        rows = piece.rows + (piece.fresh.num_rows if piece.fresh is not None else 0)
        is_exact = rows <= EXACT_ROWS
        text, values = _grouping(query, is_exact=is_exact)
        with seam(stop):
            found = self.db.sql(text, params=values).to_arrow_table()
        table = _as_groups(found, query)
        return Frame(table.schema, _batches(table), {"truncated": False, "approximate": not is_exact})


def _fitting(batch: pa.RecordBatch, room: int, *, is_first: bool) -> pa.RecordBatch:
    """The first rows of a batch that find room, found by halves.

    Raises:
        StoreBusy: none does, and it is the first of an answer.
    """
    while batch.num_rows and batch.nbytes > room:
        if batch.num_rows == 1 and is_first:
            raise StoreBusy(
                problem=f"one row of the answer has {batch.nbytes >> 20:,} MB, and answers at most {SQL_BYTES >> 20}",
                remedy="Ask for fewer columns, or for shorter texts and lists.",
                kind="memory",
            )
        batch = batch.slice(0, batch.num_rows // 2)
    return batch


def _grouping(query: FrameQuery, *, is_exact: bool) -> tuple[str, list[Any]]:
    """A grouped query as DuckDB's SQL, and its values."""
    known = {column.name: column for column in columns(query.table)}
    inner = ", ".join(
        f'epoch_us("{name}") AS "{name}"' if column.type == "time" else f'"{name}"' for name, column in known.items()
    )
    window, values = [], []
    for bound, compared in ((query.since_us, ">="), (query.until_us, "<")):
        if bound is not None:
            window.append(f'"at" {compared} make_timestamptz(?::BIGINT)')
            values.append(bound)
    where, more = condition(msgspec.structs.replace(query, since_us=None, until_us=None), "?")
    where = re.sub(r"\bat\b", '"at"', where)  # names and placeholders only
    keys = {name: _key(name, known) for name in query.by}
    if query.every is not None:
        keys["at"] = _floor(query.every)
    selected = [f'{made} AS "{name}"' for name, made in keys.items()]
    selected.append('count(*) AS "count"')
    if "outcome" in known:
        selected.append("count(*) FILTER (WHERE outcome <> 'ok') AS errors")
    for name in summed(query):
        if name not in known:
            continue
        if name == "latency_ms":
            function = "quantile_cont" if is_exact else "approx_quantile"
            selected += [
                f'{function}(latency_ms::DOUBLE, {share!r}) AS "{grouping.quantile_name(share)}"'
                for share in query.quantiles or QUANTILES
            ]
        elif name in LEAST:
            selected.append(f"min({name})::DOUBLE AS {name}")
        elif name == "cost_usd":  # as decimals, whose sum is the same in any order
            selected.append("coalesce(sum(TRY_CAST(cost_usd AS DECIMAL(38, 15))), 0)::DOUBLE AS cost_usd")
        else:
            selected.append(f"coalesce(sum({name}), 0)::BIGINT AS {name}")
    order = ", ".join(f"{place} ASC NULLS LAST" for place in range(1, len(keys) + 1))
    within = f" WHERE {' AND '.join(window)}" if window else ""
    text = (
        f"SELECT {', '.join(selected)} FROM (SELECT {inner} FROM {query.table}{within}) AS rows"  # noqa: S608
        f" WHERE {where} GROUP BY {', '.join(map(str, range(1, len(keys) + 1)))}"
        f" ORDER BY {order}"
    )
    return text, [*values, *more]


def _key(name: str, known: Mapping[str, Column]) -> str:
    if name in TIMES:
        return _floor(TIMES[name])
    if name == "profile" and "asked" in known:
        return "coalesce(profile, nullif(split_part(asked, ',', 1), ''))"
    return f'"{name}"'


def _floor(seconds: int) -> str:
    step = seconds * 1_000_000
    return f'"at" - (("at" % {step}) + {step}) % {step}'


def _as_groups(found: pa.Table, query: FrameQuery) -> pa.Table:
    """The columns with the types, and in the order, that `grouping.grouped` gives them."""
    made: dict[str, Any] = {}
    times = {*TIMES, "at"} if query.every is not None else set(TIMES)
    for name in found.column_names:
        values = found[name]
        if name in times:
            values = values.cast(pa.timestamp("us", "UTC"))
        made[name] = grouping.as_shown(values, name) if name in query.by else values
        if name == "errors":
            made["error_rate"] = pc.divide(values.cast(pa.float64()), found["count"].cast(pa.float64()))
    return pa.table(made)


def _column(column: Column, is_there: bool) -> str:
    name = f'"{column.name}"'
    kind = _TYPES[column.type]
    return f"{name}::{kind} AS {name}" if is_there else f"NULL::{kind} AS {name}"


def _listed(files: Sequence[str]) -> str:
    quoted = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
    return f"[{quoted}]::VARCHAR[]"


def _batches(table: pa.Table) -> Generator[pa.RecordBatch, None, None]:
    yield from table.to_batches(max_chunksize=BATCH_ROWS) or [
        pa.record_batch([pa.array([], field.type) for field in table.schema], schema=table.schema)
    ]


def _plain(table: pa.Table) -> pa.Table:
    """DuckDB's types as those that free SQL has elsewhere: int64, float64, text, times of UTC, booleans, bytes."""
    names = arrow.distinct(table.column_names)
    return pa.table(
        [_plain_column(chunks, name) for chunks, name in zip(table.columns, names, strict=True)], names=names
    )


def _plain_column(chunks: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    kind = chunks.type
    if pa.types.is_null(kind):
        return chunks.cast(arrow.hint(name))
    if pa.types.is_integer(kind) or (pa.types.is_decimal(kind) and kind.scale == 0):
        try:
            return chunks.cast(pa.int64())
        except pa.ArrowInvalid:
            return chunks.cast(pa.float64())
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return chunks.cast(pa.float64())
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        plain = chunks.cast(pa.timestamp("us")) if kind != pa.timestamp("us", "UTC") else chunks
        return plain.cast(pa.timestamp("us", "UTC"))
    if pa.types.is_boolean(kind) or pa.types.is_string(kind) or pa.types.is_binary(kind):
        return chunks
    return pa.chunked_array([pa.array([_text(value) for value in chunks.to_pylist()], pa.string())])


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list | dict | tuple):
        return msgspec.json.encode(value, enc_hook=str).decode()
    return str(value)


@contextlib.contextmanager
def seam(stop: Stop) -> Iterator[None]:
    """Where DuckDB's errors become ours."""
    try:
        yield
    except (duckdb.OutOfMemoryException, MemoryError) as exc:
        raise StoreBusy(
            problem=f"the question needs more than the {MEMORY_MB:,} MB that it may take",
            remedy="Narrow it: a time window, fewer columns, fewer groups.",
            kind="memory",
        ) from exc
    except duckdb.InterruptException as exc:
        raise stop.error() from exc
    except (duckdb.Error, pa.ArrowException, UnicodeError, OverflowError) as exc:
        if stop.is_due:
            raise stop.error() from exc
        raise QueryRefused(problem=told(exc)) from exc
    except RuntimeError as exc:  # what DuckDB's Python binding could not say as one of its own
        raise QueryRefused(problem=told(exc)) from exc
