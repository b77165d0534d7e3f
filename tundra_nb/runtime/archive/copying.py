"""Rows that the store worker sends, into Parquet files that are proven before they get their names."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tundra_nb.protocol.digest import digest
from tundra_nb.runtime.history import grouping
from tundra_nb.runtime.history.contract import Stop
from tundra_nb.runtime.sources.tables import stored_schema
from tundra_nb.types import columns

from .place import DAY_US, UNFINISHED, ArchivedDay, ArchivedPart, ArchiveFolder, day_of, sync_folder

PART_ROWS = 500_000
"""Rows of one file: what is held in memory at a time."""
GROUP_ROWS = 122_880
"""Rows of a row group: DuckDB's own number."""
HASH_BYTES = 4 << 20
KEYS = 1 << 63


def count(batches: Iterator[pa.RecordBatch], key: str, stop: Stop) -> dict[str, list[int]]:
    """Rows and sum of keys by day, out of rows of `key` and `at`."""
    rows: dict[int, int] = {}
    keys: dict[int, int] = {}
    for batch in batches:
        _go_on(stop)
        if not batch.num_rows:
            continue
        days = batch.column("at").cast(pa.int64()).to_numpy() // DAY_US
        values = batch.column(key).cast(pa.int64()).to_numpy().astype("uint64")
        for day in np.unique(days):
            mine = values[days == day]
            rows[int(day)] = rows.get(int(day), 0) + len(mine)
            keys[int(day)] = (keys.get(int(day), 0) + int(mine.sum(dtype="uint64"))) % KEYS
    return {day_of(day * DAY_US): [rows[day], keys[day]] for day in sorted(rows)}


def copy(
    place: ArchiveFolder, table: str, day: str, batches: Iterator[pa.RecordBatch], frame_version: int, stop: Stop
) -> list[ArchivedPart]:
    """Write a day's rows as files. Only files that were read back and are the same have a name.

    Raises:
        ArchiveDamaged: what was read back is not what was written.
        OSError: the disk.
    """
    folder = place.folder / table
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    made: list[ArchivedPart] = []
    held: list[pa.RecordBatch] = []
    rows = 0

    def write() -> None:
        nonlocal held, rows
        made.append(_written(place, table, f"{day}-{len(made):03d}", pa.Table.from_batches(held), frame_version))
        held, rows = [], 0

    try:
        for batch in grouping.plain(batches):
            _go_on(stop)
            while rows + batch.num_rows > PART_ROWS:
                held.append(batch.slice(0, PART_ROWS - rows))
                batch = batch.slice(PART_ROWS - rows)  # noqa: PLW2901 - what is left of it
                write()
            if batch.num_rows:
                held.append(batch)
                rows += batch.num_rows
        if rows:
            write()
    except BaseException:
        for part in made:
            with contextlib.suppress(OSError):
                (place.folder / part.file).unlink()
        raise
    sync_folder(folder)
    return made


def _written(place: ArchiveFolder, table: str, name: str, rows: pa.Table, frame_version: int) -> ArchivedPart:
    rows = rows.cast(stored_schema(table))
    handle, draft = tempfile.mkstemp(prefix=UNFINISHED, dir=place.folder / table)
    os.close(handle)
    try:
        pq.write_table(
            rows, draft, compression="zstd", row_group_size=GROUP_ROWS, write_page_checksum=True, version="2.6"
        )
        with open(draft, "rb") as file:
            os.fsync(file.fileno())
        _compare(place, f"{table}/{name}", draft, rows)
        sha256 = file_sha256(draft)
        file_name = f"{table}/{name}-{sha256[:16]}.parquet"
        part = ArchivedPart(
            file=file_name,
            rows=rows.num_rows,
            size_bytes=os.stat(draft).st_size,
            sha256=sha256,
            digest=digest(rows, [column.name for column in columns(table, frame_version)]),
        )
        os.replace(draft, place.folder / file_name)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise
    return part


def _compare(place: ArchiveFolder, name: str, draft: str, rows: pa.Table) -> None:
    if not pq.read_table(draft, page_checksum_verification=True).equals(rows):
        raise place.damaged(name, "is not what was written: the disk, or the memory, is faulty")


def file_sha256(path: str | os.PathLike[str], stop: Stop | None = None) -> str:
    """SHA-256 of a file's bytes."""
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(HASH_BYTES):
            sha.update(part)
            if stop is not None:
                _go_on(stop)
    return sha.hexdigest()


def damage(folder: Path, part: ArchivedPart, stop: Stop) -> str:
    """What is wrong with a file; empty when it is what the manifest says."""
    try:
        size = os.stat(folder / part.file).st_size
        if size != part.size_bytes:
            return f"has {size:,} bytes, and {part.size_bytes:,} were written"
        if file_sha256(folder / part.file, stop) != part.sha256:
            return "is not what was written: its SHA-256 differs"
    except FileNotFoundError:
        return "is gone"
    except OSError as exc:
        return f"cannot be read: {exc.strerror}"
    return ""


def differing(
    folder: Path, day: ArchivedDay, table: str, batches: Iterator[pa.RecordBatch], stop: Stop
) -> list[str] | None:
    """Files of a day that have other rows than these of the history; None where that has not as many of the day."""
    names = [column.name for column in columns(table, day.frame_version)]
    differ: list[str] = []
    parts = iter(day.parts)
    part = next(parts, None)
    held: list[pa.RecordBatch] = []
    rows = 0
    for batch in grouping.plain(batches):
        _go_on(stop)
        while part is not None and rows + batch.num_rows >= part.rows:
            held.append(batch.slice(0, part.rows - rows))
            batch = batch.slice(part.rows - rows)  # noqa: PLW2901 - what is left of it
            expected = digest(pa.Table.from_batches(held).cast(stored_schema(table)), names)
            if not expected == part.digest == _digest(folder / part.file, names):
                differ.append(part.file)
            held, rows, part = [], 0, next(parts, None)
        if batch.num_rows:
            held.append(batch)
            rows += batch.num_rows
            if part is None:
                return None
    return differ if part is None else None


def _digest(file: Path, names: list[str]) -> str:
    """Of a file's rows; empty where it cannot be read, or has other columns."""
    try:
        return digest(pq.read_table(file), names)
    except (pa.ArrowException, OSError, KeyError):
        return ""


def _go_on(stop: Stop) -> None:
    if stop.is_due:
        raise stop.error()
    stop.renew()
