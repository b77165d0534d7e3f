"""How long the history's file was, kept beside it: where it lost its tail, the engine takes what is left for the whole.

The engine writes only at the end, and makes another file when it collects garbage. So the file that was seen is never
shorter later, unless somebody cut it, or wrote an older copy over it. A copy ends as the engine ends each change.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

HEADER = 168
"""Bytes of the description of the content: the file begins with one, and each change ends with one, marked."""
BEGIN, MARK = b"CTLD", b"\2"
INDEX = slice(32, 40), slice(40, 48)
"""Where a description has begin and length of the index, which is the end of a file after the collection of garbage."""


class Length(msgspec.Struct, frozen=True):
    """Which file, and its bytes."""

    inode: int
    size: int


def keep(path: Path) -> None:
    """Note how long the file is now. Where it cannot be noted, what was noted before holds."""
    note = _note(path)
    draft = note.with_name(note.name + ".new")
    with contextlib.suppress(OSError):
        seen = path.stat()
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(msgspec.json.encode(Length(seen.st_ino, seen.st_size)))
        draft.replace(note)
        return
    with contextlib.suppress(OSError):
        draft.unlink()


def forget(path: Path) -> None:
    """Another file is about to get the name; it may get the number of this one, too."""
    with contextlib.suppress(OSError):
        _note(path).unlink()


def cut(path: Path) -> str:
    """By how much the file was cut since it was noted, in words; nothing where it was not."""
    try:
        noted = msgspec.json.decode(_note(path).read_bytes(), type=Length)
        seen = path.stat()
    except (OSError, msgspec.MsgspecError):
        return ""
    if seen.st_ino != noted.inode or seen.st_size >= noted.size or _ends_whole(path):
        return ""
    return shortening(noted.size, seen.st_size)


def shortening(before: int, now: int) -> str:
    return f"it was cut from {before:,} to {now:,} bytes"


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        begin = file.read(HEADER)
        file.seek(max(0, size - HEADER - len(MARK)))
        end = file.read()
    begun = sum(int.from_bytes(begin[part], "little") for part in INDEX)
    return begin.startswith(BEGIN) and (end.startswith(MARK + BEGIN) or begun == size)


def _note(path: Path) -> Path:
    return path.with_name(path.name + ".length")
