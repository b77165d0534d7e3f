"""A frame as people read it: what matters first, nothing lost without a word."""

from __future__ import annotations

import csv
import io
from typing import Any

import pandas as pd
import pytest

from tundra_nb.errors import UsageError
from tundra_nb.frames import frames
from tundra_nb.types import columns
from tundra_nb.views import columns as of_frame
from tundra_nb.views import frame as view
from tundra_nb.views import html, text
from tundra_nb.views.blocks import Details, Table

BASE = 7_532_685_064_042_319_872


def calls(rows: int = 3, **more: Any) -> pd.DataFrame:
    made = [
        {
            "operation_id": BASE + number,
            "at": 1_764_000_000_000_000 + number * 1_000_000,
            "kind": "chat",
            "profile": None if number % 3 == 2 else "primary",
            "asked": "primary,backup",
            "outcome": "error" if number % 3 == 2 else "ok",
            "code": "HttpError" if number % 3 == 2 else None,
            "attempts": 1,
            "latency_ms": 100.0 * number,
            "message": f"cannot connect to a host with a rather long name, try {number}" if number % 3 == 2 else None,
        }
        | more
        for number in range(rows)
    ]
    meta = {"query": "calls", "table": "operation", "store": "doltlite", "commit": "abcdefghij123"}
    return frames.from_rows(made, columns("operation"), meta=meta)


def narrow(frame: pd.DataFrame, width: int = 80) -> str:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False, legacy_windows=False)
    text.show(view.blocks(frame), console)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_a_narrow_terminal_shows_how_each_call_ended_and_why() -> None:
    shown = narrow(calls(), 100)
    head = shown.splitlines()[0].split()
    assert head[:2] == ["id", "at"]
    assert {"outcome", "code", "profile", "attempts"} <= set(head)
    lines = shown.splitlines()
    assert (
        lines[next(i for i, line in enumerate(lines) if "HttpError" in line) + 1].strip().startswith("cannot connect")
    )
    assert max(map(len, shown.splitlines())) <= 100
    assert "…19874" in shown
    assert "<NA>" not in shown


def test_columns_that_find_no_room_are_named_with_the_way_to_them() -> None:
    shown = " ".join(narrow(calls(), 60).split())
    assert "not shown for want of width: " in shown
    assert "latency_ms" in shown
    assert "--tsv" in shown


def test_empty_columns_are_left_out() -> None:
    assert "price_at" not in narrow(calls(), 300)
    assert "latency_ms" in narrow(calls(), 300)


def test_a_failed_call_shows_whom_it_asked() -> None:
    row = next(line for line in narrow(calls(), 120).splitlines() if "HttpError" in line)
    assert "primary,backup" in row


def test_a_notebook_shows_what_matters_and_folds_the_rest_away() -> None:
    frame = calls(100, input_tokens=5, output_tokens=3, cost_usd=0.1, waited_ms=1.0, stop_reason="stop", model="m")
    made = view.notebook_blocks(frame)
    table = made[0]
    assert isinstance(table, Table)
    assert len(table.rows) == view.NOTEBOOK_ROWS
    folded = [block.summary for block in made if isinstance(block, Details)]
    assert "by latency_ms ↓" in folded
    assert any(told.startswith("all ") for told in folded)
    largest = next(block for block in made if isinstance(block, Details) and "latency" in block.summary).blocks[0]
    assert isinstance(largest, Table)
    assert largest.rows[0][table.head.index("latency_ms")] == "9,900"
    fragment = html.render(made)
    assert "<script" not in fragment
    assert "+00:00" not in fragment
    assert "100 rows" in fragment
    assert "%tundra why" in fragment


def test_a_notebooks_table_has_room_on_its_page_and_messages_stand_below_their_rows() -> None:
    """What finds no room is folded away; a short reason never takes the place of a long message."""
    cause = "the provider failed (503): " + "down for maintenance " * 6
    frame = calls(9, message=cause, waited_ms=1.0, model="a-model", reason="api_error", stop_reason="stop " * 20)
    table, *others = view.notebook_blocks(frame)
    assert isinstance(table, Table)
    assert table.long == table.head.index("message")
    assert {"id", "outcome", "code", "message", "profile"} <= set(table.head)
    assert "latency_ms" in table.head
    assert "stop_reason" not in table.head
    shown = html.render([table])
    assert shown.count('colspan="') == 9
    assert ">message<" not in shown
    assert any(isinstance(block, Details) and block.summary.startswith("all ") for block in others)


def test_a_list_is_shown_whole_and_has_no_folds_that_sort_a_few_rows() -> None:
    settings = pd.DataFrame({"path": [f"a.b{number}" for number in range(96)], "value": "1", "source": "default"})
    settings.attrs["query"] = "settings"
    table = view.notebook_blocks(settings)[0]
    assert isinstance(table, Table)
    assert len(table.rows) == 96
    few = pd.DataFrame({"profile": ["a", "b"], "count": [9, 3], "errors": [1, 0]})
    assert not any(isinstance(block, Details) for block in view.notebook_blocks(few))


def test_the_frame_itself_is_pandas_own() -> None:
    frame = calls()
    view.notebook_blocks(frame)
    assert type(frame) is pd.DataFrame
    assert frame["operation_id"].dtype == "int64"


def test_a_pipe_gets_every_row_and_every_column_on_lines_of_their_own() -> None:
    lines = list(view.plain_lines(calls(200)))
    assert len(lines) == 201
    assert set(lines[0].split()) == {column.name for column in columns("operation")}
    assert str(BASE) in lines[1]
    assert "2025-11-24T16:00:00Z" in lines[1]


def test_a_pipe_with_a_width_gets_the_same_in_blocks() -> None:
    lines = list(view.plain_lines(calls(5), 60))
    assert max(map(len, lines)) <= 60
    words = " ".join(lines).split()
    assert all(column.name in words for column in columns("operation"))


def test_csv_and_tsv_are_whole() -> None:
    frame = calls(70)
    for separator in (",", "\t"):
        rows = list(csv.DictReader(io.StringIO(view.separated(frame, separator)), delimiter=separator))
        assert len(rows) == 70
        assert rows[0]["operation_id"] == str(BASE)
        assert rows[0]["at"] == "2025-11-24T16:00:00.000000Z"
    with pytest.raises(UsageError, match="no table"):
        view.separated({"a": 1}, ",")


def test_an_empty_frame_says_what_would_fill_it() -> None:
    assert "%tundra ask" in text.plain(view.blocks(calls(0)))


def test_a_grouped_frame_shows_its_groups() -> None:
    shown = narrow(pd.DataFrame({"profile": ["p"], "count": [9], "errors": [1], "error_rate": [1 / 9]}))
    assert shown.splitlines()[0].split()[:3] == ["profile", "count", "errors"]


def test_rows_that_a_user_has_picked_are_shown_the_same_way() -> None:
    frame = calls(9)
    assert "HttpError" in narrow(frame[frame["outcome"] == "error"])


def test_in_a_diff_events_are_told_apart_from_what_people_changed_and_failures_are_never_green() -> None:
    from tundra_nb.views import versions
    from tundra_nb.views.blocks import Styled

    event = {"diff_type": "added", "to_operation_id": BASE, "to_outcome": "error", "to_code": "ApiError"}
    sign, _, told = versions._changed_row("operation", event)
    assert isinstance(told, Styled)
    assert told.tone == "bad"
    assert isinstance(sign, Styled)
    assert sign.text == "·"
    fine = versions._changed_row("operation", event | {"to_outcome": "ok", "to_code": None})[2]
    assert isinstance(fine, Styled)
    assert fine.tone != "good"
    setting = {"diff_type": "added", "to_path": "breaker.failures", "to_value": "4"}
    assert versions._changed_row("setting", setting)[0] == Styled("+", "good")


def test_a_pid_is_a_name_and_times_in_messages_are_local() -> None:
    assert of_frame.cell("pid", 3199) == "3199"
    assert of_frame.cell("bytes_out", 3199) == "3,199"
    assert "2026-11-29T11:52:05Z" not in str(of_frame.cell("message", "next probe at 2026-11-29T11:52:05Z (after x)"))


def test_where_no_call_was_answered_the_frame_still_says_who_was_asked() -> None:
    """The column of profiles stays, though it is empty."""
    failed = calls(1, profile=None, asked="primary,backup", outcome="error", code="HttpError")
    names = of_frame.ordered(failed, failed)
    assert names[names.index("profile") - 1] == "code"
    assert "primary,backup" in text.plain(view.blocks(failed))


def test_why_a_profile_is_parked_is_told_in_words() -> None:
    told = (
        '{"code": "ApiError", "type": "KeyRejected", "message": "main: the key was rejected (401)", "settings": "ab"}'
    )
    assert of_frame.cell("message", told) == "main: the key was rejected (401)"
    assert of_frame.cell("message", '{"is": "what the user said"}') == '{"is": "what the user said"}'
    assert of_frame.cell("message", '{"code": "cut off') == '{"code": "cut off'
