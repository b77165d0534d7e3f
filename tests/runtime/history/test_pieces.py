"""How much of a table the reading of a frame passes over: each row once, however many pieces it comes in."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import pytest

from tundra_nb.runtime.history import arrow, rules
from tundra_nb.runtime.history.contract import Stop
from tundra_nb.runtime.history.query import FrameQuery
from tundra_nb.runtime.id_layout import id_floor

NAMES = ["operation_id", "at"]
BEGAN_US = 1_760_000_000_000_000


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("left_out", [None, 10])
def test_twice_the_rows_of_a_window_take_the_engine_twice_the_steps(
    monkeypatch: pytest.MonkeyPatch, newest_first: bool, left_out: int | None
) -> None:
    monkeypatch.setattr(rules, "PIECE_ROWS", 100)
    few, many = (_steps(count, newest_first, left_out) for count in (5_000, 10_000))
    assert many < few * 2.5


def _steps(count: int, newest_first: bool, left_out: int | None) -> int:
    """Steps of the engine, in hundreds, to read so many rows of a window; as many lie before and behind it.

    `left_out`: so many of them by the query's limit.
    """
    db = sqlite3.connect(":memory:", check_same_thread=False)
    db.execute("CREATE TABLE operation (operation_id INTEGER PRIMARY KEY, at INTEGER)")
    times = [BEGAN_US + number * 1_000_000 for number in range(count * 3)]
    db.executemany("INSERT INTO operation VALUES (?, ?)", [(id_floor(at), at) for at in times])
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    def fetch(text: str, given: Sequence[Any]) -> Sequence[Any]:
        return db.execute(text, given).fetchone() or ()

    query = FrameQuery(
        table="operation",
        columns=NAMES,
        since_us=times[count],
        until_us=times[count * 2],
        newest_first=newest_first,
        limit=None if left_out is None else count - left_out,
    )
    words = rules.EngineWords(placeholder="?", array="json_group_array", comma=",")
    selected, _ = rules.selection(query, "operation", words).limited(fetch)
    made = arrow.builders(arrow.table_schema("operation", NAMES), "operation")
    db.set_progress_handler(step, 100)
    parts = list(rules.pieces(fetch, selected, made, Stop()))
    ids = [key for part in parts for key in part[0].to_pylist()]
    assert ids == sorted(map(id_floor, times[count : count * 2]), reverse=newest_first)[: query.limit]
    return steps
