"""However much comes at once, the loop has its turns between: others are answered meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any, Literal

import msgspec
import pytest

from tests.runtime.calls import Calls, calls
from tundra_nb.daemon.routes.operations import AskEndpoint
from tundra_nb.runtime.apart import LONG_BYTES
from tundra_nb.runtime.caller import Caller
from tundra_nb.runtime.providers import anthropic as anthropic_form
from tundra_nb.runtime.providers import bodies, events, lenient
from tundra_nb.runtime.providers import openai as openai_form
from tundra_nb.runtime.providers.exchange import PART_BYTES
from tundra_nb.runtime.providers.relay import END, CallerBody
from tundra_nb.runtime.relayed import Choice, Relayed
from tundra_nb.runtime.rows import CallFacts
from tundra_nb.settings import RecordSettings
from tundra_nb.testing.scripted_provider import ScriptedStep
from tundra_nb.types.pieces import Piece, Raw

pytestmark = pytest.mark.anyio

MANY = 6_000
MOST_PIECES = PART_BYTES // 20
"""More are not read in one turn: the shortest event here has more than 20 bytes."""
Frames = list[bytes]
Content = Literal["off", "all"]


def chat(*deltas: dict[str, Any]) -> Frames:
    frames = [{"id": "c", "model": "m", "choices": [{"delta": delta}]} for delta in deltas]
    return [
        *(b"data: " + msgspec.json.encode(frame) + b"\n\n" for frame in frames),
        b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n',
    ]


def messages(*deltas: dict[str, Any]) -> Frames:
    told: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "m", "model": "m", "content": [], "usage": {}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        {"type": "message_stop"},
    ]
    return [f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode() for each in told]


def tool(arguments: str, name: str | None = None) -> dict[str, Any]:
    function = {"arguments": arguments} | ({"name": name} if name else {})
    return {"tool_calls": [{"index": 0, "id": "t" if name else None, "function": function}]}


BURSTS: dict[str, tuple[str, Callable[[], Frames]]] = {
    "chat: letters": ("local", lambda: chat(*[{"content": "a"}] * MANY)),
    "chat: parts of a tool call": ("local", lambda: chat(tool("", "f"), *[tool("1")] * MANY)),
    "chat: reasoning and text in turn": ("local", lambda: chat(*[{"reasoning": "a"}, {"content": "a"}] * (MANY // 2))),
    "chat: as many tool calls": (
        "local",
        lambda: chat(*({"tool_calls": [{"id": f"t{n}", "function": {"name": "f"}}]} for n in range(MANY // 4))),
    ),
    "messages: letters": ("anthropic", lambda: messages(*[{"type": "text_delta", "text": "a"}] * MANY)),
    "messages: reasoning": ("anthropic", lambda: messages(*[{"type": "thinking_delta", "thinking": "a"}] * MANY)),
}
PATHS = {"local": "/v1/chat/completions", "anthropic": "/v1/messages"}


class Turns:
    """Counts the turns of the loop, and how much of an answer is handed on in each."""

    def __init__(self) -> None:
        self.now = 0
        self.handed: Counter[int] = Counter()

    def hand(self, amount: int) -> None:
        self.handed[self.now] += amount

    async def count(self) -> None:
        while True:
            await asyncio.sleep(0)
            self.now += 1


@contextlib.asynccontextmanager
async def counted() -> AsyncIterator[Turns]:
    turns = Turns()
    counting = asyncio.create_task(turns.count())
    try:
        yield turns
    finally:
        counting.cancel()


@contextlib.asynccontextmanager
async def answering(kind: str, answer: bytes, record: Content = "off") -> AsyncIterator[Calls]:
    """A provider that sends an answer in one burst."""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: x\r\ncontent-length: {len(answer)}\r\n\r\n"
    profile: dict[str, Any] = {"kind": kind}
    async with calls("one", profiles={"one": profile}, record=RecordSettings(content=record)) as c:
        if kind == "anthropic":
            profile["base_url"] = c.servers["one"].url
        c.servers["one"].script(PATHS[kind], ScriptedStep(raw=head.encode() + answer))
        yield c


async def asked(c: Calls, turns: Turns, *, stream: bool) -> bytes:
    """An `ask` as it comes by the daemon's socket; what it writes."""
    runtime = SimpleNamespace(operations=c.operations, redactor=c.profiles.journal.redactor)
    endpoint = AskEndpoint(SimpleNamespace(runtime=runtime, user=lambda _: "me"))  # type: ignore[arg-type]
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}], "stream": stream}).encode()
    came = asyncio.Queue[dict[str, Any]]()
    came.put_nowait({"type": "http.request", "body": body, "more_body": False})
    sent: list[bytes] = []

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))
        turns.hand(sent[-1].count(b"\n\n"))

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers}
    await endpoint(scope, came.get, send)
    return b"".join(sent)


async def passed_on(c: Calls, turns: Turns, form: str, *, stream: bool) -> bytes:
    """The answer that a program gets by the gateway in its form."""
    body = {"model": "m", "stream": stream, "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    encoded = json.dumps(body).encode()
    given = CallerBody(form=form, body=encoded, members=bodies.members(encoded), is_streamed=stream)
    sent: list[bytes] = []

    async def deliver(piece: Piece) -> None:
        assert isinstance(piece, Raw)
        sent.append(piece.data)
        if piece.event != END:
            turns.hand(piece.data.count(b"\n\n"))

    request = Relayed(given, CallFacts(streamed=stream), [Choice(c.slots["one"].profile)], failover=False)
    request.operation_id = "1"
    await c.operations.call(request, Caller("me")).carry_out(deliver)
    return b"".join(sent)


@pytest.mark.parametrize("record", ["off", "all"])
@pytest.mark.parametrize("way", ["ask", "chat", "messages"])
@pytest.mark.parametrize("burst", BURSTS)
async def test_others_have_their_turn_while_thousands_of_pieces_are_read(burst: str, way: str, record: Content) -> None:
    kind, make = BURSTS[burst]
    frames = make()
    async with answering(kind, b"".join(frames), record) as c, counted() as turns:
        if way == "ask":
            answer = await asked(c, turns, stream=True)
            assert b"event: reply" in answer, answer[-500:]
        else:
            answer = await passed_on(c, turns, way, stream=True)
            assert b"[DONE]" in answer[-40:] or b"message_stop" in answer[-100:], answer[-500:]
        assert turns.now > sum(map(len, frames)) // PART_BYTES // 2
        assert max(turns.handed.values()) <= MOST_PIECES


def documents(kind: str) -> dict[str, bytes]:
    """Answers that are read in one step, with what they are."""
    words = "word\u20ac \\" * 60_000
    if kind == "local":
        letters, said = chat(*[{"content": "a"}] * MANY), {"role": "assistant", "content": words}
        whole: dict[str, Any] = {"choices": [{"message": said, "finish_reason": "stop"}], "usage": {}}
        long = chat({"content": words})
    else:
        letters = messages(*[{"type": "text_delta", "text": "a"}] * MANY)
        whole = {"type": "message", "model": "m", "content": [{"type": "text", "text": words}], "usage": {}}
        long = messages({"type": "text_delta", "text": words})
    return {
        "a stream though a document was asked for": b"".join(letters),
        "a long document": json.dumps(whole).encode(),
        "one long event": b"".join(long),
    }


@pytest.mark.parametrize("way", ["ask", "chat", "messages"])
@pytest.mark.parametrize("kind", ["local", "anthropic"])
@pytest.mark.parametrize("what", documents("local"))
async def test_a_long_answer_is_read_and_masked_apart_from_the_loop(
    what: str, kind: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What takes one step is no step of the loop's: nothing long is decoded, joined, masked or encoded there."""
    stream = what == "one long event"
    on_loop: list[int] = []
    loop_thread = threading.get_ident()
    decode = lenient.loads

    def loads(data: bytes) -> Any:
        if threading.get_ident() == loop_thread:
            on_loop.append(len(data))
        return decode(data)

    for module in (anthropic_form, events, openai_form):
        monkeypatch.setattr(module, "loads", loads)
    async with answering(kind, documents(kind)[what]) as c, counted() as turns:
        known = c.profiles.journal.redactor.known

        def masked(text: str, **options: bool) -> str:
            if threading.get_ident() == loop_thread:
                on_loop.append(len(text))
            return known(text, **options)

        monkeypatch.setattr(c.profiles.journal.redactor, "known", masked)
        if way == "ask":
            answer = await asked(c, turns, stream=stream)
        else:
            answer = await passed_on(c, turns, way, stream=stream)
    assert len(answer) > MANY
    assert max(on_loop, default=0) <= LONG_BYTES
