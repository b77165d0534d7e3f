"""Groups made where the rows are, compared with pandas over the rows themselves, on both engines."""

from __future__ import annotations

import random
from typing import Any

import pandas as pd
import pytest

from tundra_nb.errors import UsageError
from tundra_nb.protocol.query import Condition, FrameQuery
from tundra_nb.runtime.id_layout import id_floor
from tundra_nb.types import Attempt, ErrorEvent, Operation

from .conftest import Store, random_operation, table_of

pytestmark = pytest.mark.anyio

T0 = 1_760_000_000_000_000


def operations(count: int) -> list[Operation]:
    chance = random.Random(7)
    return [random_operation(T0 + n * 40_000_000, n, chance) for n in range(count)]


def by_pandas(rows: pd.DataFrame, keys: list[str]) -> list[dict[str, Any]]:
    """The same groups, made by pandas."""
    found = []
    for key, group in rows.groupby(keys, dropna=False, sort=True):
        latency = group["latency_ms"].astype(float)
        found.append(
            {
                **dict(zip(keys, key, strict=True)),
                "count": len(group),
                "errors": int((group["outcome"] != "ok").sum()),
                "p50_ms": latency.quantile(0.5),
                "p95_ms": latency.quantile(0.95),
                "input_tokens": int(group["input_tokens"].sum()),
                "cost_usd": float(group["cost_usd"].sum()),
            }
        )
    return found


async def grouped(store: Store, **query: Any) -> list[dict[str, Any]]:
    assert await store.history.settled(20)
    made: list[dict[str, Any]] = (await table_of(store.history.query(FrameQuery(table="calls", **query)))).to_pylist()
    return made


def same(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    assert len(one) == len(other)
    for row, wanted in zip(one, other, strict=True):
        for name, value in wanted.items():
            if pd.isna(value):
                assert row[name] is None, name
            else:
                assert row[name] == (pytest.approx(value, rel=1e-12) if isinstance(value, float) else value), name


async def test_groups_are_those_of_pandas_over_the_rows(store: Store) -> None:
    store.history.append(*operations(2_000))
    assert await store.history.settled(20)
    rows = (await table_of(store.history.query(FrameQuery(table="calls")))).to_pandas()
    rows["profile"] = (
        rows["profile"]
        .astype(object)
        .where(rows["profile"].notna(), rows["asked"].astype(object).str.split(",").str[0])
    )
    rows["hour"] = rows["at"].dt.floor("h")
    for keys in (["profile", "hour"], ["outcome", "streamed"], ["profile", "code"]):
        plain = rows.assign(**{key: rows[key].astype(object) for key in keys if key != "hour"})
        found = await grouped(store, by=keys)
        same(found, by_pandas(plain, keys))
        assert sum(row["count"] for row in found) == 2_000
    (whole,) = await grouped(store, by=["kind"], quantiles=[0, 0.999, 1])
    assert [whole[f"p{share}_ms"] for share in ("0", "99.9", "100")] == pytest.approx(
        [rows["latency_ms"].quantile(share) for share in (0, 0.999, 1)]
    )
    assert whole["error_rate"] == pytest.approx(whole["errors"] / 2_000)


async def test_intervals_a_filter_and_a_pin_go_with_groups(store: Store) -> None:
    store.history.append(*operations(100))
    pin = await store.commit("pin")
    store.history.append(*operations(200)[100:])
    found = await grouped(store, every=600, at=pin, where=[Condition("outcome", "eq", "ok")])
    assert [row["at"].minute % 10 for row in found] == [0] * len(found)
    rows = [row for row in operations(100) if row.outcome == "ok"]
    assert sum(row["count"] for row in found) == len(rows)
    assert [row["count"] for row in await grouped(store, by=["kind"])] == [200]
    assert await grouped(store, by=["profile"], until_us=T0) == []
    (newest,) = await grouped(store, by=["kind"], limit=5, newest_first=True)
    assert newest["count"] == 5


async def test_a_call_that_nobody_answered_belongs_to_who_was_asked_first(store: Store) -> None:
    asked = ["a,b", "b,a", "a", None, "ab"]
    store.history.append(
        *(
            Operation(operation_id=id_floor(T0) + n, at=T0, outcome="error", asked=names)
            for n, names in enumerate(asked)
        ),
        Operation(operation_id=id_floor(T0) + 9, at=T0, outcome="ok", asked="a,b", profile="b"),
    )
    for name, ids in (("a", [0, 2]), ("b", [1, 9]), ("ab", [4]), ("nobody", [])):
        for condition in (Condition("profile", "eq", name), Condition("profile", "in", [name])):
            rows = await store.rows("calls", where=[condition])
            assert [row["operation_id"] - id_floor(T0) for row in rows] == ids
    found = await grouped(store, by=["profile"])
    assert [(row["profile"], row["count"]) for row in found] == [("a", 2), ("ab", 1), ("b", 2), (None, 1)]


async def test_rows_without_a_latency_are_only_counted(store: Store) -> None:
    store.history.append(
        *(
            ErrorEvent(
                error_id=id_floor(T0) + n,
                at=T0,
                source="router",
                code=code,
                severity="high",
                retryable=True,
                message="",
            )
            for n, code in enumerate(("A", "B", "A"))
        )
    )
    found = (await table_of(store.history.query(FrameQuery(table="errors", by=["code"])))).to_pylist()
    assert found == [{"code": "A", "count": 2}, {"code": "B", "count": 1}]


async def test_bands_of_latency_hold_every_call_once_and_stand_for_what_they_took(store: Store) -> None:
    store.history.append(*operations(500))
    found = await grouped(store, by=["profile", "latency_band"], every=3600, columns=["outcome"])
    assert set(found[0]) == {"profile", "latency_band", "at", "count", "errors", "error_rate"}
    assert sum(row["count"] for row in found) == 500
    rows = await store.rows("calls")
    assert sum(row["count"] for row in found if row["latency_band"] is None) == sum(
        row["latency_ms"] is None for row in rows
    )
    known = [row["latency_ms"] for row in rows if row["latency_ms"] is not None and row["latency_ms"] > 1]
    bands = {row["latency_band"] for row in found} - {None}
    assert all(min(abs(band / ms - 1) for band in bands) < 0.08 for ms in known)


async def test_of_a_bucket_a_group_has_the_lowest_level_where_it_is_asked_for(store: Store) -> None:
    store.history.append(
        *(
            Attempt(
                attempt_id=id_floor(T0) + n, operation_id=1, seq=n, at=T0, profile=profile, outcome="ok",
                bucket_requests=level,
            )
            for n, (profile, level) in enumerate((("a", 5.0), ("a", None), ("a", 2.5), ("b", None)))
        )
    )  # fmt: skip
    assert await store.history.settled(20)
    ask = FrameQuery(table="attempts", by=["profile"], columns=["bucket_requests"])
    found = (await table_of(store.history.query(ask))).to_pylist()
    assert [(row["profile"], row["count"], row["bucket_requests"]) for row in found] == [("a", 3, 2.5), ("b", 1, None)]
    assert "latency_ms" not in found[0]


async def test_groups_of_many_columns_are_as_many_as_there_are(store: Store) -> None:
    """Their numbers, multiplied, would be more than 64 bits hold."""
    store.history.append(*operations(2_000))
    by = ["profile", "outcome", "code", "streamed", "kind", "minute", "latency_band", "model", "asked", "caller"]
    found = await grouped(store, by=by, columns=["outcome"])
    assert sum(row["count"] for row in found) == 2_000
    rows = await store.rows("calls")
    names = ("profile", "asked", "streamed", "code", "latency_ms")
    assert len({(row["at"].replace(second=0), *(row[name] for name in names)) for row in rows}) >= len(found)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"by": ["profil"]}, "by"),
        ({"by": ["message"]}, "by"),
        ({"by": ["profile", "profile"]}, "by"),
        ({"by": ["latency"]}, "by"),
        ({"every": 0}, "every"),
        ({"by": ["kind"], "quantiles": [1.5]}, "quantiles"),
    ],
)
async def test_what_cannot_be_grouped_is_refused(store: Store, wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(UsageError) as told:
        await grouped(store, **wrong)
    assert told.value.field == field
