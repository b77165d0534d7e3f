"""Dumps of bytes in a text, as `xxd`, `hexdump`, `od`, a debugger or PowerShell write them, many lines long.

Nothing is decoded here: what stands beside the bytes (offsets, the column of letters) is blanked where it stands, and
what is left is digits and blanks. A text that only looks like a dump costs a second search, and is not changed by it.
"""

from __future__ import annotations

import re

MAX_LINE_BYTES = 1024
"""A longer line that has not ended is none of a dump."""
_CELL = rb"(?:0x)?[0-9A-Fa-f]{2,22}"
_LINE = re.compile(
    rb"\n(?:([ \t]*(?:0x)?[0-9A-Fa-f]{4,16}:?)(?=[ \t]+%b(?:\s|\Z)|[ \t]{2})|()(?=[ \t]+%b[ \t]))"  # its offset, if any
    rb"(?:([ \t][ \t0-9A-Fa-fx]*+)([|>][^\n]*+)"  # hexdump -C, od -t x1z
    rb"|(?<=:)((?: [0-9A-Fa-f]++)++)(  [^\n]*+)"  # xxd
    rb"|((?<![\n:])[ \t]+H(?: H)+(?:  H(?: H)+)?)(  [^\n]*+))?".replace(b"H", rb"[0-9A-Fa-f]{2}(?![0-9A-Fa-f])")
    % (_CELL, _CELL)
)
_OPEN_LINE = re.compile(
    rb"[ \t]*(?:0x?)?[0-9A-Fa-f]{0,16}\Z|[ \t]+%b[ \t]"
    rb"|[ \t]*(?:0x)?[0-9A-Fa-f]{4,16}(?::?\Z|:?[ \t]+(?:(?:0x?)?[0-9A-Fa-f]?\Z|%b(?:[ \t]|\Z)|(?<=[ \t]{2})))"
    % (_CELL, _CELL)
)
"""The last line, when it may be one of a dump, and what it shows can be told only when its beginning is seen."""
_BLANKED = bytes(byte if byte == 10 else 32 for byte in range(256))


def bytes_alone(text: bytes, last: int, *, is_line: bool) -> bytes | None:
    """The text, as long as before, without what stands beside the bytes of dumps; None if there is none.

    Args:
        text: without colours.
        last: what `open_line` says of it.
        is_line: a line begins with it.
    """
    lines = b"\n" + text if is_line else text
    added = len(lines) - len(text)
    if last == len(text) and not _LINE.search(lines):
        return None
    alone = _LINE.sub(_cells, lines)[added:]
    if last < len(text) and not _LINE.match(lines, added + last - 1):
        alone = alone[:last].ljust(len(text))  # still too short to be told
    return alone


def _cells(match: re.Match[bytes]) -> bytes:
    line = bytearray(match[0].translate(_BLANKED))
    for group in (3, 5, 7):
        if match[group] is not None:
            begin, end = match.span(group)
            line[begin - match.start() : end - match.start()] = match[group]
    return bytes(line)


def line_begin(text: bytes, at: int) -> int:
    return text.rfind(b"\n", 0, at) + 1


def open_line(text: bytes, *, is_line: bool) -> int:
    """Where the last line begins if it has not ended and may be one of a dump; the end if not."""
    begin = line_begin(text, len(text))
    is_short = len(text) - begin <= MAX_LINE_BYTES and (begin > 0 or is_line)
    return begin if is_short and _OPEN_LINE.match(text, begin) else len(text)
