"""Endpoints of the protocol as routes, and what comes with a request, checked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp

from tundra_nb.errors import UsageError
from tundra_nb.protocol.endpoint import Endpoint

T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]


def route(endpoint: Endpoint, handler: Handler | ASGIApp | Callable[..., Any]) -> BaseRoute:
    """The handler of an endpoint."""
    if endpoint.method == "WS":
        return WebSocketRoute(endpoint.path, handler)
    return Route(endpoint.path, handler, methods=[endpoint.method])


async def read_body(request: Request, form: type[T]) -> T:
    """The JSON body of a request, checked.

    Raises:
        UsageError: not JSON, or not of this form; names the field.
    """
    try:
        return msgspec.json.decode(await request.body() or b"{}", type=form)
    except msgspec.ValidationError as exc:
        problem, field = _told(exc)
        raise UsageError(problem=f"{field + ': ' if field else ''}{problem}", field=field) from exc
    except (msgspec.DecodeError, UnicodeError) as exc:
        raise UsageError(problem=f"the body is not JSON: {exc}") from exc
    except RecursionError as exc:
        raise UsageError(problem="the body is nested too deeply") from exc


def read_params(request: Request, form: type[T]) -> T:
    """The query of a request, checked. What an endpoint does not know is read over.

    Raises:
        UsageError: a value is not of its type; names the parameter.
    """
    given = dict(request.query_params)
    try:
        return msgspec.convert(given, form, strict=False)
    except msgspec.ValidationError as exc:
        problem, field = _told(exc)
        raise UsageError(problem=f"{field} {given.get(field or '')!r}: {problem}", field=field) from exc


def _told(exc: msgspec.ValidationError) -> tuple[str, str | None]:
    problem, _, where = str(exc).partition(" - at `$")
    return problem[:1].lower() + problem[1:], where.strip("`").lstrip(".") or None
