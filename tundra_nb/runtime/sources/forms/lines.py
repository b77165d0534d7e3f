"""A file of lines, each a line of a log or a JSON record; forms may be mixed."""

from __future__ import annotations

from typing import IO, Any

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


class LineReader:
    """Reads one file."""

    def __init__(self, taker: Taker) -> None:
        self._taker = taker
        self._tracing = Tracing(taker)

    def read(self, file: IO[bytes], done: Any) -> None:
        """Read to the end. `done`: tells how many bytes of the file behind it are read.

        Raises:
            UsageError: a JSON document breaks off.
        """
        blank = 0
        while head := file.readline(LINE_BYTES):
            line, is_whole = self._rest(file, head) if not head.endswith(b"\n") else (head, True)
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

    def _rest(self, file: IO[bytes], head: bytes) -> tuple[bytes, bool]:
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

    def _json(self, file: IO[bytes], text: bytes) -> None:
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError, UnicodeError) as exc:
            if self._taker.lines == 0 and "truncated" in str(exc):
                self._document(file, text)
                return
            self._taker.not_understood(text[:2000].decode("utf-8", "replace"))
            return
        self._record(value, text)

    def _document(self, file: IO[bytes], text: bytes) -> None:
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
            value = msgspec.json.decode(whole)
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
