"""`GET /api/history/{frame}` and `POST /api/sql`: the history as Arrow streams, or JSON rows when asked for."""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from tundra_nb import errors
from tundra_nb.daemon.answers import json_response, json_rows, stream_arrow
from tundra_nb.daemon.routing import read_body, read_params, route
from tundra_nb.nearest import nearest
from tundra_nb.protocol import history as api
from tundra_nb.protocol.words import JSON
from tundra_nb.runtime.history.query import Condition, FrameQuery, checked
from tundra_nb.types import FRAMES, TEAM_TABLES, VERSIONED_TABLES

if TYPE_CHECKING:
    from tundra_nb.daemon.context import Daemon

INT_DIGITS = 19
"""Digits of the largest integer that the engines hold."""
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
FIRST_US = (dt.datetime.min.replace(tzinfo=dt.UTC) - EPOCH) // dt.timedelta(microseconds=1)
LAST_US = (dt.datetime.max.replace(tzinfo=dt.UTC) - EPOCH) // dt.timedelta(microseconds=1)
DEFAULT_WINDOW_SECONDS = 24 * 3600
"""What a history frame shows when no window is given."""


def routes(daemon: Daemon) -> list[BaseRoute]:
    async def frame(request: Request) -> Response:
        query = read_query(request, daemon.runtime.clock.now_us())
        asked_for = read_params(request, api.FrameParams)
        reads = daemon.runtime.reads(asked_for.source)
        is_pinned = query.at is not None or asked_for.source is not None  # the same rows for whoever looks
        if not (asked_for.all or is_pinned or query.table in TEAM_TABLES):
            query = msgspec.structs.replace(query, where=[*query.where, *daemon.runtime.history.own_or_unsigned])
        await _refuse_unknown(daemon, query, asked_for.source)
        if JSON in request.headers.get("accept", ""):
            return json_response({"rows": json_rows(await reads.rows(query))})
        asked = {"table": query.table, "since_us": query.since_us, "until_us": query.until_us, "limit": query.limit}
        return await stream_arrow(request, reads.query(query, asked_for.wait), asked)

    async def sql(request: Request) -> Response:
        body = await read_body(request, api.SqlBody)
        if body.archive:
            _refuse_states(body)
            found = daemon.runtime.archive.reads.archive_sql(body.sql, body.limit, body.wait)
            return await stream_arrow(request, found, {"sql": body.sql})
        found = daemon.runtime.reads(body.source).sql(body.sql, read_ref(body.at), body.limit, body.wait)
        return await stream_arrow(request, found, {"sql": body.sql})

    return [
        route(api.HISTORY, frame),
        route(api.SQL, sql),
    ]


def _refuse_states(body: api.SqlBody) -> None:
    """Refuse what an archive cannot be: a state of the history, or a source.

    Raises:
        UsageError: one is named.
    """
    for field, value, what in (("at", body.at, "at another state"), ("source", body.source, "of a source")):
        if value is not None:
            raise errors.UsageError(
                problem=f"the archive is read together with the history of now, not {what}",
                field=field,
                remedy="Leave one of the two out.",
            )


async def _refuse_unknown(daemon: Daemon, query: FrameQuery, source: str | None) -> None:
    """Refuse a profile or code that neither settings, errors nor the history know: no rows would read as "all well".

    Raises:
        UsageError: names the nearest.
    """
    for condition in query.where:
        if condition.op != "eq" or condition.column not in ("profile", "code"):
            continue
        known = {cls.code for cls in errors.every_error()} if condition.column == "code" else set(daemon.runtime.slots)
        if condition.value in known:
            continue
        seen = FrameQuery(table=query.table, at=query.at, by=[condition.column])
        known |= {row[condition.column] for row in await daemon.runtime.reads(source).rows(seen)} - {None}
        if condition.value not in known:
            raise errors.UsageError(
                problem=f"no {condition.column} {str(condition.value)[:40]!r} is known",
                field=condition.column,
                nearest=nearest(condition.value, sorted(known)),
                remedy=f"Known: {', '.join(sorted(known)) or 'none'}.",
            )


def read_query(request: Request, now_us: int) -> FrameQuery:
    """The query that a URL asks for: `since`, `until`, `at`, `limit`, `newest`, `columns` (names with commas between
    them; all when left out), and conditions `column.op=value`.

    Raises:
        UsageError: a time or number that does not parse. Names are checked by the history itself.
    """
    table = FRAMES.get(request.path_params["frame"], request.path_params["frame"])
    asked = read_params(request, api.FrameParams)
    if asked.since is None and asked.until is None and table not in VERSIONED_TABLES and asked.source is None:
        since_us: int | None = now_us - DEFAULT_WINDOW_SECONDS * 1_000_000
    else:
        since_us = None if asked.since in (None, "all") else read_time(str(asked.since), "since")
    own = api.FrameParams.__struct_encode_fields__
    return checked(
        FrameQuery(
            table=table,
            since_us=since_us,
            until_us=None if asked.until is None else read_time(asked.until, "until"),
            at=read_ref(asked.at),
            where=[_condition(name, value) for name, value in request.query_params.items() if name not in own],
            limit=asked.limit,
            newest_first=asked.newest,
            columns=asked.columns.split(",") if asked.columns else None,
            by=[name.strip() for name in asked.by.split(",")] if asked.by else [],
            every=asked.every,
            quantiles=_shares(asked.quantiles),
        )
    )


def read_ref(text: str | None) -> str | int | None:
    """A ref as the history takes it: a name, or microseconds since 1970 when it is a number or an ISO time."""
    if not text:
        return None
    if re.fullmatch(r"[0-9]{15,}", text):
        return read_time(text, "at")
    if re.match(r"\d{4}-\d{2}-\d{2}", text):
        return read_time(text, "at")
    return text


def read_time(text: str, field: str) -> int:
    number = text.removeprefix("-")
    if number.isascii() and number.isdigit() and len(number) <= INT_DIGITS:
        return _within(int(text), text, field)
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError as exc:
        raise errors.UsageError(
            problem=f"{text[:40]!r} is not a time", field=field, remedy="ISO 8601, or µs since 1970."
        ) from exc
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return (moment - EPOCH) // dt.timedelta(microseconds=1)


def _within(at_us: int, text: str, field: str) -> int:
    """The time, if it is one that a calendar has: within the years 1 to 9999."""
    if not FIRST_US <= at_us <= LAST_US:
        raise errors.UsageError(
            problem=f"{text[:40]!r} is no time of the calendar", field=field, remedy="ISO 8601, or µs since 1970."
        )
    return at_us


def _shares(text: str | None) -> list[float]:
    try:
        return [float(share) for share in text.split(",")] if text else []
    except ValueError as exc:
        raise errors.UsageError(
            problem=f"{text!r} are no quantiles", field="quantiles", remedy="For example `0.5,0.95,0.99`."
        ) from exc


def _condition(name: str, value: str) -> Condition:
    column, _, operator = name.partition(".")
    return Condition(column, operator or "eq", value)  # type: ignore[arg-type]  # an unknown operator is told by `checked`
