"""Frames: columns, dtypes, provenance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tests.client.conftest import arrow_stream
from tundra_nb.frames import frames
from tundra_nb.protocol.live import LIVE
from tundra_nb.types import TABLES, columns
from tundra_nb.views.frame import plain_lines

OPERATIONS: list[dict[str, Any]] = [
    {
        "operation_id": 2**62 + n,
        "at": 1_760_000_000_000_000 + n * 1_800_000_000,
        "kind": "chat",
        "profile": "a" if n % 2 else None,
        "outcome": "ok" if n else "error",
        "attempts": n,
        "latency_ms": float(n),
        "input_tokens": n or None,
        "output_tokens": 1,
        "cost_usd": 0.5,
        "streamed": True,
    }
    for n in range(4)
]


@pytest.mark.parametrize("table", TABLES)
def test_an_empty_frame_has_the_columns_and_dtypes_of_a_full_one(table: str) -> None:
    empty = frames.from_arrow(arrow_stream(table, []), table=table)
    row: dict[str, Any] = {}
    for column in columns(table):
        values: dict[str, Any] = {
            "category": (*column.values, "x")[0],  # noqa: PD011 - not of pandas
            "text": "x",
            "long_text": "x",
            "bool": True,
        }
        row[column.name] = values.get(column.type, 1)
    full = frames.from_arrow(arrow_stream(table, [row]), table=table)
    assert list(empty.columns) == list(full.columns) == [column.name for column in columns(table)]
    for name in empty.columns:
        if isinstance(empty[name].dtype, pd.CategoricalDtype):
            assert isinstance(full[name].dtype, pd.CategoricalDtype)
        else:
            assert empty[name].dtype == full[name].dtype, name


def test_dtypes_are_those_that_the_docs_promise() -> None:
    frame = frames.from_arrow(arrow_stream("operation", OPERATIONS), table="operation")
    assert frame["operation_id"].dtype == "int64"
    assert frame["operation_id"].iloc[3] == 2**62 + 3
    assert frame["at"].dtype == pd.DatetimeTZDtype("us", "UTC")
    assert frame["input_tokens"].dtype == pd.Int64Dtype()
    assert frame["input_tokens"].isna().tolist() == [True, False, False, False]
    assert frame["latency_ms"].dtype == np.float64
    assert frame["streamed"].dtype == bool
    assert list(frame["outcome"].cat.categories) == ["ok", "error", "refused", "cancelled", "interrupted"]
    assert (
        frame["profile"].tolist() == [np.nan, "a", np.nan, "a"] or frame["profile"].isna().tolist() == [True, False] * 2
    )
    assert frame["profile"].cat.categories.tolist() == ["a"]


def test_a_category_that_is_not_declared_is_kept() -> None:
    frame = frames.from_arrow(arrow_stream("operation", [OPERATIONS[1] | {"outcome": "novel"}]), table="operation")
    assert frame["outcome"].tolist() == ["novel"]
    assert frame["outcome"].cat.categories[-1] == "novel"


def test_dictionaries_that_differ_between_batches_are_one_category() -> None:
    kind = pa.dictionary(pa.int32(), pa.string())
    schema = pa.schema([pa.field("profile", kind)])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        for values in (["b", None], ["a", "b"], []):
            writer.write_batch(
                pa.record_batch([pa.array(values, pa.string()).dictionary_encode().cast(kind)], schema=schema)
            )
    frame = frames.from_arrow(bytes(sink.getvalue()))
    assert frame["profile"].astype(object).where(frame["profile"].notna(), None).tolist() == ["b", None, "a", "b"]
    assert frame["profile"].cat.categories.tolist() == ["a", "b"]


def test_a_column_that_an_older_store_lacks_is_there_and_empty() -> None:
    schema = pa.schema([pa.field("operation_id", pa.int64()), pa.field("later_column", pa.string())])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_table(pa.table({"operation_id": [1], "later_column": ["x"]}, schema=schema))
    frame = frames.from_arrow(bytes(sink.getvalue()), table="operation")
    assert list(frame.columns)[-1] == "later_column"
    assert frame["profile"].isna().all()
    assert frame["latency_ms"].dtype == np.float64


def test_moments_beyond_the_years_of_python_are_told_in_text() -> None:
    moments = [2**63 - 1, 1 - 2**63, 0, None, 400_000_000_000_000_000]
    sink = pa.BufferOutputStream()
    table = pa.table(
        {"x": pa.array(moments, pa.timestamp("us")), "y": pa.array([0, 1, None, 2, 3], pa.timestamp("us"))}
    )
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    frame = frames.from_arrow(bytes(sink.getvalue()))
    told = frame["x"].astype(object).where(frame["x"].notna(), None).tolist()
    assert told == ["infinity", "-infinity", "1970-01-01T00:00:00Z", None, "400000000000000000 µs since 1970"]
    assert str(frame["y"].dtype) == "datetime64[us, UTC]"
    assert "infinity" in "\n".join(plain_lines(frame))


@pytest.mark.parametrize("name", LIVE)
def test_a_live_frame_without_rows_has_its_columns_and_dtypes(name: str) -> None:
    frame = frames.from_rows([], LIVE[name], meta={"query": name})
    assert list(frame.columns) == [column.name for column in LIVE[name]]
    assert frame.attrs == {"query": name}


def test_live_rows_keep_what_a_newer_daemon_sends_beyond_the_declared_columns() -> None:
    rows = [{"profile": "p", "state": "open", "open_for_s": 3, "failures": 5, "mood": "bad"}]
    frame = frames.from_rows(rows, LIVE["breakers"])
    assert list(frame.columns)[-1] == "mood"
    assert frame["state"].cat.categories.tolist() == ["closed", "open", "half_open"]


def test_values_of_settings_are_text_whatever_their_type() -> None:
    rows = [{"path": "a", "value": True, "default": None, "source": "default"}, {"path": "b", "value": 1.5}]
    frame = frames.from_rows(rows, LIVE["settings"])
    assert frame["value"].tolist() == ["true", "1.5"]
