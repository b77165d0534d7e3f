"""Versions of the history: commits, differences, branches, tags, merges, remotes, backups, notes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from .endpoint import Endpoint, Rows
from .history import Limit
from .live import BranchRow, CommitRow, ProblemRow, StatRow, TagRow
from .words import ARROW, JSON

Name = Annotated[str, msgspec.Meta(max_length=255)]
Message = Annotated[str, msgspec.Meta(max_length=16_384)]
"""Longer texts belong into notes: the engine writes a tag's anew with every commit."""


class LogQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which commits: those that lead to `at`."""

    at: str | None = None
    limit: Limit | None = None


class BetweenQuery(msgspec.Struct, frozen=True, kw_only=True, rename={"from_": "from"}):
    """Two states."""

    from_: str | None = None
    to: str | None = None
    """`WORKING` includes what is not committed yet; HEAD when left out."""


class DiffQuery(BetweenQuery, frozen=True, kw_only=True, rename={"from_": "from"}):
    """Two states and a table; every table in which something differs when it is left out."""

    table: str | None = None
    limit: Limit | None = None


class RowsQuery(msgspec.Struct, frozen=True, kw_only=True):
    """`all`: also the settings and profiles of other daemons of a shared history."""

    all: bool = False


class CommitBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the commit is about."""

    message: Message = ""


class NameBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A new name for a state; HEAD when `at` is left out."""

    name: Name
    at: str | None = None
    message: Message = ""


class MergeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What to merge, and whose side wins where both changed the same row."""

    branch: str
    resolve: Literal["ours", "theirs"] | None = None


class RefBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A commit, branch, tag or time."""

    ref: str


class RemoteBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The path or URL of a remote, or the name it has."""

    remote: str


class CloneBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`into`: a new data directory (doltlite) or a new database's name (Dolt)."""

    remote: str
    into: str


class FolderBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A folder; the data directory's own `backups` when left out."""

    folder: str = ""


class NoteBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An annotation, and what it is about: an id, an error code, a word."""

    body: str
    subject: str = ""


class Committed(msgspec.Struct, frozen=True, kw_only=True):
    """The hash of a commit."""

    commit: str


class Named(Committed, frozen=True, kw_only=True):
    """A name, and the commit it stands for."""

    name: str


class Deleted(msgspec.Struct, frozen=True, kw_only=True):
    """A name that is gone."""

    deleted: str


_FRAME = (ARROW, JSON)

LOG = Endpoint(
    method="GET", path="/api/commits", summary="commits, newest first", query=LogQuery, answer=Rows[CommitRow]
)
COMMIT = Endpoint(
    method="POST",
    path="/api/commits",
    summary="commit what was written since the last one",
    body=CommitBody,
    answer=Committed,
    status=201,
)
DIFF = Endpoint(
    method="GET",
    path="/api/diff",
    summary="the rows that differ between two states",
    query=DiffQuery,
    media=(ARROW,),
)
STAT = Endpoint(
    method="GET",
    path="/api/stat",
    summary="how many rows differ, by table",
    query=BetweenQuery,
    answer=Rows[StatRow],
)
BRANCHES = Endpoint(method="GET", path="/api/branches", summary="branches", answer=Rows[BranchRow])
BRANCH = Endpoint(method="POST", path="/api/branches", summary="make a branch", body=NameBody, answer=Named, status=201)
UNBRANCH = Endpoint(method="DELETE", path="/api/branches/{name:path}", summary="delete a branch", answer=Deleted)
TAGS = Endpoint(method="GET", path="/api/tags", summary="tags", answer=Rows[TagRow])
TAG = Endpoint(
    method="POST",
    path="/api/tags",
    summary="give a state a name that will not move",
    body=NameBody,
    answer=Named,
    status=201,
)
UNTAG = Endpoint(method="DELETE", path="/api/tags/{name:path}", summary="take a name from its commit", answer=Deleted)
REF = Endpoint(
    method="GET",
    path="/api/refs/{ref:path}",
    summary="what a name or time stands for: `kind`, `commit`, `at`, `author`, `message`",
    answer=dict[str, Any],
)
MERGE = Endpoint(
    method="POST", path="/api/merges", summary="merge a branch into main", body=MergeBody, answer=dict[str, Any]
)
REVERT = Endpoint(
    method="POST", path="/api/reverts", summary="commit the opposite of a commit", body=RefBody, answer=dict[str, Any]
)
ROW_HISTORIES = Endpoint(
    method="GET",
    path="/api/rows/{table}",
    summary="what each commit made of the rows of a versioned table",
    query=RowsQuery,
    media=(ARROW,),
)
ROW_HISTORY = Endpoint(
    method="GET",
    path="/api/rows/{table}/{row:path}",
    summary="the same of one row, by its name or key",
    query=RowsQuery,
    media=(ARROW,),
)
OVERVIEW = Endpoint(method="GET", path="/api/versions", summary="where the history stands", answer=dict[str, Any])
PUSH = Endpoint(
    method="POST",
    path="/api/push",
    summary="send main, branches and tags to a remote",
    body=RemoteBody,
    answer=dict[str, Any],
)
PULL = Endpoint(
    method="POST", path="/api/pull", summary="merge a remote's main into ours", body=RemoteBody, answer=dict[str, Any]
)
CLONE = Endpoint(
    method="POST",
    path="/api/clone",
    summary="make a new history from a remote",
    body=CloneBody,
    answer=dict[str, Any],
    status=201,
)
BACKUP = Endpoint(
    method="POST",
    path="/api/backup",
    summary="copy the whole history to a folder",
    body=FolderBody,
    answer=dict[str, Any],
    status=201,
)
RESTORE = Endpoint(
    method="POST",
    path="/api/restore",
    summary="replace the history by a backup",
    body=FolderBody,
    answer=dict[str, Any],
)
CHECK = Endpoint(
    method="GET", path="/api/store/check", summary="test the database's integrity", answer=Rows[ProblemRow]
)
CREATE = Endpoint(
    method="POST",
    path="/api/store/create",
    summary="create the database on a Dolt server that has none of this name",
    answer=dict[str, Any],
    status=201,
)
NOTE = Endpoint(
    method="POST",
    path="/api/notes",
    summary="write an annotation into the history",
    body=NoteBody,
    answer=dict[str, Any],
    status=201,
)
