"""Forms of answers that several routes share."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import logging
import math
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tundra_nb import errors
from tundra_nb.protocol.words import ARROW, EVENTS, JSON, META_HEADER
from tundra_nb.runtime.history.line import ArrowStream
from tundra_nb.runtime.telemetry.redact import Redactor
from tundra_nb.types import TABLES, columns

T = TypeVar("T")
_log = logging.getLogger("tundra.daemon")

_encode = msgspec.json.Encoder().encode

IDS = frozenset(c.name for table in TABLES for c in columns(table) if c.type == "id")
TIMES = frozenset(c.name for table in TABLES for c in columns(table) if c.type == "time")


def json_response(value: Any, status: int = 200) -> Response:
    return Response(_encode(value), status_code=status, media_type=JSON)


def error_response(error: errors.TundraError, redactor: Redactor, status: int | None = None) -> Response:
    """The JSON body of `TundraError.to_wire`, with Retry-After (whole seconds, rounded up) where it is known."""
    body = error.to_wire()
    headers = {}
    if body["retry_after"] is not None:
        headers["Retry-After"] = str(math.ceil(body["retry_after"]))
    text = redactor.text(_encode(body).decode())
    return Response(text, status_code=status or error.http_status, headers=headers, media_type=JSON)


def json_rows(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """History rows for JSON: ids as strings, because JavaScript rounds large integers; times as ISO 8601."""
    return [{name: _json_value(name, value) for name, value in row.items()} for row in rows]


def _json_value(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in IDS:
        return str(value)
    if name in TIMES and isinstance(value, int):
        return iso(value)
    return value


def iso(at_us: int) -> str:
    return dt.datetime.fromtimestamp(at_us / 1e6, dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


async def stream_arrow(request: Request, stream: ArrowStream, query: Mapping[str, Any]) -> Response:
    """Pass an Arrow stream on, as fast as the client reads. Errors before its begin still become error answers.

    A client that goes away breaks off the query, also when nothing of its result is there yet.
    """
    beginning = asyncio.ensure_future(stream.meta())
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait((beginning, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not beginning.done():
            raise errors.Cancelled
        meta = beginning.result()
    finally:
        for task in (beginning, leaving):
            task.cancel()
        await asyncio.gather(beginning, leaving, return_exceptions=True)

    async def body() -> AsyncIterator[bytes]:
        try:
            async for chunk in stream:
                yield chunk
        finally:
            await stream.aclose()

    headers = {META_HEADER: json.dumps({**query, **meta})}  # ASCII only: it is a header
    return StreamingResponse(body(), media_type=ARROW, headers=headers)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass  # the body, which nobody wanted


def sse(event: str, value: Any) -> bytes:
    """One server-sent event with a JSON value."""
    return b"event: " + event.encode() + b"\ndata: " + _encode(value) + b"\n\n"


def stream_steps(steps: AsyncIterator[Any], end: type[Any], name: str, redactor: Redactor) -> Response:
    """Long work as server-sent events: `progress` again and again, then the event `name` with its end, or `error`."""

    async def body() -> AsyncIterator[bytes]:
        try:
            async for step in steps:
                yield sse(name if isinstance(step, end) else "progress", step)
        except errors.TundraError as error:
            yield redactor.text(sse("error", error.to_wire()).decode()).encode()
        except Exception as exc:  # noqa: BLE001 - the top of this work: what has begun can tell it only here
            _log.error("unexpected failure in long work", exc_info=exc)
            defect = errors.InternalError(problem=f"unexpected {type(exc).__name__} in the daemon")
            yield sse("error", defect.to_wire())
        finally:
            if isinstance(steps, AsyncGenerator):
                await steps.aclose()

    return StreamingResponse(body(), media_type=EVENTS, headers={"Cache-Control": "no-store"})


async def last_step(steps: AsyncIterator[Any], end: type[T]) -> T:
    """The end of long work, for who does not want to hear how far it is."""
    async for step in steps:
        if isinstance(step, end):
            return step
    raise errors.InternalError(problem="long work ended without an end")


def answered(app: ASGIApp) -> ASGIApp:
    """The application, whose defects end a call and not its connection.

    Starlette raises a defect once more after it has been answered, and the server then closes the connection: the
    client's next call, sent on it in good faith, would be lost.
    """

    async def settled(scope: Scope, receive: Receive, send: Send) -> None:
        is_whole = False

        async def sending(message: Message) -> None:
            nonlocal is_whole
            await send(message)
            is_whole = message["type"] == "http.response.body" and not message.get("more_body")

        try:
            await app(scope, receive, sending)
        except Exception:  # answered and logged by whoever turned it into an answer
            if not is_whole:
                raise

    return settled
