"""Version queries: commits, differences, branches, tags, merges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tundra_nb import errors
from tundra_nb.daemon.answers import iso, json_response, read_body, stream_arrow
from tundra_nb.daemon.routes.history import read_ref

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
    resolve: str | None = None


def routes(daemon: Daemon) -> list[BaseRoute]:
    history = daemon.runtime.history

    async def resolved(text: str | None) -> str:
        ref = read_ref(text)
        if ref == "WORKING":
            return "WORKING"
        return str(await history.call("resolve", ref="HEAD" if ref is None else ref))

    async def log(request: Request) -> Response:
        limit = request.query_params.get("limit")
        ref = await resolved(request.query_params.get("at"))
        found = await history.call("log", limit=int(limit) if limit and limit.isdigit() else None, ref=ref)
        return json_response({"rows": [commit | {"at": iso(commit["at"])} for commit in found]})

    async def commit(request: Request) -> Response:
        body = await read_body(request, CommitBody)
        message = body.message.strip() or "commit"
        return json_response(
            {"commit": await history.call("commit", message=message, author=daemon.user(request))}, 201
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
        return await stream_arrow(history.stream("diff", a=a, b=b, table=table), asked)

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

    async def merge(request: Request) -> Response:
        body = await read_body(request, MergeBody)
        if body.resolve not in (None, "ours", "theirs"):
            raise errors.UsageError(problem=f"resolve {body.resolve!r}", field="resolve", remedy="`ours` or `theirs`.")
        message = f"merge {body.branch}"
        user = daemon.user(request)
        found = await history.call("merge", branch=body.branch, message=message, author=user, strategy=body.resolve)
        return json_response(found)

    return [
        Route("/api/commits", log, methods=["GET"]),
        Route("/api/commits", commit, methods=["POST"]),
        Route("/api/diff", diff, methods=["GET"]),
        Route("/api/stat", stat, methods=["GET"]),
        Route("/api/branches", branches, methods=["GET"]),
        Route("/api/branches", branch, methods=["POST"]),
        Route("/api/tags", tags, methods=["GET"]),
        Route("/api/tags", tag, methods=["POST"]),
        Route("/api/merges", merge, methods=["POST"]),
    ]
