"""`POST /api/operations` asks; `GET /api/operations/{id}` tells why it went as it did."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from tundra_nb import errors
from tundra_nb.daemon.answers import error_response, json_response, json_rows, sse
from tundra_nb.daemon.routes import status
from tundra_nb.daemon.routing import read_body, read_params, route
from tundra_nb.daemon.traceparent import trace_of
from tundra_nb.errors.spelling import inside
from tundra_nb.protocol import operations as api
from tundra_nb.protocol.words import EVENTS, HEARTBEAT_SECONDS, JSON
from tundra_nb.runtime.apart import apart
from tundra_nb.runtime.history.story import StoredStory, WantedOperation
from tundra_nb.runtime.operations import Notice
from tundra_nb.runtime.recordings import read, texts
from tundra_nb.runtime.telemetry.redact import Redactor
from tundra_nb.runtime.telemetry.redact import Stream as Masking
from tundra_nb.types import Ask, Reply, ToolCall
from tundra_nb.types.pieces import Piece, Raw, Reasoning, Text, ToolCallPiece

if TYPE_CHECKING:
    from tundra_nb.daemon.context import Daemon

_encode = msgspec.json.Encoder().encode
_log = logging.getLogger("tundra.daemon")
Tell = Callable[[WantedOperation], Awaitable[StoredStory]]
ID_CHARACTERS = 20
BACK_CHARACTERS = 7
"""Longest form such as `-2`: further back nobody counts."""
ID_REMEDY = "Give an id, its last digits, `last` or `-2`."
REPEATED_CHARS = 1024 * 1024
"""A streamed text up to this length is in the last event once more, for readers that keep no pieces."""


def routes(daemon: Daemon) -> list[BaseRoute]:
    async def why(request: Request) -> Response:
        asked = read_params(request, api.WhyQuery)
        return json_response(await explain(daemon, request.path_params["id"], asked.source, is_all=asked.all))

    return [
        route(api.ASK, AskEndpoint(daemon)),
        route(api.WHY, why),
    ]


class AskEndpoint:
    """ASGI endpoint of `POST /api/operations`. When the client closes the connection, the operation is cancelled."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        redactor = self._daemon.runtime.redactor
        try:
            ask = await read_body(request, Ask)
        except ClientDisconnect:
            return
        except errors.TundraError as error:
            await error_response(error, redactor)(scope, receive, send)
            return
        user = self._daemon.user(request)
        trace = trace_of(request.headers.get("traceparent", "").encode())
        main = asyncio.current_task()
        assert main is not None
        stream = _Stream(send, redactor) if ask.stream else None
        gone = False

        async def watch() -> None:
            nonlocal gone
            while True:
                try:
                    message = await asyncio.wait_for(receive(), HEARTBEAT_SECONDS if stream else None)
                except TimeoutError:
                    if stream is not None:
                        await stream.heartbeat()
                    continue
                if message["type"] == "http.disconnect":
                    gone = True
                    main.cancel()
                    return

        watcher = asyncio.create_task(watch())
        try:
            if stream is not None:
                await self._streamed(ask, user, stream, trace)
            else:
                reply = await self._daemon.runtime.operations.ask(ask, user=user, trace=trace)
                body = await apart(_size(reply), lambda: _encode(masked(reply, redactor)))
                await Response(body, media_type=JSON)(scope, receive, send)
        except errors.TundraError as error:
            await error_response(error, redactor)(scope, receive, send)
        except asyncio.CancelledError:
            if not gone:
                raise
            main.uncancel()
        finally:
            watcher.cancel()

    async def _streamed(self, ask: Ask, user: str, stream: _Stream, trace: tuple[str | None, str | None]) -> None:
        redactor = self._daemon.runtime.redactor
        await stream.start()
        try:
            reply = await self._daemon.runtime.operations.ask(
                ask,
                user=user,
                on_piece=stream.piece,
                on_notice=stream.notice,
                on_attempt=stream.notice,
                trace=trace,
            )
        except errors.TundraError as error:
            await stream.rest()
            await stream.end_with(redactor.text(sse("error", error.to_wire()).decode()).encode())
        except Exception as exc:  # noqa: BLE001 - the top of this call: its rows and its stream say so
            _log.error("unexpected failure in a streamed call", exc_info=exc)
            defect = errors.InternalError(problem=f"unexpected {type(exc).__name__} in the daemon")
            await stream.end_with(sse("error", defect.to_wire()))
        else:
            await stream.rest()
            reply = _ending(reply)
            await stream.end_with(await apart(_size(reply), lambda: sse("reply", masked(reply, redactor))))


def _size(reply: Reply) -> int:
    """Characters in it, about."""
    return len(reply.text) + len(reply.reasoning) + sum(100 + len(call.arguments) for call in reply.tool_calls)


def _ending(reply: Reply) -> Reply:
    """The reply as the last event of its stream: a text too long to be sent twice is left to the pieces before."""
    text = reply.text if len(reply.text) <= REPEATED_CHARS else ""
    reasoning = reply.reasoning if len(reply.reasoning) <= REPEATED_CHARS else ""
    return msgspec.structs.replace(reply, text=text, reasoning=reasoning)


class _Stream:
    """One server-sent-event answer, written straight to the ASGI server: its back-pressure is the provider's."""

    def __init__(self, send: Send, redactor: Redactor) -> None:
        self._send = send
        self._redactor = redactor
        self._masking: dict[tuple[str, int], tuple[Piece, Masking]] = {}
        """By kind of piece and place of a tool call: what was the last one, and what masks them."""

    async def start(self) -> None:
        headers = [
            (b"content-type", EVENTS.encode()),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),
        ]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def piece(self, piece: Piece) -> None:
        if isinstance(piece, Raw):
            await self._write(sse("raw", piece))
            return
        tag = str(piece.__struct_config__.tag)
        key = (tag, piece.index if isinstance(piece, ToolCallPiece) else 0)
        masking = self._masking[key][1] if key in self._masking else self._redactor.stream()
        self._masking[key] = (piece, masking)
        text = _text_of(piece)
        shown = masking.feed(text)
        if shown or shown is text:  # else all of it waits for the next
            await self._write(sse(tag, piece if shown is text else _with_text(piece, shown)))
        elif isinstance(piece, ToolCallPiece) and piece.name:
            await self._write(sse(tag, _with_text(piece, "")))

    async def rest(self) -> None:
        """What waited for a next piece that did not come."""
        for piece, masking in self._masking.values():
            if shown := masking.finish():
                if isinstance(piece, ToolCallPiece):
                    piece = ToolCallPiece(index=piece.index)  # noqa: PLW2901 - only more of its arguments
                await self._write(sse(str(piece.__struct_config__.tag), _with_text(piece, shown)))

    async def notice(self, notice: Notice) -> None:
        await self._write(sse("notice", notice))

    async def heartbeat(self) -> None:
        await self._write(b": waiting\n\n")

    async def end_with(self, frame: bytes) -> None:
        await self._write(frame, more=False)

    async def _write(self, frame: bytes, *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": frame, "more_body": more})


def _text_of(piece: Text | Reasoning | ToolCallPiece) -> str:
    return piece.arguments if isinstance(piece, ToolCallPiece) else piece.text


def _with_text(piece: Piece, text: str) -> Piece:
    name = "arguments" if isinstance(piece, ToolCallPiece) else "text"
    return msgspec.structs.replace(piece, **{name: text})


def masked(reply: Reply, redactor: Redactor) -> Reply:
    """The reply without the values of keys: a model may repeat one that stood in its prompt."""
    texts = {name: value for name in _TEXTS if type(value := getattr(reply, name)) is str}
    known: dict[str, Any] = {
        name: shown for name, value in texts.items() if (shown := redactor.known(value)) is not value
    }
    calls = msgspec.json.encode(reply.tool_calls).decode() if reply.tool_calls else ""
    shown = redactor.known(calls)
    if shown is not calls:
        known["tool_calls"] = msgspec.json.decode(shown, type=list[ToolCall])
    return msgspec.structs.replace(reply, **known) if known else reply


_TEXTS = ("text", "reasoning", "model", "requested_model", "stop_reason", "request_id")


async def explain(daemon: Daemon, wanted: str, source: str | None = None, *, is_all: bool = False) -> dict[str, Any]:
    """The causal chain of one operation, as JSON rows.

    Args:
        daemon: where to look.
        wanted: the whole id, its last digits, `last`, or `-2` for the one before the last.
        source: look there instead of in the history.
        is_all: `last` and `-2` count the calls of all daemons of a shared history.
    """
    running = status.under_way(daemon) if source is None else []
    story = daemon.runtime.history.versions.story if source is None else daemon.runtime.sources.reader(source).story
    try:
        operation, related = await _find(story, wanted, running, is_all=is_all)
    except errors.UsageError as error:
        error.remedy = inside(error.remedy, source)
        raise
    await _recorded(daemon, related["exchanges"], source)
    told = {"under_way": running, "record": daemon.runtime.loaded.settings.record.content}
    return {"operation": json_rows([operation])[0], **related, **told}


async def _recorded(daemon: Daemon, exchanges: Sequence[dict[str, Any]], source: str | None) -> None:
    """Put in the texts that are in files; the files of a pulled history are on the machine that recorded them."""
    for row in exchanges:
        if row.get("recording"):
            if source is None:
                found = await asyncio.to_thread(daemon.runtime.recordings.read, row["recording"])
            else:
                folder = daemon.runtime.paths.sources / source / "recordings"
                found = await asyncio.to_thread(read, folder, row["recording"])
            row.update(texts(found))


def _running(running: Sequence[Mapping[str, Any]], wanted: str) -> dict[str, Any] | None:
    """A call under way as a row, by the last digits of its id; its `outcome` is what it does."""
    for call in running if wanted.isdigit() else ():
        if str(call["operation_id"]).endswith(wanted):
            return {
                "operation_id": int(call["operation_id"]),
                "at": round(dt.datetime.fromisoformat(call["at"]).timestamp() * 1e6),
                "kind": call["kind"],
                "requested_model": call["requested_model"],
                "profile": call["profile"],
                "outcome": "under_way",
                "message": call["doing"],
                "attempts": len(call["tried"]) + (call["profile"] is not None),
                "latency_ms": call["age_s"] * 1000,
            }
    return None


async def _find(
    story: Tell, wanted: str, running: Sequence[Mapping[str, Any]], *, is_all: bool
) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """The operation's row, and the rows of its parts as JSON."""
    if call := _running(running, wanted):
        return call, await _related(story, call)
    if not wanted.isascii() or len(wanted) > ID_CHARACTERS:
        raise errors.UsageError(problem=f"{wanted[:40]!r} is not an operation", field="id", remedy=ID_REMEDY)
    is_back = wanted == "last" or (wanted.startswith("-") and wanted[1:].isdigit() and len(wanted) <= BACK_CHARACTERS)
    if not is_back and not wanted.isdigit():
        raise errors.UsageError(problem=f"{wanted!r} is not an operation", field="id", remedy=ID_REMEDY)
    back = 1 if wanted == "last" else int(wanted[1:] or 0) if is_back else 0
    if is_back and not back:
        raise errors.UsageError(problem=f"{wanted!r} is not an operation", field="id", remedy=ID_REMEDY)
    found = await story(WantedOperation(back=back, all=is_all) if is_back else WantedOperation(digits=wanted))
    if found.operation is not None:
        return found.operation, _as_json(found)
    if is_back and running and (call := _running(running, str(running[-1]["operation_id"]))):
        return call, await _related(story, call)
    if not is_back:
        raise errors.UsageError(
            problem=f"no call with an id ending in {wanted}", field="id", remedy="`%tundra calls` lists them."
        )
    raise errors.UsageError(
        problem=f"there are only {found.calls} calls in the history"
        if found.calls
        else "there is no call in the history yet",
        field="id",
        remedy="`%tundra calls --since all` lists them.",
    )


async def _related(story: Tell, call: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """What a call under way has left so far."""
    wanted = WantedOperation(running=call["operation_id"], since_us=call["at"])
    return _as_json(await story(wanted))


def _as_json(found: StoredStory) -> dict[str, list[dict[str, Any]]]:
    return {part: json_rows(rows) for part, rows in found.related.items()}
