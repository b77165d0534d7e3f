"""What the history tells of its versions, as values; without pyarrow, because the daemon reads them too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

Rows = Mapping[str, Sequence[tuple[Any, ...]]]
"""Rows to store, by table, each in the order of the table's columns."""
Strategy = Literal["ours", "theirs"]


class Commit(msgspec.Struct, frozen=True):
    """One commit of the history. `rows`: how many rows it added, changed or removed; None when not recorded."""

    commit: str
    at: int
    """Microseconds since the epoch, UTC. doltlite knows whole seconds only."""
    author: str
    message: str
    rows: int | None


class TableStat(msgspec.Struct, frozen=True):
    """How one table differs between two states."""

    table: str
    rows_added: int
    rows_removed: int
    rows_modified: int
    rows_before: int
    rows_after: int


class TableInfo(msgspec.Struct, frozen=True):
    """One table of the history. `uncommitted`: it holds changes that no commit has yet."""

    table: str
    rows: int
    uncommitted: bool


class RefInfo(msgspec.Struct, frozen=True):
    """A branch or tag and the commit it names."""

    name: str
    kind: Literal["branch", "tag"]
    commit: str


class Merge(msgspec.Struct, frozen=True):
    """What a merge did. With `conflicts` nothing was changed: one entry per row, with its three versions."""

    commit: str | None
    conflicts: list[dict[str, Any]] = []


class Brought(Merge, frozen=True):
    """What a merge or a revert did, and what that makes of this daemon's settings."""

    ref: str = ""
    """The commit that was reverted."""
    settings: dict[str, str] = {}
    """Value by path, as JSON, of those that have another value now."""
    tables: list[str] = []
    """Those in which a row differs."""
    is_new: bool = True
    """Whether `main` stands at another commit by it."""


class Described(msgspec.Struct, frozen=True):
    """What a ref names."""

    commit: Commit
    kind: Literal["branch", "tag", "commit"]


class Overview(msgspec.Struct, frozen=True):
    """Where a history stands."""

    head: Commit
    tables: list[TableInfo]
    refs: list[RefInfo]
