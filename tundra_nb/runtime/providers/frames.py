"""Server-sent events that are passed on byte for byte, each with what it says.

`sse` reads events and forgets how they were written; here each keeps its bytes. A frame without data is one that no
reader may be given: some clients take a bare `event: ping` for an empty document and fail.
"""

from __future__ import annotations

import re

import msgspec

from tundra_nb.sse import MAX_EVENT_BYTES, EventTooLongError

_BREAK = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))+")
_LINE = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class SseFrame(msgspec.Struct, frozen=True):
    """One event. `raw` is as it came, with its empty line; `data` b"" when it has none."""

    event: str
    data: bytes
    raw: bytes


class Frames:
    """Takes chunks, gives the frames that they complete."""

    __slots__ = ("_begun", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._begun = False

    def feed(self, chunk: bytes) -> list[SseFrame]:
        """The frames that this chunk completes.

        Raises:
            EventTooLongError: an event does not end.
        """
        if (
            not self._rest
            and chunk.startswith(b"data: ")
            and chunk.find(b"\n") == len(chunk) - 2
            and chunk[-1:] == b"\n"
        ):
            return [SseFrame("message", chunk[6:-2], chunk)]  # the common case: one event of one line
        rest = self._rest + chunk
        found: list[SseFrame] = []
        if b"\r" not in rest:
            *whole, rest = rest.split(b"\n\n")
            found = [_read(block + b"\n\n") for block in whole if block.strip(b"\n")]
        else:
            held = rest[-1:] == b"\r"  # half of a CRLF perhaps
            text, start = (rest[:-1] if held else rest), 0
            for match in _BREAK.finditer(text):
                found.append(_read(text[start : match.end()]))
                start = match.end()
            rest = rest[start:]
        self._rest = rest
        if len(rest) > MAX_EVENT_BYTES:
            raise EventTooLongError(f"a server-sent event is longer than {MAX_EVENT_BYTES} bytes")
        return found

    def close(self) -> list[SseFrame]:
        """The frame that the stream's end left without its empty line: servers forget it after the last one."""
        rest, self._rest = self._rest, b""
        return [_read(rest + b"\n\n")] if rest.strip() else []


def _read(raw: bytes) -> SseFrame:
    if raw.startswith(b"data: ") and raw.find(b"\n") == len(raw) - 2 and b"\r" not in raw:
        return SseFrame("message", raw[6:-2], raw)  # the usual event, of one line
    event, data = "", []
    for line in _LINE.split(raw.removeprefix(_BOM)):
        name, _, value = line.partition(b":")
        if name == b"data":
            data.append(value.removeprefix(b" "))
        elif name == b"event":
            event = value.removeprefix(b" ").decode("utf-8", "replace")
    return SseFrame(event or "message", b"\n".join(data), raw)
