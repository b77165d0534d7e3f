"""Versions of the history: commits, differences, branches, tags, merges, remotes, backups, notes."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from tundra_nb import errors, paths
from tundra_nb.daemon.answers import iso, json_response, json_rows, stream_arrow
from tundra_nb.daemon.routes.history import INT_DIGITS, read_ref
from tundra_nb.daemon.routing import read_body, read_params, route
from tundra_nb.nearest import nearest
from tundra_nb.protocol import versions as api
from tundra_nb.runtime.history.query import Condition, FrameQuery
from tundra_nb.runtime.history.values import Commit
from tundra_nb.runtime.history.versions import Ref
from tundra_nb.runtime.incidents import Incidents
from tundra_nb.types import TEAM_TABLES

if TYPE_CHECKING:
    from tundra_nb.daemon.context import Daemon


BACKUP_NAMES = {"doltlite": "history.db", "dolt": "history.dolt"}
"""What a backup is called in its folder, by engine: the engines cannot read each other's."""
NAME_COLUMNS = {"setting": "path", "profile": "name", "price": "model", "note": "subject", "incident": "title"}
"""By what people call a row, beside its key."""


def routes(daemon: Daemon) -> list[BaseRoute]:
    runtime = daemon.runtime
    history = runtime.history
    versions = history.versions

    async def log(request: Request) -> Response:
        asked = read_params(request, api.LogQuery)
        found = await versions.log(_ref(asked.at), asked.limit)
        return json_response({"rows": [_commit(commit) for commit in found]})

    async def commit(request: Request) -> Response:
        body = await read_body(request, api.CommitBody)
        message = body.message.strip() or "commit"
        return json_response({"commit": await runtime.versioning.commit(message, author=daemon.user(request))}, 201)

    async def diff(request: Request) -> Response:
        given = read_params(request, api.DiffQuery)
        asked = {"from": given.from_, "to": given.to or "HEAD", "table": given.table}
        stream = versions.diff(_ref(given.from_), _ref(given.to), table=given.table or None, limit=given.limit)
        return await stream_arrow(request, stream, asked)

    async def stat(request: Request) -> Response:
        given = read_params(request, api.BetweenQuery)
        return json_response({"rows": await versions.stat(_ref(given.from_), _ref(given.to))})

    async def refs(kind: str) -> list[dict[str, Any]]:
        return [{"name": ref.name, "commit": ref.commit} for ref in await versions.refs() if ref.kind == kind]

    async def branches(request: Request) -> Response:
        return json_response({"rows": await refs("branch")})

    async def branch(request: Request) -> Response:
        body = await read_body(request, api.NameBody)
        return json_response({"name": body.name, "commit": await versions.branch(body.name, _ref(body.at))}, 201)

    async def tags(request: Request) -> Response:
        return json_response({"rows": await refs("tag")})

    async def tag(request: Request) -> Response:
        body = await read_body(request, api.NameBody)
        commit = await versions.tag(body.name, _ref(body.at), body.message)
        return json_response({"name": body.name, "commit": commit}, 201)

    async def unbranch(request: Request) -> Response:
        await versions.delete_branch(request.path_params["name"])
        return json_response({"deleted": request.path_params["name"]})

    async def untag(request: Request) -> Response:
        await Incidents(runtime).refuse_pin(request.path_params["name"])
        await versions.delete_tag(request.path_params["name"])
        return json_response({"deleted": request.path_params["name"]})

    async def ref(request: Request) -> Response:
        """What a ref names now: `ref`, `kind` (branch, tag, commit), `commit`, `at`, `author`, `message`."""
        text = request.path_params["ref"]
        found = await versions.describe(_ref(text))
        return json_response({"ref": text, "kind": found.kind} | _commit(found.commit))

    async def merge(request: Request) -> Response:
        body = await read_body(request, api.MergeBody)
        found = await runtime.versioning.merge(body.branch, author=daemon.user(request), strategy=body.resolve)
        conflicts = [_json_conflict(one) for one in found["conflicts"]]
        return json_response(found | {"conflicts": conflicts})

    async def revert(request: Request) -> Response:
        body = await read_body(request, api.RefBody)
        return json_response(await runtime.versioning.revert(_ref(body.ref), author=daemon.user(request)))

    async def row_history(request: Request) -> Response:
        table = request.path_params["table"]
        is_own = table not in TEAM_TABLES and not read_params(request, api.RowsQuery).all
        own = history.own_or_unsigned if is_own else []
        key = await _key(request.path_params.get("row"), table, own)
        writer = history.writer_id if own else None
        return await stream_arrow(request, versions.rows(table, key, writer), {"table": table})

    async def _key(text: str | None, table: str, own: list[Condition]) -> int | None:
        """The key of a row that is given by its key, or by what people call it."""
        if text is None:
            return None
        if table not in NAME_COLUMNS and text.isascii() and text.isdigit() and len(text) < INT_DIGITS:
            return int(text)
        name = NAME_COLUMNS.get(table)
        if name is None:
            return None  # the history refuses the table
        rows = await history.rows(FrameQuery(table=table, where=own))
        for row in rows:
            if text in (row[name], str(row[f"{table}_id"])):
                return int(row[f"{table}_id"])
        raise errors.UsageError(
            problem=f"no row {text!r} in {table}",
            field="row",
            nearest=nearest(text, [row[name] for row in rows]),
            remedy=f"The history's table {table!r} lists them.",
        )

    async def overview(request: Request) -> Response:
        """Where the history stands: engine, HEAD, what is not committed, branches and tags."""
        found = await versions.overview()
        head = found.head
        stats = history.stats()
        return json_response(
            {
                "engine": stats.engine,
                "head": head.commit,
                "at": iso(head.at),
                "author": head.author,
                "message": head.message,
                "uncommitted": [table.table for table in found.tables if table.uncommitted],
                "rows": {table.table: table.rows for table in found.tables if table.rows},
                "branches": [ref.name for ref in found.refs if ref.kind == "branch"],
                "tags": [ref.name for ref in found.refs if ref.kind == "tag"],
                "size_bytes": stats.size_bytes or await asyncio.to_thread(_folder_bytes, runtime.paths.dolt) or None,
            }
        )

    async def push(request: Request) -> Response:
        body = await read_body(request, api.RemoteBody)
        return json_response({"remote": body.remote, "commit": await versions.push(body.remote)})

    async def pull(request: Request) -> Response:
        body = await read_body(request, api.RemoteBody)
        return json_response(
            {"remote": body.remote} | await runtime.versioning.pull(body.remote, author=daemon.user(request))
        )

    async def clone(request: Request) -> Response:
        body = await read_body(request, api.CloneBody)
        into = body.into
        if runtime.loaded.settings.store.engine == "doltlite":
            folder = _absolute(into, "into")
            paths.make_private(folder)
            into = str(folder / paths.find(folder).store.name)
        await versions.clone(body.remote, into)
        return json_response({"remote": body.remote, "into": body.into}, 201)

    def backup_in(folder: str) -> Path:
        chosen = _absolute(folder, "folder") if folder else runtime.paths.backups
        return chosen / BACKUP_NAMES[runtime.loaded.settings.store.engine]

    async def backup(request: Request) -> Response:
        target = backup_in((await read_body(request, api.FolderBody)).folder)
        paths.make_private(target.parent)
        return json_response({"backup": str(target), "commit": await versions.backup(str(target))}, 201)

    async def restore(request: Request) -> Response:
        source = backup_in((await read_body(request, api.FolderBody)).folder)
        if not source.exists():
            raise errors.UsageError(
                problem=f"there is no backup {source}",
                field="folder",
                remedy="`%tundra backup DIR` makes one; name the same DIR.",
            )
        async with runtime.in_force.lock:
            kept = await versions.restore(str(source))
            user = daemon.user(request)
            await runtime.in_force.write_down(user, "restore", message="settings in force after a restore")
        return json_response({"restored": str(source), "kept": kept, "commit": await versions.resolve("main")})

    async def check(request: Request) -> Response:
        return json_response({"rows": [{"problem": problem} for problem in await versions.check()]})

    async def create(request: Request) -> Response:
        await versions.create()
        return json_response({"engine": history.stats().engine}, 201)

    async def notes(request: Request) -> Response:
        body = await read_body(request, api.NoteBody)
        row = await runtime.versioning.note(body.body, subject=body.subject, author=daemon.user(request))
        return json_response(json_rows([row])[0], 201)

    return [
        route(api.LOG, log),
        route(api.COMMIT, commit),
        route(api.DIFF, diff),
        route(api.STAT, stat),
        route(api.BRANCHES, branches),
        route(api.BRANCH, branch),
        route(api.TAGS, tags),
        route(api.TAG, tag),
        route(api.UNBRANCH, unbranch),
        route(api.UNTAG, untag),
        route(api.REF, ref),
        route(api.MERGE, merge),
        route(api.REVERT, revert),
        route(api.ROW_HISTORIES, row_history),
        route(api.ROW_HISTORY, row_history),
        route(api.OVERVIEW, overview),
        route(api.PUSH, push),
        route(api.PULL, pull),
        route(api.CLONE, clone),
        route(api.BACKUP, backup),
        route(api.RESTORE, restore),
        route(api.CHECK, check),
        route(api.CREATE, create),
        route(api.NOTE, notes),
    ]


def _ref(text: str | None) -> Ref:
    given = read_ref(text)
    return "HEAD" if given is None else given  # 0 is a time


def _commit(commit: Commit) -> dict[str, Any]:
    return msgspec.structs.asdict(commit) | {"at": iso(commit.at)}


def _json_conflict(conflict: dict[str, Any]) -> dict[str, Any]:
    """The three versions of a row; None for a side that has none."""
    table = conflict["table"]
    sides: dict[str, Any] = {}
    for side in ("base", "ours", "theirs"):
        row = conflict[side]
        sides[side] = json_rows([row])[0] if any(value is not None for value in row.values()) else None
    some: dict[str, Any] = next((row for row in sides.values() if row), {})
    return {"table": table, "row_id": some.get(f"{table}_id"), "name": some.get(NAME_COLUMNS.get(table, ""))} | sides


def _folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder; 0 when it is not there: a server of our own keeps its databases in it."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(where) / name).lstat().st_size
    return total


def _absolute(text: str, field: str) -> Path:
    """A folder that a client names; the daemon's working directory means nothing to it."""
    folder = Path(text)
    if not folder.is_absolute() or ".." in folder.parts or not text.isprintable():
        raise errors.UsageError(problem=f"{text} is not an absolute path", field=field)
    return folder
