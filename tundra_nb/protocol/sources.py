"""`/api/sources`: records of other programs, and of other machines, read beside the own history."""

from __future__ import annotations

from typing import Any

import msgspec

from .endpoint import Endpoint, Rows
from .words import EVENTS, JSON

NAME = r"[a-z0-9][a-z0-9._-]{0,63}"
"""What a source may be called."""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a source. Times are ISO 8601."""

    name: str
    kind: str
    """Which form the file had: tracing, otlp, litellm, bundle, tables."""
    file: str
    sha256: str
    """Hash of the file; of a folder, over its files."""
    size_bytes: int
    at: str
    """When it was imported."""
    since: str | None = None
    until: str | None = None
    """Times of its earliest and latest row."""
    rows: dict[str, int] = {}
    """By table."""
    lines: int = 0
    """Or records, where the file has no lines."""
    left: int = 0
    """How many of these were not understood."""
    sample: list[str] = []
    """Some of them, cut to their beginnings."""
    about: dict[str, Any] = {}
    """What whoever made it wants kept with it."""
    parts: dict[str, list[str]] = {}
    """By table: files below the source's folder, or elsewhere where it is only linked."""
    seconds: float = 0.0
    """That the import took."""
    again: bool = False
    """It was there already: the file had been imported before."""


class Importing(msgspec.Struct, frozen=True, kw_only=True):
    """How far an import is."""

    doing: str
    """hashing, reading, sorting."""
    done_bytes: int
    size_bytes: int
    lines: int = 0
    rows: int = 0


class ImportBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """`path`: a file or folder on the daemon's machine. `link`: leave tables where they are.

    `origin`: the file that `path` was unpacked from, which is then told in its place.
    """

    path: str
    name: str | None = None
    about: dict[str, Any] = {}
    link: bool = False
    origin: str | None = None


SOURCES = Endpoint(method="GET", path="/api/sources", summary="what was imported", answer=Rows[Source])
IMPORT = Endpoint(
    method="POST",
    path="/api/sources",
    summary="import a file: as JSON when it is done, or events `progress`, then `source` or `error`",
    body=ImportBody,
    answer=Source,
    media=(JSON, EVENTS),
    status=201,
)
ONE = Endpoint(method="GET", path="/api/sources/{name}", summary="one source", answer=Source)
REMOVE = Endpoint(method="DELETE", path="/api/sources/{name}", summary="forget a source; its file stays where it is")
