"""`/api/archive`: old days of the history as Parquet, read together with it."""

from __future__ import annotations

import msgspec

from .endpoint import Endpoint
from .words import EVENTS, JSON

LEAST_DAYS = 1
"""A day is archived when it is over, and has been for a day: rows may come late."""


class ArchiveBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What to do. `before`: copy whole UTC days that end by then, ISO 8601; left out: only prove what is there.

    `verify`: read each file of the archive and compare its digest, and its rows with the history's where that has all
    of the day; what is damaged is copied anew where the history still has it.
    """

    before: str | None = None
    verify: bool = False


class Archiving(msgspec.Struct, frozen=True, kw_only=True):
    """How far it is."""

    doing: str
    """counting, copying, verifying."""
    table: str = ""
    day: str = ""
    done_rows: int = 0
    rows: int = 0
    """In all; 0 while it is not known."""


class Archive(msgspec.Struct, frozen=True, kw_only=True):
    """What the archive holds. Days are UTC."""

    folder: str
    since: str | None = None
    """The earliest day of it."""
    until: str | None = None
    """Days before this one are read from it."""
    files: int = 0
    rows: int = 0
    size_bytes: int = 0
    tables: dict[str, int] = {}
    """Rows by table."""
    late: dict[str, int] = {}
    """Rows by table that came into archived days since they were copied: until the next run, the table is read from the
    history alone."""
    commit: str | None = None
    """Of the history that was copied last."""
    at: str | None = None
    """When."""
    copied_rows: int = 0
    """By this run."""
    copied_files: int = 0
    verified_files: int = 0
    """By this run: read back and compared."""
    repaired: list[str] = []
    """Files that were damaged or gone, and were copied anew."""
    readable: bool = True
    """Whether DuckDB is installed, without which only the store is read."""


STATE = Endpoint(method="GET", path="/api/archive", summary="what is archived", answer=Archive)
ARCHIVE = Endpoint(
    method="POST",
    path="/api/archive",
    summary="copy old days and prove them: as JSON when it is done, or events `progress`, then `archive` or `error`",
    body=ArchiveBody,
    answer=Archive,
    media=(JSON, EVENTS),
)
