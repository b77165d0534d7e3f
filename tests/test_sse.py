"""The reader of server-sent events."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tundra_nb import sse

LINES = st.one_of(
    st.sampled_from(
        ["", "", "data", "data:", "data: x", "data:y", "event: ping", "event", ": note", "id: 7", "retry: 3"]
    ),
    st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=8).map("data: {}".format),
)


@st.composite
def chunked_streams(draw: st.DrawFn) -> list[bytes]:
    """A stream with every kind of line end, cut anywhere, also within a character."""
    lines = draw(st.lists(LINES, max_size=20))
    ends = draw(st.lists(st.sampled_from(["\n", "\r\n", "\r"]), min_size=len(lines), max_size=len(lines)))
    raw = "".join(line + end for line, end in zip(lines, ends, strict=True)).encode()
    cuts = sorted(draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    return [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True) if a < b]


def read(chunks: list[bytes], *, close: bool = False) -> list[tuple[str, str]]:
    parser = sse.Parser()
    events = [event for chunk in chunks for event in parser.feed(chunk)]
    events += parser.close() if close else []
    return [(name, data.decode()) for name, data in events]


def read_by_the_standard(text: str) -> list[tuple[str, str]]:
    """The events of a whole stream, as the HTML standard says it in words; its unfinished last line is left out."""
    *lines, _ = re.split(r"\r\n|\r(?!\Z)|\n", text)
    events, name, data = [], "", list[str]()
    for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if "\n".join(data):
                events.append((name or "message", "\n".join(data)))
            name, data = "", []
        elif field == "event":
            name = value
        elif field == "data":
            data.append(value)
    return events


@settings(deadline=None)
@given(chunked_streams())
@example([b"data: a\r", b"\ndata: b\r\r"])
@example([b"event: x\n\n", b"data: a\n\n"])
def test_any_chunking_gives_the_events_of_the_standard(chunks: list[bytes]) -> None:
    assert read(chunks) == read_by_the_standard(b"".join(chunks).decode())


@settings(deadline=None)
@given(chunked_streams())
def test_chunking_does_not_matter(chunks: list[bytes]) -> None:
    assert read(chunks, close=True) == read([b"".join(chunks)], close=True)


def test_heartbeats_and_unfinished_events_give_nothing() -> None:
    assert read([b": waiting\n\n", b"event: text\ndata: x\n"]) == []


def test_a_last_event_without_its_empty_line_is_not_lost() -> None:
    assert read([b"data: a\n\ndata: [DONE]"], close=True) == [("message", "a"), ("message", "[DONE]")]
    assert read([b"data: a\r"], close=True) == [("message", "a")]


def test_a_byte_order_mark_is_read_over_even_in_pieces() -> None:
    assert read([b"\xef", b"\xbb", b"\xbfdata: a\n\n"]) == [("message", "a")]
    assert read([b"\xef\xbb\xbfdata: a\n\n"]) == [("message", "a")]


def test_an_event_that_does_not_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 100)
    with pytest.raises(sse.EventTooLongError):
        read([b"data: xxxxxxxxxxxx\n"] * 20)
    parser = sse.Parser()
    with pytest.raises(sse.EventTooLongError):
        parser.feed(b"data: " + b"x" * 200)
