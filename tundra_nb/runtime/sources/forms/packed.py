"""Tables of ours: Parquet files in a folder or zip, as archives and incidents have them, or a support bundle's JSON."""

from __future__ import annotations

import contextlib
import re
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from tundra_nb.errors import UsageError
from tundra_nb.local import log_lines
from tundra_nb.runtime.sources.tables import stored_schema
from tundra_nb.runtime.sources.taking import Taker, plausible
from tundra_nb.types import KEY_OF, TABLES, ImportedLog, columns

from .fields import time_us

TABLES_KIND = "tables"
BUNDLE_KIND = "bundle"
MEMBER = re.compile(r"(?:.*/)?(?:tables/)?(?P<table>[a-z_]+)(?:/[^/]+)?\.parquet")
JSON_MEMBER = re.compile(r"tables/(?P<table>[a-z_]+)\.json")
LOG_MEMBER = "daemon.log"
MOST_MEMBERS = 20_000
MOST_BYTES = 8 << 30
"""Largest sum of all members of a zip, unpacked."""
MOST_RATIO = 500
"""Unpacked to packed, where it is more than `RATIO_FROM_BYTES`: tables and logs do not pack so well."""
RATIO_FROM_BYTES = 64 << 20
JSON_BYTES = 256 << 20
BATCH_ROWS = 8192
COPY_BYTES = 1 << 20


def table_of(name: str) -> str | None:
    """Which of our tables a file of this path holds; None for none."""
    match = MEMBER.fullmatch(name)
    if match is None:
        return None
    parts = [part.removesuffix(".parquet") for part in name.split("/")]
    return next((part for part in reversed(parts) if part in TABLES), None)


def read_folder(folder: Path, taker: Taker) -> None:
    """The Parquet files of a folder."""
    for file, table in files(folder):
        _read_parquet(file, table, taker)
    _refuse_empty(taker)


def files(folder: Path) -> list[tuple[Path, str]]:
    """The Parquet files of our tables below a folder, by name, and which table each holds."""
    found = [
        (file, table)
        for file in sorted(folder.rglob("*.parquet"))
        if file.is_file() and (table := table_of(file.relative_to(folder).as_posix()))
    ]
    if len(found) > MOST_MEMBERS:
        raise UsageError(problem=f"more than {MOST_MEMBERS:,} files in {folder}", field="path")
    return found


def linked(folder: Path, taker: Taker) -> dict[str, list[str]]:
    """The files of a folder to be read where they are; counted and looked at, not copied.

    Raises:
        UsageError: one is not of our columns.
    """
    parts: dict[str, list[str]] = {}
    for file, table in files(folder):
        with _seam(str(file)):
            opened = pq.ParquetFile(file)
        wanted, there = stored_schema(table), opened.schema_arrow
        for field in wanted:
            if field.name not in there.names and not field.nullable:
                raise UsageError(problem=f"{file} has no column {field.name} of {table}", field="path")
        for batch in opened.iter_batches(BATCH_ROWS, columns=["at"]):
            ends = pa.compute.min_max(batch.column(0).cast(pa.int64()))
            if ends["min"].is_valid:
                taker.seen(ends["min"].as_py())
                taker.seen(ends["max"].as_py())
        taker.rows[table] = taker.rows.get(table, 0) + opened.metadata.num_rows
        taker.line(TABLES_KIND)
        parts.setdefault(table, []).append(str(file))
    _refuse_empty(taker)
    return parts


def read_zip(file: Path, taker: Taker) -> None:
    """A zip with our tables, as Parquet or as a support bundle has them.

    Raises:
        UsageError: it is damaged, holds nothing of ours, or unpacks to more than belongs in one.
    """
    try:
        with zipfile.ZipFile(file) as packed:
            members = packed.infolist()
            _refuse_bomb(members)
            for member in members:
                if (table := table_of(member.filename)) is not None:
                    with tempfile.NamedTemporaryFile(suffix=".parquet") as copy, packed.open(member) as stream:
                        _copy(stream, copy, member.file_size, taker)
                        _read_parquet(Path(copy.name), table, taker)
                elif (found := JSON_MEMBER.fullmatch(member.filename)) and found["table"] in TABLES:
                    with packed.open(member) as stream:
                        _read_json(stream.read(JSON_BYTES + 1), found["table"], taker)
                elif member.filename == LOG_MEMBER:
                    with packed.open(member) as stream:
                        _read_log(stream.read(JSON_BYTES).decode("utf-8", "replace"), taker)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError, RuntimeError) as exc:
        raise UsageError(problem=f"the zip cannot be read: {exc}", field="path", remedy="Is it whole?") from exc
    _refuse_empty(taker)


def _refuse_bomb(members: list[zipfile.ZipInfo]) -> None:
    whole = sum(member.file_size for member in members)
    packed = sum(member.compress_size for member in members)
    if len(members) > MOST_MEMBERS or whole > MOST_BYTES or (whole > RATIO_FROM_BYTES and whole > packed * MOST_RATIO):
        raise UsageError(
            problem=f"the zip would unpack to {whole / 1e6:,.0f} MB in {len(members):,} files out of"
            f" {packed / 1e6:,.1f} MB: it is not read",
            field="path",
            remedy="If it is meant, unpack it and import the folder.",
        )


def _copy(stream: IO[bytes], to: IO[bytes], size: int, taker: Taker) -> None:
    copied = 0
    while part := stream.read(COPY_BYTES):
        copied += len(part)
        if copied > size:
            raise UsageError(problem="a member of the zip is longer than the zip says", field="path")
        to.write(part)
        taker.done_bytes += len(part)
        taker.tell("reading")
    to.flush()


def _read_parquet(file: Path, table: str, taker: Taker) -> None:
    with _seam(f"{table}.parquet"):
        opened = pq.ParquetFile(file)
        names = set(opened.schema_arrow.names)
        wanted = [column.name for column in columns(table) if column.name in names]
        if KEY_OF[table] not in names or "at" not in names:
            raise UsageError(problem=f"{table}.parquet has not the columns of {table}", field="path")
        for batch in opened.iter_batches(BATCH_ROWS, columns=wanted):
            taker.add_batch(table, pa.Table.from_batches([batch]))
            taker.tell("reading")
    taker.line(TABLES_KIND)


def _read_json(text: bytes, table: str, taker: Taker) -> None:
    try:
        rows = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as exc:
        raise UsageError(problem=f"tables/{table}.json cannot be read: {exc}", field="path") from exc
    if isinstance(rows, dict):
        rows = rows.get("rows")
    if not isinstance(rows, list):
        raise UsageError(problem=f"tables/{table}.json is no list of rows", field="path")
    kinds = {column.name: column.type for column in columns(table)}
    for row in rows:
        try:
            given = {name: _value(kinds[name], value) for name, value in row.items() if name in kinds}
            made = msgspec.convert(given, TABLES[table], strict=False)
            is_good = plausible(made.at)  # type: ignore[attr-defined]
        except (msgspec.ValidationError, ValueError, TypeError, AttributeError):
            is_good = False
        if not is_good:
            taker.not_understood(f"{table}: {str(row)[:200]}")
            continue
        taker.add(made)
        taker.line(BUNDLE_KIND)


def _value(kind: str, value: Any) -> Any:
    if kind == "time" and value is not None:
        return time_us(value)
    return int(value) if kind == "id" and isinstance(value, str) else value


def _read_log(text: str, taker: Taker) -> None:
    for line in log_lines.parsed(text.splitlines()):
        at_us = time_us(line.at.isoformat()) if line.at else None
        if at_us is None:
            taker.not_understood(line.raw)
            continue
        more = " ".join(f"{name}={value}" for name, value in line.fields.items())
        taker.add(
            ImportedLog(
                imported_log_id=taker.key("imported_log", at_us),
                at=at_us,
                origin="tundra",
                severity=line.level,
                logger=line.logger,
                message="\n".join(part for part in (f"{line.message} {more}".rstrip(), line.traceback) if part),
            )
        )
        taker.line(BUNDLE_KIND)


def _refuse_empty(taker: Taker) -> None:
    if not taker.by_kind:
        raise UsageError(
            problem="there are no tables of ours in it",
            field="path",
            remedy="A bundle, an exported incident, or `tables/TABLE.parquet` with the history's columns. A log in"
            " it is imported by itself.",
        )


@contextlib.contextmanager
def _seam(file: str) -> Iterator[None]:
    """Where what pyarrow says of a file becomes an error of ours."""
    try:
        yield
    except pa.ArrowException as exc:
        raise UsageError(problem=f"{file} cannot be read as Parquet: {str(exc)[:200]}", field="path") from exc
    except OSError as exc:
        if exc.errno is not None:  # the disk's, or the daemon's line
            raise
        raise UsageError(problem=f"{file} cannot be read as Parquet: {str(exc)[:200]}", field="path") from exc
