"""Incremental reading of server-sent events from chunks of bytes: a provider's answer, and the daemon's own streams.

Own parser, because the public reader of httpx-sse replaces bad encoding instead of reporting it, lets an event grow
without bound, and loses a last event without its empty line. Data stays bytes: the JSON decoder behind reads them, and
checks the encoding. A leaf; no I/O.
"""

from __future__ import annotations

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""An event that long is no answer; a tool call with an image in it stays far below."""

_BOM = b"\xef\xbb\xbf"


class EventTooLongError(ValueError):
    """An event did not end within `MAX_EVENT_BYTES`."""


_KNOWN = frozenset({b"data", b"event", b"id", b"retry", b"error", b""})


class Parser:
    """Takes chunks, gives events. An event is its name (`message` when it has none) and its data.

    Fields `id` and `retry` are read over: an answer cannot be resumed. Events without data are dropped, as the standard
    says. Beyond the standard, because servers put their errors there: a field `error` is an event of that name, and a
    JSON document that stands between the events, without a field, is one too.
    """

    __slots__ = ("_begun", "_data", "_event", "_is_bare", "_rest", "_rest_size", "_size")

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        """The start of a line, in pieces: joined once, however many they are."""
        self._rest_size = 0
        self._event = ""
        self._data: list[bytes] = []
        self._size = 0
        self._begun = False
        self._is_bare = False

    @property
    def held(self) -> int:
        """Bytes of the event under way."""
        return self._rest_size + self._size

    def feed(self, chunk: bytes) -> list[tuple[str, bytes]]:
        """The events that this chunk completes.

        Raises:
            EventTooLongError: an event does not end.
        """
        if not self._begun:
            chunk = self._taken() + chunk
            if len(chunk) < len(_BOM) and _BOM.startswith(chunk):
                self._keep(chunk)
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
        if b"\n" not in chunk and b"\r" not in chunk and not (self._rest and self._rest[-1].endswith(b"\r")):
            self._keep(chunk)
        else:
            chunk = self._taken() + chunk
            if b"\r" in chunk:
                if chunk.endswith(b"\r"):  # half of a CRLF perhaps: decided by the next chunk
                    held, chunk = b"\r", chunk[:-1]
                else:
                    held = b""
                lines = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
                self._keep(lines.pop() + held)
            else:
                lines = chunk.split(b"\n")
                self._keep(lines.pop())
            for line in lines:
                self._line(line, events)
        if self._rest_size + self._size > MAX_EVENT_BYTES:
            raise EventTooLongError(f"a server-sent event is longer than {MAX_EVENT_BYTES} bytes")
        return events

    def close(self) -> list[tuple[str, bytes]]:
        """The event that the stream's end left without its empty line: servers forget it after the last one."""
        events: list[tuple[str, bytes]] = []
        if rest := self._taken():
            for line in rest.removesuffix(b"\r").split(b"\r"):
                self._line(line, events)
        self._line(b"", events)
        return events

    def _keep(self, rest: bytes) -> None:
        if rest:
            self._rest.append(rest)
            self._rest_size += len(rest)

    def _taken(self) -> bytes:
        rest = b"".join(self._rest)
        self._rest, self._rest_size = [], 0
        return rest

    def _line(self, line: bytes, events: list[tuple[str, bytes]]) -> None:
        if not line:
            self._end(events)
            return
        name, _, value = line.partition(b":")
        if name not in _KNOWN or (self._is_bare and name == b""):
            if self._is_bare or (not self._data and line.lstrip().startswith(b"{")):
                self._is_bare = True
                self._add(line)
            return
        if self._is_bare and name in (b"data", b"event"):  # it follows the document without an empty line
            self._end(events)
        value = value.removeprefix(b" ")
        if name == b"data":
            self._add(value)
        elif name == b"event":
            self._event = value.decode("utf-8", "replace").strip()
        elif name == b"error":
            self._event = "error"
            self._add(value)

    def _add(self, value: bytes) -> None:
        self._data.append(value)
        self._size += len(value)

    def _end(self, events: list[tuple[str, bytes]]) -> None:
        if self._data:
            data = b"\n".join(self._data)
            if data:
                events.append((self._event or "message", data))
            self._data = []
            self._size = 0
        self._event = ""
        self._is_bare = False
