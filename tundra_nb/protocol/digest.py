"""The SHA-256 of a frame's values: what a pin promises, and what an output carries.

Arrow's own bytes are not canonical: equal frames differ in them by slices, batches, dictionaries and what lies under
nulls. So the values are hashed in a form of our own: per column its name, its kind, one byte per row for "has a value",
and the values with nulls as zero or empty text; text as lengths and UTF-8, times as microseconds, one NaN, no -0.0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


def digest(table: pa.Table, names: Sequence[str] | None = None) -> str:
    """The digest of a frame, over these columns, or all of them, in this order."""
    wanted = table.column_names if names is None else names
    return digest_of(table.num_rows, ((name, table.column(name)) for name in wanted))


def digest_of(rows: int, columns: Iterable[tuple[str, pa.ChunkedArray]]) -> str:
    """The digest of a frame whose columns come one after the other."""
    sha = hashlib.sha256(f"frame {rows}\n".encode())
    for name, values in columns:
        _add(sha, name, values)
    return sha.hexdigest()


def _add(sha: Any, name: str, chunks: pa.ChunkedArray) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = chunks.type
    if pa.types.is_dictionary(kind):
        chunks, kind = chunks.cast(kind.value_type), kind.value_type
    if pa.types.is_null(kind):
        chunks, kind = chunks.cast(pa.string()), pa.string()
    valid = pc.is_valid(chunks).to_numpy().astype("uint8")
    if pa.types.is_floating(kind):
        word, values = "float", pc.fill_null(chunks.cast(pa.float64()), 0.0).to_numpy() + 0.0
        values = np.where(np.isnan(values), np.float64("nan"), values).astype("<f8").tobytes()
    elif pa.types.is_boolean(kind):
        word, values = "bool", pc.fill_null(chunks, False).to_numpy().astype("uint8").tobytes()
    elif pa.types.is_integer(kind) or pa.types.is_timestamp(kind):
        word = "int" if pa.types.is_integer(kind) else "time"
        if word == "time":
            chunks = chunks.cast(pa.timestamp("us", "UTC"))
        values = pc.fill_null(chunks.cast(pa.int64()), 0).to_numpy().astype("<i8").tobytes()
    else:
        texts = [(value or "").encode() for value in chunks.cast(pa.string()).to_pylist()]
        word = "text"
        values = np.array([len(text) for text in texts], "<i8").tobytes() + b"".join(texts)
    sha.update(f"{name}\0{word}\n".encode())
    sha.update(valid.tobytes())
    sha.update(values)
