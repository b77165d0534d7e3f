"""One suite over both engines: the same events in give the same frames out."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import itertools
import os
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from tundra_nb.errors import QueryRefused, RefNotFound, UsageError
from tundra_nb.paths import Paths
from tundra_nb.runtime.clock import Ids, SystemClock
from tundra_nb.runtime.history import arrow
from tundra_nb.runtime.history.arrow import table_schema
from tundra_nb.runtime.history.query import Condition, FrameQuery
from tundra_nb.runtime.history.service import History
from tundra_nb.runtime.history.story import StoredStory, WantedOperation
from tundra_nb.runtime.id_layout import MAX_ID, id_floor
from tundra_nb.types import (
    REPLACED_TABLES,
    TABLES,
    BreakerEvent,
    BreakerState,
    ErrorEvent,
    Exchange,
    LimitEvent,
    Note,
    Operation,
    Setting,
    WriterRow,
    columns,
)

from .conftest import Store, rows_of, table_of

pytestmark = pytest.mark.anyio

T0 = 1_760_000_000_000_000  # 2025-10-09T08:53:20Z
UTC = dt.UTC


def at(seconds: float) -> int:
    return T0 + round(seconds * 1_000_000)


def operation(n: int, **changes: Any) -> Operation:
    given: dict[str, Any] = {"operation_id": id_floor(at(n)) + n, "at": at(n), "outcome": "ok"}
    return Operation(**(given | changes))


def setting(value: str, seconds: int = 0) -> Setting:
    return Setting(setting_id=7, path="breaker.failures", value=value, source="file", at=at(seconds), author="ada")


async def test_plain_rows_are_those_of_the_frame(store: Store) -> None:
    store.history.append(
        operation(1, profile="p", latency_ms=3.0, cost_usd=1e-9, input_tokens=2**53 + 1, streamed=True),
        operation(2, outcome="error", code="ApiError", message="é 漢 🎉 \n '%s'", streamed=False),
        operation(3, latency_ms=0.1 + 0.2),
    )
    commit = await store.history.versions.commit("now", "ada <ada@localhost>")
    store.history.append(operation(4, outcome="cancelled"))
    for query in (
        FrameQuery(table="calls"),
        FrameQuery(table="calls", at=commit, columns=["streamed", "operation_id"]),
        FrameQuery(table="calls", newest_first=True, limit=2),
        FrameQuery(table="calls", since_us=at(2), until_us=at(4)),
        FrameQuery(table="calls", limit=0),
        FrameQuery(table="setting"),
    ):
        frame = await table_of(store.history.query(query))
        rows = await store.history.rows(query)
        assert repr(rows) == repr(arrow.rows(frame.to_batches()))


async def test_every_kind_of_value_comes_back_as_it_went_in(store: Store) -> None:
    text = "tabs\tquotes \" ' \\ % percent é 漢 🎉 line\nend <b>&"
    store.history.append(
        operation(
            1, profile="p", model="m", latency_ms=0.1 + 0.2, cost_usd=1e-9, input_tokens=2**53 + 1, streamed=True
        ),
        operation(2, outcome="error", code="ApiError", message=text, waited_ms=5.0),
        ErrorEvent(
            error_id=id_floor(at(3)),
            at=at(3),
            source="router",
            code="X",
            severity="high",
            retryable=True,
            message=text,
            operation_id=id_floor(at(2)) + 2,
        ),
    )
    frame = await table_of(store.history.query(FrameQuery(table="calls")))
    assert frame.schema == table_schema("operation")
    first, second = frame.to_pylist()
    assert first == {
        "operation_id": id_floor(at(1)) + 1,
        "at": dt.datetime(2025, 10, 9, 8, 53, 21, tzinfo=UTC),
        "kind": "chat",
        "requested_model": None,
        "profile": "p",
        "model": "m",
        "outcome": "ok",
        "code": None,
        "attempts": 0,
        "waited_ms": 0.0,
        "latency_ms": 0.1 + 0.2,
        "input_tokens": 2**53 + 1,
        "output_tokens": None,
        "cost_usd": 1e-9,
        "cached_tokens": None,
        "reasoning_tokens": None,
        "price_at": None,
        "stop_reason": None,
        "streamed": True,
        "user_name": None,
        "caller": None,
        "message": None,
        "retry_after_s": None,
        "asked": None,
        "dialect": None,
        "way": None,
        "dropped": None,
        "client": None,
        "retry_count": None,
        "trace_id": None,
        "parent_span_id": None,
        "run_id": None,
        "writer_id": store.history.writer_id,
    }
    assert (second["message"], second["code"], second["waited_ms"], second["streamed"]) == (
        text,
        "ApiError",
        5.0,
        False,
    )
    (error,) = await store.rows("errors")
    assert (error["message"], error["retryable"], error["severity"]) == (text, True, "high")


async def test_an_empty_frame_has_the_full_schema(store: Store) -> None:
    for table in TABLES:
        frame = await table_of(store.history.query(FrameQuery(table=table)))
        assert (frame.schema, frame.num_rows) == (table_schema(table), 0)


MOVES: tuple[tuple[BreakerState, BreakerState], ...] = (("closed", "open"), ("open", "half_open"))


async def test_closed_sets_keep_their_order_in_the_dictionary(store: Store) -> None:
    store.history.append(
        *(
            BreakerEvent(breaker_event_id=n, at=at(n), profile=f"p{n}", old_state=old, new_state=new, reason="x")
            for n, (old, new) in enumerate(MOVES, 1)
        )
    )
    frame = await table_of(store.history.query(FrameQuery(table="breaker-history")))
    assert frame["new_state"].chunks[-1].dictionary.to_pylist() == ["closed", "open", "half_open"]
    assert frame["profile"].to_pylist() == ["p1", "p2"]


async def test_what_a_database_cannot_hold_is_repaired_and_never_blocks(store: Store) -> None:
    store.history.append(
        operation(1, latency_ms=float("inf"), waited_ms=float("nan"), code="c" * 300),
        operation(2, message="surrogate \ud800 kept out"),
        operation(3),
    )
    first, second, _ = await store.rows("operation")
    assert (first["latency_ms"], first["waited_ms"], first["code"]) == (None, 0.0, "c" * 254 + "…")
    assert second["message"] == "surrogate ? kept out"


async def test_the_same_event_twice_is_one_row(store: Store) -> None:
    twice = operation(1, profile="first", latency_ms=0.1 + 0.2, cost_usd=1e-9, streamed=True, message="é")
    store.history.append(twice)
    assert len(await store.rows("operation")) == 1
    store.history.append(twice, twice)
    store.history.append(operation(2), twice, operation(3))
    assert [row["profile"] for row in await store.rows("operation")] == ["first", None, None]
    assert await store.rows("errors") == []
    assert store.history.stats().moved_rows == 0


async def test_two_events_with_one_id_are_both_kept_and_told(store: Store) -> None:
    first, second, third = (operation(1, profile=name) for name in ("first", "second", "third"))
    store.history.append(first)
    assert len(await store.rows("operation")) == 1
    store.history.append(second, third, operation(2, profile="other"))
    rows = await store.rows("operation", since_us=at(0), until_us=at(3))
    assert sorted(row["profile"] for row in rows) == ["first", "other", "second", "third"]
    assert len({row["operation_id"] for row in rows}) == 4
    assert next(row["profile"] for row in rows if row["operation_id"] == first.operation_id) == "first"
    told = await store.rows("errors", since_us=at(0), until_us=at(3))
    assert [(row["source"], row["reason"]) for row in told] == [("history", "id_clash")] * 2
    assert all(str(first.operation_id) in row["message"] for row in told)
    assert await store.history.settled(5)


async def test_a_window_finds_rows_whose_ids_were_made_while_the_clock_was_wrong(store: Store) -> None:
    """The clock stood a day ahead, then was set right: ids go on above, times do not."""
    day = 86_400
    store.history.append(
        operation(1, profile="before"),
        Operation(operation_id=id_floor(at(day)), at=at(day), outcome="ok", profile="ahead"),
        Operation(operation_id=id_floor(at(day)) + 1, at=at(2), outcome="ok", profile="after"),
        Operation(operation_id=id_floor(at(day)) + 2, at=at(900), outcome="ok", profile="later"),
    )
    rows = await store.rows("operation", since_us=at(0), until_us=at(10))
    assert [row["profile"] for row in rows] == ["before", "after"]
    pin = await store.commit("pin")
    await store.history.aclose()
    clock = SystemClock()
    again = History(store.paths, store.settings, Ids(clock), clock)
    await again.open()
    try:
        for ref in (None, pin):
            query = FrameQuery(table="operation", since_us=at(0), until_us=at(1000), at=ref)
            assert [row["profile"] for row in await again.rows(query)] == ["before", "after", "later"]
    finally:
        await again.aclose()


async def test_ids_begin_above_what_spool_and_store_hold_when_the_clock_was_set_back(store: Store) -> None:
    now = SystemClock()
    ids = Ids(now, node=5)
    made = [ids.next() for _ in range(10)]
    store.history.append(*(Operation(operation_id=one, at=now.now_us(), outcome="ok") for one in made))
    assert len(await store.rows("operation")) == 10
    await store.history.aclose()

    class Back(SystemClock):
        def now_us(self) -> int:
            return super().now_us() - 3600 * 1_000_000

    for has_spool in (True, False):
        if not has_spool:
            shutil.rmtree(store.paths.spool)
        late = Ids(Back())
        again = History(store.paths, store.settings, late, Back())
        await again.open()
        try:
            if has_spool:
                assert late.next() > made[-1], "before the store has said anything"
            assert await again.settled(20)
            async with asyncio.timeout(10):  # the store tells its newest id beside the answer
                while late.next() <= made[-1]:  # noqa: ASYNC110 - the ids tell nobody
                    await asyncio.sleep(0)
        finally:
            await again.aclose()


@pytest.mark.parametrize("years", [15, 50, 8_000])
async def test_the_history_goes_on_after_a_clock_that_was_far_ahead(store: Store, years: int) -> None:
    class Set(SystemClock):
        ahead_us = 0

        def now_us(self) -> int:
            return super().now_us() + self.ahead_us

    clock = Set()
    ids = Ids(clock, node=5)
    made: list[int] = []

    def call() -> Operation:
        made.append(ids.next())
        return Operation(operation_id=made[-1], at=clock.now_us(), outcome="ok")

    def near_now() -> dict[str, Any]:
        now = clock.now_us()
        return {"since_us": now - 600_000_000, "until_us": now + 600_000_000, "columns": ["operation_id"]}

    store.history.append(call())
    clock.ahead_us = years * 365 * 86_400_000_000
    store.history.append(*(call() for _ in range(5_000)))
    assert len(await store.rows("operation", **near_now())) == 5_000
    clock.ahead_us = 0
    store.history.append(call())
    await store.history.aclose()
    ids = Ids(clock, node=5)
    again = History(store.paths, store.settings, ids, clock)
    await again.open()
    try:
        again.append(call())
        assert [
            row["operation_id"] for row in await again.rows(FrameQuery(table="operation", columns=["operation_id"]))
        ] == made
        assert made == sorted(set(made))
        assert made[-1] <= MAX_ID
        assert len(await again.rows(FrameQuery(table="operation", **near_now()))) == 3
    finally:
        await again.aclose()


async def test_a_row_whose_id_no_database_holds_is_set_aside_and_the_others_are_stored(store: Store) -> None:
    """As an earlier version made them while the clock was past the year 2039."""
    now = SystemClock().now_us()

    def call(key: int) -> Operation:
        return Operation(operation_id=key, at=now, outcome="ok")

    good = [call(id_floor(now) + n) for n in range(3)]
    store.history.append(good[0], call(MAX_ID + 1), call((1 << 64) - 1), good[1])
    store.history.append(call(MAX_ID + 7))
    assert len(await store.rows("operation")) == 2
    assert store.history.stats().refused_rows == 3
    await store.history.aclose()
    clock = SystemClock()
    ids = Ids(clock)
    again = History(store.paths, store.settings, ids, clock)
    await again.open()
    try:
        assert good[1].operation_id < ids.next() <= MAX_ID
        again.append(good[2])
        assert len(await again.rows(FrameQuery(table="operation"))) == 3
    finally:
        await again.aclose()


async def test_a_versioned_row_is_replaced(store: Store) -> None:
    store.history.append(setting("5"))
    store.history.append(setting("3"))
    assert [row["value"] for row in await store.rows("setting")] == ["3"]


WINDOWS: list[tuple[dict[str, Any], list[int]]] = [
    ({}, [1, 2, 3, 4, 5]),
    ({"since_us": at(3)}, [3, 4, 5]),
    ({"until_us": at(3)}, [1, 2]),
    ({"since_us": at(2), "until_us": at(5)}, [2, 3, 4]),
    ({"newest_first": True, "limit": 2}, [5, 4]),
    ({"limit": 2}, [1, 2]),
    ({"limit": 0}, []),
    ({"where": [Condition("profile", "eq", "a")]}, [1, 3, 5]),
    ({"where": [Condition("profile", "ne", "a")]}, [2, 4]),
    ({"where": [Condition("code", "ne", "E2")]}, [1, 3, 4, 5]),
    ({"where": [Condition("code", "null", True)]}, [1, 3, 5]),
    ({"where": [Condition("code", "null", False)]}, [2, 4]),
    ({"where": [Condition("code", "in", "E2,E4")]}, [2, 4]),
    ({"where": [Condition("code", "in", [])]}, []),
    ({"where": [Condition("message", "contains", "50%")]}, [4]),
    ({"where": [Condition("message", "prefix", "it's")]}, [2]),
    ({"where": [Condition("message", "contains", "IT'S")]}, []),
    ({"where": [Condition("latency_ms", "ge", "3.5")]}, [4, 5]),
    ({"where": [Condition("latency_ms", "lt", 2)]}, [1]),
    ({"where": [Condition("streamed", "eq", "true")]}, [2, 4]),
    ({"where": [Condition("at", "gt", "2025-10-09T08:53:23Z")]}, [4, 5]),
    ({"where": [Condition("profile", "eq", "a"), Condition("at", "le", at(3))]}, [1, 3]),
]


async def test_a_window_in_which_no_id_can_be_is_empty(store: Store) -> None:
    """No id is of a time after 2039."""
    in_2090 = 3_786_912_000_000_000
    assert await store.rows("calls", since_us=in_2090, until_us=in_2090 + 86_400_000_000) == []
    assert await store.rows("calls", since_us=-(10**15), until_us=0) == []


async def test_a_window_and_conditions_choose_rows(store: Store) -> None:
    for n in range(1, 6):
        even = n % 2 == 0
        store.history.append(
            operation(
                n,
                profile="b" if even else "a",
                code=f"E{n}" if even else None,
                latency_ms=float(n),
                streamed=even,
                message={2: "it's", 4: "50% off_"}.get(n),
            )
        )
    for query, expected in WINDOWS:
        rows = await store.rows("operation", **query)
        assert (query, [row["operation_id"] & 0xFF for row in rows]) == (query, expected)


async def test_a_cut_frame_says_so(store: Store) -> None:
    store.history.append(*(operation(n) for n in range(3)))
    told = {
        limit: (await store.history.query(FrameQuery(table="calls", limit=limit)).meta())["truncated"]
        for limit in (2, 3)
    }
    assert told == {2: True, 3: False}


async def test_rows_come_in_the_order_of_the_key_over_many_pieces(store: Store) -> None:
    """With any limit, from either end, also where a condition leaves gaps; a piece holds 1,024 rows, then more."""
    count = 5_000
    ids = [id_floor(at(n)) + n for n in range(count)]
    places = {key: n for n, key in enumerate(ids)}
    store.history.append(*(operation(n, message=f"{n:050}", profile="ab"[n % 2]) for n in range(count)))
    assert await store.history.settled(20)
    of_a = [Condition(column="profile", op="eq", value="a")]
    for newest_first, limit, where in itertools.product(
        (True, False), (0, 1, 1023, 1024, 1025, 2500, 4999, 5000, 5001, None), ([], of_a)
    ):
        expected = (ids[::2] if where else ids)[:: -1 if newest_first else 1]
        stream = store.history.query(FrameQuery(table="calls", newest_first=newest_first, limit=limit, where=where))
        is_cut = (await stream.meta())["truncated"]
        frame = await table_of(stream)
        assert frame["operation_id"].to_pylist() == expected[:limit]
        assert [int(message) for message in frame["message"].to_pylist()] == [places[i] for i in expected[:limit]]
        assert is_cut == (limit is not None and limit < len(expected))


async def test_rows_with_a_key_that_is_text_come_in_its_order_too(store: Store) -> None:
    names = [f"{n:03}" for n in range(40)]
    for name in sorted(names, key=lambda name: name[::-1]):  # stored in another order
        store.history.append(WriterRow(writer_id=name, at=at(0), host="h", node=1))
    assert await store.history.settled(20)
    for newest_first, limit in itertools.product((True, False), (7, None)):
        rows = await store.rows("writer", newest_first=newest_first, limit=limit)
        ours = [row["writer_id"] for row in rows if row["writer_id"] in names]
        assert ours == sorted(ours, reverse=newest_first)
        assert len(rows) == limit if limit else len(ours) == len(names)


async def test_a_column_is_kept_for_one_value_in_a_thousand_rows(store: Store) -> None:
    """Columns that hold nothing are not sent to the engine."""
    store.history.append(*(operation(n, code="E" if n == 700 else None) for n in range(1000)))
    rows = await store.rows("operation")
    assert [at for at, row in enumerate(rows) if row["code"] is not None] == [700]


async def test_of_a_frame_only_the_columns_asked_for_are_read(store: Store) -> None:
    values = (None, 0.5, 1.0, 1e-9, 1e300, -3.25)
    words = ("a,b", "a, b", 'q"', "back\\slash", None, "plain")
    events = [
        operation(n, latency_ms=value, code=word) for n, (value, word) in enumerate(zip(values, words, strict=True))
    ]
    store.history.append(*events)
    query = FrameQuery(table="calls", columns=["code", "latency_ms"], newest_first=True)
    frame = await table_of(store.history.query(query))
    assert frame.schema == table_schema("operation", ["latency_ms", "code"])
    assert frame.column_names == ["code", "latency_ms"]
    assert [tuple(row.values()) for row in frame.to_pylist()] == list(zip(words, values, strict=True))[::-1]
    with pytest.raises(UsageError, match="no column 'kode'"):
        store.history.query(FrameQuery(table="calls", columns=["kode"]))


async def test_columns_of_one_value_and_of_one_row_come_back(store: Store) -> None:
    """Whole columns of one value are recognised by their text; the text must not mislead."""
    words = ("x", "x,x", "x, x", 'x","x', "[", "é", "null", "")
    for n, word in enumerate(words):
        store.history.append(*(operation(10 * n + k, code=word, message=word, attempts=n) for k in range(3)))
    for n, word in enumerate(words):
        for limit in (1, 2, 3):
            query = FrameQuery(table="calls", since_us=at(10 * n), until_us=at(10 * n + 9), limit=limit)
            frame = await table_of(store.history.query(query))
            for name, value in (("code", word), ("message", word), ("attempts", n), ("profile", None)):
                assert frame[name].to_pylist() == [value] * limit


async def test_control_characters_come_back(store: Store) -> None:
    """In every kind of column, alone, in each row, and beside others: Dolt writes them into its JSON as they are."""
    words = ("\x1b[31mred", "\x00", "\x1f", "a\x07, b", "tab\tand\x0bmore", "plain")
    for n, word in enumerate(words):
        store.history.append(*(operation(10 * n + k, code=word, message=word) for k in range(2)))
    for name in ("code", "message"):
        together = await table_of(store.history.query(FrameQuery(table="calls")))
        assert together[name].to_pylist() == [word for word in words for _ in range(2)]
        for n, word in enumerate(words):
            query = FrameQuery(table="calls", since_us=at(10 * n), until_us=at(10 * n + 9))
            assert (await table_of(store.history.query(query)))[name].to_pylist() == [word] * 2


async def test_a_pinned_frame_never_changes(store: Store) -> None:
    store.history.append(operation(1), operation(2))
    pin = await store.commit()
    before = await table_of(store.history.query(FrameQuery(table="operation", at=pin)))
    store.history.append(operation(3))
    await store.commit()
    await store.history.call("gc")
    after = await table_of(store.history.query(FrameQuery(table="operation", at=pin)))
    assert before.equals(after)
    assert before.num_rows == 2


async def test_a_frame_before_the_tables_existed_is_empty(store: Store) -> None:
    log = await store.history.call("log")
    frame = await table_of(store.history.query(FrameQuery(table="operation", at=log[-1]["commit"])))
    assert (frame.num_rows, frame.schema) == (0, table_schema("operation"))


async def test_log_tells_who_committed_what_and_how_many_rows(store: Store) -> None:
    store.history.append(operation(1), operation(2))
    first = await store.commit("before the change")
    store.history.append(operation(3), setting("3"))
    second = await store.commit("failures 5 → 3", "Grace <g@example.org>")
    log = await store.history.call("log", limit=3)
    told = [(entry["author"], entry["message"], entry["rows"]) for entry in log]
    assert told == [
        ("Grace", "failures 5 → 3", 1),
        ("tundra_nb", "operation 1", 1),
        ("Ada", "before the change", 2),
    ]
    assert (log[0]["commit"], log[2]["commit"]) == (second, first)
    assert abs(log[0]["at"] / 1e6 - dt.datetime.now(UTC).timestamp()) < 60


async def test_an_explicit_commit_of_nothing_is_made_all_the_same(store: Store) -> None:
    first, second = await store.commit("a"), await store.commit("b")
    assert first != second


async def test_refs_of_every_kind_resolve_to_the_commit(store: Store) -> None:
    first = await store.commit("first")
    await store.history.call("tag", name="v1", message="good")
    second = await store.commit("second")
    resolve = store.history.call
    assert await resolve("resolve", ref="HEAD") == second
    assert await resolve("resolve", ref="main") == second
    assert await resolve("resolve", ref="HEAD~1") == first
    assert await resolve("resolve", ref="v1") == first
    assert await resolve("resolve", ref=first) == first
    assert await resolve("resolve", ref=second[:10]) == second
    future = int((dt.datetime.now(UTC) + dt.timedelta(minutes=1)).timestamp() * 1e6)
    assert await resolve("resolve", ref=future) == second


async def test_an_unknown_ref_names_the_nearest(store: Store) -> None:
    await store.history.call("branch", name="release")
    for ref, nearest in (("mian", "main"), ("relaese", "release"), ("zzz", None), ("a'b", None), ("", None)):
        with pytest.raises(RefNotFound) as caught:
            await store.history.call("resolve", ref=ref)
        assert (ref, caught.value.nearest) == (ref, nearest)


async def test_a_time_before_the_first_commit_is_not_found(store: Store) -> None:
    with pytest.raises(RefNotFound, match="2001"):
        await store.history.call("resolve", ref=1_000_000_000_000_000)


async def test_diff_gives_the_first_rows_up_to_a_limit(store: Store) -> None:
    a = await store.commit()
    store.history.append(*(operation(seq) for seq in range(1, 6)))
    b = await store.commit()
    ids = [row["to_operation_id"] for row in await rows_of(store.history.stream("diff", a=a, b=b, table="operation"))]
    assert len(ids) == 5
    for limit in (1, 3, 5, 1 << 40):
        rows = await rows_of(store.history.stream("diff", a=a, b=b, table="operation", limit=limit))
        assert [row["to_operation_id"] for row in rows] == ids[:limit]


async def test_diff_shows_added_and_modified_rows(store: Store) -> None:
    store.history.append(setting("5"))
    a = await store.commit()
    store.history.append(setting("3", 9), operation(4))
    b = await store.commit()
    (row,) = await rows_of(store.history.stream("diff", a=a, b=b, table="setting"))
    assert {
        name: row[name]
        for name in ("table", "diff_type", "from_commit", "to_commit", "from_value", "to_value", "to_at")
    } == {
        "table": "setting",
        "diff_type": "modified",
        "from_commit": a,
        "to_commit": b,
        "from_value": "5",
        "to_value": "3",
        "to_at": dt.datetime(2025, 10, 9, 8, 53, 29, tzinfo=UTC),
    }
    (row,) = await rows_of(store.history.stream("diff", a=a, b=b, table="operation"))
    assert (row["diff_type"], row["from_operation_id"], row["to_operation_id"]) == ("added", None, id_floor(at(4)) + 4)
    assert await rows_of(store.history.stream("diff", a=a, b=b, table="note")) == []
    stat = await store.history.call("stat", a=a, b=b)
    assert [(s["table"], s["rows_added"], s["rows_modified"], s["rows_after"]) for s in stat] == [
        ("operation", 1, 0, 1),
        ("setting", 0, 1, 1),
    ]


async def test_diff_of_all_tables_is_one_stream_with_the_columns_of_each(store: Store) -> None:
    store.history.append(setting("5"))
    a = await store.commit()
    store.history.append(setting("3", 9), *(operation(seq) for seq in (4, 5, 6)))
    b = await store.commit()
    versions = store.history.versions
    rows = await rows_of(versions.diff(a, b, table=None))
    assert [row["table"] for row in rows] == ["operation"] * 3 + ["setting"]
    for table in ("operation", "setting"):
        alone = await rows_of(versions.diff(a, b, table=table))
        mine = [row for row in rows if row["table"] == table]
        assert [{name: row[name] for name in alone[0]} for row in mine] == alone
    assert {row["to_value"] for row in rows} == {None, "3"}
    assert [row["table"] for row in await rows_of(versions.diff(a, b, table=None, limit=1))] == ["operation", "setting"]
    assert await rows_of(versions.diff(b, b, table=None)) == []
    with pytest.raises(RefNotFound):
        await rows_of(versions.diff("nowhere", b, table=None))


async def test_the_versions_speak_in_types_and_resolve_refs_themselves(store: Store) -> None:
    store.history.append(operation(1))
    versions = store.history.versions
    first = await versions.commit("one", "Ada <a@b>")
    assert await versions.tag("good", "HEAD") == first
    assert await versions.branch("try") == first
    found = await versions.describe("good")
    assert (found.kind, found.commit.commit, found.commit.message) == ("tag", first, "one")
    assert (await versions.describe(first)).kind == "commit"
    assert (await versions.log("try", 1))[0].commit == first
    seen = await versions.overview()
    assert seen.head.commit == first
    assert {(ref.name, ref.kind) for ref in seen.refs} >= {("good", "tag"), ("try", "branch"), ("main", "branch")}
    assert {table.table: table.rows for table in seen.tables}["operation"] == 1
    await versions.delete_tag("good")
    await versions.delete_branch("try")
    assert {ref.name for ref in await versions.refs()} & {"good", "try"} == set()


async def test_a_story_is_told_by_id_by_digits_and_from_the_end(store: Store) -> None:
    store.history.append(*(operation(seq) for seq in (1, 2, 3)))
    versions = store.history.versions
    ids = [id_floor(at(seq)) + seq for seq in (1, 2, 3)]
    for wanted, expected in (
        (WantedOperation(back=1), ids[2]),
        (WantedOperation(back=3), ids[0]),
        (WantedOperation(digits=str(ids[1])), ids[1]),
        (WantedOperation(digits=str(ids[1])[-6:]), ids[1]),
    ):
        told = await versions.story(wanted)
        assert told.operation is not None
        assert told.operation["operation_id"] == expected
        assert set(told.related) == {"attempts", "limit_events", "breaker_events", "errors", "exchanges"}
    assert await versions.story(WantedOperation(back=9)) == StoredStory(operation=None, calls=3)
    assert (await versions.story(WantedOperation(digits="9" * 30))).operation is None


async def test_diff_to_working_shows_what_is_not_committed(store: Store) -> None:
    store.history.append(operation(1))
    rows = await rows_of(store.history.stream("diff", a="HEAD", b="WORKING", table="operation"))
    assert [row["diff_type"] for row in rows] == ["added"]
    tables = {entry["table"]: (entry["rows"], entry["uncommitted"]) for entry in await store.history.call("tables")}
    assert list(tables) == list(TABLES)
    assert (tables["operation"], tables["attempt"]) == ((1, True), (0, False))


async def test_a_proposal_on_a_branch_takes_effect_when_merged(store: Store) -> None:
    store.history.append(setting("5"))
    await store.commit()
    rows = {"setting": [list(_values(setting("3", 1)))]}
    await store.history.call("propose", branch="lower", rows=rows, message="try 3", author="Ada <a@b>")
    store.history.append(operation(1))
    assert [row["value"] for row in await store.rows("setting")] == ["5"]
    assert [row["value"] for row in await store.rows("setting", at="lower")] == ["3"]
    merged = await store.history.call("merge", branch="lower", message="take it", author="Ada <a@b>")
    assert merged["conflicts"] == []
    assert [row["value"] for row in await store.rows("setting")] == ["3"]
    assert len(await store.rows("operation")) == 1
    log = await store.history.call("log", limit=1)
    assert (log[0]["author"], log[0]["message"], log[0]["commit"]) == ("Ada", "take it", merged["commit"])
    store.history.append(operation(2))
    again = await store.history.call("merge", branch="lower", message="again", author="Ada <a@b>")
    assert (merged["is_new"], again["is_new"]) == (True, False)


@pytest.mark.parametrize(("strategy", "value"), [(None, "8"), ("ours", "8"), ("theirs", "3")])
async def test_a_conflict_changes_nothing_unless_a_side_is_chosen(store: Store, strategy: Any, value: str) -> None:
    store.history.append(setting("5"))
    await store.commit()
    rows = {"setting": [list(_values(setting("3", 1)))]}
    await store.history.call("propose", branch="lower", rows=rows, message="3", author="Ada <a@b>")
    store.history.append(setting("8", 2))
    head = await store.commit()
    merged = await store.history.call("merge", branch="lower", message="m", author="Ada <a@b>", strategy=strategy)
    assert [row["value"] for row in await store.rows("setting")] == [value]
    if strategy is None:
        assert merged["commit"] is None
        (conflict,) = merged["conflicts"]
        assert [conflict[side]["value"] for side in ("base", "ours", "theirs")] == ["5", "8", "3"]
        assert await store.history.call("resolve", ref="HEAD") == head
    store.history.append(operation(9))
    assert len(await store.rows("operation")) == 1


async def test_the_change_of_a_setting_can_be_reverted_and_events_stay(store: Store) -> None:
    store.history.append(setting("5"))
    await store.commit()
    store.history.append(operation(1), setting("3"))
    change = await store.commit("lower")
    await store.history.call("revert", ref=change, author="Grace <g@h>")
    assert [row["value"] for row in await store.rows("setting")] == ["5"]
    assert len(await store.rows("operation")) == 1
    with pytest.raises(UsageError, match="operation"):
        await store.history.call("revert", ref="HEAD~2", author="Grace <g@h>")
    store.history.append(operation(2))
    assert len(await store.rows("operation")) == 2


async def test_a_commit_that_is_undone_or_empty_has_nothing_to_revert(store: Store) -> None:
    store.history.append(setting("5"))
    await store.commit()
    store.history.append(setting("3"))
    change = await store.commit("lower")
    await store.history.call("revert", ref=change, author="Grace <g@h>")
    head = await store.history.call("resolve", ref="main")
    empty = await store.commit("empty")
    for ref in (change, empty):
        with pytest.raises(UsageError, match=f"nothing to revert: .*{ref}"):
            await store.history.call("revert", ref=ref, author="Grace <g@h>")
    assert [ref["name"] for ref in await store.history.call("refs")] == ["main"]
    assert await store.history.call("resolve", ref="main~1") == head
    store.history.append(setting("4"))
    again = await store.commit("anew")
    await store.history.call("revert", ref=again, author="Grace <g@h>")
    assert [row["value"] for row in await store.rows("setting")] == ["5"]


async def test_names_are_given_once_and_never_look_like_a_hash(store: Store) -> None:
    await store.history.call("tag", name="v1")
    await store.history.call("branch", name="b1")
    for method, name in (
        ("tag", "v1"),
        ("branch", "b1"),
        ("tag", "HEAD"),
        ("branch", "abcd12"),
        ("branch", "a b"),
        ("tag", "-x"),
    ):
        with pytest.raises(UsageError):
            await store.history.call(method, name=name)
    refs = {(ref["name"], ref["kind"]) for ref in await store.history.call("refs")}
    assert refs == {("main", "branch"), ("b1", "branch"), ("v1", "tag")}
    await store.history.call("tag", name="v1", delete=True)
    await store.history.call("branch", name="b1", delete=True)
    assert [ref["name"] for ref in await store.history.call("refs")] == ["main"]


async def test_a_file_remote_carries_everything_to_a_clone_and_later_changes(store: Store, tmp_path: Path) -> None:
    store.history.append(operation(1))
    pin = await store.commit()
    await store.history.call("tag", name="v1")
    remote = f"file://{tmp_path}/remote"
    if store.engine == "dolt":
        (tmp_path / "remote").mkdir()
    await store.history.call("push", remote=remote)
    store.history.append(operation(2))
    head = await store.commit()
    await store.history.call("push", remote=remote)
    assert await store.history.call("pull", remote=remote) == head
    into = str(tmp_path / "clone.db") if store.engine == "doltlite" else store.settings.database + "c"
    await store.history.call("clone", remote=remote, into=into)
    with pytest.raises(UsageError):
        await store.history.call("clone", remote=remote, into=into)
    assert await store.history.call("resolve", ref="v1") == pin


async def test_a_push_to_a_remote_that_is_ahead_names_pull_which_joins_them(store: Store, tmp_path: Path) -> None:
    remote, backup = (tmp_path / name for name in ("remote", "backup"))
    if store.engine == "dolt":
        remote.mkdir()
        backup.mkdir()
    store.history.append(operation(1))
    await store.commit()
    await store.history.call("backup", target=str(backup))
    store.history.append(operation(2))
    await store.commit()
    await store.history.call("push", remote=str(remote))
    await store.history.call("restore", source=str(backup))
    store.history.append(operation(3))
    await store.commit()
    with pytest.raises(UsageError) as caught:
        await store.history.call("push", remote=str(remote))
    assert caught.value.problem == f"{remote} has commits that this history lacks"
    assert "tundra pull" in caught.value.hint
    await store.history.call("pull", remote=str(remote))
    await store.history.call("push", remote=str(remote))


async def test_a_remote_that_was_begun_apart_is_told_as_that(store: Store, tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    if store.engine == "dolt":
        remote.mkdir()
    await store.history.call("push", remote=str(remote))
    await asyncio.sleep(1.1)  # what begins in the same second is the same commit
    async with begun_apart(store, tmp_path / "other") as other:
        head = await other.call("resolve", ref="main")
        with pytest.raises(UsageError, match=f"{remote} and this history have no commit in common") as caught:
            await other.call("pull", remote=str(remote))
        assert "another remote" in caught.value.hint
        assert await other.call("resolve", ref="main") == head


@contextlib.asynccontextmanager
async def begun_apart(store: Store, folder: Path) -> AsyncIterator[History]:
    """Another history on the same engine."""
    paths = Paths(data_dir=folder, socket=folder / "s", connection_file=folder / "c")
    settings = msgspec.structs.replace(store.settings, database=f"{store.settings.database}o")
    history = History(paths, settings, store.ids, SystemClock())
    await history.open()
    try:
        await history.call("create")
        yield history
    finally:
        await history.aclose()


@pytest.mark.parametrize("method", ["push", "pull", "clone", "backup", "restore"])
async def test_a_remote_or_backup_that_is_no_history_is_named_and_ours_is_not_told_to_be_damaged(
    store: Store, tmp_path: Path, method: str
) -> None:
    store.history.append(operation(1))
    head = await store.commit()
    bad = tmp_path / "notes.log"
    if store.engine == "dolt":  # its remotes are folders
        bad.mkdir()
        (bad / "manifest").write_text("words\n" * 500)
    else:
        bad.write_text("words\n" * 500)
    more = {"into": str(tmp_path / "new.db") if store.engine == "doltlite" else store.settings.database + "n"}
    name = {"backup": "target", "restore": "source"}.get(method, "remote")
    with pytest.raises(UsageError) as caught:
        await store.history.call(method, **{name: str(bad)}, **(more if method == "clone" else {}))
    assert str(bad) in caught.value.problem
    assert "history.db" not in str(caught.value)
    assert store.history.stats().error is None
    assert await store.history.call("resolve", ref="main") == head
    assert len(await store.rows("operation")) == 1


async def test_a_backup_brings_the_history_back(store: Store, tmp_path: Path) -> None:
    store.history.append(operation(1))
    pin = await store.commit()
    target = f"file://{tmp_path}/backup"
    if store.engine == "dolt":
        (tmp_path / "backup").mkdir()
    await store.history.call("backup", target=target)
    store.history.append(operation(2), setting("9"))
    later = await store.commit()
    assert await store.history.call("check") == []
    await store.history.call("restore", source=target)
    # what the spool still holds is delivered again
    assert await store.history.settled(3)
    assert len(await store.rows("operation")) == 2
    assert len(await store.rows("operation", at=pin)) == 1
    for ref in (later, f"{later}~1", "deadbeef" * 5):  # what the backup lacks is no damage
        with pytest.raises(RefNotFound):
            await store.rows("operation", at=ref)
        with pytest.raises(RefNotFound):
            await store.history.call("stat", a=ref, b="HEAD")
    store.history.append(operation(3))
    assert len(await store.rows("operation")) == 3


async def test_free_sql_gives_typed_columns(store: Store) -> None:
    store.history.append(*(operation(n, profile="ab"[n % 2], latency_ms=n / 4, input_tokens=n) for n in range(4)))
    text = (
        "select profile, count(*) as n, sum(input_tokens) as tokens, avg(latency_ms) as mean, max(at) as at,"
        " max(streamed) as streamed"
        " from operation group by profile order by profile;  -- done"
    )
    frame = await table_of(store.history.sql(text))
    assert frame.to_pylist() == [
        {
            "profile": "a",
            "n": 2,
            "tokens": 2,
            "mean": 0.25,
            "at": dt.datetime(2025, 10, 9, 8, 53, 22, tzinfo=UTC),
            "streamed": False,
        },
        {
            "profile": "b",
            "n": 2,
            "tokens": 4,
            "mean": 0.5,
            "at": dt.datetime(2025, 10, 9, 8, 53, 23, tzinfo=UTC),
            "streamed": False,
        },
    ]
    kinds = dict(zip(frame.schema.names, map(str, frame.schema.types), strict=True))
    del kinds["tokens"]  # a sum of integers: an integer on doltlite, a double on Dolt
    assert kinds == {
        "profile": "string",
        "n": "int64",
        "mean": "double",
        "at": "timestamp[us, tz=UTC]",
        "streamed": "bool",
    }


async def test_free_sql_at_a_ref_sees_the_past(store: Store) -> None:
    store.history.append(operation(1))
    pin = await store.commit()
    store.history.append(operation(2))
    assert await store.sql("select count(*) as n from operation") == [{"n": 2}]
    assert await store.sql("select count(*) as n from operation", at=pin) == [{"n": 1}]


async def test_free_sql_is_capped_and_says_so(store: Store) -> None:
    store.history.append(*(operation(n) for n in range(10)))
    stream = store.history.sql("select operation_id from operation order by operation_id", limit=3)
    assert (await stream.meta())["truncated"]
    assert len(await rows_of(stream)) == 3


async def test_sql_that_does_not_parse_is_refused(store: Store) -> None:
    for text in ("select * from oparation", "select outcom from operation", "select from where", "select (1", ""):
        with pytest.raises(QueryRefused):
            await store.sql(text)


HOSTILE = """
pragma journal_mode = off
attach database '/tmp/x.db' as x
vacuum into '/tmp/x.db'
insert into note values (1, 1, 'a', 'b', 'c')
update operation set outcome = 'ok'
delete from operation
drop table operation
create table x (a int)
create view x as select 1
replace into note values (1, 1, 'a', 'b', 'c')
with x as (select 1) delete from operation
with x as (select 1) insert into note select 1, 1, 'a', 'b', 'c'
explain delete from operation
explain analyze delete from operation
select 1; delete from operation
select 1; select 2
select 1 /* ; */ ; delete from operation -- x
/*! delete from operation */ select 1
select 1 /*!50000 , sleep(1) */
select load_file('/etc/passwd')
select 1 into outfile '/tmp/tundra_refused'
select 1 into dumpfile '/tmp/tundra_refused'
select @@datadir
select @a := 1
set global max_connections = 1
set @@dolt_transaction_commit = 1
call dolt_commit('-Am', 'x')
call dolt_reset('--hard')
select dolt_commit('-Am', 'x')
select dolt_reset('--hard')
select dolt_branch('x')
select dolt_checkout('-b', 'x')
select dolt_gc()
select dolt_push('o', 'main')
select dolt_clone('file:///tmp/x')
select dolt_config('user.name', 'x')
select sleep(10)
select benchmark(100000000, md5('x'))
select get_lock('x', 10)
select load_extension('/tmp/x.so')
select randomblob(1000000000)
select zeroblob(1000000000)
select writefile('/tmp/x', 'x')
select readfile('/etc/passwd')
select fts3_tokenizer('x')
select * from mysql.user
select * from information_schema.tables
select * from `mysql`.`user`
select * from operation, mysql.user
select * from operation join mysql.user on 1 = 1
select * from (select * from mysql.user) x
select * from sqlite_master
select * from pragma_table_info('operation')
select * from dbstat
select * from sqlite_dbpage
select * from spool_place
select * from dolt_remotes
select * from operation for update
select * from operation lock in share mode
select sys.x from operation, performance_schema.threads
table operation
values (1)
show tables
use mysql
(select 1)
begin
commit
kill 1
shutdown
grant all on *.* to x
do sleep(1)
handler operation open
load data infile '/etc/passwd' into table note
select 'a' 'b' union select load_file('/etc/passwd')
select "load_file" , load_file ('/etc/passwd')
select `sleep`(10)
with sleep as (select 1) select sleep(10)
with load_file as (select 1) select load_file('/etc/passwd')
with get_lock as (select 1) select get_lock('x', 1)
with readfile as (select 1) select readfile('/etc/passwd')
with dolt_commit as (select 1) select dolt_commit('-Am', 'x')
select sleep(10) from operation window sleep as (order by at)
select * from spool_place window spool_place as (partition by 1)
select * from spool_place where 1 in (with spool_place as (select 1) select 1)
with spool_place as (select * from spool_place) select * from spool_place
with x as (table mysql.user) select * from x
select 1 where exists (table mysql.user)
select 1 union table spool_place
with x as (select 1) replace note values (5, 5, 'a', 'b', 'c')
select * from dolt_diff('HEAD', 'WORKING', 'spool_place')
select 1 from operation where 1 in spool_place
select 1 /*/ , sleep(10) /* */ , load_file('/etc/passwd')
select 1 --'
; , sleep(10) -- '
select rpad('x', 100000000000, 'y')
select * from operation order by at limit 1000000000000
select * from operation order by at limit 5, 1000000000000
select * from operation order by at limit 5 offset 0xffffffffff
select lpad('x', 100000000000, 'y')
select repeat('x', 100000000000)
select space(100000000000)
select printf('%.*c', 2000000000, 'x')
select * from information_schema.user_privileges
select * from `information_schema`.`processlist`
select * from sqlite_schema
select user()
select current_user()
select database()
select last_insert_id(5)
select release_all_locks()
select is_used_lock('x')
select edit('x')
select dolt_fetch('o')
select dolt_pull('o')
select dolt_remote('add', 'o', 'file:///tmp/x')
select dolt_merge('x')
select dolt_revert('HEAD')
select dolt_cherry_pick('HEAD')
select dolt_add('.')
select dolt_tag('x')
select dolt_conflicts_resolve('--ours', 'note')
select dolt_rebase('x')
select dolt_clean()
select dolt_backup('sync-url', 'file:///tmp/x')
call dolt_gc()
call dolt_push('o', 'main')
call dolt_purge_dropped_databases()
lock tables operation write
unlock tables
flush tables
prepare x from 'delete from operation'
execute x
deallocate prepare x
reindex
detach database main
savepoint x
rename table operation to x
alter table operation add column x int
truncate table operation
create user x
install plugin x soname 'x'
select 1 # comment
; delete from operation
select 1 -- x
; delete from operation
""".strip()


def _hostile() -> list[str]:
    """One per line; a line that begins with `;` continues the one before it."""
    return re.split(r"\n(?!;)", HOSTILE)


async def test_hostile_sql_is_refused_and_the_store_stays_as_it_is(store: Store) -> None:
    store.history.append(operation(1))
    await store.commit()
    before = (await store.history.call("log"), await store.history.call("tables"), await store.history.call("refs"))
    passed = []
    for text in _hostile():
        try:
            await store.sql(text)
        except QueryRefused:
            continue
        passed.append(text)
    assert passed == []
    assert before == (
        await store.history.call("log"),
        await store.history.call("tables"),
        await store.history.call("refs"),
    )
    assert not os.path.exists("/tmp/tundra_refused")  # noqa: ASYNC240 - a moment


HONEST: list[tuple[str, list[dict[str, Any]]]] = [
    ("select 'delete from operation; -- ' as x", [{"x": "delete from operation; -- "}]),
    ("with w as (select outcome from operation) select * from w", [{"outcome": "ok"}]),
    ("with w(a, b) as (select outcome, 2 from operation) select b from w x where x.a = 'ok'", [{"b": 2}]),
    ("select upper(outcome) as x from operation where outcome in ('ok', 'error')", [{"x": "OK"}]),
    (
        "select a.outcome from operation as a, operation b where a.operation_id = b.operation_id",
        [{"outcome": "ok"}],
    ),
    ("select x.n from (select count(*) as n from operation) x", [{"n": 1}]),
    ("select case when outcome = 'ok' then 1 else 0 end as x from operation /* why */", [{"x": 1}]),
    ("select message from dolt_log limit 1", [{"message": "m\n\nrows: 1"}]),
    ("select row_number() over (order by operation_id) as n from operation", [{"n": 1}]),
    ("select replace('a', 'a', 'b') as x union all select 'c'", [{"x": "b"}, {"x": "c"}]),
    (
        "SELECT o.at IS NOT NULL AS x FROM operation o LEFT JOIN attempt a ON a.operation_id = o.operation_id",
        [{"x": 1}],
    ),
]


async def test_honest_sql_is_answered(store: Store) -> None:
    store.history.append(operation(1))
    await store.commit()
    for text, expected in HONEST:
        assert (text, await store.sql(text)) == (text, expected)


async def test_explain_is_answered(store: Store) -> None:
    assert await store.sql("explain select * from operation where operation_id = 5")


async def test_a_question_about_what_is_not_there_names_the_nearest(store: Store) -> None:
    for query, nearest in (
        (FrameQuery(table="oparation"), "operation"),
        (FrameQuery(table="calls", where=[Condition("profle", "eq", "x")]), "profile"),
    ):
        with pytest.raises(UsageError) as caught:
            store.history.query(query)
        assert caught.value.nearest == nearest
    with pytest.raises(UsageError):
        await rows_of(store.history.stream("diff", a="HEAD", b="HEAD", table="nope"))


async def test_large_values_pass_and_are_cut_into_small_pieces(store: Store) -> None:
    text = "x" * 1_000_000
    store.history.append(
        *(
            Exchange(exchange_id=n, at=at(n), operation_id=1, attempt_id=n, request=text, response="r")
            for n in range(1, 4)
        )
    )
    pieces = [piece async for piece in store.history.query(FrameQuery(table="exchange"))]
    assert max(map(len, pieces)) <= 256 * 1024
    assert [len(row["request"]) for row in pa.ipc.open_stream(b"".join(pieces)).read_all().to_pylist()] == [
        1_000_000
    ] * 3


async def test_every_table_takes_a_row(store: Store) -> None:
    store.history.append(
        LimitEvent(limit_event_id=1, at=at(1), tier="user", limit_key="ada", resource="tokens", decision="wait"),
        Note(note_id=2, at=at(2), author="ada", subject="", body="looked into it"),
    )
    assert [row["resource"] for row in await store.rows("limit-history")] == ["tokens"]
    assert [row["body"] for row in await store.rows("note")] == ["looked into it"]


def _values(row: Setting) -> tuple[Any, ...]:
    return tuple(getattr(row, name) for name in row.__struct_fields__)


async def test_the_history_of_a_row_tells_each_change_and_a_merge_is_one_step(store: Store) -> None:
    store.history.append(setting("5"))
    await store.commit("first")
    branched = setting("3", seconds=9)
    await store.history.call(
        "propose", branch="fix", rows={"setting": [_values(branched)]}, message="on fix", author="Bob <b@x>"
    )
    store.history.append(operation(1))
    await store.commit("events only")
    merged = await store.history.call("merge", branch="fix", message="merge fix", author="Ada <a@x>")
    store.history.append(setting("4", seconds=20))
    (stored,) = await store.rows("setting")  # on Dolt each daemon has a key of its own for a setting
    rows = await rows_of(store.history.stream("history", table="setting", key=stored["setting_id"]))
    assert [(row["message"], row["diff_type"], row["value"]) for row in rows] == [
        ("first", "added", "5"),
        ("merge fix", "modified", "3"),
        (None, "modified", "4"),
    ]
    assert [row["commit"] for row in rows][1:] == [merged["commit"], "WORKING"]
    assert await rows_of(store.history.stream("history", table="setting", key=8)) == []
    with pytest.raises(UsageError):
        await rows_of(store.history.stream("history", table="operation"))


async def test_sums_of_whole_numbers_are_whole_and_exact(store: Store) -> None:
    store.history.append(
        *(operation(n, output_tokens=2**53 + n, cost_usd=n / 4, profile="p" if n % 2 else None) for n in (1, 2, 3))
    )
    (row,) = await store.sql(
        "select sum(output_tokens), sum( operation.output_tokens ) as s, sum(cost_usd) c from operation"
    )
    assert row == {"sum(output_tokens)": 3 * 2**53 + 6, "s": 3 * 2**53 + 6, "c": 1.5}
    by_profile = "select profile, sum(output_tokens) total from operation where code is null or code <> 'sum(x)'"
    assert [row["total"] for row in await store.sql(by_profile + " group by profile order by profile")] == [
        2**53 + 2,
        2**54 + 4,
    ]
    (row,) = await store.sql(
        "select sum(a) s from (select avg(output_tokens) a from operation where output_tokens < 0) q"
    )
    assert row == {"s": None}
    ids = sum(id_floor(at(n)) + n for n in (1, 2, 3))
    assert await store.sql("select sum(operation_id) s from operation") == [{"s": str(ids)}], "beyond 64 bits: digits"
    assert await store.sql("select sum(output_tokens) s from operation") == [{"s": 3 * 2**53 + 6}], "as before"


async def test_a_computed_column_without_a_value_is_no_text(store: Store) -> None:
    frame = await table_of(store.history.sql("select sum(retry_count) s, null n, max(code) code from operation"))
    assert [str(field.type) for field in frame.schema] == ["null", "null", "string"]


async def test_a_time_before_the_history_says_when_it_begins(store: Store) -> None:
    with pytest.raises(RefNotFound) as told:
        await store.rows("operation", at=T0)
    assert "the history begins at 20" in told.value.message
    assert "yesterday" not in told.value.hint


@pytest.mark.parametrize("word", ["regexp_like(profile, '^(a+)+$')", "profile regexp '^(a+)+$'", "profile rlike 'a'"])
async def test_a_regular_expression_that_cannot_be_broken_off_is_not_allowed(store: Store, word: str) -> None:
    with pytest.raises(QueryRefused):
        await store.sql(f"select 1 from operation where {word}")


def filled(table: str) -> Any:
    """A row with every column set."""
    values: dict[str, Any] = {"id": 2**62 + 1, "int": 7, "float": 1.5, "time": T0, "bool": True}
    given = {
        column.name: column.values[0] if column.values else values.get(column.type, f"{column.name} text")
        for column in columns(table)
    }
    return TABLES[table](**given)


@pytest.mark.parametrize("table", [name for name in TABLES if name not in REPLACED_TABLES])
async def test_a_diff_shows_every_column_of_every_table(store: Store, table: str) -> None:
    """Also one that is called as an argument of the engine's own is."""
    before = await store.commit("before")
    store.history.append(filled(table))
    after = await store.commit("after")
    (row,) = await rows_of(store.history.stream("diff", a=before, b=after, table=table))
    missing = [column.name for column in columns(table) if row[f"to_{column.name}"] is None]
    assert missing == []
