"""A screen is a pure function of output, and a recording of output and times."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from tundra_nb.terminal.asciicast import asciicast
from tundra_nb.terminal.screen import TAIL_BYTES, Style, StyledRun, render

HEAD = {"id": "a", "command": "top", "cwd": "/", "columns": 80, "rows": 24, "at_us": 1_700_000_000_500_000}


def test_text_colours_and_cursor() -> None:
    screen = render(b"plain \x1b[1;31mred\x1b[0m\r\n\r\nx", 20, 3)
    assert screen.text == "plain red\n\nx"
    assert screen.lines[0] == (StyledRun("plain "), StyledRun("red", Style(foreground="red", bold=True)))
    assert screen.cursor == (1, 2)


def test_a_hidden_cursor_and_a_title() -> None:
    screen = render(b"\x1b]0;my title\x07\x1b[?25l", 20, 3)
    assert (screen.cursor, screen.title) == (None, "my title")


def test_only_what_follows_the_last_clearing_counts() -> None:
    assert render(b"old\r\n" * 100 + b"\x1b[2J\x1b[Hnew").text == "new"


def test_of_a_long_output_the_end_is_shown() -> None:
    output = b"".join(b"line %d\r\n" % number for number in range(20_000))
    assert len(output) > TAIL_BYTES
    assert render(output, 80, 5).text == "line 19996\nline 19997\nline 19998\nline 19999"


def test_unwritten_cells_at_the_end_of_a_row_are_left_out_and_coloured_ones_kept() -> None:
    screen = render(b"a\x1b[44m  \x1b[0m", 10, 1)
    assert screen.lines[0] == (StyledRun("a"), StyledRun("  ", Style(background="blue")))


@settings(max_examples=100)
@given(
    st.lists(
        st.sampled_from(
            [b"\x1b[", b"\x1b]", b"?", b"1;2", b"h", b"m", b"H", b"\xff", b"\r\n", b"x", b"999999C", b"\x1b#8"]
        ),
        max_size=30,
    )
)
def test_no_output_breaks_it(parts: list[bytes]) -> None:
    assert len(render(b"".join(parts), 20, 5).lines) == 5


def test_a_recording_has_header_output_and_sizes_in_order() -> None:
    output = "aä".encode() + b"\xff!"
    marks = [{"t": 0.5, "end": 2}, {"t": 0.6, "columns": 100, "rows": 30}, {"t": 0.7, "end": 4}]
    header, *events = map(json.loads, asciicast(HEAD, marks, output))
    assert header == {
        "version": 2,
        "width": 80,
        "height": 24,
        "timestamp": 1_700_000_000,
        "command": "top",
        "env": {"TERM": "xterm-256color"},
    }
    assert events == [[0.5, "o", "a"], [0.6, "r", "100x30"], [0.7, "o", "ä\ufffd"], [0.7, "o", "!"]]


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=8))
def test_a_recording_contains_the_whole_text_wherever_it_is_cut(output: bytes, cuts: list[int]) -> None:
    marks = [{"t": float(n), "end": min(cut, len(output))} for n, cut in enumerate(sorted(cuts))]
    _, *events = map(json.loads, asciicast(HEAD, marks, output))
    assert "".join(event[2] for event in events) == output.decode(errors="replace")
