"""Frames that are passed on byte for byte."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tundra_nb.runtime.providers.frames import Frames
from tundra_nb.sse import MAX_EVENT_BYTES, EventTooLongError

_PARTS = st.sampled_from([b"\n", b"\r", b"\r\n", b"\n\n", b"\r\n\r\n", b"data: x", b"event: e", b": c", b"data:", b"y"])


@given(st.lists(_PARTS, max_size=12), st.lists(st.integers(0, 40), max_size=6))
def test_frames_are_the_same_wherever_the_network_cuts_them(parts: list[bytes], cuts: list[int]) -> None:
    """With one style of line ends, as servers have; and what there is of text is in some frame."""
    for end in (b"\n", b"\r\n", b"\r"):
        body = b"".join(end * 2 if part.count(b"\n") > 1 else end if not part.strip() else part for part in parts)
        whole = Frames()
        frames = [*whole.feed(body), *whole.close()]
        pieces = Frames()
        places = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
        cut = [frame for begin, until in itertools.pairwise(places) for frame in pieces.feed(body[begin:until])]
        cut += pieces.close()
        assert [(f.event, f.data) for f in cut if f.data] == [(f.event, f.data) for f in frames if f.data]
        assert b"".join(f.raw for f in cut).split() == b"".join(f.raw for f in frames).split() == body.split()


def test_a_long_frame_is_looked_through_once_however_many_parts_it_comes_in() -> None:
    frames = Frames()
    line = b"data: " + b"x" * 1000 + b"\n"
    for _ in range(10_000):
        assert frames.feed(line) == []
    assert frames.held == 10_000 * len(line)
    (frame,) = frames.feed(b"\n")
    assert len(frame.data) == 10_000 * 1001 - 1


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_frame_without_an_end_is_refused(end: bytes) -> None:
    frames = Frames()
    line = b"data: " + b"x" * 100_000 + end
    for _ in range(MAX_EVENT_BYTES // len(line)):
        frames.feed(line)
    with pytest.raises(EventTooLongError):
        frames.feed(line)
