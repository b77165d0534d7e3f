"""All output of a session on disk, with when it came and how large the window was.

    transcripts/<id>.out      the bytes as shown (masked); offset in the file = sequence number
    transcripts/<id>.jsonl    {"id", "command", "cwd", "columns", "rows", "at_us"}
                              then {"t": seconds, "end": offset} and {"t": seconds, "columns", "rows"}

Both 0600 in a 0700 folder. A disk that fills up ends the transcript, not the session.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from tundra_nb.terminal import escapes

from .spawn import Size

MAX_BYTES = 1 << 30
"""Largest transcript of one session: an endless flood must not fill the disk."""
INDEX_SECONDS = 0.01
"""Finest step of the index: enough for a replay."""
READ_BYTES = 1 << 20

_log = logging.getLogger("tundra.ptys")
_encode = msgspec.json.Encoder().encode


class TranscriptHead(msgspec.Struct, frozen=True, omit_defaults=True):
    """First line of the index."""

    id: str
    command: str
    cwd: str
    columns: int
    rows: int
    at_us: int


class Hit(NamedTuple):
    """A line of a transcript that a search found."""

    pty_id: str
    offset: int
    line: str


class TranscriptWriter:
    """Writer of one session's files. Opened at once; `close` flushes nothing, the owner did.

    `take` is told how many bytes are to be written, and where they end; it returns why they may not be (`Budget.take`).
    """

    def __init__(
        self,
        folder: Path,
        head: TranscriptHead,
        max_bytes: int = MAX_BYTES,
        take: Callable[[int, int], str] = lambda _, __: "",
    ) -> None:
        self.path = folder / f"{head.id}.out"
        self.index_path = folder / f"{head.id}.jsonl"
        self.end = 0
        """Bytes in the file."""
        self.problem = ""
        """Why it ended before the session did."""
        self._max_bytes = max_bytes
        self._take = take
        self._marks: list[dict[str, Any]] = []
        self._marked_at = -1.0
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC | os.O_APPEND
        self._file = os.open(self.path, flags, 0o600)
        try:
            self._index = os.open(self.index_path, flags, 0o600)
            os.write(self._index, _encode(head) + b"\n")
        except OSError:
            os.close(self._file)
            raise

    def mark(self, seconds: float, end: int) -> None:
        """Output up to offset `end` had come `seconds` after the start."""
        if self.problem:
            return
        if seconds - self._marked_at >= INDEX_SECONDS:
            self._marks.append({"t": round(seconds, 4), "end": end})
            self._marked_at = seconds
        else:
            self._marks[-1]["end"] = end

    def mark_size(self, seconds: float, size: Size) -> None:
        """The window had this size from here on."""
        if self.problem:
            return
        self._marks.append({"t": round(seconds, 4), "columns": size.columns, "rows": size.rows})
        self._marked_at = -1.0

    def append(self, views: list[memoryview]) -> None:
        """Write bytes and the marks so far."""
        if self.problem:
            return
        count = sum(map(len, views))
        if views and (refused := self._take(count, self.end + count)):
            self._end(f"the transcript ended here: {refused}")
            return
        try:
            if views:
                self._write(views)
            if self._marks:
                os.write(self._index, b"".join(_encode(mark) + b"\n" for mark in self._marks))
                self._marks.clear()
                self._marked_at = -1.0
        except OSError as exc:
            self._end(f"the transcript ended here: {exc.strerror}")
        if self.end >= self._max_bytes:
            self._end(f"the transcript ended here: it has reached {self._max_bytes:,} bytes")

    def read(self, since: int, limit: int) -> bytes:
        """At most `limit` bytes from an offset of the file."""
        return os.pread(self._file, max(min(limit, self.end - since), 0), since)

    def close(self) -> None:
        os.close(self._file)
        os.close(self._index)

    def _write(self, views: list[memoryview]) -> None:
        rest = views
        while rest:
            count = os.writev(self._file, rest)
            self.end += count
            while rest and count >= len(rest[0]):
                count -= len(rest[0])
                rest = rest[1:]
            if count:
                rest = [rest[0][count:], *rest[1:]]

    def _end(self, problem: str) -> None:
        self.problem = problem
        self._marks.clear()
        self._marked_at = -1.0
        _log.warning("%s: %s", self.path.name, problem)


def read_file(path: Path, since: int, limit: int) -> bytes:
    """A part of a transcript whose session has ended; empty when retention has deleted it."""
    try:
        with path.open("rb") as file:
            file.seek(since)
            return file.read(limit)
    except FileNotFoundError:
        return b""


def read_index(path: Path) -> tuple[TranscriptHead, list[dict[str, Any]]]:
    """Head and marks of an index; a last line that a crash tore off is left out."""
    lines = path.read_bytes().split(b"\n")
    marks: list[dict[str, Any]] = []
    for line in lines[1:-1]:
        try:
            marks.append(msgspec.json.decode(line))
        except msgspec.DecodeError:
            break
    return msgspec.json.decode(lines[0], type=TranscriptHead), marks


def search(folder: Path, pattern: re.Pattern[bytes], limit: int = 1000) -> Iterator[Hit]:
    """Lines that match, without their colours; newest transcript first. Reads files: not for an event loop."""
    found = 0
    for path in sorted(folder.glob("*.out"), key=lambda path: path.stat().st_mtime, reverse=True):
        offset = 0
        with path.open("rb") as file:
            for line in _lines(file):
                content = escapes.IN_BYTES.sub(b"", line.rstrip(b"\r\n"))
                if pattern.search(content):
                    yield Hit(path.stem, offset, content.decode(errors="replace"))
                    found += 1
                    if found >= limit:
                        return
                offset += len(line)


def _lines(file: Any) -> Iterator[bytes]:
    # Output without a line end (a progress bar, /dev/zero) comes in pieces instead of one huge line.
    while line := file.readline(READ_BYTES):
        yield line


def old(folder: Path, days: float, keep: frozenset[str] = frozenset()) -> list[Path]:
    """The transcripts of sessions that have been quiet for `days`."""
    oldest = time.time() - days * 86_400
    return [path for path in folder.glob("*.out") if path.stem not in keep and path.stat().st_mtime < oldest]


def delete(path: Path) -> None:
    """Delete a transcript with its index."""
    path.unlink(missing_ok=True)
    path.with_suffix(".jsonl").unlink(missing_ok=True)


def delete_old(folder: Path, days: float, keep: frozenset[str] = frozenset()) -> int:
    """Delete the transcripts of sessions that have been quiet for `days`; return how many."""
    found = old(folder, days, keep)
    for path in found:
        delete(path)
    return len(found)
