"""Marks are found whatever the chunks, and nothing is lost."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from tundra_nb.runtime.ptys.marks import Mark, MarkParser

parts = st.lists(
    st.sampled_from(
        [
            b"text",
            b"\x1b",
            b"\x1b]",
            b"\x1b]133;",
            b"\x1b]133;D;0;t=0a\x07",
            b"\x1b]133;C;t=0a\x07",
            b"\x1b]133;B;t=ff\x07",
            b"\x1b]133;D;1234;t=0a\x07",
            b"\x1b[31m",
            b"\n",
            b"33;D",
        ]
    ),
    max_size=12,
)


def joined(pieces: list[bytes | Mark]) -> bytes:
    return b"".join(piece if isinstance(piece, bytes) else piece.raw for piece in pieces)


def marks(pieces: list[bytes | Mark]) -> list[Mark]:
    return [piece for piece in pieces if isinstance(piece, Mark)]


@given(parts, st.lists(st.integers(0, 200), max_size=10))
def test_pieces_make_up_the_stream_and_marks_do_not_depend_on_chunks(stream: list[bytes], at: list[int]) -> None:
    data = b"".join(stream)
    whole = MarkParser()
    expected = whole.feed(data)
    ends = [0, *sorted(cut % (len(data) + 1) for cut in at), len(data)]
    parser = MarkParser()
    got = [piece for a, b in itertools.pairwise(ends) for piece in parser.feed(data[a:b])]
    assert marks(got) == marks(expected)
    assert joined(got) + parser.finish() == data
    assert joined(expected) + whole.finish() == data


def test_a_mark_has_kind_code_and_word() -> None:
    (mark,) = MarkParser().feed(b"\x1b]133;D;130;t=beef\x07")
    assert mark == Mark("D", 130, "beef", b"\x1b]133;D;130;t=beef\x07")


def test_pieces_given_back_come_again() -> None:
    parser = MarkParser()
    pieces = parser.feed(b"a\x1b]133;C;t=1\x07b")
    parser.give_back(pieces[1:])
    assert parser.feed(b"c") == [*pieces[1:2], b"bc"]
