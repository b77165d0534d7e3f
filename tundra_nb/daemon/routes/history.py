"""`GET /api/history/{frame}` and `POST /api/sql`: the history as Arrow streams, or JSON rows when asked for."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tundra_nb import errors
from tundra_nb.daemon.answers import json_response, json_rows, read_body, stream_arrow
from tundra_nb.runtime.history.query import FrameQuery
from tundra_nb.settings import nearest
from tundra_nb.types import FRAMES, TABLES, columns

if TYPE_CHECKING:
    from tundra_nb.daemon.app import Daemon

DEFAULT_WINDOW_SECONDS = 24 * 3600
"""What a history frame shows when no window is given."""
OPERATORS = ("eq", "ne", "lt", "le", "gt", "ge", "like")


class SqlBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /api/sql`. `limit`: rows at most."""

    sql: str
    at: str | None = None
    limit: int | None = None


def routes(daemon: Daemon) -> list[BaseRoute]:
    history = daemon.runtime.history

    async def frame(request: Request) -> Response:
        query = read_query(request, daemon.runtime.clock.now_us())
        if "application/json" in request.headers.get("accept", ""):
            return json_response({"rows": json_rows(await history.rows(query))})
        meta = {"table": query.table, "since_us": query.since_us, "until_us": query.until_us, "limit": query.limit}
        meta |= await history.meta(query.at)
        return await stream_arrow(history.query(query), meta)

    async def sql(request: Request) -> Response:
        body = await read_body(request, SqlBody)
        meta = {"sql": body.sql} | await history.meta(body.at)
        return await stream_arrow(history.sql(body.sql, body.at, body.limit), meta)

    return [
        Route("/api/history/{frame}", frame, methods=["GET"]),
        Route("/api/sql", sql, methods=["POST"]),
    ]


def read_query(request: Request, now_us: int) -> FrameQuery:
    """The query that a URL asks for.

    Raises:
        UsageError: unknown frame, column or operator (names the nearest), or a time or number that does not parse.
    """
    name = request.path_params["frame"]
    table = FRAMES.get(name, name)
    if table not in TABLES:
        known = [*FRAMES, *TABLES]
        raise errors.UsageError(
            problem=f"no history table {name!r}", field="frame", nearest=nearest(name, known), remedy=f"Known: {', '.join(known)}."
        )
    given = dict(request.query_params)
    since = given.pop("since", None)
    until = given.pop("until", None)
    at = given.pop("at", None)
    limit = given.pop("limit", None)
    newest = given.pop("newest", "") in ("1", "true")
    if since is None and until is None and table not in ("setting", "profile", "price"):
        since_us: int | None = now_us - DEFAULT_WINDOW_SECONDS * 1_000_000
    else:
        since_us = None if since in (None, "all") else _time(str(since), "since")
    return FrameQuery(
        table=table,
        since_us=since_us,
        until_us=None if until is None else _time(until, "until"),
        at=at,
        where=[_condition(table, name, value) for name, value in given.items()],
        limit=None if limit is None else _count(limit),
        newest_first=newest,
    )


def _time(text: str, field: str) -> int:
    if text.lstrip("-").isdigit():
        return int(text)
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError as exc:
        raise errors.UsageError(problem=f"{text!r} is not a time", field=field, remedy="ISO 8601, or µs since 1970.") from exc
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return int(moment.timestamp() * 1_000_000)


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise errors.UsageError(problem=f"limit {text!r} is not a positive number", field="limit")
    return int(text)


def _condition(table: str, name: str, text: str) -> tuple[str, str, Any]:
    column_name, _, operator = name.partition(".")
    operator = operator or "eq"
    known = {column.name: column for column in columns(table)}
    if column_name not in known:
        raise errors.UsageError(
            problem=f"{table} has no column {column_name!r}", field=name, nearest=nearest(column_name, known)
        )
    if operator not in OPERATORS:
        raise errors.UsageError(problem=f"no operator {operator!r}", field=name, nearest=nearest(operator, OPERATORS))
    kind = known[column_name].type
    try:
        value: Any = text
        if kind in ("id", "int"):
            value = int(text)
        elif kind == "float":
            value = float(text)
        elif kind == "time":
            value = _time(text, name)
        elif kind == "bool":
            value = text in ("1", "true", "True")
    except ValueError as exc:
        raise errors.UsageError(problem=f"{text!r} is not of the type of {column_name} ({kind})", field=name) from exc
    return column_name, operator, value
