"""The waterfall of a call: what it shows, and that nothing from outside becomes markup."""

from __future__ import annotations

import re
import urllib.parse
import xml.etree.ElementTree as ET
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tundra_nb.client.results import Why
from tundra_nb.views import html, show, svg, text, waterfall
from tundra_nb.views.waterfall import Span

BEGAN = "2026-11-24T16:29:16Z"
STORY: dict[str, Any] = {
    "operation": {
        "operation_id": "7531031194409586688", "at": BEGAN, "outcome": "ok", "profile": "second", "model": "tiny",
        "latency_ms": 3000.0, "cost_usd": 0.00012, "input_tokens": 5, "output_tokens": 3,
    },
    "attempts": [
        {"seq": 1, "at": "2026-11-24T16:29:16.1Z", "profile": "first", "outcome": "error", "reason": "status_529",
         "limiter_wait_ms": 40.0, "latency_ms": 450.0, "message": "overloaded"},
        {"seq": 2, "at": "2026-11-24T16:29:18.2Z", "profile": "second", "outcome": "ok", "latency_ms": 800.0,
         "backoff_ms": 2000.0, "first_byte_ms": 40.0, "cost_usd": 0.00012},
    ],
    "breaker_events": [
        {"at": "2026-11-24T16:29:16.6Z", "profile": "first", "old_state": "closed", "new_state": "open",
         "reason": "status_529"},
        {"at": "2026-11-24T16:29:16.7Z", "profile": "third", "old_state": "closed", "new_state": "closed",
         "parked": True, "reason": "key_rejected"},
    ],
    "limit_events": [
        {"at": "2026-11-24T16:29:16.1Z", "tier": "global", "limit_key": "global", "resource": "requests",
         "decision": "wait", "retry_after_s": 0.04},
        {"at": "2026-11-24T16:29:16.65Z", "tier": "profile", "limit_key": "first", "resource": "requests",
         "decision": "penalised", "retry_after_s": 2.0},
    ],
}  # fmt: skip
SVG = "{http://www.w3.org/2000/svg}"
ELEMENTS = {"svg", "title", "style", "defs", "pattern", "rect", "text", "path"}
ATTRIBUTES = {
    "width", "height", "viewBox", "role", "id", "patternUnits", "patternTransform", "class", "x", "y", "rx", "fill",
    "d", "opacity", "font-size", "text-anchor",
}  # fmt: skip


def labels(document: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(document).iter(f"{SVG}text")]


def test_waits_attempts_moves_and_costs_are_rows_in_order_of_time() -> None:
    made = waterfall.rows(Why(STORY))
    assert [(row.at, row.name, row.note) for row in made] == [
        (100.0, "1  first", "error: status_529 · 450 ms"),
        (600.0, "first", "breaker closed → open (status_529)"),
        (650.0, "profile first", "limiter: requests penalised, free after 2 s"),
        (700.0, "third", "parked (key_rejected)"),
        (2200.0, "2  second", "ok · 800 ms · $0.00012"),
    ]
    assert made[0].spans == [
        Span(100.0, 140.0, "warn", "limiter: waited 40 ms"),
        Span(140.0, 590.0, "bad", "first: error: status_529 · 450 ms. overloaded"),
    ]
    assert made[-1].spans[0] == Span(200.0, 2200.0, "waits", "waited 2 s before trying")
    assert made[-1].tick == 2240.0


def test_the_picture_has_the_axis_the_rows_and_the_sum() -> None:
    assert labels(waterfall.draw(Why(STORY))) == [
        "0", "1 s", "2 s", "3 s",
        "1 first", "error: status_529 · 450 ms",
        "first", "breaker closed → open (status_529)",
        "profile first", "limiter: requests penalised, free after 2 s",
        "third", "parked (key_rejected)",
        "2 second", "ok · 800 ms · $0.00012",
        "answered by second (tiny)", "3 s · $0.00012 · 5 → 3 tokens",
    ]  # fmt: skip


def test_bars_lie_where_their_time_is() -> None:
    document = ET.fromstring(waterfall.draw(Why(STORY)))
    good = [bar for bar in document.iter(f"{SVG}rect") if bar.get("class") == "good"]
    width = waterfall.RIGHT - waterfall.LEFT
    assert float(good[0].attrib["x"]) == round(waterfall.LEFT + width * 2200 / 3000, 1)
    assert float(good[0].attrib["width"]) == round(width * 800 / 3000, 1)


def test_an_operation_without_attempts_is_a_picture_too() -> None:
    refused = {"operation": {"operation_id": "1", "at": None, "outcome": "refused", "code": "UsageError"}}
    assert labels(waterfall.draw(Why(refused))) == ["0", "0.2 ms", "0.4 ms", "0.6 ms", "0.8 ms", "1 ms",
                                                    "refused: UsageError", ""]  # fmt: skip


def test_a_long_story_is_cut_and_says_so() -> None:
    attempts = [STORY["attempts"][0] | {"seq": number} for number in range(1, 101)]
    document = waterfall.draw(Why(STORY | {"attempts": attempts}))
    assert "and 63 more: see the table" in labels(document)
    assert float(ET.fromstring(document).attrib["height"]) < 1200


def test_the_picture_stands_above_the_table_in_html_and_is_left_out_in_terminals() -> None:
    blocks = show.blocks_of(Why(STORY))
    fragment = html.render(blocks)
    found = re.search(r'<img alt="([^"]*)" src="data:image/svg\+xml,([^"]+)"', fragment)
    assert found is not None
    assert "breaker closed → open" in found[1]
    assert urllib.parse.unquote(found[2]) == waterfall.draw(Why(STORY)).replace('"', "'")
    assert fragment.index("<img") < fragment.index("<table")
    assert "<svg" not in fragment
    plain = text.plain(blocks)
    assert "status_529" in plain
    assert "svg" not in plain


def test_colours_can_be_read_on_their_ground_in_light_and_dark() -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    for colours in (svg.LIGHT, svg.DARK):
        ground = luminance(colours["ground"])
        for name in ("ink", "dim", "good", "bad", "warn", "void", "lost"):
            low, high = sorted((ground, luminance(colours[name])))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (name, colours[name])


anything = st.text(st.characters(exclude_categories=())) | st.sampled_from(
    ['"><script>alert(1)</script>', "]]>&lt;", "' onload='x", "\ud800\x00\x1b[2J", "\ufffe", "<!--", "{}"]
)


@given(profile=anything, message=anything, model=anything, reason=anything, key=anything)
def test_whatever_comes_from_outside_stays_text(profile: str, message: str, model: str, reason: str, key: str) -> None:
    story = Why(
        {
            "operation": STORY["operation"] | {"profile": profile, "model": model, "outcome": "ok"},
            "attempts": [STORY["attempts"][0] | {"profile": profile, "message": message, "reason": reason}],
            "breaker_events": [STORY["breaker_events"][0] | {"profile": profile, "reason": reason}],
            "limit_events": [STORY["limit_events"][1] | {"limit_key": key, "decision": "refused"}],
        }
    )
    document = ET.fromstring(waterfall.draw(story))
    for element in document.iter():
        assert element.tag.removeprefix(SVG) in ELEMENTS
        assert set(element.attrib) <= ATTRIBUTES
        assert "://" not in " ".join(element.attrib.values())
        assert len(element) == 0 or element.tag.removeprefix(SVG) in {"svg", "defs", "pattern", "rect", "text", "path"}


@given(told=st.text(), room=st.floats(10, 500), size=st.floats(8, 20))
def test_cut_text_is_a_beginning_of_it_or_all_of_it(told: str, room: float, size: float) -> None:
    shown = svg.cut(told, room, size)
    assert shown == told or (shown.endswith("…") and told.startswith(shown[:-1]))
    assert len(shown) <= max(room / (size * svg.CHARACTER), 2) + 1
