"""The record of a daemon: who the daemon of a data directory is, and where it listens. JSON in a file.

Two copies exist. The lock file holds it from the first moment to the last, for diagnosis and for clients that look into
another Jupyter runtime directory; the connection file only while the daemon answers. The field names are part of the
contract between versions: fields of a later one are passed over, those that came after the first release have defaults.
"""

from __future__ import annotations

from typing import Literal

import msgspec

DaemonState = Literal["starting", "ready", "stopping"]


class DaemonRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a client needs to know of a daemon."""

    pid: int
    socket: str
    host: str
    api: int
    version: str
    data_dir: str = ""
    started_by: str = ""
    started_at: float = 0.0
    """Seconds since the epoch."""
    state: str = "starting"
    """A `DaemonState`, or one that a later version knows."""
    ended: str = ""
    """Why it stopped, when that was not asked of it."""
    start: int = 0
    """When the process began, in clock ticks since boot: with it a pid cannot be mistaken for a later process's."""
    guard: int = 0
    """Pid of its guard, 0 without one …"""
    guard_start: int = 0
    """… and when that began."""

    def to_json(self) -> bytes:
        return msgspec.json.encode(self)

    def in_state(self, state: DaemonState, *, ended: str = "") -> DaemonRecord:
        return msgspec.structs.replace(self, state=state, ended=ended)


def read(text: bytes) -> DaemonRecord | None:
    """The record in a file; None when there is none, as in a lock file whose owner has only just opened it."""
    try:
        return msgspec.json.decode(text, type=DaemonRecord)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
