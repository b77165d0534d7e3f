"""A caller's body passed on as it is, and the answer passed back as it is, while a reader follows along.

For providers that speak the caller's own form. Only the model's name is put in, and, in streams of the chat form, the
wish for usage, which we always need; the frame that it adds is shown only to callers that asked for it. What the reader
sees (usage, errors, the end mark) decides how the attempt ended, exactly as for an `Ask`.
"""

from __future__ import annotations

import asyncio
import functools
import uuid
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any

import httpx
import msgspec

from tundra_nb.errors import ParseError, TundraError
from tundra_nb.runtime.apart import LONG_BYTES, apart
from tundra_nb.sse import EventTooLongError
from tundra_nb.types.pieces import Raw

from . import bodies, events
from .contract import ANSWERED, Answer, Deliver, Seen, StreamReader
from .direct import Address
from .exchange import WireExchange
from .frames import Frames, SseFrame
from .lenient import is_strict
from .observe import observer
from .provider import Provider

END = "end"
"""The event of a piece that holds the end mark: it is passed on only once the call's rows are written."""
PATHS = {
    "chat": "/chat/completions",
    "responses": "/responses",
    "embeddings": "/embeddings",
    "messages": "/v1/messages",
    "count_tokens": "/v1/messages/count_tokens",
}
"""Where each form is posted to, after the provider's base URL."""
FAMILY = {
    "chat": "openai",
    "responses": "openai",
    "embeddings": "openai",
    "messages": "anthropic",
    "count_tokens": "anthropic",
}
"""Whose form each is."""

BIG_BYTES = 1 << 20
"""A larger body is put together in a thread."""
_INCLUDE_USAGE = b'{"include_usage":true}'


class CallerBody(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller sent: the body, its members, and the headers that may go on."""

    form: str
    body: bytes
    members: dict[str, msgspec.Raw]
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """Names in lower case; they replace ours of the same name."""
    is_streamed: bool = False
    added: dict[str, bytes] = {}
    """Members that are put in, as JSON; they replace the caller's of the same name."""
    shows_usage: bool = True
    """The caller asked for the frame with the usage, or its form always has it."""


class Refusal(msgspec.Struct, frozen=True):
    """An error answer as the provider wrote it, for a caller that knows its form."""

    status: int
    body: bytes


def speaks(provider: Provider, form: str) -> bool:
    """Whether a provider's own form is the caller's."""
    return ("anthropic" if provider.profile.kind == "anthropic" else "openai") == FAMILY[form]


async def relay(
    provider: Provider,
    given: CallerBody,
    model: str,
    seen: Seen,
    refusals: list[Refusal],
    deliver: Deliver,
    *,
    record: bool = False,
    written: Callable[[Answer], bytes] | None = None,
) -> Answer:
    """Pass a body on once, deliver the answer's bytes as they arrive, and tell what was read of it.

    Cancelling closes the connection at once.

    Args:
        provider: whom to ask; it `speaks` the form.
        given: what the caller sent.
        model: the model's name to put in.
        seen: filled while the attempt runs, also when it fails.
        refusals: an error answer is added here, as the provider wrote it.
        deliver: takes the pieces.
        record: keep both bodies in `seen`.
        written: puts an answer into the caller's form, for servers that stream although a document was asked for,
            send a document although a stream was, or write JSON that no SDK reads.

    Raises:
        TundraError: what went wrong, as the outcome table has it.
    """
    ready = provider.prepared()
    await provider.learn_prices()
    big = len(given.body) >= BIG_BYTES
    body = await asyncio.to_thread(_body, given, model) if big else _body(given, model)
    kept: list[bytes] | None = [] if record else None
    if record:
        seen.request_body = body
    follow = observer(given.form, ready.wire, ready.target)
    address = _address(ready.target.base_url + PATHS[given.form])
    exchange = provider.exchange(ready.target, seen, kept, is_streamed=given.is_streamed)
    try:
        status = await exchange.send("POST", address, _headers(ready.headers, given.headers), body)
        if status not in ANSWERED:
            told = await exchange.failure_body()
            refusals.append(Refusal(status, told))
            raise ready.wire.error(model, status, seen.retry_after, told)
        start = await exchange.start() if given.is_streamed else b""
        if given.is_streamed and events.looks_whole(start) is False:
            return await _stream(exchange, start, follow.reader(model), given, ready.target.profile, model, deliver)
        whole = start + await exchange.body()
        answer, is_plain = await apart(len(whole), lambda: (follow.answer(model, whole), is_strict(whole)))
        is_other = given.is_streamed or events.looks_whole(whole) is False
        if is_other or (written is not None and not is_plain):
            if written is None:
                asked, came = ("stream", "document") if given.is_streamed else ("document", "stream")
                problem = f"a {asked} was asked for, and a {came} came"
                raise ParseError(profile=ready.target.profile, problem=problem)
            whole = await apart(len(whole), lambda: written(answer))
        exchange.identify(answer.request_id)
        await deliver(Raw(whole, END))
        return answer
    finally:
        await exchange.aclose()
        if kept:
            seen.keep(kept, ready.target.key)


async def fetch(
    provider: Provider, method: str, path: str, query: str, refusals: list[Refusal]
) -> AsyncGenerator[bytes, None]:
    """Ask a provider about something that it keeps; the parts of its answer, as they are.

    Args:
        provider: who keeps it.
        method: GET, POST or DELETE.
        path: after the provider's base URL.
        query: without its question mark.
        refusals: an error answer is added here, as the provider wrote it.

    Raises:
        TundraError: what went wrong.
    """
    ready = provider.prepared()
    address = Address(httpx.URL(ready.target.base_url + path + (f"?{query}" if query else "")))
    seen = Seen()
    exchange = provider.exchange(ready.target, seen, None, is_streamed=True)
    try:
        status = await exchange.send(method, address, list(ready.headers), b"{}" if method == "POST" else b"")
        if status not in ANSWERED:
            told = await exchange.failure_body()
            refusals.append(Refusal(status, told))
            raise ready.wire.error("", status, seen.retry_after, told)
        while (chunk := await exchange.next()) is not None:
            yield chunk
    finally:
        await exchange.aclose()


async def _stream(
    exchange: WireExchange,
    start: bytes,
    reader: StreamReader,
    given: CallerBody,
    profile: str,
    model: str,
    deliver: Deliver,
) -> Answer:
    frames = Frames()
    lacks_start = given.form == "messages"
    chunk: bytes | None = start
    while True:
        if frames.held <= LONG_BYTES:
            out, end, failure = _read(chunk, frames, reader, given)
        else:
            out, end, failure = await asyncio.to_thread(_read, chunk, frames, reader, given)
        if lacks_start and out:
            lacks_start, out = _started(out, model)
        # what came in one part with an error is given only after something else: until then the call may still be
        # repeated elsewhere
        if out and (failure is None or exchange.pieces):
            exchange.pieces += len(out)
            await deliver(Raw(b"".join(out)))
        if isinstance(failure, EventTooLongError):
            raise ParseError(profile=profile, problem=str(failure)) from failure
        if failure is not None:
            raise failure
        if chunk is None or reader.done:
            break
        chunk = await exchange.next()
    answer = exchange.finish(reader)
    if not end and given.form == "chat":
        end = [b"data: [DONE]\n\n"]  # some servers forget it after a finish reason, and clients wait for it
    exchange.identify(answer.request_id)
    await exchange.drain()
    await deliver(Raw(b"".join(end), END))
    return answer


def _read(
    chunk: bytes | None, frames: Frames, reader: StreamReader, given: CallerBody
) -> tuple[list[bytes], list[bytes], TundraError | EventTooLongError | None]:
    """What of the next part of a stream (None: its end) is passed on, what from the end mark on, and what is wrong."""
    out: list[bytes] = []
    end: list[bytes] = []
    try:
        for frame in frames.close() if chunk is None else frames.feed(chunk):
            if not frame.data or (FAMILY[given.form] == "openai" and events.is_filler(frame.event, frame.data)):
                continue
            reader.feed(frame.event, frame.data)
            if reader.done:
                end.append(frame.raw)
            elif given.shows_usage or not _is_only_usage(frame):
                out.append(frame.raw)
    except (TundraError, EventTooLongError) as exc:
        return out, end, exc
    return out, end, None


def _started(out: list[bytes], model: str) -> tuple[bool, list[bytes]]:
    """Whether the message has yet to start, and what is passed on, with its start before a block that has none.

    llama.cpp leaves it out when its first token is a part of a character, and SDKs then see no answer at all.
    """
    told = b"".join(out)
    if b"message_start" in told:
        return False, out
    if b"content_block_start" not in told:
        return True, out
    message: dict[str, Any] = {
        "id": f"msg_{uuid.uuid4().hex}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 0, "output_tokens": 0},
    }
    data = msgspec.json.encode({"type": "message_start", "message": message})
    return False, [b"event: message_start\ndata: %b\n\n" % data, *out]


@functools.lru_cache(maxsize=256)
def _address(url: str) -> Address:
    """Reading one costs a tenth of a call, and there are few."""
    return Address(httpx.URL(url))


def _body(given: CallerBody, model: str) -> bytes:
    changes = {**given.added, "model": msgspec.json.encode(model)}
    if given.is_streamed and given.form == "chat" and not given.shows_usage:
        options = bodies.value(given.members, "stream_options", dict[str, Any])
        changes["stream_options"] = (
            msgspec.json.encode({**options, "include_usage": True}) if options else _INCLUDE_USAGE
        )
    return bodies.changed(given.body, given.members, changes)


def _headers(ours: Iterable[tuple[bytes, bytes]], theirs: tuple[tuple[bytes, bytes], ...]) -> list[tuple[bytes, bytes]]:
    if not theirs:
        return list(ours)
    replaced = {name for name, _ in theirs}
    return [*(pair for pair in ours if pair[0].lower() not in replaced), *theirs]


def _is_only_usage(frame: SseFrame) -> bool:
    """The frame that `include_usage` adds: usage, and no choice."""
    if b'"usage"' not in frame.data:
        return False
    try:
        told = msgspec.json.decode(frame.data)
    except msgspec.DecodeError:
        return False
    return isinstance(told, dict) and told.get("choices") == [] and told.get("usage") is not None
