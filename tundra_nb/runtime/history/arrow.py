"""Columns of Python values or JSON text into Arrow record batches, and batches into pieces of an IPC stream.

A category column has one dictionary for the whole stream, which only grows (closed sets are there from the start, in
their order): readers get deltas, and equal rows give equal codes whatever the batch size.
"""

from __future__ import annotations

import datetime as dt
import decimal
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from tundra_nb.types import TABLES, Column, ColumnType, columns

from .protocol import CHUNK_BYTES

_ARROW: dict[ColumnType, pa.DataType] = {
    "id": pa.int64(),
    "int": pa.int64(),
    "float": pa.float64(),
    "text": pa.string(),
    "long_text": pa.string(),
    "time": pa.timestamp("us", "UTC"),
    "bool": pa.bool_(),
    "category": pa.dictionary(pa.int32(), pa.string()),
}

_DECODE: dict[type, Callable[[str], list[Any]]] = {
    item: msgspec.json.Decoder(list[item | None]).decode  # type: ignore[valid-type]
    for item in (int, float, str)
}
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_CONTROLS = {code: f"\\u{code:04x}" for code in range(0x20)}


def table_schema(table: str, names: Sequence[str] | None = None) -> pa.Schema:
    """The columns of a table (or some of them) as every frame of it has them, also an empty one."""
    wanted = [column for column in columns(table) if names is None or column.name in names]
    return pa.schema([pa.field(column.name, _ARROW[column.type], column.nullable) for column in wanted])


def diff_schema(table: str) -> pa.Schema:
    """`table, diff_type, from_commit, to_commit`, then each column as `from_…` and `to_…`."""
    text = pa.dictionary(pa.int32(), pa.string())
    fields = [pa.field(name, text, nullable=False) for name in ("table", "diff_type", "from_commit", "to_commit")]
    for side in ("from", "to"):
        fields += [pa.field(f"{side}_{column.name}", _ARROW[column.type]) for column in columns(table)]
    return pa.schema(fields)


class ColumnBuilder:
    """Turns one column's values, batch by batch, into arrays of its Arrow type."""

    def __init__(self, field: pa.Field, values: tuple[str, ...] = ()) -> None:
        self._type = field.type
        self._words = list(values)
        self._codes = {word: code for code, word in enumerate(values)}
        self._dictionary: pa.Array | None = None
        item: type = float if pa.types.is_floating(field.type) else int
        if pa.types.is_dictionary(field.type):
            item, self._dictionary = str, pa.array(values, pa.string())
        elif pa.types.is_string(field.type):
            item = str
        self._decode = _DECODE[item]

    def from_json(self, text: str, count: int, comma: str = ",", *, turned: bool = False) -> pa.Array:
        """`text`: a JSON array of `count` raw database values, as the engine writes it, with its `comma`.

        Most columns of most pieces hold one value only, often null: these are recognised by comparing the text. Of the
        others, numbers and categories are cut and converted natively, without one Python object per value, and other
        threads run meanwhile. `turned`: the last value becomes the first.
        """
        try:
            return self._from_json(text, count, comma, turned=turned)
        except msgspec.DecodeError:  # Dolt writes control characters within a text as they are, which is no JSON
            return self._from_json(text.translate(_CONTROLS), count, comma, turned=turned)

    def _from_json(self, text: str, count: int, comma: str, *, turned: bool) -> pa.Array:
        first = text[1 : text.find(comma)] if count > 1 else text[1:-1]
        size = len(first) + len(comma)
        if len(text) == count * size - len(comma) + 2 and text[1:-1] == (first + comma) * (count - 1) + first:
            return self.repeated(self._decode(f"[{first}]")[0], count)
        values = None
        if not pa.types.is_string(self._type):
            parts = pc.split_pattern(pa.array([text[1:-1]]), comma).values
            if len(parts) == count:  # no comma inside a value, so each part is one
                values = self._from_parts(parts, has_null="null" in text)
        if values is None:
            values = self.from_values(self._decode(text))
        return values[::-1] if turned else values

    def _from_parts(self, parts: pa.Array, *, has_null: bool) -> pa.Array:
        """`parts`: one JSON text per value."""
        if self._dictionary is not None:
            local = parts.dictionary_encode()
            return self._coded(local.indices, [msgspec.json.decode(word) for word in local.dictionary.to_pylist()])
        if has_null:
            parts = pc.if_else(pc.equal(parts, "null"), pa.scalar(None, pa.string()), parts)
        if pa.types.is_floating(self._type):
            return parts.cast(self._type)
        return parts.cast(pa.int64()).cast(self._type)

    def repeated(self, value: Any, count: int) -> pa.Array:
        """One value, or null, `count` times."""
        if self._dictionary is None:
            return pa.nulls(count, self._type) if value is None else pa.repeat(self.from_values([value])[0], count)
        code = pa.scalar(self._codes_of([value])[0], pa.int32())
        return pa.DictionaryArray.from_arrays(pa.repeat(code, count), self._dictionary)

    def from_values(self, values: Sequence[Any]) -> pa.Array:
        if self._dictionary is not None:
            return self.from_arrow(pa.array(values, pa.string()))
        if pa.types.is_boolean(self._type):
            return pa.array(values, pa.int8()).cast(pa.bool_())
        return pa.array(values, self._type)

    def from_arrow(self, values: pa.Array) -> pa.Array:
        """`values`: of the column's type, with words as plain text."""
        if self._dictionary is None:
            return values.cast(self._type)
        local = values.cast(pa.string()).dictionary_encode()
        return self._coded(local.indices, local.dictionary.to_pylist())

    def _coded(self, indices: pa.Array, words: Sequence[str | None]) -> pa.Array:
        """`indices` into `words` as indices into the stream's dictionary, which takes up new words."""
        mapping = pa.array(self._codes_of(words), pa.int32())
        return pa.DictionaryArray.from_arrays(mapping.take(indices), self._dictionary)

    def _codes_of(self, words: Sequence[str | None]) -> list[int | None]:
        known = len(self._words)
        for word in words:
            if word is not None and word not in self._codes:
                self._codes[word] = len(self._words)
                self._words.append(word)
        if len(self._words) > known:
            self._dictionary = pa.array(self._words, pa.string())
        return [None if word is None else self._codes[word] for word in words]


def builders(schema: pa.Schema, table: str) -> list[ColumnBuilder]:
    """One builder per field; `from_…` and `to_…` fields share the closed sets of their column."""
    closed = {column.name: column.values for column in columns(table)}
    return [ColumnBuilder(field, closed.get(_plain(field.name), ())) for field in schema]


def empty_batch(schema: pa.Schema, made: Sequence[ColumnBuilder]) -> pa.RecordBatch:
    """No rows, but with the dictionaries of closed sets."""
    return pa.record_batch([builder.repeated(None, 0) for builder in made], schema=schema)


def encode(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[bytes]:
    """The IPC stream in pieces of at most `CHUNK_BYTES`, made as they are asked for."""
    sink = _Pieces()
    options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)
    with pa.ipc.new_stream(sink, schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)
            yield from sink.taken()
    yield from sink.taken()


def rows(batches: Iterable[pa.RecordBatch]) -> list[dict[str, Any]]:
    """All rows as plain values, times in microseconds since the epoch: for the few rows that a card or page needs."""
    found: list[dict[str, Any]] = []
    for batch in batches:
        plain = [column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column for column in batch.columns]
        found += pa.table(plain, names=batch.schema.names).to_pylist()
    return found


class _Pieces:
    """A write-only file for pyarrow; what was written is taken out in pieces."""

    closed = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(self._parts[-1])

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """The stream may end; its last bytes are still to be taken."""

    def taken(self) -> Iterator[bytes]:
        data = memoryview(b"".join(self._parts))
        self._parts.clear()
        for start in range(0, len(data), CHUNK_BYTES):
            yield bytes(data[start : start + CHUNK_BYTES])


class LooseRows:
    """Rows of free SQL, whose types are known only when all are there.

    Integers stay integers, numbers become floats as soon as one of them is, times and booleans are recognised by the
    name of the column they come from, anything mixed becomes text.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = distinct(names)
        self._parts: list[list[pa.Array]] = [[] for _ in names]
        self.rows = 0
        self.bytes = 0

    def add(self, rows: Sequence[Sequence[Any]]) -> None:
        self.rows += len(rows)
        for parts, name, values in zip(self._parts, self._names, zip(*rows, strict=True), strict=True):
            parts.append(_loose_array(name, values))
            self.bytes += parts[-1].nbytes

    def result(self) -> tuple[pa.Schema, list[pa.RecordBatch]]:
        arrays = []
        for name, parts in zip(self._names, self._parts, strict=True):
            wanted = _common([part.type for part in parts], hint(name))
            arrays.append(pa.chunked_array([_cast(part, wanted) for part in parts], wanted))
        table = pa.table(arrays, names=self._names)
        return table.schema, table.to_batches(max_chunksize=8192)


_TIMES = frozenset(c.name for table in TABLES for c in columns(table) if c.type == "time")
_BOOLS = frozenset(c.name for table in TABLES for c in columns(table) if c.type == "bool")
_HINTS: dict[str, Column] = {c.name: c for table in TABLES for c in columns(table)}


def hint(name: str) -> pa.DataType:
    """The type of a column that no row of a result has a value for: none at all where something was computed."""
    if name in _TIMES:
        return pa.timestamp("us", "UTC")
    if name in _BOOLS:
        return pa.bool_()
    column = _HINTS.get(name)
    if column is not None and column.type in ("id", "int"):
        return pa.int64()
    if column is not None and column.type == "float":
        return pa.float64()
    return pa.null() if column is None else pa.string()


def _loose_array(name: str, values: Sequence[Any]) -> pa.Array:
    kinds = {type(value) for value in values} - {type(None)}
    if decimal.Decimal in kinds:
        values = [_plain_number(value) for value in values]
        kinds = {type(value) for value in values} - {type(None)}
    if not kinds:
        return pa.nulls(len(values))
    if kinds <= {int, bool}:
        if name in _TIMES:
            return pa.array(values, pa.timestamp("us", "UTC"))
        if name in _BOOLS and all(value in (0, 1, None) for value in values):
            return pa.array([None if value is None else bool(value) for value in values], pa.bool_())
        return _array_or_text(values, pa.int64())
    if kinds <= {int, float, bool}:
        return _array_or_text(values, pa.float64())
    if kinds == {bytes}:
        return pa.array(values, pa.binary())
    if kinds <= {dt.datetime}:
        return pa.array([None if v is None else _microseconds(v) for v in values], pa.timestamp("us", "UTC"))
    return pa.array([None if value is None else _text(value) for value in values], pa.string())


def _array_or_text(values: Sequence[Any], wanted: pa.DataType) -> pa.Array:
    try:
        return pa.array(values, wanted)
    except (OverflowError, pa.ArrowInvalid):
        return pa.array([None if value is None else str(value) for value in values], pa.string())


def _common(kinds: Sequence[pa.DataType], default: pa.DataType) -> pa.DataType:
    found = {str(kind): kind for kind in kinds if not pa.types.is_null(kind)}
    if not found:
        return default
    if len(found) == 1:
        return next(iter(found.values()))
    if set(found) == {"int64", "double"}:
        return pa.float64()
    return pa.string()


def _cast(part: pa.Array, wanted: pa.DataType) -> pa.Array:
    if part.type == wanted:
        return part
    if pa.types.is_string(wanted):
        return pa.array([None if value is None else _text(value) for value in part.to_pylist()], pa.string())
    return part.cast(wanted)


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _plain_number(value: Any) -> Any:
    if not isinstance(value, decimal.Decimal):
        return value
    # sums of integers come as decimals without a fraction, averages with one
    exponent = value.as_tuple().exponent
    return int(value) if exponent == 0 else float(value)


def _microseconds(value: dt.datetime) -> int:
    aware = value if value.tzinfo else value.replace(tzinfo=dt.UTC)
    return (aware - _EPOCH) // dt.timedelta(microseconds=1)


def _plain(name: str) -> str:
    return name.removeprefix("from_").removeprefix("to_")


def distinct(names: Sequence[str]) -> list[str]:
    """Column names of a result, each made unique: a frame cannot have two of one name."""
    seen: dict[str, int] = {}
    result = []
    for name in names:
        count = seen[name] = seen.get(name, 0) + 1
        result.append(name if count == 1 else f"{name}_{count}")
    return result
