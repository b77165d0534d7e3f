"""Arrow and JSON rows → pandas, with fixed columns and dtypes, also when there are no rows.

| column type | dtype |
|---|---|
| id, int | int64, or Int64 where a value may be missing |
| float | float64 |
| time | datetime64[us, UTC]; text where free SQL gives one beyond the years 1 to 9999 |
| category | categorical: the declared set where it is closed, else the values that occur, sorted |
| text | pandas' own text dtype |
| bool | bool, or boolean where a value may be missing |
| bytes that are no UTF-8 | object |

Where a frame came from stands in `df.attrs`: `store`, `commit`, `query`, `truncated`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tundra_nb.protocol.live import LIVE
from tundra_nb.types import Column, columns

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
FIRST_US, LAST_US = (
    (dt.datetime(*day, tzinfo=dt.UTC) - EPOCH) // dt.timedelta(microseconds=1) for day in ((1, 1, 2), (9999, 12, 30))
)
"""The moments that Python's times can tell in every zone, in microseconds since 1970."""
FOREVER_US = 2**63 - 1
"""How DuckDB sends the `infinity` of SQL; its negative is that of `-infinity`."""


def _open(name: str, *, nullable: bool = True) -> Column:
    return Column(name, "category", nullable)


def _text(name: str, *, nullable: bool = True) -> Column:
    return Column(name, "text", nullable)


def diff_columns(table: str) -> tuple[Column, ...]:
    """The columns of a diff: which row, then the row's columns before and after."""
    sides = [Column(f"{side}_{c.name}", c.type, True, c.values) for side in ("from", "to") for c in columns(table)]
    return (*LIVE["diff"], *sides)


def history_columns(table: str) -> tuple[Column, ...]:
    """The columns of the history of rows: the commit, then the row's columns as it left them."""
    rows = [Column(c.name, c.type, True, c.values) for c in columns(table)]
    commit = (_text("commit", nullable=False), Column("committed_at", "time", nullable=True), _open("committer"))
    return (*commit, _text("message"), _open("diff_type", nullable=False), *rows)


def read_arrow(body: bytes) -> pa.Table:
    """The table that an Arrow stream holds."""
    import pyarrow as pa

    with pa.ipc.open_stream(pa.py_buffer(body)) as reader:
        return reader.read_all()


def from_arrow(
    body: bytes | pa.Table,
    *,
    table: str | None = None,
    meta: Mapping[str, Any] | None = None,
    declared: Sequence[Column] = (),
) -> pd.DataFrame:
    """Make a frame of an Arrow stream.

    Args:
        body: the stream.
        table: the history table whose columns it must have; None takes the columns as they come.
        meta: provenance, for `df.attrs`.
        declared: the columns it must have, when it is no history table.
    """
    arrow = read_arrow(body) if isinstance(body, bytes) else body
    declared = columns(table) if table else declared
    known = {column.name for column in declared}
    series: dict[str, Any] = {}
    for column in declared:
        if column.name in arrow.column_names:
            series[column.name] = _from_chunks(arrow.column(column.name), column)
        else:
            series[column.name] = _from_values([None] * arrow.num_rows, column)
    for name in arrow.column_names:
        if name not in known:
            series[name] = _from_chunks(arrow.column(name), _column_of(name, arrow.column(name)))
    return _frame(series, arrow.num_rows, meta)


def from_rows(
    rows: Sequence[Mapping[str, Any]], declared: Iterable[Column], *, meta: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    """Make a frame of JSON rows; fields that are not declared follow, as pandas reads them."""
    import pandas as pd

    series: dict[str, Any] = {}
    for column in declared:
        values = [row.get(column.name) for row in rows]
        series[column.name] = _from_values(values, column)
    more = dict.fromkeys(name for row in rows for name in row if name not in series)
    for name in more:
        series[name] = pd.Series([row.get(name) for row in rows])
    return _frame(series, len(rows), meta)


def dtype(column: Column) -> Any:
    """The pandas dtype of a column; an open category has none before its values are known."""
    import pandas as pd

    match column.type:
        case "id" | "int":
            return pd.Int64Dtype() if column.nullable else "int64"
        case "float":
            return "float64"
        case "time":
            return pd.DatetimeTZDtype(unit="us", tz="UTC")
        case "bool":
            return pd.BooleanDtype() if column.nullable else "bool"
        case "category":
            return pd.CategoricalDtype(_index(column.values))
        case _:
            return text_dtype()


def text_dtype() -> Any:
    """What this pandas makes of text by itself: `str` since 3.0, `object` before."""
    import pandas as pd

    return pd.Series([""]).dtype


def _frame(series: dict[str, Any], rows: int, meta: Mapping[str, Any] | None) -> pd.DataFrame:
    import pandas as pd

    frame = pd.DataFrame(series, index=pd.RangeIndex(rows))
    frame.attrs.update(meta or {})
    return frame


def _from_values(values: list[Any], column: Column) -> Any:
    import pandas as pd

    if column.type == "time":
        moments = [pd.Timestamp(value, unit="us", tz="UTC") if isinstance(value, int) else value for value in values]
        return pd.to_datetime(pd.Series(moments, dtype="object"), utc=True, format="ISO8601").astype(dtype(column))
    if column.type == "category":
        found = {value for value in values if value is not None}
        return pd.Series(pd.Categorical(values, categories=_index(_categories(column, found))))
    if column.type == "text":
        values = [value if value is None or isinstance(value, str) else _plain(value) for value in values]
    if not column.nullable and None in values:  # an older or newer daemon than this client
        column = Column(column.name, column.type, nullable=True)
    return pd.Series(values, dtype=dtype(column))


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _from_chunks(chunks: pa.ChunkedArray, column: Column) -> Any:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc

    match column.type:
        case "category":
            return _from_dictionary(chunks, column)
        case "time":
            kind = pa.timestamp("us", "UTC")
            moments = chunks.cast(kind).cast(pa.int64())
            ends = pc.min_max(moments).as_py()
            if ends["max"] is not None and (ends["max"] > LAST_US or ends["min"] < FIRST_US):
                return pd.Series([_moment(one) for one in moments.to_pylist()], dtype=text_dtype())
            return chunks.cast(kind).to_pandas().astype(dtype(column))
        case "id" | "int":
            if chunks.null_count or column.nullable:
                return _masked(pd.Int64Dtype(), chunks.cast(pa.int64()))
            return chunks.cast(pa.int64()).to_pandas()
        case "bool":
            if chunks.null_count or column.nullable:
                return _masked(pd.BooleanDtype(), chunks.cast(pa.bool_()))
            return chunks.cast(pa.bool_()).to_pandas()
        case "float":
            return chunks.cast(pa.float64()).to_pandas()
        case _:
            if pa.types.is_binary(chunks.type) or pa.types.is_large_binary(chunks.type):
                try:
                    chunks = chunks.cast(pa.string())
                except pa.ArrowInvalid:  # a blob
                    return chunks.to_pandas()
            return chunks.to_pandas().astype(text_dtype())


def _moment(us: int | None) -> str | None:
    """A moment of which not all can be told by Python's times, as text."""
    if us is None or FIRST_US <= us <= LAST_US:
        return None if us is None else (EPOCH + dt.timedelta(microseconds=us)).isoformat().replace("+00:00", "Z")
    return "infinity" if us == FOREVER_US else "-infinity" if us == -FOREVER_US else f"{us} µs since 1970"


def _masked(kind: Any, chunks: pa.ChunkedArray) -> Any:
    """An array with its own mask for missing values: integers stay integers."""
    return kind.__from_arrow__(chunks)


def _from_dictionary(chunks: pa.ChunkedArray, column: Column) -> Any:
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    if not pa.types.is_dictionary(chunks.type):
        chunks = chunks.cast(pa.string()).dictionary_encode()
    array = chunks.unify_dictionaries().combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # no chunk at all
        return pd.Categorical([], categories=_index(column.values))
    values = array.dictionary.to_pylist()
    codes = array.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype("int64")
    categories = _categories(column, {values[code] for code in np.unique(codes) if code >= 0})
    place = {value: index for index, value in enumerate(categories)}
    # the last is what code -1, a missing value, finds
    moved = np.array([*(place.get(value, -1) for value in values), -1], dtype="int64")
    return pd.Categorical.from_codes(moved[codes], categories=_index(categories))


def _index(categories: Iterable[Any]) -> Any:
    """Categories as an index whose dtype does not depend on whether there are any."""
    import pandas as pd

    values = list(categories)
    return pd.Index(values, dtype=None if values else text_dtype())


def _categories(column: Column, found: set[Any]) -> list[Any]:
    """The declared set, and what a newer daemon may have sent beyond it; sorted, so that equal data compare equal."""
    declared = column.values  # noqa: PD011 - a column of ours, not of pandas
    return [*declared, *sorted(found.difference(declared))]


def _column_of(name: str, chunks: pa.ChunkedArray) -> Column:
    """The column type that an Arrow type stands for."""
    import pyarrow as pa

    kind = chunks.type
    if pa.types.is_dictionary(kind):
        return Column(name, "category", nullable=True)
    if pa.types.is_timestamp(kind):
        return Column(name, "time", nullable=True)
    if pa.types.is_boolean(kind):
        return Column(name, "bool", nullable=False)
    if pa.types.is_integer(kind):
        return Column(name, "int", nullable=False)
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind):
        return Column(name, "float", nullable=True)
    return Column(name, "text", nullable=True)
