"""`t.versions`: the history's commits, differences, branches, tags, remotes and backups, blocking and awaited."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from tundra_nb.frames import frames
from tundra_nb.protocol import versions as routes
from tundra_nb.protocol.endpoint import Endpoint
from tundra_nb.protocol.live import LIVE
from tundra_nb.protocol.words import ARROW, META_HEADER
from tundra_nb.types import TABLES, VERSIONED_TABLES, Column

from . import api
from .call import Call, Flow, HttpAnswer, Step, call
from .endpoints import Awaiting, Blocking, awaited, blocking
from .results import Document

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    _Part = tuple[str, pa.Table, dict[str, Any]]

T = TypeVar("T")
COPY_TIMEOUT = 3600.0
"""Seconds of silence while a whole history is copied."""


class Merged(Document):
    """What a merge did: `commit` (None with conflicts: nothing changed then), `is_new`, `applied`, `problems`."""

    @property
    def conflicts(self) -> pd.DataFrame:
        """The cells that both sides changed: `table, row_id, name, column, base, ours, theirs`."""
        rows = []
        for row in self["conflicts"]:
            sides = {side: row[side] or {} for side in ("base", "ours", "theirs")}
            names = dict.fromkeys(name for side in sides.values() for name in side)
            for name in names:
                cells = {side: values.get(name) for side, values in sides.items()}
                if len({repr(cell) for cell in cells.values()}) > 1:
                    rows.append(
                        {"table": row["table"], "row_id": row["row_id"], "name": row["name"], "column": name} | cells
                    )
        return frames.from_rows(rows, LIVE["conflicts"], meta={"query": "conflicts"})


def log(at: str | None = None, limit: int | None = None) -> Call[pd.DataFrame]:
    """The commits, newest first: `commit, at, author, message, rows`.

    Args:
        at: the commits that lead to this commit, branch, tag or time.
        limit: at most so many.
    """
    return _frame("commits", routes.LOG, routes.LogQuery(at=api.ref(at), limit=limit))


def commit(message: str = "") -> Call[str]:
    """Commit what has been written since the last commit; return the hash, which pins this state for good."""
    return call(routes.COMMIT, decode=lambda answer: str(answer.json()["commit"]), body=routes.CommitBody(message))


def diff(
    from_ref: str, to_ref: str = "HEAD", table: str | None = None, *, limit: int | None = None
) -> Flow[pd.DataFrame]:
    """The rows that differ between two states: `table, diff_type, from_commit, to_commit`, then `from_…` and `to_…` of
    each column.

    Args:
        from_ref: commit, branch, tag or time.
        to_ref: the same; `now` includes what is not committed yet.
        table: one history table; all in which something differs, one below the other, by default. A column that a
            table does not have is empty there.
        limit: at most so many rows of each table; `df.attrs["truncated"]` says whether more were there.

    Raises:
        RefNotFound: names the nearest.
    """
    parts: list[_Part] = yield _diff(from_ref, to_ref, table, limit)
    return _diff_frame(parts, {"from": from_ref, "to": to_ref})


def _end(ref: str) -> str | None:
    """`now` includes what is not committed yet."""
    return "WORKING" if ref == "now" else api.ref(ref)


def people_first(table: str) -> tuple[bool, int]:
    """Sorts tables: what people changed stands above the events that followed."""
    return table not in (*VERSIONED_TABLES, "note"), list(TABLES).index(table)


def _diff(from_ref: str, to_ref: str, table: str | None, limit: int | None) -> Call[list[_Part]]:
    """The differing rows table by table, what people changed first."""

    def decode(answer: HttpAnswer) -> list[_Part]:
        header = answer.headers.get(META_HEADER.lower())
        meta = msgspec.json.decode(header) if header else {}
        found = frames.read_arrow(answer.body)
        if table is not None:
            return [_cut(table, found, meta, limit)]
        names = sorted(meta["tables"], key=people_first)
        return [_cut(name, _of_table(found, name), meta, limit) for name in names]

    more = api.one_more(limit)
    return call(
        routes.DIFF,
        decode=decode,
        query=routes.DiffQuery(from_=api.ref(from_ref), to=_end(to_ref), table=table, limit=more),
        accept=ARROW,
        timeout=api.STORE_TIMEOUT,
    )


def _of_table(found: pa.Table, name: str) -> pa.Table:
    """The rows of one table, with the columns that it has."""
    import pyarrow.compute as pc

    columns = [column.name for column in frames.diff_columns(name)]
    return found.filter(pc.equal(found["table"], name)).select(columns)


def _cut(name: str, found: pa.Table, meta: dict[str, Any], limit: int | None) -> _Part:
    if limit is not None and found.num_rows > limit:
        return name, found.slice(0, limit), meta | {"truncated": True}
    return name, found, meta


def _diff_frame(parts: list[_Part], asked: dict[str, str]) -> pd.DataFrame:
    """The tables as one; joined in Arrow, because pandas would turn ids with gaps into floats."""
    import pyarrow as pa

    told: dict[str, Any] = {"query": "diff", "truncated": False} | asked
    declared = {column.name: column for column in LIVE["diff"]}
    for name, _, meta in parts:
        told |= {key: meta[key] for key in ("store", "commit", "from_commit", "to_commit") if key in meta}
        told["truncated"] |= bool(meta.get("truncated"))
        for column in frames.diff_columns(name):
            declared[column.name] = _common(declared.get(column.name, column), column)
    if not parts:
        return frames.from_rows([], tuple(declared.values()), meta=told)
    plain = [_without_dictionaries(table) for _, table, _ in parts]
    whole = pa.concat_tables(plain, promote_options="permissive")
    return frames.from_arrow(whole, declared=tuple(declared.values()), meta=told)


def _common(one: Column, other: Column) -> Column:
    """A column that holds what two tables call by the same name."""
    if one.type == other.type:
        values = tuple(dict.fromkeys([*one.values, *other.values])) if one.values and other.values else ()  # noqa: PD011
        return Column(one.name, one.type, one.nullable or other.nullable, values)
    are_numbers = {one.type, other.type} <= {"int", "float"}
    return Column(one.name, "float" if are_numbers else "text", nullable=True)


def _without_dictionaries(table: pa.Table) -> pa.Table:
    import pyarrow as pa

    plain = [
        pa.field(field.name, field.type.value_type if pa.types.is_dictionary(field.type) else field.type)
        for field in table.schema
    ]
    return table.cast(pa.schema(plain))


def stat(from_ref: str, to_ref: str = "HEAD") -> Call[pd.DataFrame]:
    """How many rows were added, changed and removed between two states, by table."""
    return _frame("stat", routes.STAT, routes.BetweenQuery(from_=api.ref(from_ref), to=_end(to_ref)))


def history(table: str, row: str | int | None = None, all: bool = False) -> Call[pd.DataFrame]:  # noqa: A002
    """What each commit made of a row: `commit, committed_at, committer, message, diff_type` and the row as it was then.

    Args:
        table: `setting`, `profile`, `price` or `note`; rows of events never change.
        row: its name (`breaker.failures`) or key; all rows by default.
        all: also the settings and profiles of other daemons of a shared history.
    """

    def decode(answer: HttpAnswer) -> pd.DataFrame:
        header = answer.headers.get(META_HEADER.lower())
        meta = (msgspec.json.decode(header) if header else {}) | {"query": f"history {table}", "table": None}
        return frames.from_arrow(answer.body, declared=frames.history_columns(table), meta=meta)

    endpoint = routes.ROW_HISTORIES if row is None else routes.ROW_HISTORY
    query = routes.RowsQuery(all=all)
    return call(endpoint, decode=decode, query=query, timeout=api.STORE_TIMEOUT, table=table, row=row)


def blame(table: str = "setting", all: bool = False) -> Flow[pd.DataFrame]:  # noqa: A002 - the option's name
    """Who last changed each row, and in which commit: the last line of each row's `history`."""
    found: pd.DataFrame = yield history(table, all=all)
    attrs = found.attrs
    last = found.groupby(f"{table}_id", sort=False).tail(1)
    last = last[last["diff_type"] != "removed"].reset_index(drop=True)
    last.attrs.update(attrs | {"query": f"blame {table}"})
    return last


def status() -> Call[Document]:
    """Where the history stands: engine, HEAD, rows, what is not committed, branches and tags."""
    return call(routes.OVERVIEW, decode=api.document, timeout=api.STORE_TIMEOUT)


def resolve(ref: str) -> Call[Document]:
    """The commit that a name or time stands for: `ref, kind, commit, at, author, message`.

    Raises:
        RefNotFound: names the nearest.
    """
    return call(routes.REF, decode=api.document, timeout=api.STORE_TIMEOUT, ref=api.ref(ref))


def branches() -> Call[pd.DataFrame]:
    """The branches and the commit each stands on."""
    return _frame("branches", routes.BRANCHES)


def branch(name: str, at: str | None = None) -> Call[Document]:
    """Make a branch, at HEAD unless `at` names another state."""
    return _post(routes.BRANCH, routes.NameBody(name=name, at=api.ref(at)))


def delete_branch(name: str) -> Call[Document]:
    """Delete a branch; its commits stay where others lead to them."""
    return call(routes.UNBRANCH, decode=api.document, name=name)


def tags() -> Call[pd.DataFrame]:
    """The tags and the commit each names."""
    return _frame("tags", routes.TAGS)


def tag(name: str, at: str | None = None, message: str | None = None) -> Call[Document]:
    """Give a state a name that will not move, HEAD unless `at` names another."""
    return _post(routes.TAG, routes.NameBody(name=name, at=api.ref(at), message=message or ""))


def delete_tag(name: str) -> Call[Document]:
    """Take a name from its commit."""
    return call(routes.UNTAG, decode=api.document, name=name)


def merge(branch: str, resolve: Literal["ours", "theirs"] | None = None) -> Call[Merged]:
    """Merge a branch into main; settings on it take effect.

    Args:
        branch: what to merge.
        resolve: whose side wins where both changed the same row. Without it conflicts change nothing, and are in
            `.conflicts` of the result.
    """
    return call(
        routes.MERGE,
        decode=lambda answer: Merged(answer.json()),
        body=routes.MergeBody(branch, resolve),
        timeout=api.STORE_TIMEOUT,
    )


def revert(ref: str) -> Call[Document]:
    """Commit the opposite of a commit of settings, profiles, prices or notes; settings take effect.

    Raises:
        UsageError: the commit holds events, which are facts and stay.
    """
    return _post(routes.REVERT, routes.RefBody(str(api.ref(ref))))


def push(remote: str) -> Call[Document]:
    """Send main, other branches and tags to a remote: a path, `file:///…`, or what the engine knows."""
    return _copy(routes.PUSH, routes.RemoteBody(_remote(remote)))


def pull(remote: str) -> Call[Document]:
    """Merge a remote's main into ours; the settings of this machine stay in force."""
    return _copy(routes.PULL, routes.RemoteBody(_remote(remote)))


def clone(remote: str, into: str) -> Call[Document]:
    """Make a new history from a remote.

    Args:
        remote: a path, `file:///…`, or what the engine knows.
        into: a new data directory (doltlite; `connect(data_dir=…)` then reads it), or a new database's name (Dolt).
    """
    return _copy(routes.CLONE, routes.CloneBody(_remote(remote), _remote(into)))


def backup(folder: str | os.PathLike[str] | None = None) -> Call[Document]:
    """Commit, and copy the whole history to a folder; again later: only what is new.

    Args:
        folder: `backups` of the data directory by default.
    """
    return _copy(routes.BACKUP, routes.FolderBody(os.path.abspath(folder) if folder else ""))


def restore(folder: str | os.PathLike[str] | None = None) -> Call[Document]:
    """Replace the history by a backup; `kept` names the file in which what was there stays (None on Dolt: it does not).

    An interrupt does not end it: the daemon carries it to its end.
    """
    return _copy(routes.RESTORE, routes.FolderBody(os.path.abspath(folder) if folder else ""))


def check() -> Call[pd.DataFrame]:
    """Test the database's integrity: one row per problem, none when it is sound."""
    return _frame("check", routes.CHECK)


def create() -> Call[Document]:
    """Create the database on a Dolt server that has none of this name."""
    return _copy(routes.CREATE)


def _remote(text: str) -> str:
    """A path as the daemon takes it, whose working directory is another one."""
    is_path = "://" not in text and (os.sep in text or text.startswith((".", "~")))
    return os.path.abspath(os.path.expanduser(text)) if is_path else text


def _copy(endpoint: Endpoint, body: msgspec.Struct | None = None) -> Call[Document]:
    return call(endpoint, body=body, decode=api.document, timeout=COPY_TIMEOUT)


def _frame(name: str, endpoint: Endpoint, query: msgspec.Struct | None = None) -> Call[pd.DataFrame]:
    return call(
        endpoint,
        query=query,
        decode=lambda answer: api.frame_of(name, answer),
        timeout=api.STORE_TIMEOUT,
    )


def _post(endpoint: Endpoint, body: msgspec.Struct) -> Call[Document]:
    return call(endpoint, body=body, decode=api.document, timeout=api.STORE_TIMEOUT)


class Versions:
    """`t.versions` of a `Client`."""

    def __init__(self, client: Blocking) -> None:
        self._client = client
        self.at: str | None = None
        """What views of the history show that name no state: a branch or commit; None is now."""
        self.checked_out = ""
        """The same, as it was named."""
        self.window: tuple[int, int] | None = None
        """Window of an open incident, in microseconds: what these views show that name no time."""

    def _do(self, step: Step[T]) -> T:
        return self._client._do(step)  # noqa: SLF001 - a namespace of the client

    def look(self, at: str | None, name: str, window: tuple[int, int] | None) -> None:
        """What views of the history show that name no state, and no time."""
        self.at, self.checked_out, self.window = at, name, window

    def checkout(self, ref: str) -> Document:
        """Have this client's views of the history show a past state, or a branch, from now on; `main` is now again."""
        found: Document = self.resolve(ref)
        if ref == "main":
            self.look(None, "", None)
        else:
            self.look(found["ref"] if found["kind"] == "branch" else found["commit"], ref, None)
        return found

    log = blocking(log)
    commit = blocking(commit)
    diff = blocking(diff)
    stat = blocking(stat)
    history = blocking(history)
    blame = blocking(blame)
    status = blocking(status)
    resolve = blocking(resolve)
    branches = blocking(branches)
    branch = blocking(branch)
    delete_branch = blocking(delete_branch)
    tags = blocking(tags)
    tag = blocking(tag)
    delete_tag = blocking(delete_tag)
    merge = blocking(merge)
    revert = blocking(revert)
    push = blocking(push)
    pull = blocking(pull)
    clone = blocking(clone)
    backup = blocking(backup)
    restore = blocking(restore)
    check = blocking(check)
    create = blocking(create)


class AsyncVersions:
    """`t.versions` of an `AsyncClient`."""

    def __init__(self, client: Awaiting) -> None:
        self._client = client
        self.at: str | None = None
        """What views of the history show that name no state: a branch or commit; None is now."""
        self.checked_out = ""
        """The same, as it was named."""
        self.window: tuple[int, int] | None = None
        """Window of an open incident, in microseconds: what these views show that name no time."""

    async def _do(self, step: Step[T]) -> T:
        return await self._client._do(step)  # noqa: SLF001 - a namespace of the client

    def look(self, at: str | None, name: str, window: tuple[int, int] | None) -> None:
        """What views of the history show that name no state, and no time."""
        self.at, self.checked_out, self.window = at, name, window

    async def checkout(self, ref: str) -> Document:
        """Have this client's views of the history show a past state, or a branch, from now on; `main` is now again."""
        found: Document = await self.resolve(ref)
        if ref == "main":
            self.look(None, "", None)
        else:
            self.look(found["ref"] if found["kind"] == "branch" else found["commit"], ref, None)
        return found

    log = awaited(log)
    commit = awaited(commit)
    diff = awaited(diff)
    stat = awaited(stat)
    history = awaited(history)
    blame = awaited(blame)
    status = awaited(status)
    resolve = awaited(resolve)
    branches = awaited(branches)
    branch = awaited(branch)
    delete_branch = awaited(delete_branch)
    tags = awaited(tags)
    tag = awaited(tag)
    delete_tag = awaited(delete_tag)
    merge = awaited(merge)
    revert = awaited(revert)
    push = awaited(push)
    pull = awaited(pull)
    clone = awaited(clone)
    backup = awaited(backup)
    restore = awaited(restore)
    check = awaited(check)
    create = awaited(create)
