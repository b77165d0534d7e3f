"""A file of lines, each a line of a log or a JSON record; forms may be mixed."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, Protocol

import msgspec

from tundra_nb.errors import UsageError
from tundra_nb.runtime.sources.taking import Taker

from . import litellm, otlp
from .tracing import Tracing

LINE_BYTES = 1 << 20
"""Longest line of a log; what is longer is left out."""
BLANKS_TOLD = 100_000
DOCUMENT_BYTES = 256 << 20
"""Longest JSON record."""
CHUNK_BYTES = 1 << 16
_NO_NUMBER = re.compile(rb"\b(?:NaN|Infinity)\b")
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_RETURN = re.compile(rb"\r(?=\d{4}-\d\d-\d\d[T ]|\{)")
"""A line that ends as on old Macs, or as a program ends it that draws its progress: what follows begins a line."""


class Readable(Protocol):
    """A file of bytes, as far as it is needed here."""

    def readline(self, most: int, /) -> bytes: ...

    def read(self, most: int, /) -> bytes: ...


class LineReader:
    """Reads one file."""

    def __init__(self, taker: Taker) -> None:
        self._taker = taker
        self._tracing = Tracing(taker)

    def read(self, file: Readable, done: Any) -> None:
        """Read to the end. `done`: tells how many bytes of the file behind it are read.

        Raises:
            UsageError: a JSON document breaks off.
        """
        blank = 0
        start = file.readline(len(codecs.BOM_UTF8))
        if start.startswith(_UTF_16):
            file, start = _Utf16(file, start), b""
        for line, is_whole in self._lines(file, start.removeprefix(codecs.BOM_UTF8)):
            self._taker.done_bytes = done()
            text = line.strip()
            if not text:
                blank += 1
                if blank % BLANKS_TOLD == 0:
                    self._taker.tell("reading")
                continue
            if not is_whole:
                self._taker.not_understood(text[:2000].decode("utf-8", "replace"))
            elif text[:1] in (b"{", b"["):
                self._json(file, text)
            else:
                self._tracing.text(text.decode("utf-8", "replace"))
        self._tracing.finish()

    def _lines(self, file: Readable, start: bytes) -> Iterator[tuple[bytes, bool]]:
        """Each line, and whether it is all of it; `start` is what was read of the first."""
        head = start if start.endswith(b"\n") else start + file.readline(LINE_BYTES)
        while head:
            *before, head = _RETURN.split(head) if b"\r" in head else (head,)
            yield from ((line, True) for line in before)
            if before and not head.endswith(b"\n") and (more := file.readline(LINE_BYTES)):
                head += more
                continue
            yield (head, True) if head.endswith(b"\n") else self._rest(file, head)
            head = file.readline(LINE_BYTES)

    def _rest(self, file: Readable, head: bytes) -> tuple[bytes, bool]:
        """A long line: whole where it may be a record, else its beginning."""
        most = DOCUMENT_BYTES if head.lstrip()[:1] in (b"{", b"[") else 0
        parts, size = [head], len(head)
        is_whole = True
        while not parts[-1].endswith(b"\n") and (part := file.readline(LINE_BYTES)):
            size += len(part)
            if size > most:
                is_whole = False
                parts = [parts[0], part[-1:]]
                self._taker.tell("reading")
            else:
                parts.append(part)
        if len(head) < LINE_BYTES:
            return head, True  # the last line, without its end
        return b"".join(parts), is_whole

    def _json(self, file: Readable, text: bytes) -> None:
        try:
            value = _decoded(text)
        except (msgspec.DecodeError, RecursionError, UnicodeError) as exc:
            if self._taker.lines == 0 and "truncated" in str(exc):
                self._document(file, text)
                return
            self._taker.not_understood(text[:2000].decode("utf-8", "replace"))
            return
        self._record(value, text)

    def _document(self, file: Readable, text: bytes) -> None:
        """One JSON document over several lines: the whole file is it."""
        rest = file.read(DOCUMENT_BYTES - len(text) + 1)
        whole = text + b"\n" + rest
        if len(whole) > DOCUMENT_BYTES:
            raise UsageError(
                problem=f"one JSON document of more than {DOCUMENT_BYTES >> 20} MB",
                field="path",
                remedy="Write one record a line, as the collector's file exporter does: `jq -c '.[]'`.",
            )
        try:
            value = _decoded(whole)
        except (msgspec.DecodeError, RecursionError, UnicodeError) as exc:
            raise UsageError(
                problem=f"the JSON document cannot be read: {exc}", field="path", remedy="Is it cut off?"
            ) from exc
        self._record(value, text)

    def _record(self, value: Any, text: bytes) -> None:
        if isinstance(value, list):
            for one in value:
                self._record(one, b"")
            return
        if isinstance(value, dict):
            try:
                if otlp.read(value, self._taker) or litellm.read(value, self._taker) or self._tracing.record(value):
                    return
            except (ValueError, TypeError, AttributeError, KeyError, OverflowError):
                pass  # a record of this look, with something else in it
        told = text[:2000].decode("utf-8", "replace") if text else repr(value)[:200]
        self._taker.not_understood(told)


def _decoded(text: bytes) -> Any:
    """A JSON value; what Python's own writer puts for a number that is none (NaN) is read as null."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        if _NO_NUMBER.search(text) is None:
            raise
        try:
            return json.loads(text, parse_constant=lambda _: None)
        except ValueError:
            pass
        raise


class _Utf16:
    """A file in UTF-16, as shells of Windows write it, read as UTF-8."""

    def __init__(self, file: Readable, start: bytes) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-16")("replace")
        self._held = self._decoded(start)

    def readline(self, most: int, /) -> bytes:
        while (end := self._held.find(b"\n", 0, most) + 1) == 0 and len(self._held) < most:
            if not (part := self._file.read(CHUNK_BYTES)):
                break
            self._held += self._decoded(part)
        return self._taken(end or most)

    def read(self, most: int, /) -> bytes:
        while len(self._held) < most and (part := self._file.read(CHUNK_BYTES)):
            self._held += self._decoded(part)
        return self._taken(most)

    def _decoded(self, part: bytes) -> bytes:
        return self._decoder.decode(part).encode("utf-8", "replace")

    def _taken(self, end: int) -> bytes:
        taken, self._held = self._held[:end], self._held[end:]
        return taken
