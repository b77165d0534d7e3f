"""Server-sent events, read from bytes as they come. No I/O."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import NamedTuple


class Event(NamedTuple):
    """One event; `name` is `message` when the stream names none."""

    name: str
    data: str


class Parser:
    """Turns chunks of bytes, cut anywhere, into events. Comments (heartbeats) are dropped."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        self._rest = ""
        self._name = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Take a chunk and yield the events that it completes."""
        text = self._rest + self._decode(chunk)
        # a carriage return at the very end may be half of a CR LF
        held = "\r" if text.endswith("\r") else ""
        lines = text.removesuffix(held).replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self._rest = lines.pop() + held
        for line in lines:
            if event := self._line(line):
                yield event

    def _line(self, line: str) -> Event | None:
        if not line:
            event = Event(self._name or "message", "\n".join(self._data)) if self._data else None
            self._name, self._data = "", []
            return event
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            self._name = value
        elif field == "data":
            self._data.append(value)
        return None
