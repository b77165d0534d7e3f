"""What an hour says, and its static picture: of made-up columns, without a daemon."""

from __future__ import annotations

import dataclasses
import json
import re
import time
import urllib.parse
import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
import pytest

from tests.conftest import ROOT
from tundra_nb.dashboard import packing, reading, still, story
from tundra_nb.dashboard.hour import FAILED, OK, REFUSED, Change, Columns, Hour, Level, Numbering, Stretch, is_over
from tundra_nb.protocol import query
from tundra_nb.views import html, svg, text
from tundra_nb.views.blocks import Picture

EVIL = "<script>alert('1')</script>\x1b[2J\"&"
SINCE = 1_700_000_000.0
OUTAGE = (SINCE + 1200.0, SINCE + 3000.0)


def hour(
    calls: int = 6000, *, is_live: bool = False, end: float = OUTAGE[1], names: tuple[str, ...] = ("a", "b")
) -> Hour:
    """An hour and a half in which the first profile fails for half an hour, or until `end`."""
    rng = np.random.default_rng(1)
    at = np.sort(rng.uniform(SINCE, SINCE + 5400, calls))
    profile = (rng.random(calls) < 0.5).astype("uint8")
    is_out = (profile == 0) & (at > OUTAGE[0]) & (at < end)
    outcome = np.where(is_out, FAILED, OK)
    outcome[is_out & (rng.random(calls) < 0.2)] = REFUSED
    label = np.where(outcome == FAILED, 1, np.where(outcome == REFUSED, 2, 0))
    latency = np.where(outcome == OK, rng.lognormal(7, 0.4, calls), np.nan)
    zeros, ones = np.zeros(calls), np.ones(calls)
    made = Hour(
        since=SINCE,
        until=SINCE + 5400,
        is_live=is_live,
        where="",
        profiles=Numbering(names),
        codes=Numbering(["", "AllProvidersExhausted", "CircuitBreakerError::Open"]),
        reasons=Numbering(["answered", "status_529", "breaker_open"]),
        callers=Numbering(["kernel"]),
        calls=Columns.of(at, profile, outcome, label, zeros, latency, ones),
        attempts=Columns.of(at, profile, outcome, label, zeros, latency, ones),
    )
    made.bands = [Stretch(names[0], OUTAGE[0] + 5, None if is_live else end, "open", is_bad=True)]
    made.changes = [
        Change(OUTAGE[0] - 900, "breaker.failures 5 → 50", "bo"),
        Change(OUTAGE[0] - 540, f"{names[0]} rpm 8 → 64", "ada"),
        Change(OUTAGE[1] - 60, f"{names[0]} rpm 64 → 8", "ada"),
    ]
    return made


def test_the_headline_says_what_broke_since_when_and_what_was_changed_before() -> None:
    told = story.tell(hour())
    worst = told.episodes[0]
    assert (worst.profile, worst.state, worst.reason, worst.is_on) == ("a", "open", "status_529", False)
    assert told.who == "a open for 30 min"
    assert story.clock(worst.since) in told.what
    assert f"status_529 × {worst.count:,}" in told.what
    assert told.before == "9 min before: a rpm 8 → 64 (ada)"
    assert told.beside == "still well: b 100 %"
    assert abs(worst.since - OUTAGE[0]) < 10


def test_a_profile_that_was_taken_out_is_no_longer_still_well() -> None:
    for at, beside in ((SINCE + 5400, ""), (SINCE + 3000, "still well: b 100 %")):
        made = hour()
        made.changes.append(Change(at, "profile b removed", "ada", takes_out="b"))
        assert story.tell(made).beside == beside, "asked again after it, it is there again"


def test_the_headline_names_what_a_profile_was_for_most_of_the_time() -> None:
    """A profile that was open for half an hour and then parked for a minute was not parked for half an hour."""
    made = hour()
    made.bands.append(Stretch("a", OUTAGE[1] + 5, OUTAGE[1] + 60, "parked", is_bad=True))
    assert story.tell(made).who == "a open for 31 min"
    made.bands[-1] = Stretch("a", OUTAGE[1] + 5, None, "parked", is_bad=True)
    made.is_live = True
    assert story.tell(made).who.startswith("a still parked for ")


def test_the_headline_tells_how_long_a_breaker_was_open_of_the_time_that_a_profile_failed() -> None:
    """Failures open it, and what is asked between its being open fails too: it was not open all that time."""
    made = hour()
    made.bands = [Stretch("a", OUTAGE[0] + 300, OUTAGE[0] + 900, "open", is_bad=True)]
    assert story.tell(made).who == "a failing for 30 min, open for 10 min of it"


def test_what_goes_on_is_still_open_and_comes_first() -> None:
    told = story.tell(hour(is_live=True, end=SINCE + 5400))
    assert told.episodes[0].is_on
    assert told.who.startswith("a still open for 70 min")
    assert "until" not in told.what


@pytest.mark.parametrize(("word", "is_on"), [("half open", False), ("open", True), ("parked", True)])
def test_an_outage_is_over_once_a_probe_was_answered_and_not_while_nothing_may_be_asked(word: str, is_on: bool) -> None:
    """Triage tells the same by the same rule: an answer ends it where the breaker lets more through."""
    shown = hour(is_live=True, end=SINCE + 5390)
    shown.bands = [
        Stretch("a", OUTAGE[0] + 5, SINCE + 5391, "open", is_bad=True),
        Stretch("a", SINCE + 5391, None, word),
    ]
    answered = shown.attempts.at[(shown.attempts.profile == 0) & (shown.attempts.at > SINCE + 5390)]
    assert len(answered)
    worst = story.tell(shown).episodes[0]
    assert (worst.is_on, "still" in worst.who) == (is_on, is_on)
    assert worst.until == (shown.until if is_on else answered.min())
    assert is_over(answered=True, state=word.replace(" ", "_"), is_out=False) is not is_on


def test_only_the_outage_that_goes_on_is_still_one() -> None:
    """An earlier one of the same profile that ended keeps its end."""
    shown = hour(is_live=True)
    is_late = (shown.attempts.profile == 0) & (shown.attempts.at > SINCE + 5000)
    shown.attempts.outcome[is_late], shown.attempts.label[is_late] = FAILED, 1
    shown.bands = [
        Stretch("a", OUTAGE[0] + 5, OUTAGE[1], "open", is_bad=True),
        Stretch("a", SINCE + 5005, None, "open", is_bad=True),
    ]
    assert [(one.is_on, round(one.until - one.since, -2)) for one in story.tell(shown).episodes] == [
        (True, 400), (False, 1800),
    ]  # fmt: skip


@pytest.mark.parametrize(("later", "is_on", "who"), [(1, False, "a open for"), (6, True, "a still failing for")])
def test_a_breaker_that_has_closed_is_never_still_open(later: int, is_on: bool, who: str) -> None:
    """One bad answer just after the recheck of a parked profile made the headline say `still parked`."""
    end = SINCE + 5400
    shown = hour(is_live=True, end=end)
    closed = end - 20
    rows = shown.attempts
    is_bad = (rows.profile == 0) & (rows.outcome != OK)
    keep = ~is_bad | (rows.at < closed)
    more = np.linspace(closed + 5, end - 1, later)
    few = rows.where(np.flatnonzero(is_bad & (rows.outcome == FAILED))[:later])
    shown.attempts = rows.where(keep & ~((rows.profile == 0) & (rows.at >= closed))).followed_by(
        dataclasses.replace(few, at=more)
    )
    shown.bands = [Stretch("a", OUTAGE[0] + 5, closed, "open", is_bad=True)]
    worst = story.tell(shown).episodes[0]
    assert (worst.is_on, worst.who.startswith(who)) == (is_on, True), worst.who


@pytest.mark.parametrize("move", ["reset", "recheck", "breaker"])
def test_a_breaker_that_is_closed_again_is_not_still_open_before_anything_was_answered(move: str) -> None:
    now = SINCE + 3000
    shown = hour(is_live=True, end=now)
    shown.until = now
    shown.calls, shown.attempts = (columns.where(columns.at < now - 20) for columns in (shown.calls, shown.attempts))
    opened = {"profile": "a", "old_state": "closed", "new_state": "open", "at": int((OUTAGE[0] + 5) * 1e6)}
    moves = {
        "reset": [opened, opened | {"old_state": "open", "new_state": "closed"}],
        "recheck": [opened | {"new_state": "closed", "parked": True}, opened | {"new_state": "closed"}],
        "breaker": [opened],
    }[move]
    rows: list[dict[str, Any]] = [{"parked": False, "reason": move} | row for row in moves]
    if len(rows) == 2:
        rows[1] |= {"at": int((now - 10) * 1e6), "parked": False}
    shown.bands = reading.bands(rows, shown)
    (worst,) = story.tell(shown).episodes
    assert worst.is_on is (move == "breaker")
    assert worst.state == ("parked" if move == "recheck" else "open")
    assert worst.until == (now if worst.is_on else now - 10)


def test_a_profile_that_fails_on_after_a_reset_is_still_failing() -> None:
    shown = hour(is_live=True, end=SINCE + 5400)
    shown.bands = [Stretch("a", OUTAGE[0] + 5, SINCE + 5300, "open", is_bad=True)]
    assert story.tell(shown).episodes[0].is_on


def test_a_profile_fails_also_without_its_breaker_and_bad_luck_is_no_outage() -> None:
    failing = hour()
    failing.bands = []
    assert story.tell(failing).who == "a failing for 30 min"
    failing.attempts = failing.attempts.where((failing.attempts.outcome == OK) | (np.arange(6000) % 400 == 0))
    calm = dataclasses.replace(failing, calls=failing.attempts)
    assert story.tell(calm).episodes == [] or story.tell(calm).episodes[0].failures >= story.LEAST_FAILURES


def test_where_nothing_failed_it_says_so_with_numbers() -> None:
    well = hour()
    well.bands = []
    well.calls = well.calls.where(well.calls.outcome == OK)
    well.attempts = well.attempts.where(well.attempts.outcome == OK)
    told = story.tell(well)
    assert (told.is_bad, told.who, told.before) == (False, "all well", "")
    assert f"{len(well.calls):,} calls, 0 % not answered" in told.what
    nothing = dataclasses.replace(well, calls=Columns.empty(), attempts=Columns.empty())
    assert story.tell(nothing).headline == "no call in this window"
    assert [type(block).__name__ for block in still.blocks(nothing)] == ["Heading", "Para"]


def test_nothing_changed_before_is_said_too() -> None:
    quiet = hour()
    quiet.changes = []
    assert story.tell(quiet).before == "nothing was changed in the 30 min before"


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.2, "1 s"), (45, "45 s"), (100, "2 min"), (5000, "83 min"), (7200, "2 h")]
)
def test_a_length_is_as_exact_as_it_matters(seconds: float, told: str) -> None:
    assert story.length(seconds) == told


def test_a_part_is_never_rounded_to_nothing_or_to_all() -> None:
    assert [story.share(part, 10_000) for part in (0, 1, 123, 9_999, 10_000)] == [
        "0 %", "< 0.1 %", "1.2 %", "> 99.9 %", "100 %",
    ]  # fmt: skip


def test_the_static_picture_is_small_and_well_formed_and_says_the_headline() -> None:
    shown = hour(100_000)
    blocks = still.blocks(shown)
    fragment = html.render(blocks)
    assert len(fragment.encode()) + len(text.plain(blocks).encode()) < 25_000
    picture = still.picture(shown, "t")
    assert ET.fromstring(picture).tag.endswith("svg")
    assert "a open for 30 min" in fragment
    assert "9 min before: a rpm 8 → 64 (ada)" in fragment
    address = fragment.partition('src="')[2].partition('"')[0]
    assert urllib.parse.unquote(address).endswith("</svg>")


def test_on_a_narrow_page_all_of_the_hour_is_seen_with_its_words_above_the_lanes() -> None:
    """What a phone shows of a saved or exported dashboard has no part beyond its edge."""
    shown = hour(10_000)
    (drawn,) = [block for block in still.blocks(shown) if isinstance(block, Picture)]
    assert f'media="(max-width: {html.NARROW_PAGE})"' in html.render([drawn])
    for made in (drawn.svg, drawn.narrow):
        root = ET.fromstring(made)
        width = float(root.attrib["width"])
        assert (width == still.NARROW_WIDTH) is (made is drawn.narrow)
        texts = [one for one in root.iter() if one.tag.endswith("}text")]
        assert {"latency, answered", "p50 to p95", "status_529"} <= {(one.text or "") for one in texts}
        for one in texts:
            room = len(one.text or "") * float(one.attrib["font-size"]) * svg.CHARACTER
            at, anchor = float(one.attrib["x"]), one.attrib.get("text-anchor", "start")
            begin = at - {"start": 0, "middle": room / 2, "end": room}[anchor]
            assert begin >= 0, one.text
            assert begin + room <= width + 1, one.text


def test_names_from_outside_are_text_wherever_they_stand() -> None:
    evil = hour(names=(EVIL, "b"))
    evil.terminals = [Stretch(EVIL, SINCE, None, EVIL, is_bad=True)]
    evil.reasons = Numbering(["answered", EVIL, EVIL + "2"])
    blocks = still.blocks(evil)
    fragment = html.render(blocks)
    assert "<script" not in fragment
    assert "\x1b" not in fragment + text.plain(blocks)
    ET.fromstring(still.picture(evil, EVIL))
    fragment.partition('src="')[2].partition('"')[0].encode("utf-8")


def test_bytes_for_the_browser_are_twelve_a_call_and_seven_an_attempt_more() -> None:
    shown = hour(1000)
    header, buffers = packing.pack(shown, story.tell(shown))
    assert [len(buffer) for buffer in buffers] == [4000, 0, 1000, 1000, 1000, 1000, 4000, 4000, 0, 1000, 1000, 1000]
    at = np.frombuffer(buffers[0], "<u4") * header["unit"] / 1000 + header["base"] / 1000
    assert np.allclose(at, shown.calls.at, atol=0.002)
    json.dumps(header)
    assert header["story"]["bad"] is True
    years = dataclasses.replace(shown, since=SINCE - 400 * 86_400)
    header, buffers = packing.pack(years, story.tell(shown))
    at = (np.frombuffer(buffers[0], "<u4").astype("f8") * header["unit"] + header["base"]) / 1000
    assert np.allclose(at, shown.calls.at, atol=0.02)


def test_a_clock_that_is_put_forward_or_back_in_the_window_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        summer, winter = 1_711_846_800.0, 1_729_990_800.0  # 2024-03-31 and 2024-10-27, 01:00 UTC
        assert packing.offsets(summer - 1800, summer + 1800) == [(summer - 1800, 3600.0), (summer, 7200.0)]
        assert packing.offsets(winter + 60, winter + 7200) == [(winter + 60, 3600.0)]
        year = packing.offsets(summer - 86_400, winter + 86_400)
        assert [offset for _, offset in year] == [3600.0, 7200.0, 3600.0]
        assert [at for at, _ in year[1:]] == pytest.approx([summer, winter], abs=1)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_bucket_that_ran_dry_is_in_the_static_picture_too() -> None:
    dry = hour()
    dry.levels = [Level("a/requests", [SINCE, OUTAGE[0], OUTAGE[1]], [1.0, 0.0, 0.8])]
    drawn = still.picture(dry, "t")
    assert "a/requests" in drawn
    assert ">empty<" in drawn
    assert "80 % left" in drawn


def test_a_reason_that_attempts_failed_and_were_refused_for_is_told_apart_in_words() -> None:
    """A wrong key is met once and refused for from then on: two rows of one name were told apart by colour only."""
    shown = hour()
    shown.reasons = Numbering(["answered", "key_rejected"])
    label = np.where(shown.attempts.outcome == OK, 0, 1)
    shown.attempts = dataclasses.replace(shown.attempts, label=label.astype("uint8"))
    drawn = still.picture(shown, "t")
    assert ">key_rejected<" in drawn
    assert ">key_rejected, refused<" in drawn
    told = text.plain(still.blocks(shown, story.tell(shown)))
    assert "key_rejected × " in told
    assert "key_rejected, refused × " in told


def test_no_number_of_an_axis_stands_on_the_name_of_its_lane() -> None:
    for scale in (1.0, 0.1, 0.01, 0.001):
        shown = hour()
        shown.calls = dataclasses.replace(shown.calls, latency=(shown.calls.latency * scale).astype("float32"))
        drawn = ET.fromstring(still.picture(shown, "t"))
        words = [one for one in drawn.iter() if one.tag.endswith("text") and one.get("text-anchor") == "end"]
        heights = [float(one.get("y", 0)) for one in words]
        name = next(float(one.get("y", 0)) for one in words if (one.text or "").startswith("latency"))
        near = [y for y in heights if y != name and abs(y - name) < 9]
        assert near == [], scale


def test_a_terminal_says_how_it_ended_within_the_picture() -> None:
    shown = hour(10)
    shown.terminals = [Stretch("make test", SINCE + 5, SINCE + 9, "exit code 127", is_bad=True)]
    drawn = still.picture(shown, "t")
    assert ">exit code 127<" in drawn


def test_where_changes_are_not_recorded_it_says_so_and_not_that_there_were_none() -> None:
    foreign = hour()
    foreign.changes, foreign.knows_changes = [], False
    assert story.tell(foreign).before == "what was changed before is not recorded here"
    header, _ = packing.pack(foreign, story.tell(foreign))
    assert header["knows_changes"] is False


def test_groups_say_the_same_as_their_rows() -> None:
    rows = hour()
    band = query.band_of(rows.calls.latency.astype("float64"))
    keys = np.stack(
        [
            (rows.calls.at // 10).astype(int),
            rows.calls.profile,
            rows.calls.outcome,
            rows.calls.label,
            np.nan_to_num(band, nan=-1),
        ]
    )
    unique, number = np.unique(keys, axis=1, return_counts=True)
    latency = np.where(unique[4] < 0, np.nan, query.band_middle(unique[4]))
    grouped = Columns.of(unique[0] * 10.0, unique[1], unique[2], unique[3], np.zeros(len(number)), latency, number)
    groups = dataclasses.replace(rows, calls=grouped, attempts=grouped, step=10)
    one, other = story.tell(rows).episodes[0], story.tell(groups).episodes[0]
    assert (one.count, one.failures, one.state) == (other.count, other.failures, other.state)
    assert abs(one.since - other.since) < 10
    axis = still.axis(groups)
    for of_rows, of_groups in zip(still.quantiles(rows, axis), still.quantiles(groups, axis), strict=True):
        known = ~np.isnan(of_rows)
        assert known.any()
        assert np.abs(of_groups[known] / of_rows[known] - 1).max() < 0.16  # a band is so wide


def test_rows_of_the_live_feed_become_the_same_columns() -> None:
    shown = hour(10)
    event = {
        "at": "2023-11-14T22:13:30.250000Z", "profile": None, "asked": "b,a", "outcome": "error", "latency_ms": None,
        "code": "New", "caller": "cli",
    }  # fmt: skip
    made = reading.from_events("operation", [event], shown)
    assert made.at[0] == 1_700_000_010.25
    assert shown.profiles.names[made.profile[0]] == "b"
    assert (shown.codes.names[made.label[0]], shown.callers.names[made.caller[0]]) == ("New", "cli")
    assert np.isnan(made.latency[0])
    assert (made.outcome[0], made.count[0]) == (FAILED, 1)


def test_what_the_daemons_end_cut_off_is_not_answered_but_no_failure_of_its_profile() -> None:
    shown = hour(0, is_live=True)
    shown.bands = []
    event = {"at": "2023-11-14T23:30:00Z", "profile": "a", "outcome": "interrupted", "reason": "interrupted"}
    for kind in ("operation", "attempt"):
        made = reading.from_events(kind, [event] * 40, shown)
        setattr(shown, f"{kind}s".replace("operation", "call"), made)
    told = story.tell(shown)
    assert told.episodes == []
    assert told.headline == "no lasting failure · 40 calls, 100 % not answered, 40 cut off by the daemon's end"


def test_a_call_without_a_profile_is_of_the_same_no_profile_however_it_comes() -> None:
    shown = hour(10)
    event = {"at": "2023-11-14T22:13:30Z", "profile": None, "asked": None, "outcome": "error", "latency_ms": None}
    made = reading.from_events("operation", [event], shown)
    assert shown.profiles.names[made.profile[0]] == ""  # as of rows that were read; it has no button


def test_more_names_than_a_byte_holds_are_told_together() -> None:
    names = Numbering()
    places = [names.of(str(number)) for number in range(400)]
    assert max(places) == 254
    assert names.names[-1] == "others"


def test_breakers_terminals_and_connections_become_stretches() -> None:
    shown = hour(10)
    base = {"parked": False, "reason": "status_529"}
    moved = [("closed", "open", 10), ("open", "half_open", 40), ("half_open", "closed", 50)]
    rows = [
        base | {"profile": "a", "old_state": old, "new_state": new, "at": int((SINCE + at) * 1e6)}
        for old, new, at in moved
    ]
    rows.append(
        {
            "profile": "b",
            "old_state": "closed",
            "new_state": "closed",
            "at": int((SINCE + 60) * 1e6),
            "parked": True,
            "reason": "key",
        }
    )
    spans = reading.bands(rows, shown)
    assert [(s.name, s.word, s.since - SINCE, None if s.until is None else s.until - SINCE) for s in spans] == [
        ("a", "open", 10, 40), ("a", "half open", 40, 50), ("b", "parked", 60, None),
    ]  # fmt: skip
    sessions = [
        {"pty_id": "x", "at": int((SINCE + 5) * 1e6), "event": "started", "command": "make\n test"},
        {"pty_id": "x", "at": int((SINCE + 9) * 1e6), "event": "exited", "command": "make\n test", "exit_code": 2},
        {"pty_id": "y", "at": int((SINCE + 7) * 1e6), "event": "started", "command": "top"},
    ]
    spans = reading.terminals(sessions, shown)
    assert [(s.name, s.word, s.is_bad, s.until is None) for s in spans] == [
        ("make test", "exit code 2", True, False), ("top", "running", False, True),
    ]  # fmt: skip
    viewer = {"viewer": "v", "peer": "lab", "pty_id": "x"}
    links = [
        viewer | {"at": int((SINCE + 5) * 1e6), "new_state": "active", "reason": "opened"},
        viewer | {"at": int((SINCE + 8) * 1e6), "new_state": "lost", "reason": "ping_timeout"},
    ]
    (span,) = reading.connections(links, shown)
    assert (span.name, span.word, span.is_bad) == ("lab x", "ping_timeout", True)


def _luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _over(top: str, share: float, below: str) -> str:
    """What is seen of a colour that lets so much of the one below through."""
    pairs = [(int(top[place : place + 2], 16), int(below[place : place + 2], 16)) for place in (1, 3, 5)]
    return "#" + "".join(f"{round(one * share + other * (1 - share)):02x}" for one, other in pairs)


@pytest.mark.parametrize(("theme", "page"), [("light", "#ffffff"), ("dark", "#111111")])
def test_marks_stand_out_from_their_lane_and_words_from_their_ground(theme: str, page: str) -> None:
    """What no tool sees on a canvas, also under a selection: 3 to 1 for marks, 4.5 to 1 for words."""
    colours: dict[str, str] = {}
    for name in ("shared", "dash"):
        style = (ROOT / f"tundra_nb/kernel/widgets/{name}.css").read_text()
        light, dark = style.partition('[data-jp-theme-light="false"]')[::2]
        for part in (light, dark.partition("@media")[0]) if theme == "dark" else (light,):
            colours |= dict(re.findall(r"--tundra-(\w+): (#\w{6});", part))
    lane = _over("#808080", 0.07, page)
    selected = _over(colours["fill"], 0.16, lane)
    for mark in ("slate", "pale", "ink", "bad", "warn", "lost"):
        assert _contrast(colours[mark], lane) >= 3, (theme, mark)
        assert _contrast(_over(colours["fill"], 0.16, colours[mark]), selected) >= 3, (theme, mark)
    for word in ("ink", "dim", "bad", "warn"):
        assert _contrast(colours[word], page) >= 4.5, (theme, word)
        assert _contrast(colours[word], lane) >= 4.5, (theme, word)
    for band in ("bad", "warn", "lost", "ink"):
        assert _contrast(colours["on"], colours[band]) >= 4.5, (theme, band)
