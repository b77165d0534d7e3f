"""Groups of a frame's rows, made where the rows are: counts, errors, quantiles of the latency, tokens and cost.

Quantiles are exact, and computed as pandas does: between two values in proportion. A call that nobody answered counts
for the profile that was asked first. A missing value is a group of its own, the last. Of a bucket's level the lowest
is told, where a query names that column.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tundra_nb.protocol.query import LATENCY_BAND, QUANTILES, TIMES, FrameQuery, band_middle, band_of

from .contract import Frame
from .query import LEAST, summed

_WIDEST = 1 << 62
"""Numbers of groups stay below, so that they fit into 64 bits."""


def grouped(frame: Frame, query: FrameQuery) -> Frame:
    """One row per group of the frame's rows."""
    rows = pa.Table.from_batches(list(plain(frame.batches)), schema=_plain_schema(frame.schema))
    made = _summary(rows, query)
    return Frame(made.schema, (batch for batch in made.to_batches()), frame.meta)


def _plain_schema(schema: pa.Schema) -> pa.Schema:
    """Words as words: the dictionary of a stream grows from batch to batch."""
    return pa.schema(
        [pa.field(f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type) for f in schema]
    )


def plain(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        schema = _plain_schema(batch.schema)
        yield pa.record_batch([c.cast(f.type) for c, f in zip(batch.columns, schema, strict=True)], schema=schema)


def _summary(rows: pa.Table, query: FrameQuery) -> pa.Table:
    keys: dict[str, Any] = {name: _key(rows, name) for name in query.by}
    if query.every is not None:
        keys["at"] = _floor(rows["at"], query.every)
    number = _numbered(keys, rows.num_rows)
    told = [name for name in summed(query) if name in rows.column_names]
    latency = rows["latency_ms"].to_numpy().astype("float64") if "latency_ms" in told else np.zeros(len(number))
    order = np.lexsort((latency, number))  # by group, and within it by latency, the unknown last
    number = number[order]
    starts = np.flatnonzero(np.diff(number, prepend=-1))
    counts = np.diff(starts, append=len(number))
    made: dict[str, Any] = {name: as_shown(values.take(pa.array(order[starts])), name) for name, values in keys.items()}
    made["count"] = pa.array(counts, pa.int64())
    if "outcome" in rows.column_names:
        failed = pc.not_equal(rows["outcome"], "ok").to_numpy().astype("int64")
        errors = np.add.reduceat(failed[order], starts) if len(starts) else counts
        made["errors"], made["error_rate"] = pa.array(errors, pa.int64()), pa.array(errors / counts, pa.float64())
    for name in told:
        if name == "latency_ms":
            made |= _quantiles(latency[order], starts, counts, query)
        else:
            made[name] = _of_groups(rows[name], name, order, starts)
    return pa.table(made)


def _key(rows: pa.Table, name: str) -> Any:
    if name in TIMES:
        return _floor(rows["at"], TIMES[name])
    if name == LATENCY_BAND:
        return pa.chunked_array([pa.array(band_of(rows["latency_ms"].to_numpy()), from_pandas=True)])
    if name == "profile" and "asked" in rows.column_names:
        first = pc.list_element(pc.split_pattern(pc.fill_null(rows["asked"], ""), ","), 0)
        return pc.coalesce(rows["profile"], pc.if_else(pc.equal(first, ""), pa.scalar(None, pa.string()), first))
    return rows[name]


def _floor(times: Any, seconds: int) -> Any:
    """The beginning of the interval that a time is in."""
    step = seconds * 1_000_000
    whole = np.floor_divide(times.cast(pa.int64()).to_numpy(), step) * step
    return pa.chunked_array([pa.array(whole, pa.int64())]).cast(pa.timestamp("us", "UTC"))


def quantile_name(share: float) -> str:
    """The column that a quantile of the latency stands in."""
    return f"p{share * 100:g}_ms"


def as_shown(values: Any, name: str) -> Any:
    """A key's column as frames have it: words as categories."""
    if name == LATENCY_BAND:
        return pa.array(band_middle(values.to_numpy()), pa.float64(), from_pandas=True)
    return values.combine_chunks().dictionary_encode() if pa.types.is_string(values.type) else values


def _numbered(keys: dict[str, Any], count: int) -> Any:
    """The group of each row, as a number; groups are in the order of their numbers."""
    number, size = np.zeros(count, "int64"), 1
    for values in keys.values():
        rank, more = _ranks(values)
        if size * more >= _WIDEST:
            known, number = np.unique(number, return_inverse=True)
            size = len(known)
        number, size = number * more + rank, size * more
    return number


def _ranks(values: Any) -> tuple[Any, int]:
    """The place of each value among the distinct ones, and how many there are; of a missing value it is the last."""
    plain = values.cast(pa.int64()) if not pa.types.is_string(values.type) else values
    coded = plain.combine_chunks().dictionary_encode()
    distinct = len(coded.dictionary)
    rank = np.empty(distinct + 1, "int64")
    rank[pc.sort_indices(coded.dictionary).to_numpy()] = np.arange(distinct)
    rank[distinct] = distinct
    return rank[pc.fill_null(coded.indices, distinct).to_numpy()], distinct + 1


def _of_groups(values: Any, name: str, order: Any, starts: Any) -> Any:
    """Sums of the groups, or lowest levels; a sum of nothing is 0, a level of nothing is none."""
    kind = pa.int64() if name in ("input_tokens", "output_tokens") else pa.float64()
    if not len(starts):
        return pa.array([], kind)
    if name in LEAST:
        lowest = np.fmin.reduceat(values.to_numpy().astype("float64")[order], starts)
        return pa.array(lowest, kind, from_pandas=True)
    plain = pc.fill_null(values.cast(kind), pa.scalar(0, kind)).to_numpy()
    return pa.array(np.add.reduceat(plain[order], starts), kind)


def _quantiles(values: Any, starts: Any, counts: Any, query: FrameQuery) -> dict[str, Any]:
    """Each quantile as a column; null where no row of a group has a latency. Between two values it is in proportion.

    `values`: sorted within each group, the unknown last.
    """
    known = np.add.reduceat(~np.isnan(values), starts, dtype="int64") if len(starts) else counts
    made = {}
    for share in query.quantiles or QUANTILES:
        place = np.maximum(known - 1, 0) * share
        below = place.astype("int64")
        low, high = values[starts + below], values[starts + np.minimum(below + 1, np.maximum(known - 1, 0))]
        made[quantile_name(share)] = pa.array(low + (high - low) * (place - below), pa.float64(), from_pandas=True)
    return made
