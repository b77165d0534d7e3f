"""Pictures of frames: small, readable without colours and without eyes, empty where there is nothing."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from typing import Any

import pandas as pd
import pytest

from tundra_nb.errors import UsageError
from tundra_nb.frames import frames
from tundra_nb.types import columns
from tundra_nb.views import html, show, svg, text
from tundra_nb.views.blocks import Block, Details, Heading, Picture, words
from tundra_nb.views.plots import plot

BEGIN = 1_764_000_000_000_000


def frame_of(table: str, rows: list[dict[str, Any]]) -> pd.DataFrame:
    return frames.from_rows(rows, columns(table), meta={"query": table, "store": "doltlite"})


def calls(count: int = 50) -> pd.DataFrame:
    return frame_of(
        "operation",
        [
            {"operation_id": n, "at": BEGIN + n * 1_000_000, "kind": "chat", "profile": "a", "attempts": 1,
             "outcome": "error" if n % 5 == 0 else "ok", "code": "ApiError" if n % 5 == 0 else None,
             "latency_ms": 10.0 * n, "cost_usd": 0.001, "waited_ms": 0.0}
            for n in range(count)
        ],
    )  # fmt: skip


def pictures(blocks: Any) -> list[ET.Element]:
    made = []
    for block in blocks:
        if isinstance(block, Picture):
            made.append(ET.fromstring(block.svg))
            assert len(block.svg) < 60_000
            assert block.alt
    return made


def test_calls_are_drawn_with_failures_on_the_base_line_and_told_in_words() -> None:
    drawn = plot(calls())
    (picture,) = pictures(drawn.blocks)
    assert "50 calls, 10 not answered" in "".join(picture.itertext())
    styles = [path.get("class") for path in picture.iter("{http://www.w3.org/2000/svg}path")]
    assert styles.index("bad") < styles.index("slate")
    told = text.plain(show.blocks_of(drawn))
    assert "10 of 50 failed" in told
    assert "cost" in told
    assert len(drawn.frame) == 50
    assert "<script" not in html.render(drawn.blocks)


def test_the_same_frame_gives_the_same_bytes() -> None:
    assert html.render(plot(calls()).blocks) == html.render(plot(calls()).blocks)


def test_a_hundred_thousand_calls_make_a_small_picture() -> None:
    pictures(plot(calls(100_000)).blocks)


def test_errors_have_a_lane_each_and_one_scale() -> None:
    rows = [
        {"error_id": n, "at": BEGIN + n * 60_000_000, "source": "providers", "code": code, "severity": "high",
         "retryable": True, "message": "m"}
        for n, code in enumerate(["ApiError", "ApiError", "Timeout"])
    ]  # fmt: skip
    told = text.plain(show.blocks_of(plot(frame_of("error_event", rows))))
    assert "ApiError × 2, Timeout × 1" in told


def test_the_limiters_acts_have_a_lane_for_each_limit_and_kind() -> None:
    rows = [
        {"limit_event_id": n, "at": BEGIN + n * 60_000_000, "tier": "profile", "limit_key": limit,
         "resource": "requests", "decision": decision}
        for n, (limit, decision) in enumerate([("main", "wait"), ("global", "refused"), ("main", "wait")])
    ]  # fmt: skip
    told = text.plain(show.blocks_of(plot(frame_of("limit_event", rows))))
    assert "main: wait × 2, global: refused × 1" in told
    assert "nothing to do" in text.plain(show.blocks_of(plot(frame_of("limit_event", []))))


def test_their_bucket_stands_against_ours() -> None:
    headers = {"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "57"}
    theirs = {"anthropic-ratelimit-requests-limit": "50", "anthropic-ratelimit-requests-remaining": "12"}
    rows = [
        {"attempt_id": n, "operation_id": n, "seq": 1, "at": BEGIN + n * 1_000_000, "profile": name, "outcome": "ok",
         "bucket_requests": 90.0, "limit_headers": json.dumps(told)}
        for n, (name, told) in enumerate([("openai", headers), ("anthropic", theirs)])
    ]  # fmt: skip
    drawn = plot(frame_of("attempt", rows), buckets=True)
    picture = next(block for block in drawn.blocks if isinstance(block, Picture))
    for form in (picture.svg, picture.narrow):
        labels = [label.text or "" for label in ET.fromstring(form).iter() if label.tag.endswith("}text")]
        assert any("in red, and ours" in label for label in labels), labels
    told = text.plain(show.blocks_of(drawn))
    assert "openai requests: theirs 57, ours 90" in " ".join(told.split())
    assert "anthropic requests: theirs 12, ours 90" in " ".join(told.split())
    assert "theirs of 60" in told
    silent = plot(frame_of("attempt", [row | {"limit_headers": None} for row in rows]), buckets=True)
    told = " ".join(text.plain(show.blocks_of(silent)).split())
    assert told.startswith("openai requests, anthropic requests: theirs not told · ")
    pictures(drawn.blocks)


def test_breakers_are_bands_with_their_word_in_them() -> None:
    rows = [
        {"breaker_event_id": n, "at": BEGIN + n * 60_000_000, "profile": "a", "old_state": old, "new_state": new,
         "reason": "api_error", "failures": 3}
        for n, (old, new) in enumerate([("closed", "open"), ("open", "half_open"), ("half_open", "closed")])
    ]  # fmt: skip
    drawn = plot(frame_of("breaker_event", rows))
    (picture,) = pictures(drawn.blocks)
    tips = "".join(picture.itertext())
    assert "a open from" in tips
    assert "for 60 s: api_error" in tips
    headline = text.plain(show.blocks_of(drawn)).splitlines()[0]
    assert re.match(r"a open from [\d :-]+ for 2 min: api_error · ", headline)
    assert "a half open from" in text.plain(show.blocks_of(drawn))


def test_a_headline_names_the_longest_times_that_a_breaker_was_open_and_counts_the_others() -> None:
    moves = [("closed", "open", 0), ("open", "closed", 60), ("closed", "open", 100), ("open", "half_open", 110),
             ("half_open", "open", 111), ("open", "closed", 400), ("closed", "open", 500), ("open", "closed", 501),
             ("closed", "open", 600)]  # fmt: skip
    rows = [
        {"breaker_event_id": n, "at": BEGIN + second * 1_000_000, "profile": "a", "old_state": old, "new_state": new,
         "reason": "api_error", "failures": 3}
        for n, (old, new, second) in enumerate(moves)
    ]  # fmt: skip
    headline = plot(frame_of("breaker_event", rows)).blocks[0]
    assert isinstance(headline, Heading)
    first, second, *rest = words(headline.text).split("; ")
    assert first.endswith("api_error (still)")
    assert "for 5 min" in second
    assert rest[0].startswith("2 more · ")


@pytest.mark.parametrize("by", ["minute", "profile", "profile,minute"])
def test_grouped_frames_are_drawn(by: str) -> None:
    frame = calls()
    grouped = pd.DataFrame(
        {
            **({"profile": ["a", "b"]} if "profile" in by else {}),
            **({"minute": frame["at"].dt.floor("min").iloc[[0, 49]].to_list()} if "minute" in by else {}),
            "count": [10, 20], "errors": [1, 0], "error_rate": [0.1, 0.0], "p50_ms": [5.0, 6.0],
            "p95_ms": [9.0, 8.0], "input_tokens": [1, 1], "output_tokens": [1, 1], "cost_usd": [0.1, 0.0],
        }
    )  # fmt: skip
    drawn = plot(grouped)
    assert pictures(drawn.blocks)
    assert any(isinstance(block, Details) and block.in_text for block in drawn.blocks)


@pytest.mark.parametrize("table", ["operation", "error_event", "breaker_event"])
def test_nothing_is_said_in_words(table: str) -> None:
    blocks: list[Block] = list(plot(frame_of(table, [])).blocks)
    assert not pictures(blocks)
    assert "in this window" in text.plain(blocks)


def test_rows_without_a_picture_say_so() -> None:
    with pytest.raises(UsageError, match="no picture"):
        plot(pd.DataFrame({"a": [1]}))


def test_commands_in_backticks_are_code_in_html_and_stay_in_terminals() -> None:
    from tundra_nb.views.blocks import Para

    assert "<code>%tundra why 1</code>" in html.render([Para("`%tundra why 1` tells <b>")])
    assert "&lt;b&gt;" in html.render([Para("`%tundra why 1` tells <b>")])


@pytest.mark.parametrize(("width", "least"), [(300, 300), (880, 640)])
def test_a_small_picture_is_never_drawn_larger_than_it_is(width: int, least: int) -> None:
    picture = Picture(svg.picture(width, 40, [svg.text(1, 9, "told")], title="t"), "t")
    assert f"min-width: {least}px" in html.render([picture])
