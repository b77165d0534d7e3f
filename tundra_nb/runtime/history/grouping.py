"""Groups of a frame's rows, made where the rows are: counts, errors, quantiles of the latency, tokens and cost.

Quantiles are exact, and computed as pandas does: between two values in proportion. A call that nobody answered counts
for the profile that was asked first. A missing value is a group of its own, the last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tundra_nb.protocol.query import QUANTILES, TIMES, FrameQuery
from tundra_nb.types import KEY_OF, columns

from .contract import Frame

SUMS = ("input_tokens", "output_tokens", "cost_usd")
_COUNTED = "_counted"
_FAILED = "_failed"


def ungrouped(query: FrameQuery) -> FrameQuery:
    """The rows that a grouped query needs, with no more columns than it needs."""
    known = {column.name for column in columns(query.table)}
    wanted = {KEY_OF[query.table], "at", "outcome", "latency_ms", *SUMS, *query.by}
    if "profile" in query.by and "asked" in known:
        wanted.add("asked")
    names = [column.name for column in columns(query.table) if column.name in wanted]
    return msgspec.structs.replace(query, columns=names, by=[], every=None, quantiles=[])


def grouped(frame: Frame, query: FrameQuery) -> Frame:
    """One row per group of the frame's rows."""
    rows = pa.Table.from_batches(list(_plain(frame.batches)), schema=_plain_schema(frame.schema))
    made = _summary(rows, query)
    return Frame(made.schema, (batch for batch in made.to_batches()), frame.meta)


def _plain_schema(schema: pa.Schema) -> pa.Schema:
    """Words as words: the dictionary of a stream grows from batch to batch."""
    return pa.schema(
        [pa.field(f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type) for f in schema]
    )


def _plain(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        schema = _plain_schema(batch.schema)
        yield pa.record_batch([c.cast(f.type) for c, f in zip(batch.columns, schema, strict=True)], schema=schema)


def _summary(rows: pa.Table, query: FrameQuery) -> pa.Table:
    names = list(query.by)
    keys: dict[str, Any] = {name: _key(rows, name) for name in names}
    if query.every is not None:
        keys["at"] = _floor(rows["at"], query.every)
        names.append("at")
    there = set(rows.column_names)
    work = pa.table(keys | {_COUNTED: pa.array(np.ones(rows.num_rows, "int64"))})
    if "outcome" in there:
        work = work.append_column(_FAILED, pc.not_equal(rows["outcome"], "ok").cast(pa.int64()))
    for name in SUMS:
        if name in there:
            work = work.append_column(f"_{name}", rows[name])
    sums = [name for name in work.column_names if name not in keys]
    found = work.group_by(names, use_threads=False).aggregate([(name, "sum") for name in sums])
    found = found.take(pc.sort_indices(found, [(name, "ascending") for name in names]))
    columns_made: dict[str, Any] = {name: _as_shown(found[name], name) for name in names}
    columns_made["count"] = found[f"{_COUNTED}_sum"].cast(pa.int64())
    if "outcome" in there:
        errors = found[f"{_FAILED}_sum"].cast(pa.int64())
        columns_made["errors"] = errors
        columns_made["error_rate"] = pc.divide(errors.cast(pa.float64()), columns_made["count"].cast(pa.float64()))
    if "latency_ms" in there:
        columns_made |= _quantiles(work.select(names), rows["latency_ms"], found.select(names), query.quantiles)
    for name in SUMS:
        if name in there:
            kind = pa.float64() if name == "cost_usd" else pa.int64()
            columns_made[name] = pc.fill_null(found[f"_{name}_sum"].cast(kind), pa.scalar(0, kind))
    return pa.table(columns_made)


def _key(rows: pa.Table, name: str) -> Any:
    if name in TIMES:
        return _floor(rows["at"], TIMES[name])
    if name == "profile" and "asked" in rows.column_names:
        first = pc.list_element(pc.split_pattern(pc.fill_null(rows["asked"], ""), ","), 0)
        return pc.coalesce(rows["profile"], pc.if_else(pc.equal(first, ""), pa.scalar(None, pa.string()), first))
    return rows[name]


def _floor(times: Any, seconds: int) -> Any:
    """The beginning of the interval that a time is in."""
    step = seconds * 1_000_000
    whole = np.floor_divide(times.cast(pa.int64()).to_numpy(), step) * step
    return pa.chunked_array([pa.array(whole, pa.int64())]).cast(pa.timestamp("us", "UTC"))


def _as_shown(values: Any, name: str) -> Any:
    if pa.types.is_string(values.type):
        return values.combine_chunks().dictionary_encode() if name != "at" else values
    return values


def _quantiles(keys: pa.Table, latency: Any, found: pa.Table, wanted: Sequence[float]) -> dict[str, Any]:
    """Each quantile as a column, in the order of the groups found; null where no row of a group has a latency."""
    names = keys.column_names
    filled = [pc.fill_null(_comparable(keys[name]), "\0") for name in names]
    labels = pc.binary_join_element_wise(*filled, "\1") if len(filled) > 1 else filled[0]
    order = [pc.fill_null(_comparable(found[name]), "\0") for name in names]
    groups = pc.binary_join_element_wise(*order, "\1") if len(order) > 1 else order[0]
    number = pc.index_in(labels, value_set=pa.array(groups.to_pylist(), pa.string())).to_numpy()
    values = latency.to_numpy()
    known = ~np.isnan(values.astype("float64"))
    number, values = number[known], values[known].astype("float64")
    sorted_by = np.lexsort((values, number))
    number, values = number[sorted_by], values[sorted_by]
    starts = np.searchsorted(number, np.arange(found.num_rows), "left")
    ends = np.searchsorted(number, np.arange(found.num_rows), "right")
    made = {}
    for share in wanted or QUANTILES:
        column = [
            None if end == start else float(_at_share(values[start:end], share))
            for start, end in zip(starts, ends, strict=True)
        ]
        made[f"p{share * 100:g}_ms"] = pa.array(column, pa.float64())
    return made


def _comparable(values: Any) -> Any:
    return values.cast(pa.int64()).cast(pa.string()) if pa.types.is_timestamp(values.type) else values.cast(pa.string())


def _at_share(values: Any, share: float) -> float:
    """The value below which a share of the sorted values lies, in proportion between two of them."""
    place = (len(values) - 1) * share
    below = int(place)
    above = min(below + 1, len(values) - 1)
    return float(values[below] + (values[above] - values[below]) * (place - below))
