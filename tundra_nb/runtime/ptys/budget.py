"""What all transcripts together may take of the disk: a budget, and a reserve that is not theirs.

A flood in one terminal must not fill the disk, because calls are refused when their rows cannot be kept. Over the
budget, transcripts of ended sessions go, oldest first; when none is left, or the disk itself runs short, a transcript
ends where it is, and its session goes on without.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from . import transcript

LOOK_SECONDS = 0.05
"""How old a look at the disk may be …"""
LOOK_BYTES = 1 << 22
"""… and how much may be written since."""
SLACK = 1.05
"""So far beyond the budget while old transcripts are being deleted …"""
SLACK_BYTES = 2_000_000
"""… and of a small budget so many bytes, because a flood is faster than the deleting."""

OWN_BYTES = 1 << 16
"""So much each transcript may hold although others have spent the budget: what a command says must not be lost because
another one floods …"""
OWN_SECONDS = 30.0
"""… nor be deleted so soon after its end: whoever asked has yet to read it."""


class Budget:
    """Counts the bytes of all transcripts in a folder.

    Args:
        folder: of the transcripts.
        limit_bytes: the budget now.
        reserve_bytes: what is to stay free on the disk now.
        on_over: told that the budget is exceeded; deletes, and calls `freed`.
    """

    def __init__(
        self,
        folder: Path,
        limit_bytes: Callable[[], int],
        reserve_bytes: Callable[[], int],
        on_over: Callable[[], None],
    ) -> None:
        self.used_bytes = 0
        self._folder = folder
        self._limit = limit_bytes
        self._reserve = reserve_bytes
        self._on_over = on_over
        self._free = 0
        self._looked = -LOOK_SECONDS
        self._since = 0
        self._is_spent = False

    def __repr__(self) -> str:
        return f"<Budget {self.used_bytes:,} of {self._limit():,} bytes>"

    @property
    def limit_bytes(self) -> int:
        return self._limit()

    @property
    def over_bytes(self) -> int:
        """How much there is too much."""
        return max(0, self.used_bytes - self._limit())

    @property
    def is_disk_short(self) -> bool:
        """Whether the disk has less left than its reserve, or is about to."""
        self._look(0)
        return self._free < 2 * self._reserve()

    def scan(self) -> None:
        """Count what is there. Reads the folder: not for an event loop."""
        self.used_bytes = sum(path.stat().st_size for path in self._folder.glob("*.out"))
        self._is_spent = False

    def take(self, count: int, end: int) -> str:
        """Count bytes that a transcript is to hold, up to `end`; returns why they may not be, or an empty string."""
        self._look(count)
        if self._free - self._since < self._reserve():
            return f"the disk has less than {self._reserve() // 1_000_000:,} MB left (`store.reserve_mb`)"
        self.used_bytes += count
        if self.used_bytes > self._limit():
            is_spent = self._is_spent or self.used_bytes > max(SLACK * self._limit(), self._limit() + SLACK_BYTES)
            if is_spent and end > OWN_BYTES:
                self.used_bytes -= count
                return f"all transcripts together have {self._limit() // 1_000_000:,} MB (`pty.transcripts_mb`)"
            self._on_over()
        return ""

    def freed(self, count: int) -> None:
        """So much was deleted; nothing: there is nothing left to delete."""
        self.used_bytes = max(0, self.used_bytes - count)
        self._is_spent = count == 0 and self.over_bytes > 0

    def renew(self) -> None:
        """A session has ended or the budget has changed: there may be something to delete again."""
        self._is_spent = False

    def _look(self, count: int) -> None:
        self._since += count
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS or self._since >= LOOK_BYTES:
            self._looked, self._since = now, count
            try:
                disk = os.statvfs(self._folder)
            except OSError:
                return
            self._free = disk.f_bavail * disk.f_frsize


def prune(folder: Path, keep: frozenset[str], over_bytes: int) -> int:
    """Delete transcripts of ended sessions, oldest first, until so many bytes are free; return how many are."""
    freed = 0
    for path in ended(folder, keep):
        if freed >= over_bytes:
            break
        size, quiet_since = path.stat().st_size, path.stat().st_mtime
        if size <= OWN_BYTES and time.time() - quiet_since < OWN_SECONDS:
            continue
        transcript.delete(path)
        freed += size
    return freed


def ended(folder: Path, keep: frozenset[str]) -> list[Path]:
    """The transcripts of ended sessions, oldest first."""
    found = [path for path in folder.glob("*.out") if path.stem not in keep]
    return sorted(found, key=lambda path: path.stat().st_mtime)
