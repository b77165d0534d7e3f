"""Find the shell's own marks (OSC 133) in its output, also where a chunk ends in the middle of one.

    A   the shell begins its loop, at its start or anew
    B   the shell prompts: a cell broke its loop, it needs healing
    C   a cell begins
    D   a cell has ended, with its exit code

Each carries a word that only its sender and we know. What has another word is output like any other: a file with
recorded marks in it may be shown.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_MARK_BYTES = 80
_MARK = re.compile(rb"\x1b\]133;([ABCD])(?:;(\d{1,3}))?;t=([0-9a-f]{1,32})\x07")
_BEGINNING = re.compile(rb"\x1b(?:\](?:1(?:3(?:3(?:;(?:[ABCD][0-9a-ft;=]*)?)?)?)?)?)?\Z")


class Mark(NamedTuple):
    """A complete mark, and its bytes for the case that it is none of ours."""

    kind: str
    code: int | None
    word: str
    raw: bytes


class MarkParser:
    """Splits a stream into output and marks; the pieces joined are the stream, whatever the chunks."""

    def __init__(self) -> None:
        self._held = b""

    @property
    def held(self) -> bytes:
        """What may be the beginning of a mark."""
        return self._held

    def feed(self, data: bytes) -> list[bytes | Mark]:
        """The pieces that are complete by now."""
        buffer = self._held + data
        pieces: list[bytes | Mark] = []
        done = 0
        for match in _MARK.finditer(buffer):
            if match.start() > done:
                pieces.append(buffer[done : match.start()])
            kind, code, word = match.groups()
            pieces.append(Mark(kind.decode(), int(code) if code else None, word.decode(), match[0]))
            done = match.end()
        beginning = _BEGINNING.search(buffer, max(done, len(buffer) - MAX_MARK_BYTES))
        hold = beginning.start() if beginning else len(buffer)
        if hold > done:
            pieces.append(buffer[done:hold])
        self._held = buffer[hold:]
        return pieces

    def give_back(self, pieces: list[bytes | Mark]) -> None:
        """Pieces that were not used come again with the next ones."""
        self._held = b"".join(piece if isinstance(piece, bytes) else piece.raw for piece in pieces) + self._held

    def finish(self) -> bytes:
        """What was held back, when nothing more comes."""
        rest, self._held = self._held, b""
        return rest
