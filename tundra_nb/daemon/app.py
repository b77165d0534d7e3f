"""The ASGI application: the runtime behind HTTP, on the daemon's Unix socket only."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from tundra_nb import descriptors, errors
from tundra_nb.daemon.answers import answered, error_response
from tundra_nb.daemon.context import Daemon
from tundra_nb.daemon.gateway.paths import MODELS, PATHS, PREFIX
from tundra_nb.daemon.routes import (
    agents,
    archive,
    events,
    faults,
    history,
    incidents,
    metrics,
    operations,
    profiles,
    ptys,
    sources,
    status,
    terminal_ws,
    versions,
)
from tundra_nb.daemon.routes import daemon as daemon_routes
from tundra_nb.daemon.routes import doors as doors_routes
from tundra_nb.environment import account

if TYPE_CHECKING:
    from tundra_nb.daemon.gateway.doors import Doors
    from tundra_nb.daemon.life import Life
    from tundra_nb.runtime.runtime import Runtime

REPEATED_US = 1_000_000

_log = logging.getLogger("tundra.daemon")


class _Told:
    """Writes down the errors that callers are told outside an operation, whose own rows have them.

    A caller that repeats itself leaves one row a second.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._last = ("", 0)

    def write(self, error: errors.TundraError) -> None:
        now = self._runtime.clock.now_us()
        same, at = self._last
        if isinstance(error, errors.Cancelled) or (same == str(error) and now - at < REPEATED_US):
            return
        self._last = (str(error), now)
        with contextlib.suppress(errors.StoreError):  # no room for it: the caller is told all the same
            self._runtime.journal.error(_room(error), error, pty_id=getattr(error, "pty_id", None))


def _room(error: errors.TundraError) -> str:
    if isinstance(error, errors.PtyError):
        return "ptys"
    is_history = isinstance(error, errors.StoreError | errors.QueryRefused | errors.RefNotFound)
    return "history" if is_history else "daemon"


def serving(runtime: Runtime, life: Life, doors: Doors) -> ASGIApp:
    """The application as it is served."""
    return answered(create_app(runtime, life, doors))


def create_app(runtime: Runtime, life: Life, doors: Doors) -> Starlette:
    """Build the application over a runtime that is already open."""
    daemon = Daemon(runtime, life, account(runtime.environ), doors)

    told = _Told(runtime)

    async def on_tundra_error(_: Request, exc: Exception) -> Response:
        assert isinstance(exc, errors.TundraError)
        told.write(exc)
        return error_response(exc, runtime.redactor)

    async def on_http_error(request: Request, exc: Exception) -> Response:
        assert isinstance(exc, HTTPException)
        what = "no such route" if exc.status_code == 404 else exc.detail
        path = request.url.path
        remedy = ""
        if exc.status_code == 404 and (path in PATHS or path == MODELS):
            remedy = f"Add /v1: {PREFIX}{path}. An OpenAI SDK's base URL ends in /v1."
        error = errors.UsageError(problem=f"{request.method} {path}: {what}", remedy=remedy)
        return error_response(error, runtime.redactor, status=exc.status_code)

    async def on_os_error(request: Request, exc: Exception) -> Response:
        if (error := descriptors.exhausted(exc)) is not None:
            return error_response(error, runtime.redactor)
        return await on_defect(request, exc)

    async def on_defect(request: Request, exc: Exception) -> Response:
        _log.error("unexpected failure in %s %s", request.method, request.url.path, exc_info=exc)
        error = errors.InternalError(problem=f"unexpected {type(exc).__name__} in {request.method} {request.url.path}")
        return error_response(error, runtime.redactor)

    return Starlette(
        routes=[
            *status.routes(daemon),
            *profiles.routes(daemon),
            *faults.routes(daemon),
            *operations.routes(daemon),
            *history.routes(daemon),
            *versions.routes(daemon),
            *incidents.routes(daemon),
            *sources.routes(daemon),
            *archive.routes(daemon),
            *events.routes(daemon),
            *metrics.routes(daemon),
            *terminal_ws.routes(daemon),
            *ptys.routes(daemon),
            *agents.routes(daemon),
            *doors_routes.routes(daemon),
            *daemon_routes.routes(daemon),
        ],
        exception_handlers={
            errors.TundraError: on_tundra_error,
            HTTPException: on_http_error,
            OSError: on_os_error,
            Exception: on_defect,
        },
    )
