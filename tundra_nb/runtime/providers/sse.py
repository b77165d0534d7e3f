"""Incremental reading of server-sent events from chunks of bytes.

Own parser, because httpx-sse's public reader replaces bad encoding instead of reporting it, lets an event grow without
bound, and loses a last event without its empty line. (It also costs 3.1 µs per event against 1.3 here, measured; either
would do within the 15 µs that a chunk may cost in all.) Tests hold the two to the same events on any chunking. Data
stays bytes: the JSON decoder behind reads them, and checks the encoding.
"""

from __future__ import annotations

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""An event that long is no answer; a tool call with an image in it stays far below."""

_BOM = b"\xef\xbb\xbf"


class EventTooLongError(ValueError):
    """An event did not end within `MAX_EVENT_BYTES`."""


class Parser:
    """Takes chunks, gives events. An event is its name (`message` when it has none) and its data.

    Fields `id` and `retry` are read over: an answer cannot be resumed. Events without data are dropped, as the standard
    says.
    """

    __slots__ = ("_begun", "_data", "_event", "_rest", "_size")

    def __init__(self) -> None:
        self._rest = b""
        self._event = ""
        self._data: list[bytes] = []
        self._size = 0
        self._begun = False

    def feed(self, chunk: bytes) -> list[tuple[str, bytes]]:
        """The events that this chunk completes.

        Raises:
            EventTooLongError: an event does not end.
        """
        if not self._begun:
            chunk = self._rest + chunk
            self._rest = b""
            if len(chunk) < len(_BOM) and _BOM.startswith(chunk):
                self._rest = chunk
                return []
            self._begun = True
            chunk = chunk.removeprefix(_BOM)
        events: list[tuple[str, bytes]] = []
        if not self._rest and not self._data and not self._event and chunk.endswith(b"\n\n") and b"\r" not in chunk:
            # the common case: whole events, each of one line
            for block in chunk[:-2].split(b"\n\n"):
                if block.startswith(b"data: ") and b"\n" not in block:
                    if len(block) > 6:
                        events.append(("message", block[6:]))
                else:
                    for line in block.split(b"\n"):
                        self._line(line, events)
                    self._line(b"", events)
            return events
        chunk = self._rest + chunk
        if b"\r" in chunk:
            if chunk.endswith(b"\r"):  # half of a CRLF perhaps: decided by the next chunk
                held, chunk = b"\r", chunk[:-1]
            else:
                held = b""
            lines = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
            self._rest = lines.pop() + held
        else:
            lines = chunk.split(b"\n")
            self._rest = lines.pop()
        for line in lines:
            self._line(line, events)
        if len(self._rest) + self._size > MAX_EVENT_BYTES:
            raise EventTooLongError(f"a server-sent event is longer than {MAX_EVENT_BYTES} bytes")
        return events

    def close(self) -> list[tuple[str, bytes]]:
        """The event that the stream's end left without its empty line: servers forget it after the last one."""
        events: list[tuple[str, bytes]] = []
        if self._rest:
            for line in self._rest.removesuffix(b"\r").split(b"\r"):
                self._line(line, events)
            self._rest = b""
        self._line(b"", events)
        return events

    def _line(self, line: bytes, events: list[tuple[str, bytes]]) -> None:
        if not line:
            if self._data:
                data = b"\n".join(self._data)
                if data:
                    events.append((self._event or "message", data))
                self._data = []
                self._size = 0
            self._event = ""
            return
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
            self._size += len(value)
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
