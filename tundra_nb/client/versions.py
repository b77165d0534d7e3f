"""`t.versions`: the history's commits, differences, branches and tags, blocking and awaited."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from . import api, frames
from .call import ARROW, Call, Flow, Step, query
from .endpoints import Awaiting, Blocking, awaited, blocking
from .results import Document

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")


def log(at: str | None = None, limit: int | None = None) -> Call[pd.DataFrame]:
    """The commits, newest first: `commit, at, author, message, rows`.

    Args:
        at: the commits that lead to this commit, branch, tag or time.
        limit: at most so many.
    """
    return _frame("commits", "/api/commits", query(at=api.ref(at), limit=limit))


def commit(message: str = "") -> Call[str]:
    """Commit what has been written since the last commit; return the hash, which pins this state for good."""
    return Call(
        method="POST",
        path="/api/commits",
        body={"message": message},
        decode=lambda answer: str(answer.json()["commit"]),
    )


def diff(from_ref: str, to_ref: str = "HEAD", table: str | None = None) -> Flow[pd.DataFrame]:
    """The rows that differ between two states.

    Args:
        from_ref: commit, branch, tag or time.
        to_ref: the same.
        table: one history table; all in which something differs, one below the other, by default.

    Raises:
        RefNotFound: names the nearest.
    """
    if table is not None:
        one: pd.DataFrame = yield _diff(from_ref, to_ref, table)
        return one
    import pandas as pd

    differing: pd.DataFrame = yield stat(from_ref, to_ref)
    whole = frames.from_rows([], frames.LIVE["diff"], meta={"query": "diff"})
    for name in differing["table"]:
        part: pd.DataFrame = yield _diff(from_ref, to_ref, str(name))
        whole = part if whole.empty else pd.concat([whole, part], ignore_index=True)
    return whole


def _diff(from_ref: str, to_ref: str, table: str) -> Call[pd.DataFrame]:
    return _frame("diff", "/api/diff", query(from_=api.ref(from_ref), to=api.ref(to_ref), table=table))


def stat(from_ref: str, to_ref: str = "HEAD") -> Call[pd.DataFrame]:
    """How many rows were added, changed and removed between two states, by table."""
    return _frame("stat", "/api/stat", query(from_=api.ref(from_ref), to=api.ref(to_ref)))


def branches() -> Call[pd.DataFrame]:
    """The branches and the commit each stands on."""
    return _frame("branches", "/api/branches", ())


def branch(name: str, at: str | None = None) -> Call[Document]:
    """Make a branch, at HEAD unless `at` names another state."""
    return _post("/api/branches", name=name, at=api.ref(at))


def tags() -> Call[pd.DataFrame]:
    """The tags and the commit each names."""
    return _frame("tags", "/api/tags", ())


def tag(name: str, at: str | None = None, message: str | None = None) -> Call[Document]:
    """Give a state a name that will not move, HEAD unless `at` names another."""
    return _post("/api/tags", name=name, at=api.ref(at), message=message)


def merge(branch: str, resolve: str | None = None) -> Call[Document]:
    """Merge a branch into main.

    Args:
        branch: what to merge.
        resolve: `ours` or `theirs` where both changed the same row.
    """
    return _post("/api/merges", branch=branch, resolve=resolve)


def _frame(name: str, path: str, given: tuple[tuple[str, str], ...]) -> Call[pd.DataFrame]:
    return Call(
        method="GET",
        path=path,
        query=given,
        decode=lambda answer: api.frame_of(name, answer),
        accept=f"{ARROW}, application/json",
        timeout=api.STORE_TIMEOUT,
    )


def _post(path: str, **body: object) -> Call[Document]:
    given = {name: value for name, value in body.items() if value is not None}
    return Call(method="POST", path=path, body=given, decode=api.document, timeout=api.STORE_TIMEOUT)


class Versions:
    """`t.versions` of a `Client`."""

    def __init__(self, client: Blocking) -> None:
        self._client = client

    def _do(self, step: Step[T]) -> T:
        return self._client._do(step)  # noqa: SLF001 - a namespace of the client

    log = blocking(log)
    commit = blocking(commit)
    diff = blocking(diff)
    stat = blocking(stat)
    branches = blocking(branches)
    branch = blocking(branch)
    tags = blocking(tags)
    tag = blocking(tag)
    merge = blocking(merge)


class AsyncVersions:
    """`t.versions` of an `AsyncClient`."""

    def __init__(self, client: Awaiting) -> None:
        self._client = client

    async def _do(self, step: Step[T]) -> T:
        return await self._client._do(step)  # noqa: SLF001 - a namespace of the client

    log = awaited(log)
    commit = awaited(commit)
    diff = awaited(diff)
    stat = awaited(stat)
    branches = awaited(branches)
    branch = awaited(branch)
    tags = awaited(tags)
    tag = awaited(tag)
    merge = awaited(merge)
