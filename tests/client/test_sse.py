"""The reader of server-sent events."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from tundra_nb.client.sse import Event, Parser

line = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=20)
name = st.text(st.characters(exclude_characters="\r\n ", exclude_categories=["Cs"]), min_size=1, max_size=8)


def read(*chunks: bytes) -> list[Event]:
    parser = Parser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


@given(
    events=st.lists(st.tuples(name, st.lists(line, min_size=1, max_size=3)), max_size=5),
    newline=st.sampled_from(["\n", "\r\n", "\r"]),
    cuts=st.lists(st.integers(0, 400), max_size=6),
)
def test_events_are_read_whole_however_the_bytes_are_cut(
    events: list[tuple[str, list[str]]], newline: str, cuts: list[int]
) -> None:
    text = ""
    for event, lines in events:
        text += f": beat{newline}event: {event}{newline}"
        text += "".join(f"data: {one}{newline}" for one in lines) + newline
    raw = (text + ": end\n").encode()
    edges = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    chunks = [raw[a:b] for a, b in itertools.pairwise(edges)]
    assert read(*chunks) == [Event(event, "\n".join(lines)) for event, lines in events]


def test_heartbeats_and_unfinished_events_give_nothing() -> None:
    assert read(b": waiting\n\n", b"event: text\ndata: x\n") == []


def test_an_event_without_a_name_is_a_message() -> None:
    assert read(b"data: x\n\n") == [Event("message", "x")]
