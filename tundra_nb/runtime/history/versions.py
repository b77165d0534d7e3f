"""The history's versions, method by method: each is one request of the store worker, which resolves refs itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from .line import ArrowStream
from .story import StoredStory, WantedOperation
from .values import Brought, Commit, Described, Overview, RefInfo, Rows, Strategy, TableStat

Ref = str | int
"""A commit, branch or tag, `HEAD`, `WORKING` (what is not committed yet too), or a time in µs since 1970."""


class Asks(Protocol):
    """What passes a request on to the worker."""

    async def call(self, method: str, **params: Any) -> Any:
        """The answer as JSON values."""

    def stream(self, method: str, **params: Any) -> ArrowStream:
        """The answer as an Arrow stream."""


class Versions:
    """`history.versions`: commits, differences, branches, tags, remotes, backups.

    Every method raises `RefNotFound`, naming the nearest, for a ref that is not there, and `StoreUnavailable` when the
    database does not answer.
    """

    def __init__(self, history: Asks) -> None:
        self._history = history

    async def resolve(self, ref: Ref = "HEAD") -> str:
        """The hash of a commit."""
        return str(await self._history.call("resolve", ref=ref))

    async def describe(self, ref: Ref) -> Described:
        """The commit that a ref names, and what kind of name it is."""
        return msgspec.convert(await self._history.call("describe", ref=ref), Described)

    async def overview(self) -> Overview:
        """Where the history stands: its newest commit, its tables and its refs."""
        return msgspec.convert(await self._history.call("overview"), Overview)

    async def log(self, ref: Ref = "HEAD", limit: int | None = None) -> list[Commit]:
        """The commits that lead to a state, newest first."""
        return msgspec.convert(await self._history.call("log", ref=ref, limit=limit), list[Commit])

    async def stat(self, before: Ref, after: Ref = "HEAD") -> list[TableStat]:
        """How many rows differ between two states, by table; tables without a difference are left out."""
        return msgspec.convert(await self._history.call("stat", a=before, b=after), list[TableStat])

    def diff(self, before: Ref, after: Ref = "HEAD", *, table: str | None, limit: int | None = None) -> ArrowStream:
        """The rows that differ, of one table or of all in which something does; `limit` holds for each table."""
        return self._history.stream("diff", a=before, b=after, table=table, limit=limit)

    def rows(self, table: str, key: int | None = None, writer: str | None = None) -> ArrowStream:
        """What each commit made of a row, or of all rows (of this daemon), of a table that people change."""
        return self._history.stream("history", table=table, key=key, writer=writer)

    async def refs(self) -> list[RefInfo]:
        """The branches, then the tags, by name."""
        return msgspec.convert(await self._history.call("refs"), list[RefInfo])

    async def commit(self, message: str, author: str) -> str:
        """Commit what is not committed yet; the hash."""
        return str(await self._history.call("commit", message=message, author=author))

    async def branch(self, name: str, ref: Ref = "HEAD") -> str:
        """Give a state a name that moves; the hash."""
        return str(await self._history.call("branch", name=name, ref=ref))

    async def tag(self, name: str, ref: Ref = "HEAD", message: str = "") -> str:
        """Give a state a name that stays; the hash."""
        return str(await self._history.call("tag", name=name, ref=ref, message=message))

    async def delete_branch(self, name: str) -> None:
        await self._history.call("branch", name=name, delete=True)

    async def delete_tag(self, name: str) -> None:
        await self._history.call("tag", name=name, delete=True)

    async def propose(self, branch: str, rows: Rows, message: str, author: str) -> str:
        """Commit rows of people's tables on a branch; the hash."""
        return str(await self._history.call("propose", branch=branch, rows=rows, message=message, author=author))

    async def merge(self, branch: str, message: str, author: str, strategy: Strategy | None = None) -> Brought:
        """Bring a branch into `main`; with conflicts nothing is changed."""
        found = await self._history.call("merge", branch=branch, message=message, author=author, strategy=strategy)
        return msgspec.convert(found, Brought)

    async def revert(self, ref: Ref, author: str) -> Brought:
        """Commit the opposite of a commit of what people change."""
        return msgspec.convert(await self._history.call("revert", ref=ref, author=author), Brought)

    async def push(self, remote: str) -> str:
        """Send `main` and the tags; the hash that the remote's `main` has then."""
        return str(await self._history.call("push", remote=remote))

    async def pull(self, remote: str) -> str:
        """Merge a remote's `main`; the hash."""
        return str(await self._history.call("pull", remote=remote))

    async def clone(self, remote: str, into: str) -> None:
        """Copy a remote's history to a new place."""
        await self._history.call("clone", remote=remote, into=into)

    async def backup(self, target: str) -> str:
        """Copy the whole history; the hash of `main` in it."""
        return str(await self._history.call("backup", target=target))

    async def restore(self, source: str) -> str | None:
        """Put a backup in the history's place, and take up what waits in the spool; the file with what was there."""
        return msgspec.convert(await self._history.call("restore", source=source), str | None)

    async def story(self, wanted: WantedOperation) -> StoredStory:
        """All rows of one operation."""
        return msgspec.convert(await self._history.call("story", wanted=msgspec.to_builtins(wanted)), StoredStory)

    async def check(self) -> list[str]:
        """Test the database's integrity; the problems."""
        return msgspec.convert(await self._history.call("check"), list[str])

    async def create(self) -> None:
        """Make the database on a server that has none of this name."""
        await self._history.call("create")

    async def digests(
        self, frames: Sequence[str], *, since_us: int | None, until_us: int | None, at: Ref | None = None
    ) -> dict[str, dict[str, Any]]:
        """`rows` and `sha256` of each of these frames in a window, now or at a state."""
        found: dict[str, dict[str, Any]] = await self._history.call(
            "digests", frames=list(frames), since_us=since_us, until_us=until_us, at=at
        )
        return found
