"""`GET /api/history/{frame}` and `POST /api/sql`: the history as Arrow streams, or JSON rows when asked for."""

from __future__ import annotations

import datetime as dt
import math
import re
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tundra_nb import errors
from tundra_nb.daemon.answers import json_response, json_rows, read_body, stream_arrow
from tundra_nb.runtime.history.query import Condition, FrameQuery, checked
from tundra_nb.types import FRAMES, VERSIONED_TABLES

if TYPE_CHECKING:
    from tundra_nb.daemon.app import Daemon

MAX_INT = (1 << 63) - 1
INT_DIGITS = 19
"""Digits of the largest integer that the engines hold."""
MOST_WAIT_SECONDS = 120
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
FIRST_US = (dt.datetime.min.replace(tzinfo=dt.UTC) - EPOCH) // dt.timedelta(microseconds=1)
LAST_US = (dt.datetime.max.replace(tzinfo=dt.UTC) - EPOCH) // dt.timedelta(microseconds=1)
DEFAULT_WINDOW_SECONDS = 24 * 3600
"""What a history frame shows when no window is given."""


class SqlBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /api/sql`. `limit`: rows at most."""

    sql: str
    at: str | None = None
    limit: int | None = None
    wait: float | None = None


def routes(daemon: Daemon) -> list[BaseRoute]:
    history = daemon.runtime.history

    async def frame(request: Request) -> Response:
        query = read_query(request, daemon.runtime.clock.now_us())
        wait = read_wait(request.query_params.get("wait"))
        if "application/json" in request.headers.get("accept", ""):
            return json_response({"rows": json_rows(await history.rows(query))})
        asked = {"table": query.table, "since_us": query.since_us, "until_us": query.until_us, "limit": query.limit}
        return await stream_arrow(request, history.query(query, wait), asked)

    async def sql(request: Request) -> Response:
        body = await read_body(request, SqlBody)
        found = history.sql(body.sql, read_ref(body.at), check_limit(body.limit), read_wait(body.wait))
        return await stream_arrow(request, found, {"sql": body.sql})

    return [
        Route("/api/history/{frame}", frame, methods=["GET"]),
        Route("/api/sql", sql, methods=["POST"]),
    ]


def read_query(request: Request, now_us: int) -> FrameQuery:
    """The query that a URL asks for: `since`, `until`, `at`, `limit`, `newest`, `columns` (names with commas between
    them; all when left out), and conditions `column.op=value`.

    Raises:
        UsageError: a time or number that does not parse. Names are checked by the history itself.
    """
    table = FRAMES.get(request.path_params["frame"], request.path_params["frame"])
    given = dict(request.query_params)
    since = given.pop("since", None)
    until = given.pop("until", None)
    at = given.pop("at", None)
    limit = given.pop("limit", None)
    given.pop("wait", None)
    newest = given.pop("newest", "") in ("1", "true")
    columns = given.pop("columns", None)
    if since is None and until is None and table not in VERSIONED_TABLES:
        since_us: int | None = now_us - DEFAULT_WINDOW_SECONDS * 1_000_000
    else:
        since_us = None if since in (None, "all") else _time(str(since), "since")
    return checked(
        FrameQuery(
            table=table,
            since_us=since_us,
            until_us=None if until is None else _time(until, "until"),
            at=read_ref(at),
            where=[_condition(name, value) for name, value in given.items()],
            limit=read_limit(limit),
            newest_first=newest,
            columns=columns.split(",") if columns else None,
        )
    )


def read_ref(text: str | None) -> str | int | None:
    """A ref as the history takes it: a name, or microseconds since 1970 when it is a number or an ISO time."""
    if not text:
        return None
    if re.fullmatch(r"[0-9]{15,}", text):
        return _time(text, "at")
    if re.match(r"\d{4}-\d{2}-\d{2}", text):
        return _time(text, "at")
    return text


def read_limit(text: str | None) -> int | None:
    """A number of rows at most; None when none is given."""
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= INT_DIGITS):
        raise errors.UsageError(problem=f"limit {text[:40]!r} is not a positive number", field="limit")
    return check_limit(int(text))


def check_limit(limit: int | None) -> int | None:
    """The limit, if it is a number of rows that an engine can count to."""
    if limit is not None and not 1 <= limit < MAX_INT:
        raise errors.UsageError(
            problem=f"limit {limit} is not within 1 … 2⁶³-2", field="limit", remedy="Leave it out for all rows."
        )
    return limit


def read_wait(given: str | float | None) -> float | None:
    """Seconds until a read must be answered though not all events are stored; None is the daemon's own second."""
    if given is None:
        return None
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= MOST_WAIT_SECONDS:
        raise errors.UsageError(
            problem=f"wait {given!r} is not a number of seconds up to {MOST_WAIT_SECONDS}", field="wait"
        )
    return seconds


def _time(text: str, field: str) -> int:
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


def _condition(name: str, value: str) -> Condition:
    column, _, operator = name.partition(".")
    return Condition(column, operator or "eq", value)  # type: ignore[arg-type]  # an unknown operator is told by `checked`
