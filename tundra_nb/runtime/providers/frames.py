"""Server-sent events that are passed on byte for byte, each with what it says.

`sse` reads events and forgets how they were written; here each keeps its bytes. A frame without data is one that no
reader may be given: some clients take a bare `event: ping` for an empty document and fail.
"""

from __future__ import annotations

import re

import msgspec

from tundra_nb.sse import MAX_EVENT_BYTES, EventTooLongError

_BREAK = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))+")
_BREAK_BYTES = 4
"""So much of an empty line may stand before the chunk that completes it."""
_LINE = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class SseFrame(msgspec.Struct, frozen=True):
    """One event. `raw` is as it came, with its empty line; `data` b"" when it has none."""

    event: str
    data: bytes
    raw: bytes


class Frames:
    """Takes chunks, gives the frames that they complete."""

    __slots__ = ("_has_returns", "_rest")

    def __init__(self) -> None:
        self._rest = bytearray()
        """Holds no whole frame: only what a chunk adds is looked through."""
        self._has_returns = False
        """A carriage return has come."""

    @property
    def held(self) -> int:
        """Bytes of the frame under way."""
        return len(self._rest)

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
        rest = self._rest
        looked = max(len(rest) - _BREAK_BYTES, 0)
        rest += chunk
        self._has_returns = self._has_returns or b"\r" in chunk
        frames: list[SseFrame] = []
        if self._has_returns:
            end = len(rest) - rest.endswith(b"\r")  # half of a CRLF perhaps
            text, start = bytes(rest[looked:end]), -looked
            for match in _BREAK.finditer(text):
                frames.append(_read(bytes(rest[looked + start : looked + match.end()])))
                start = match.end()
            if frames:
                self._rest = rest[looked + start :]
        elif rest.find(b"\n\n", looked) >= 0:
            *whole, last = bytes(rest).split(b"\n\n")
            frames = [_read(block + b"\n\n") for block in whole if block.strip(b"\n")]
            self._rest = bytearray(last)
        if len(self._rest) > MAX_EVENT_BYTES:
            raise EventTooLongError(f"a server-sent event is longer than {MAX_EVENT_BYTES} bytes")
        return frames

    def close(self) -> list[SseFrame]:
        """The frame that the stream's end left without its empty line: servers forget it after the last one."""
        rest, self._rest = bytes(self._rest), bytearray()
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
