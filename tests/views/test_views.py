"""Views: text, HTML and JSON of the same result."""

from __future__ import annotations

import importlib
import io
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tundra_nb.client import explain
from tundra_nb.client.results import Document, Last, Status, Why
from tundra_nb.kernel import display
from tundra_nb.types import Reply, ToolCall, Usage
from tundra_nb.types.triage import Triage, TriageFinding
from tundra_nb.views import Lines, Message, data, html, show, text
from tundra_nb.views.blocks import Facts, Table, clean, duration, money, number

EVIL = "<script>alert(1)</script> & \x1b[2J\x1b]0;title\x07"

STORY: dict[str, Any] = {
    "operation": {
        "operation_id": "7531031194409586688",
        "at": "2026-11-24T16:29:16Z",
        "kind": "chat",
        "profile": "second",
        "model": EVIL,
        "outcome": "ok",
        "attempts": 2,
        "latency_ms": 3100.0,
        "input_tokens": 5,
        "output_tokens": 3,
        "cost_usd": 0.00012,
        "message": EVIL,
    },
    "attempts": [
        {"seq": 1, "at": "2026-11-24T16:29:16.1Z", "profile": "first", "outcome": "error", "reason": "status_529",
         "status": 529, "retry_after_s": 2.0, "latency_ms": 50.0, "message": EVIL},
        {"seq": 2, "at": "2026-11-24T16:29:18.2Z", "profile": "second", "outcome": "ok", "latency_ms": 800.0,
         "backoff_ms": 2000.0, "breaker_state": "half_open", "first_byte_ms": 40.0, "cost_usd": 0.00012},
    ],
    "limit_events": [
        {"at": "2026-11-24T16:29:16.05Z", "tier": "global", "limit_key": "global", "resource": "requests",
         "decision": "wait", "requested": 1.0, "remaining": 0.2, "retry_after_s": 0.04},
    ],
    "breaker_events": [
        {"at": "2026-11-24T16:29:16.15Z", "profile": "first", "old_state": "closed", "new_state": "open",
         "reason": "five"},
    ],
    "errors": [],
}  # fmt: skip


def test_the_causal_chain_is_in_order_of_time_and_complete() -> None:
    steps = Why(STORY).steps
    assert [step.what for step in steps] == [
        "asked", "wait", "attempt", "breaker", "back-off", "failover", "attempt", "answered",
    ]  # fmt: skip
    assert [step.after_ms for step in steps] == sorted(step.after_ms for step in steps)
    assert steps[1].took_ms == 40.0
    assert steps[3].outcome == "closed → open"
    assert "529" in steps[2].detail
    frame = Why(STORY).frame
    assert list(frame.columns) == ["after_ms", "took_ms", "what", "profile", "outcome", "detail", "cost_usd"]


def test_a_failed_call_says_what_to_do() -> None:
    failed = STORY["operation"] | {
        "outcome": "error",
        "code": "RateLimited",
        "message": "first: rate limited",
        "profile": None,
    }
    for kind in (Why, Last):
        assert "%tundra explain RateLimited" in text.plain(show.blocks_of(kind(STORY | {"operation": failed})))


@pytest.mark.parametrize(
    "value",
    [
        Why(STORY),
        Last(STORY),
        Reply(operation_id="1", text=EVIL, profile="p", model=EVIL, usage=Usage(), attempts=1,
              tool_calls=[ToolCall(id="1", name=EVIL, arguments="{}")], failed_over_from=[EVIL]),
        Status({"profiles": [{"profile": "p", "kind": "local", "model": EVIL, "state": "parked"}],
                "last_errors": [{"at": "2026-11-24T16:29:16Z", "code": "ApiError", "message": EVIL}],
                "next_step": EVIL}),
        Message(EVIL),
        Lines([EVIL], source="log"),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_text_from_outside_is_escaped_in_html_and_cleaned_in_terminals(value: Any) -> None:
    blocks = show.blocks_of(value)
    fragment = html.render(blocks)
    assert "<script" not in fragment
    assert "&lt;script&gt;" in fragment
    for shown in (fragment, text.plain(blocks)):
        assert "\x1b" not in shown
        assert "\x07" not in shown
    json.loads(data.to_json(value))


def test_html_has_no_script_no_style_sheet_and_loads_nothing() -> None:
    fragment = html.prose("![a](http://x/y.png) <img src=x> [l](data:text/html,x) [ok](https://x.y) `<b>`")
    assert "<img" not in fragment
    assert 'href="data:' not in fragment
    assert 'href="https://x.y"' in fragment
    assert "<code>&lt;b&gt;</code>" in fragment


@given(raw=st.text())
def test_cleaned_text_has_no_control_characters_but_tab_and_newline(raw: str) -> None:
    assert not [c for c in clean(raw) if (ord(c) < 32 and c not in "\t\n") or 127 <= ord(c) < 160]


def test_every_error_code_can_be_explained() -> None:
    for code in explain.codes():
        assert explain.find(code).pages[0].code == code
        assert explain.find(code.rpartition("::")[2]).pages[0].code == code


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (duration(0.0004), "0.4 ms"), (duration(1.5), "1.5 s"), (duration(300), "5 min"), (duration(7200), "2 h"),
        (duration(None), ""), (number(1234567), "1,234,567"), (number(0.5), "0.5"), (money(0), "$0"),
        (money(1.234), "$1.23"), (money(0.00012), "$0.00012"),
    ],
)  # fmt: skip
def test_numbers_are_for_people(made: str, expected: str) -> None:
    assert made == expected


@pytest.mark.parametrize("kind", show.VIEWS)
def test_each_view_is_there_and_so_is_its_result(kind: str) -> None:
    """Both are named by text, so that nothing is imported before it is shown."""
    module, _, name = kind.rpartition(".")
    found = getattr(importlib.import_module(f"tundra_nb.{module}"), name)
    assert f"{found.__module__}.{found.__qualname__}" == f"tundra_nb.{kind}"
    module, _, name = show.VIEWS[kind].rpartition(".")
    assert callable(getattr(importlib.import_module(f"tundra_nb.views.{module}"), name))


def test_a_document_tells_local_times_and_leaves_out_what_is_empty() -> None:
    told = text.plain(
        show.blocks_of(Document({"at": "2026-11-29T11:51:57.923571Z", "withheld": [], "note": "", "n": 0}))
    )
    assert "withheld" not in told
    assert "note" not in told
    assert "923571" not in told
    assert "Z" not in told
    assert "n   0" in told


def test_a_triage_tells_local_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        finding = TriageFinding(claim="local failed", since="2026-11-24T11:40:43", until="2026-11-24T11:41:24")
        found = Triage(
            run_id="1", question="", pin="abc", findings=[finding], steps=[], operations=[], stopped="done", report=""
        )
        assert "2026-11-24 17:10:43 – 2026-11-24 17:11:24 IST" in text.plain(show.blocks_of(found))
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_codes_and_other_words_of_a_story_stay_whole_at_any_width(width: int) -> None:
    code = "CircuitBreakerError::Open"
    rows = [
        [
            "12 ms",
            "1.2 s",
            "attempt",
            "anthropic-main",
            f"error: {code}",
            "#1 · anthropic-main: breaker open after 529",
        ],
        ["1.3 s", "", "error", "", "AllProvidersExhausted", "no profile answered"],
    ]
    table = Table(["after", "took", "what", "profile", "outcome", "detail"], rows, frozenset({0, 1}), long=5)
    file = io.StringIO()
    text.show([table], Console(file=file, width=width, color_system=None))
    lines = file.getvalue().splitlines()
    assert max(len(line.rstrip()) for line in lines) <= width
    told = set(file.getvalue().split())
    assert {code, "anthropic-main", "AllProvidersExhausted", "#1", "answered"} <= told
    assert any("1.2 s" in line for line in lines)


def test_last_says_of_a_profile_that_is_out_of_use_that_it_was_not_asked() -> None:
    attempts = [
        {"profile": "first", "outcome": "refused", "reason": "key_rejected"},
        {"profile": "second", "outcome": "ok", "reason": "answered"},
    ]
    told = text.plain(show.blocks_of(Last(STORY | {"attempts": attempts})))
    assert "first (not asked: key_rejected) → second (answered)" in told


@pytest.mark.parametrize("width", [10, 20, 40])
def test_where_columns_find_no_room_nothing_is_written_letter_below_letter(width: int) -> None:
    """A terminal of twenty columns reads each row as a text, with the names of its values."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    names = ["profile", "kind", "model", "state", "breaker", "key"]
    table = Table(names, [["dead", "local", "tiny", "ready", "closed", "none"]])
    text.show([Facts([("settings", "/a/b/c.toml")]), table], console)
    assert isinstance(console.file, io.StringIO)
    told = console.file.getvalue()
    assert {"settings", "profile", "dead", "kind", "local", "breaker", "closed"} <= set(told.split()), told


@pytest.mark.parametrize("name", sorted(show.VIEWS))
def test_every_result_with_a_view_is_shown_by_it_in_a_notebook(name: str) -> None:
    module, _, kind = name.rpartition(".")
    classes = getattr(importlib.import_module(f"tundra_nb.{module}"), kind).__mro__
    assert {(one.__module__, one.__qualname__) for one in classes} & {*display._VIEWED, *display._LIVE}
