"""What every form's events have in common: fillers, and a whole answer that may be a stream all the same.

What a body is, is told by its content: headers say one thing, and servers send another.
"""

from __future__ import annotations

from typing import Any, Protocol

from tundra_nb import sse
from tundra_nb.errors import ParseError

from . import endings
from .contract import Answer, StreamReader
from .lenient import NotJsonError, loads

_BOM = b"\xef\xbb\xbf"
_BLANK = b" \t\r\n"
_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b"error:", b":")
_FILLERS = frozenset({"ping", "keepalive", "keep-alive", "heartbeat"})
_LONGEST_FIELD = 8


class WholeReader(StreamReader, Protocol):
    """A reader that takes unstreamed answers too."""

    def take_whole(self, told: Any) -> object:
        """Take a decoded answer."""
        ...


def is_filler(event: str, data: bytes) -> bool:
    """Whether an event only keeps the connection alive: a comment that was wrapped as data, a ping, nothing."""
    return not data or data == b"null" or data.startswith(b":") or event in _FILLERS


def documents(data: bytes) -> list[bytes]:
    """The documents of what is no document itself, where each line is one: a server left out the blank lines between
    its events, or sends plain lines of JSON. Empty when it is not so.
    """
    lines = [line for line in data.splitlines() if line.strip()]
    return lines if len(lines) > 1 and all(endings.is_mark(line) or _is_json(line) for line in lines) else []


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(loads(line), dict)
    except NotJsonError:
        return False


def looks_whole(start: bytes) -> bool | None:
    """Whether a body is one document and no stream of events, by its first bytes; None when they are too few."""
    start = begun(start)
    if not start or _BOM.startswith(start):
        return None
    return start[:1] in b"{[<"


def begun(start: bytes) -> bytes:
    """The beginning of a body without the blanks that some servers send while they think."""
    return start.removeprefix(_BOM).lstrip(_BLANK)


def answer_of(reader: WholeReader, profile: str, body: bytes) -> Answer:
    """Read an unstreamed answer.

    Raises:
        ParseError: it is none.
        TundraError: it is an error in spite of the status 200.
    """
    start = body[:4096].removeprefix(_BOM).lstrip(_BLANK)
    if start.startswith(_FIELDS):
        return _streamed(reader, profile, body)
    if not start:
        raise ParseError(profile=profile, problem="the answer is not valid JSON: it is empty")
    if start.startswith(b"<"):
        raise ParseError(profile=profile, problem="the answer is a web page, not valid JSON")
    try:
        told = loads(body)
    except NotJsonError as exc:
        if several := documents(body):
            for one in several:
                reader.feed("message", one)
            return reader.finish()
        raise ParseError(profile=profile, problem=f"the answer cannot be read: {exc}") from exc
    reader.take_whole(told)
    return reader.finish()


def _streamed(reader: StreamReader, profile: str, body: bytes) -> Answer:
    parser = sse.Parser()
    try:
        for event, data in (*parser.feed(body), *parser.close()):
            reader.feed(event, data)
    except sse.EventTooLongError as exc:
        raise ParseError(profile=profile, problem=str(exc)) from exc
    return reader.finish()
