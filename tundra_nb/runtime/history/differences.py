"""The rows of all tables that differ between two states, as one stream: one query after the other."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from typing import Any

import pyarrow as pa

from . import arrow
from .contract import EventStore, Frame, Stop


def every_table(store: EventStore, before: str, after: str, limit: int | None, stop: Stop) -> Frame:
    """Rows with the columns of every table that differs; empty where a row's table has no such column.

    Args:
        store: to ask.
        before: hash of a commit.
        after: the same, or `WORKING`.
        limit: at most so many rows of each table.
        stop: of the request.
    """
    names = [found.table for found in store.stat(before, after)]
    whole = _union(names)
    meta = {"from_commit": before, "to_commit": after, "commit": after, "truncated": False, "tables": names}
    return Frame(whole, _rows(store, before, after, names, limit, stop, whole), meta)


def _union(names: Sequence[str]) -> pa.Schema:
    """The columns of these tables' diffs, each once; words as plain text, because dictionaries differ."""
    fields: dict[str, pa.Field] = {}
    for name in names or ("note",):
        for field in arrow.diff_schema(name):
            kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
            fields.setdefault(field.name, pa.field(field.name, kind))
    return pa.schema(list(fields.values()))


def _rows(
    store: EventStore,
    before: str,
    after: str,
    names: Sequence[str],
    limit: int | None,
    stop: Stop,
    whole: pa.Schema,
) -> Generator[pa.RecordBatch, None, None]:
    yield pa.record_batch([pa.array([], field.type) for field in whole], schema=whole)
    for name in names:
        frame = store.diff(before, after, name, limit, stop)
        with contextlib.closing(frame.batches):
            for batch in frame.batches:
                yield _widened(batch, whole)


def _widened(batch: pa.RecordBatch, whole: pa.Schema) -> pa.RecordBatch:
    there = dict(zip(batch.schema.names, batch.columns, strict=True))
    arrays: list[Any] = [
        there[field.name].cast(field.type) if field.name in there else pa.nulls(batch.num_rows, field.type)
        for field in whole
    ]
    return pa.record_batch(arrays, schema=whole)
