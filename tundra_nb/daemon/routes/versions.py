"""Versions of the history: commits, differences, branches, tags, merges, remotes, backups, notes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tundra_nb import errors, paths
from tundra_nb.daemon.answers import iso, json_response, json_rows, read_body, stream_arrow
from tundra_nb.daemon.routes.history import read_limit, read_ref
from tundra_nb.nearest import nearest
from tundra_nb.runtime.history.query import FrameQuery
from tundra_nb.runtime.in_force import signature

if TYPE_CHECKING:
    from tundra_nb.daemon.app import Daemon


class CommitBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /api/commits`."""

    message: str = ""


class NameBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /api/branches` and `POST /api/tags`; `at` is HEAD when left out."""

    name: str
    at: str | None = None
    message: str = ""


class MergeBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /api/merges`."""

    branch: str
    resolve: Literal["ours", "theirs"] | None = None


class RefBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /api/reverts`."""

    ref: str


class RemoteBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /api/push` and `/api/pull`: the path or URL of a remote, or the name it has."""

    remote: str


class CloneBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /api/clone`. `into`: a new data directory (doltlite) or a new database's name (Dolt)."""

    remote: str
    into: str


class FolderBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /api/backup` and `/api/restore`; the data directory's own `backups` when left out."""

    folder: str = ""


class NoteBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /api/notes`."""

    body: str
    subject: str = ""


BACKUP_NAMES = {"doltlite": "history.db", "dolt": "history.dolt"}
"""What a backup is called in its folder, by engine: the engines cannot read each other's."""
NAME_COLUMNS = {"setting": "path", "profile": "name", "price": "model", "note": "subject"}
"""By what people call a row, beside its key."""


def routes(daemon: Daemon) -> list[BaseRoute]:
    runtime = daemon.runtime
    history = runtime.history

    async def resolved(text: str | None) -> str:
        ref = read_ref(text)
        if ref == "WORKING":
            return "WORKING"
        return str(await history.call("resolve", ref="HEAD" if ref is None else ref))

    async def log(request: Request) -> Response:
        ref = await resolved(request.query_params.get("at"))
        found = await history.call("log", limit=read_limit(request.query_params.get("limit")), ref=ref)
        return json_response({"rows": [commit | {"at": iso(commit["at"])} for commit in found]})

    async def commit(request: Request) -> Response:
        body = await read_body(request, CommitBody)
        message = body.message.strip() or "commit"
        return json_response(
            {"commit": await history.call("commit", message=message, author=signature(daemon.user(request)))}, 201
        )

    async def diff(request: Request) -> Response:
        given = request.query_params
        table = given.get("table")
        if not table:
            raise errors.UsageError(
                problem="which table?",
                field="table",
                remedy="`%tundra stat A B` tells in which tables something changed.",
            )
        asked = {"from": given.get("from"), "to": given.get("to", "HEAD"), "table": table}
        a, b = await resolved(given.get("from")), await resolved(given.get("to"))
        limit = read_limit(request.query_params.get("limit"))
        return await stream_arrow(request, history.stream("diff", a=a, b=b, table=table, limit=limit), asked)

    async def stat(request: Request) -> Response:
        given = request.query_params
        a, b = await resolved(given.get("from")), await resolved(given.get("to"))
        return json_response({"rows": await history.call("stat", a=a, b=b)})

    async def refs(kind: str) -> list[dict[str, Any]]:
        found = await history.call("refs")
        return [{"name": ref["name"], "commit": ref["commit"]} for ref in found if ref["kind"] == kind]

    async def branches(request: Request) -> Response:
        return json_response({"rows": await refs("branch")})

    async def branch(request: Request) -> Response:
        body = await read_body(request, NameBody)
        await history.call("branch", name=body.name, ref=await resolved(body.at))
        return json_response({"name": body.name, "commit": await resolved(body.name)}, 201)

    async def tags(request: Request) -> Response:
        return json_response({"rows": await refs("tag")})

    async def tag(request: Request) -> Response:
        body = await read_body(request, NameBody)
        await history.call("tag", name=body.name, ref=await resolved(body.at), message=body.message)
        return json_response({"name": body.name, "commit": await resolved(body.name)}, 201)

    async def unbranch(request: Request) -> Response:
        await history.call("branch", name=request.path_params["name"], delete=True)
        return json_response({"deleted": request.path_params["name"]})

    async def untag(request: Request) -> Response:
        await history.call("tag", name=request.path_params["name"], delete=True)
        return json_response({"deleted": request.path_params["name"]})

    async def ref(request: Request) -> Response:
        """What a ref names now: `ref`, `kind` (branch, tag, commit), `commit`, `at`, `author`, `message`."""
        text = request.path_params["ref"]
        commit = await resolved(text)
        known = [found for found in await history.call("refs") if found["name"] == text]
        (told,) = await history.call("log", limit=1, ref=commit)
        kind = known[0]["kind"] if known else "commit"
        return json_response({"ref": text, "kind": kind} | told | {"at": iso(told["at"])})

    async def merge(request: Request) -> Response:
        body = await read_body(request, MergeBody)
        found = await runtime.versioning.merge(body.branch, author=daemon.user(request), strategy=body.resolve)
        conflicts = [_json_conflict(one) for one in found["conflicts"]]
        return json_response(found | {"conflicts": conflicts})

    async def revert(request: Request) -> Response:
        body = await read_body(request, RefBody)
        commit = await resolved(body.ref)
        return json_response(await runtime.versioning.revert(commit, author=daemon.user(request)))

    async def row_history(request: Request) -> Response:
        table = request.path_params["table"]
        key = await _key(request.path_params.get("row"), table)
        return await stream_arrow(request, history.stream("history", table=table, key=key), {"table": table})

    async def _key(text: str | None, table: str) -> int | None:
        """The key of a row that is given by its key, or by what people call it."""
        if text is None or (text.lstrip("-").isdigit() and table not in NAME_COLUMNS):
            return None if text is None else int(text)
        name = NAME_COLUMNS.get(table)
        if name is None:
            return None  # the history refuses the table
        rows = await history.rows(FrameQuery(table=table))
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
        (head,) = await history.call("log", limit=1)
        tables = await history.call("tables")
        found = await history.call("refs")
        stats = history.stats()
        return json_response(
            {
                "engine": stats.engine,
                "head": head["commit"],
                "at": iso(head["at"]),
                "author": head["author"],
                "message": head["message"],
                "uncommitted": [table["table"] for table in tables if table["uncommitted"]],
                "rows": {table["table"]: table["rows"] for table in tables if table["rows"]},
                "branches": [one["name"] for one in found if one["kind"] == "branch"],
                "tags": [one["name"] for one in found if one["kind"] == "tag"],
                "size_bytes": stats.size_bytes,
            }
        )

    async def push(request: Request) -> Response:
        body = await read_body(request, RemoteBody)
        await history.call("push", remote=body.remote)
        return json_response({"remote": body.remote, "commit": await resolved("main")})

    async def pull(request: Request) -> Response:
        body = await read_body(request, RemoteBody)
        return json_response(
            {"remote": body.remote} | await runtime.versioning.pull(body.remote, author=daemon.user(request))
        )

    async def clone(request: Request) -> Response:
        body = await read_body(request, CloneBody)
        into = body.into
        if runtime.loaded.settings.store.engine == "doltlite":
            folder = _absolute(into, "into")
            paths.make_private(folder)
            into = str(folder / paths.find(folder).store.name)
        await history.call("clone", remote=body.remote, into=into)
        return json_response({"remote": body.remote, "into": body.into}, 201)

    def backup_in(folder: str) -> Path:
        chosen = _absolute(folder, "folder") if folder else runtime.paths.backups
        return chosen / BACKUP_NAMES[runtime.loaded.settings.store.engine]

    async def backup(request: Request) -> Response:
        target = backup_in((await read_body(request, FolderBody)).folder)
        paths.make_private(target.parent)
        await history.call("backup", target=str(target))
        return json_response({"backup": str(target), "commit": await resolved("main")}, 201)

    async def restore(request: Request) -> Response:
        source = backup_in((await read_body(request, FolderBody)).folder)
        if not source.exists():
            raise errors.UsageError(
                problem=f"there is no backup {source}",
                field="folder",
                remedy="`%tundra backup DIR` makes one; name the same DIR.",
            )
        async with runtime.in_force.lock:
            await history.call("restore", source=str(source))
            user = daemon.user(request)
            await runtime.in_force.write_down(user, "restore", message="settings in force after a restore")
        return json_response({"restored": str(source), "commit": await resolved("main")})

    async def check(request: Request) -> Response:
        return json_response({"rows": [{"problem": problem} for problem in await history.call("check")]})

    async def create(request: Request) -> Response:
        await history.call("create")
        return json_response({"engine": history.stats().engine}, 201)

    async def notes(request: Request) -> Response:
        body = await read_body(request, NoteBody)
        row = await runtime.versioning.note(body.body, subject=body.subject, author=daemon.user(request))
        return json_response(json_rows([row])[0], 201)

    return [
        Route("/api/commits", log, methods=["GET"]),
        Route("/api/commits", commit, methods=["POST"]),
        Route("/api/diff", diff, methods=["GET"]),
        Route("/api/stat", stat, methods=["GET"]),
        Route("/api/branches", branches, methods=["GET"]),
        Route("/api/branches", branch, methods=["POST"]),
        Route("/api/tags", tags, methods=["GET"]),
        Route("/api/tags", tag, methods=["POST"]),
        Route("/api/branches/{name:path}", unbranch, methods=["DELETE"]),
        Route("/api/tags/{name:path}", untag, methods=["DELETE"]),
        Route("/api/refs/{ref:path}", ref, methods=["GET"]),
        Route("/api/merges", merge, methods=["POST"]),
        Route("/api/reverts", revert, methods=["POST"]),
        Route("/api/rows/{table}", row_history, methods=["GET"]),
        Route("/api/rows/{table}/{row:path}", row_history, methods=["GET"]),
        Route("/api/versions", overview, methods=["GET"]),
        Route("/api/push", push, methods=["POST"]),
        Route("/api/pull", pull, methods=["POST"]),
        Route("/api/clone", clone, methods=["POST"]),
        Route("/api/backup", backup, methods=["POST"]),
        Route("/api/restore", restore, methods=["POST"]),
        Route("/api/store/check", check, methods=["GET"]),
        Route("/api/store/create", create, methods=["POST"]),
        Route("/api/notes", notes, methods=["POST"]),
    ]


def _json_conflict(conflict: dict[str, Any]) -> dict[str, Any]:
    """The three versions of a row; None for a side that has none."""
    table = conflict["table"]
    sides: dict[str, Any] = {}
    for side in ("base", "ours", "theirs"):
        row = conflict[side]
        sides[side] = json_rows([row])[0] if any(value is not None for value in row.values()) else None
    some: dict[str, Any] = next((row for row in sides.values() if row), {})
    return {"table": table, "row_id": some.get(f"{table}_id"), "name": some.get(NAME_COLUMNS.get(table, ""))} | sides


def _absolute(text: str, field: str) -> Path:
    """A folder that a client names; the daemon's working directory means nothing to it."""
    folder = Path(text)
    if not folder.is_absolute():
        raise errors.UsageError(problem=f"{text} is not an absolute path", field=field)
    return folder
