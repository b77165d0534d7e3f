"""Terminal output becomes lines of coloured text: nothing else of what a terminal would obey gets through."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tundra_nb.terminal import ansi

fragments = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        ["\x1b", "\x1b[", "\x1b[31", "\x1b[31m", "\x1b[38;5;", "\x1b]0;t\x07", "\x1b[2J", "\r", "\n", "\b", "\x9b"]
    ),
)


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ("a\nb\n", "a\nb\n"),
        ("a\r\nb", "a\nb"),
        ("\n\x1b[31m\n", "\n\n"),
        ("one\x1b]0;two\nlines\x07 end", "one end"),
        ("10%\r20%\r100%\n", "100%\n"),
        ("long\rx\x1b[K\n", "x\n"),
        ("long\rx\n", "xong\n"),
        ("ab\bc", "ac"),
        ("\x1b]0;title\x07a\x1b[2Jb\x1b(Bc\x00d", "abcd"),
        ("\x1b[1;31mred\x1b[0m", "red"),
    ],
)
def test_a_line_is_what_stands_in_it_at_the_end(output: str, text: str) -> None:
    assert ansi.plain(output) == text


@pytest.mark.parametrize(
    ("codes", "css"),
    [
        ("31", "color: #d9534f"),
        ("1;4", "font-weight: bold; text-decoration: underline"),
        ("38;2;255;255;0", "color: #b2b200"),
        ("41", "color: #ffffff; background-color: #d9534f"),
        ("31;0", ""),
        ("99;31;39", ""),
    ],
)
def test_colours_are_readable_on_light_and_dark(codes: str, css: str) -> None:
    [[(_, found)]] = ansi.pieces(ansi.lines(f"\x1b[{codes}mx"), ansi.PAGE)
    assert found == css


@given(st.lists(fragments).map("".join))
def test_html_of_any_output_has_no_controls_and_no_tags_but_spans(output: str) -> None:
    made = ansi.html(ansi.lines(output), ansi.PAGE)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", made)
    assert not re.search(r"<(?!/?span\b)", made)


@given(st.lists(fragments).map("".join), st.lists(st.integers(0, 40)))
def test_a_cleaned_stream_does_not_depend_on_where_it_is_cut(output: str, cuts: list[int]) -> None:
    whole, cut = ansi.Colours(are_kept=True), ansi.Colours(are_kept=True)
    places = sorted({0, len(output), *(place for place in cuts if place < len(output))})
    pieces = [output[start:end] for start, end in itertools.pairwise(places)]
    written = "".join(cut.feed(piece) for piece in pieces)
    assert written == whole.feed(output)
    assert not re.search(r"\x1b(?!\[[\d;:]*m)", written)
