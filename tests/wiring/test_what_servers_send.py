"""What real servers send, through the real client and the real daemon: each answer states all that came of it.

Each row is a kind of what users of other gateways have reported, with near variants, in both wire formats, streamed and
not. It states text, tool calls, usage, stop reason, code, and the breaker's count afterwards.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import brotli
import pytest

import tundra_nb
from tests.conftest import Home, stop_processes
from tundra_nb import errors
from tundra_nb.client.sync import Client
from tundra_nb.testing.scripted_provider import ScriptedProcess, ScriptedStep, scripted_process
from tundra_nb.types import Reply

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

pytestmark = [pytest.mark.part("doltlite"), pytest.mark.timeout(120)]

EVENTS = (("content-type", "text/event-stream"),)
JSON = (("content-type", "application/json"),)
TOML = """
[router]
retries = 0
[breaker]
failures = 1000
[limits.global]
enabled = false
[limits.user]
enabled = false
[limits.profile]
enabled = false
[[profile]]
name = "o"
kind = "local"
base_url = "{o}/v1"
model = "m"
[[profile]]
name = "a"
kind = "anthropic"
base_url = "{o}"
model = "m"
"""
PATHS = {"o": "/v1/chat/completions", "a": "/v1/messages"}
Call = tuple[str, str]
"""Name and arguments."""


@dataclasses.dataclass
class Bench:
    client: Client
    provider: ScriptedProcess

    def failures(self, profile: str) -> int:
        rows = self.client.breakers()
        return int(rows[rows["profile"] == profile]["failures"].iloc[0])


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder: Path = tmp_path_factory.mktemp("servers")
    with scripted_process() as provider, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNDRA_DATA_DIR", str(folder / "data"))
        patch.setenv("TUNDRA_CONFIG", str(folder / "tundra.toml"))
        home = Home(folder, dict(os.environ))
        home.write_settings(TOML.format(o=provider.url))
        try:
            with tundra_nb.connect() as client:
                yield Bench(client, provider)
        finally:
            stop_processes(home)


@dataclasses.dataclass
class Row:
    """One answer and what must come of it. `code` None: a success."""

    name: str
    profile: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = EVENTS
    stream: bool = True
    status: int = 200
    text: str = ""
    calls: tuple[Call, ...] = ()
    usage: tuple[int | None, int | None] = (None, None)
    stop: str | None = None
    code: str | None = None
    says: str = ""
    counts: bool = False


def chat(*chunks: Any, done: bool = True) -> bytes:
    """A stream of the chat-completions form; a dict is a chunk, bytes stand as they are."""
    frames = [c if isinstance(c, bytes) else b"data: " + json.dumps(c).encode() + b"\n\n" for c in chunks]
    return b"".join([*frames, b"data: [DONE]\n\n"] if done else frames)


def delta(stop: str | None = None, index: Any = 0, **told: Any) -> dict[str, Any]:
    return {"id": "c", "model": "m-1", "choices": [{"index": index, "delta": told, "finish_reason": stop}]}


def tool(arguments: Any = None, **told: Any) -> dict[str, Any]:
    """A chunk with one piece of a tool call; `name` is the function's."""
    return delta(tool_calls=[piece(arguments, **told)])


def piece(arguments: Any = None, **told: Any) -> dict[str, Any]:
    function = {
        key: value for key, value in (("name", told.pop("name", None)), ("arguments", arguments)) if value is not None
    }
    return {**told, "function": function}


def whole(message: dict[str, Any], stop: Any = "stop", **more: Any) -> bytes:
    return json.dumps(
        {"id": "c", "model": "m-1", "choices": [{"index": 0, "message": message, "finish_reason": stop}], **more}
    ).encode()


def anthropic(
    *events: dict[str, Any],
    stop: str = "end_turn",
    start: dict[str, Any] | None = None,
    end: dict[str, Any] | None = None,
) -> bytes:
    """A stream of the Messages form around these events."""
    message = {
        "id": "msg",
        "type": "message",
        "model": "m-1",
        "content": [],
        "usage": start or {"input_tokens": 11, "output_tokens": 1},
    }
    last = {"type": "message_delta", "delta": {"stop_reason": stop}, "usage": end or {"output_tokens": 7}}
    every = [{"type": "message_start", "message": message}, *events, last, {"type": "message_stop"}]
    return b"".join(named(event) for event in every)


def named(event: dict[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def block(index: int | None, **told: Any) -> dict[str, Any]:
    return {"type": "content_block_start", **({} if index is None else {"index": index}), "content_block": told}


def more(index: int | None, **told: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", **({} if index is None else {"index": index}), "delta": told}


def said(text: str, index: int | None = 0) -> dict[str, Any]:
    return more(index, type="text_delta", text=text)


def part(json_text: str, index: int | None = 0) -> dict[str, Any]:
    return more(index, type="input_json_delta", partial_json=json_text)


def message(*content: Any, stop: str = "end_turn", **told: Any) -> bytes:
    return json.dumps(
        {
            "id": "msg",
            "type": "message",
            "model": "m-1",
            "content": list(content),
            "stop_reason": stop,
            "usage": {"input_tokens": 11, "output_tokens": 7},
            **told,
        }
    ).encode()


def message_of(*content: Any, **told: Any) -> dict[str, Any]:
    """`message`, as a document that more can be put into."""
    return json.loads(message(*content, **told))  # type: ignore[no-any-return]


TWO: tuple[Call, ...] = (("f", '{"a":1}'), ("g", '{"b":2}'))
ONE: tuple[Call, ...] = (("f", '{"a":1}'),)
USED = (11, 7)
DEEP = b'{"x":' * 2000 + b"1" + b"}" * 2000
HI = delta(content="hi")
END = delta("stop")
TOOLS: dict[str, Any] = {"profile": "o", "stop": "tool_calls"}
ENDS = delta("tool_calls")

TOOL_CALLS = [
    Row(
        "both with index 0, in two chunks",
        body=chat(
            tool('{"a":1}', index=0, id="1", name="f"),
            tool('{"b":', index=0, id="2", name="g"),
            tool("2}", index=0),
            ENDS,
        ),
        calls=TWO,
        **TOOLS,
    ),
    Row(
        "both with index 0, in one chunk",
        body=chat(
            delta(
                tool_calls=[piece('{"a":1}', index=0, id="1", name="f"), piece('{"b":2}', index=0, id="2", name="g")]
            ),
            ENDS,
        ),
        calls=TWO,
        **TOOLS,
    ),
    Row(
        "both with index 0 and no ids, in one chunk",
        body=chat(delta(tool_calls=[piece('{"a":1}', index=0, name="f"), piece('{"b":2}', index=0, name="g")]), ENDS),
        calls=TWO,
        **TOOLS,
    ),
    Row(
        "same function twice, both with index 0",
        body=chat(tool('{"a":1}', index=0, id="1", name="f"), tool('{"a":1}', index=0, id="2", name="f"), ENDS),
        calls=ONE + ONE,
        **TOOLS,
    ),
    Row(
        "later pieces with an empty id and no index",
        body=chat(tool("", index=0, id="1", name="f"), tool('{"a"', id=""), tool(":1}", id=""), ENDS),
        calls=ONE,
        **TOOLS,
    ),
    Row(
        "later pieces with an empty id and an empty name",
        body=chat(tool("", index=0, id="1", name="f"), tool('{"a":1}', index=0, id="", name=""), ENDS),
        calls=ONE,
        **TOOLS,
    ),
    Row(
        "first piece without index, later ones with",
        body=chat(tool('{"a"', id="1", name="f"), tool(":1}", index=0), ENDS),
        calls=ONE,
        **TOOLS,
    ),
    Row(
        "two first pieces without index, later ones with",
        body=chat(
            tool("", id="1", name="f"),
            tool("", id="2", name="g"),
            tool('{"a":1}', index=0),
            tool('{"b":2}', index=1),
            ENDS,
        ),
        calls=TWO,
        **TOOLS,
    ),
    Row(
        "neither index nor id, but names",
        body=chat(tool('{"a":1}', name="f"), tool('{"b":2}', name="g"), ENDS),
        calls=TWO,
        **TOOLS,
    ),
    Row(
        "id and name repeated in each piece",
        body=chat(tool('{"a"', index=0, id="1", name="f"), tool(":1}", index=0, id="1", name="f"), ENDS),
        calls=ONE,
        **TOOLS,
    ),
    Row(
        "same index, a new id but no name, goes on",
        body=chat(tool('{"a"', index=0, id="1", name="f"), tool(":1}", index=0, id="2"), ENDS),
        calls=ONE,
        **TOOLS,
    ),
    Row(
        "id first, name later",
        body=chat(tool("", index=0, id="1"), tool('{"a":1}', index=0, name="f"), ENDS),
        calls=ONE,
        **TOOLS,
    ),
    Row(
        "arguments as an object, numeric id, index as text",
        body=chat(tool({"a": 1}, index="0", id=5, name="f"), ENDS),
        calls=ONE,
        **TOOLS,
    ),
    Row(
        "index from 1",
        body=chat(tool('{"a":1}', index=1, id="1", name="f"), tool('{"b":2}', index=2, id="2", name="g"), ENDS),
        calls=TWO,
        **TOOLS,
    ),
    Row(
        "interleaved",
        body=chat(
            tool('{"a"', index=0, id="1", name="f"),
            tool('{"b"', index=1, id="2", name="g"),
            tool(":1}", index=0),
            tool(":2}", index=1),
            ENDS,
        ),
        calls=TWO,
        **TOOLS,
    ),
    Row(
        "the old function_call",
        body=chat(
            delta(function_call={"name": "f", "arguments": '{"a"'}), delta(function_call={"arguments": ":1}"}), ENDS
        ),
        calls=ONE,
        **TOOLS,
    ),
    Row(
        "calls repeated in a last message",
        body=chat(
            tool('{"a":1}', index=0, id="1", name="f"),
            {
                "choices": [
                    {
                        "index": 0,
                        "delta": {},
                        "message": {"tool_calls": [piece('{"a":1}', index=0, id="1", name="f")]},
                        "finish_reason": "tool_calls",
                    }
                ]
            },
        ),
        calls=ONE,
        **TOOLS,
    ),
    Row(
        "tool_calls {} and refusal false",
        "o",
        chat(delta(content="hi", tool_calls={}, refusal=False), END),
        text="hi",
        stop="stop",
    ),
    Row(
        "whole: arguments as an object, numeric id",
        "o",
        whole({"content": None, "tool_calls": [piece({"a": 1}, id=5, name="f")]}, "tool_calls"),
        JSON,
        stream=False,
        calls=ONE,
        stop="tool_calls",
    ),
    Row(
        "whole: one call, not in a list",
        "o",
        whole({"content": "", "tool_calls": piece('{"a":1}', id="1", name="f"), "refusal": False}, "tool_calls"),
        JSON,
        stream=False,
        calls=ONE,
        stop="tool_calls",
    ),
    Row(
        "anthropic: two blocks numbered 0",
        "a",
        anthropic(
            block(0, type="tool_use", id="1", name="f", input={}),
            part('{"a":1}'),
            block(0, type="tool_use", id="2", name="g", input={}),
            part('{"b":2}'),
            stop="tool_use",
        ),
        calls=TWO,
        usage=USED,
        stop="tool_calls",
    ),
    Row(
        "anthropic: blocks without numbers",
        "a",
        anthropic(
            block(None, type="tool_use", id="1", name="f", input={}),
            part('{"a":1}', None),
            block(None, type="tool_use", id="2", name="g", input={}),
            part('{"b":2}', None),
            stop="tool_use",
        ),
        calls=TWO,
        usage=USED,
        stop="tool_calls",
    ),
    Row(
        "anthropic: server tools are read past",
        "a",
        anthropic(
            block(0, type="server_tool_use", id="1", name="web_search", input={}),
            part('{"q":1}'),
            block(1, type="mcp_tool_use", id="2", name="x", input={}),
            part('{"q":1}', 1),
            block(2, type="text", text=""),
            said("hi", 2),
        ),
        text="hi",
        usage=USED,
        stop="stop",
    ),
    Row(
        "anthropic: whole input at the start",
        "a",
        anthropic(block(0, type="tool_use", id="1", name="f", input={"a": 1}), stop="tool_use"),
        calls=ONE,
        usage=USED,
        stop="tool_calls",
    ),
    Row(
        "anthropic: input as JSON text",
        "a",
        message({"type": "tool_use", "id": "1", "name": "f", "input": '{"a":1}'}, stop="tool_use"),
        JSON,
        stream=False,
        calls=ONE,
        usage=USED,
        stop="tool_calls",
    ),
    Row(
        "anthropic: numeric ids",
        "a",
        message({"type": "tool_use", "id": 1, "name": "f", "input": {"a": 1}}, stop="tool_use", id=7),
        JSON,
        stream=False,
        calls=ONE,
        usage=USED,
        stop="tool_calls",
    ),
    Row(
        "an empty object, and then the pieces",
        body=chat(tool("{}", index=0, id="1", name="f"), tool('{"a"', index=0), tool(":1}", index=0), ENDS),
        calls=ONE,
        **TOOLS,
    ),
    Row(
        "an empty object and nothing more",
        body=chat(tool("{}", index=0, id="1", name="f"), tool('{"b":2}', index=1, id="2", name="g"), ENDS),
        calls=(("f", "{}"), TWO[1]),
        **TOOLS,
    ),
    Row(
        "said in the old form and in the new",
        body=chat(
            delta(
                function_call={"name": "f", "arguments": '{"a":1}'},
                tool_calls=[piece('{"a":1}', index=0, id="1", name="f")],
            ),
            ENDS,
        ),
        calls=ONE,
        **TOOLS,
    ),
    Row(
        "two calls under one id",
        body=chat(tool('{"a":1}', index=0, id="1", name="f"), tool('{"b":2}', index=1, id="1", name="g"), ENDS),
        calls=TWO,
        **TOOLS,
    ),
    Row(
        "whole calls of one function under one number",
        body=chat(tool('{"a":1}', index=0, name="f"), tool('{"a":2}', index=0, name="f"), ENDS),
        calls=(("f", '{"a":1}'), ("f", '{"a":2}')),
        **TOOLS,
    ),
    Row(
        "a whole call that is said again",
        body=chat(tool('{"a":1}', index=0, id="1", name="f"), tool('{"a":1}', index=0, id="1", name="f"), ENDS),
        calls=ONE,
        **TOOLS,
    ),
    Row(
        "a whole call that ends with an empty object",
        body=chat(tool('{"a":1}', index=0, id="1", name="f"), tool("{}", index=0, id="1", name="f"), ENDS),
        calls=ONE,
        **TOOLS,
    ),
    Row(
        "arguments as parameters",
        body=chat(delta(tool_calls=[{"index": 0, "function": {"name": "f", "parameters": {"a": 1}}}]), ENDS),
        calls=ONE,
        **TOOLS,
    ),
    Row(
        "arguments as input, beside the name",
        body=chat(delta(tool_calls=[{"index": 0, "id": "1", "name": "f", "input": {"a": 1}}]), ENDS),
        calls=ONE,
        **TOOLS,
    ),
    Row(
        "a custom tool",
        body=chat(
            delta(tool_calls=[{"index": 0, "id": "1", "type": "custom", "custom": {"name": "f", "input": '{"a":1}'}}]),
            ENDS,
        ),
        calls=ONE,
        **TOOLS,
    ),
    Row(
        "whole: the same call twice, under one id",
        body=whole(
            {"tool_calls": [piece('{"a":1}', id="1", name="f"), piece('{"a":1}', id="1", name="f")]}, "tool_use"
        ),
        stream=False,
        calls=ONE + ONE,
        **TOOLS,
    ),
    Row(
        "anthropic: an input that is a list",
        "a",
        message({"type": "tool_use", "id": "1", "name": "f", "input": [1]}, stop="tool_use"),
        JSON,
        stream=False,
        calls=(("f", "[1]"),),
        usage=USED,
        stop="tool_calls",
    ),
]
CUT: dict[str, Any] = {"profile": "o", "code": "ParseError", "counts": True}

END_MARKS = (
    b"data: [done]",
    b'data: "[DONE]"',
    b"data: '[DONE]'",
    b"data: [ DONE ]",
    b"data: DONE",
    b"data: [END]",
    b"data: [DONE]\x00",
    b"data: [DONE]\xe2\x80\xa8",
    b"data: [DONE]\ndata: [DONE]",
)
ENDINGS = [
    *(
        Row(f"an end mark that is written {mark!r}", "o", chat(HI, mark + b"\n\n", done=False), text="hi")
        for mark in END_MARKS
    ),
    *(
        Row(
            f"anthropic: an end mark that is written {mark!r}",
            "a",
            anthropic(said("hi")).partition(b"event: message_stop")[0] + mark + b"\n\n",
            text="hi",
            usage=USED,
            stop="stop",
        )
        for mark in END_MARKS
    ),
    *(
        Row(f"a finish reason {told!r}", "o", chat(delta(told, content="hi"), done=False), text="hi", stop=stop)
        for told, stop in (
            ("Stop", "stop"),
            ("eos", "stop"),
            ("end_turn", "stop"),
            ("COMPLETE", "stop"),
            ("MAX_TOKENS", "length"),
            ("SAFETY", "content_filter"),
            ("Max Tokens", "length"),
            ("tool-calls", "tool_calls"),
            ("FinishReason.STOP", "stop"),
            ("fancy", "fancy"),
        )
    ),
    *(
        Row(
            f"a finish reason {told!r}, of an answer that broke off",
            "o",
            body,
            stream=stream,
            code="ApiError",
            says=told,
            counts=True,
        )
        for told in (
            "ERROR",
            "TIMED_OUT",
            "user_cancel",
            "rate_limit",
            "network_error",
            "insufficient_system_resource",
            "engine_overloaded",
            "abort",
            "cancelled",
        )
        for stream, body in ((True, chat(HI, delta(told))), (False, whole({"content": "hi"}, told)))
    ),
    Row(
        "anthropic: a stop reason of an answer that broke off",
        "a",
        anthropic(said("hi"), stop="error"),
        code="ApiError",
        counts=True,
    ),
    Row("no blank lines between the events", "o", chat(HI, END).replace(b"\n\n", b"\n"), text="hi", stop="stop"),
    Row(
        "an end mark without a blank line before it",
        "o",
        chat(HI, END).replace(b"\n\ndata: [DONE]", b"\ndata: [DONE]"),
        text="hi",
        stop="stop",
    ),
    *(
        Row(
            "plain lines of JSON" + (", for a document" if not stream else ""),
            "o",
            json.dumps(HI).encode() + b"\n" + json.dumps(END).encode() + b"\n",
            JSON,
            stream=stream,
            text="hi",
            stop="stop",
        )
        for stream in (True, False)
    ),
    Row(
        "plain lines of JSON that were cut",
        "o",
        json.dumps(HI).encode() + b"\n" + json.dumps(END).encode()[:-9],
        JSON,
        code="ParseError",
        counts=True,
    ),
    *(
        Row(f"after the end, {rest!r}", "o", chat(HI, END, b"data: " + rest, done=False), text="hi", stop="stop")
        for rest in (b"[D", b"EOF", b"[]", b'""', b"undefined")
    ),
    Row("after the end, a cut piece", body=chat(delta("stop", content="hi"), b'data: {"cho', done=False), **CUT),
    Row("an event of nothing", "o", chat(HI, b"data: null\n\n", END), text="hi", stop="stop"),
    Row(
        "the one choice, numbered 1",
        "o",
        whole({"content": "hi"}).replace(b'"index": 0', b'"index": 1'),
        JSON,
        stream=False,
        text="hi",
        stop="stop",
    ),
    Row("status 201", "o", whole({"content": "hi"}), JSON, status=201, stream=False, text="hi", stop="stop"),
    Row("status 201 of a stream", "o", chat(HI, END), status=201, text="hi", stop="stop"),
    Row("status 202 without an answer", "o", b"{}", JSON, status=202, stream=False, code="ParseError", counts=True),
    Row(
        "anthropic: plain words in an event of another name",
        "a",
        b"event: fancy\ndata: hello\n\n" + anthropic(said("hi")),
        text="hi",
        usage=USED,
        stop="stop",
    ),
    Row(
        "finish reasons of nothing, and no mark",
        body=chat(delta("", content="hi"), delta(""), done=False),
        says="after 1 piece",
        **CUT,
    ),
    Row("no finish reason, no mark", body=chat(HI, done=False), says="after 1 piece", **CUT),
    Row(
        "length stays, whatever follows",
        "o",
        chat(delta("length", content="hi"), delta(""), done=False),
        text="hi",
        stop="length",
    ),
    Row("a mark with blanks and a tab", "o", chat(HI, b"data:  [DONE] \t\n\n", done=False), text="hi"),
    Row("finish reason error, without an error", "o", chat(HI, delta("error")), code="ApiError", counts=True),
    Row(
        "a full message at the end: the text once",
        "o",
        chat(HI, {"choices": [{"index": 0, "delta": None, "message": {"content": "hi"}, "finish_reason": "stop"}]}),
        text="hi",
        stop="stop",
    ),
    Row(
        "a full message at the end: what was missing",
        "o",
        chat(HI, {"choices": [{"index": 0, "message": {"content": "hi there"}, "finish_reason": "stop"}]}),
        text="hi there",
        stop="stop",
    ),
    Row(
        "another choice is not mixed in",
        "o",
        chat(delta(content="no", index=1), HI, delta(content="no", index="1"), END),
        text="hi",
        stop="stop",
    ),
    Row(
        "another choice beside ours",
        "o",
        chat(
            {
                "choices": [
                    {"index": 1, "delta": {"content": "no"}},
                    {"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"},
                ]
            }
        ),
        text="hi",
        stop="stop",
    ),
    Row("only reasoning", "o", chat(delta(reasoning_content="hm"), END), stop="stop", says="only reasoning"),
    Row("empty", "o", chat(END), stop="stop", says="empty"),
    Row(
        "ended by a filter",
        "o",
        chat(delta("content_filter", content="hi")),
        text="hi",
        stop="content_filter",
        says="content filter",
    ),
    Row(
        "anthropic: only thinking",
        "a",
        anthropic(block(0, type="thinking", thinking=""), more(0, type="thinking_delta", thinking="hm")),
        usage=USED,
        stop="stop",
        says="only reasoning",
    ),
    Row(
        "anthropic: refused",
        "a",
        anthropic(block(0, type="text", text="h"), said("i"), stop="refusal"),
        text="hi",
        usage=USED,
        stop="content_filter",
        says="content filter",
    ),
    Row(
        "anthropic: [DONE] after the end",
        "a",
        anthropic(block(0, type="text", text=""), said("hi")) + b"data: [DONE]\n\n",
        text="hi",
        usage=USED,
        stop="stop",
    ),
    Row(
        "anthropic: [DONE] in the place of message_stop",
        "a",
        anthropic(block(0, type="text", text=""), said("hi")).replace(
            named({"type": "message_stop"}), b"data: [DONE]\n\n"
        ),
        text="hi",
        usage=USED,
        stop="stop",
    ),
    Row(
        "anthropic: [DONE] in the middle is a cut",
        "a",
        b"".join(map(named, [{"type": "message_start", "message": {"id": "m"}}, said("hi")])) + b"data: [DONE]\n\n",
        code="ParseError",
        counts=True,
        says="after 1 piece",
    ),
    Row(
        "anthropic: no end",
        "a",
        anthropic(said("hi")).partition(b"event: message_delta")[0],
        code="ParseError",
        counts=True,
        says="after 1 piece",
    ),
]

SPELLINGS = [
    Row("whole JSON as an event stream", "o", whole({"content": "hi"}), text="hi", stop="stop"),
    Row(
        "whole JSON as text",
        "o",
        b"\n " + whole({"content": "hi"}),
        (("content-type", "text/plain"),),
        text="hi",
        stop="stop",
    ),
    Row(
        "whole JSON without a content type",
        "o",
        whole({"content": "hi"}),
        (("content-type", ""),),
        text="hi",
        stop="stop",
    ),
    Row("an event stream in answer to an unstreamed ask", "o", chat(HI, END), stream=False, text="hi", stop="stop"),
    Row("the same called JSON", "o", chat(HI, END), JSON, stream=False, text="hi", stop="stop"),
    Row(
        "anthropic: whole JSON as an event stream",
        "a",
        message({"type": "text", "text": "hi"}),
        text="hi",
        usage=USED,
        stop="stop",
    ),
    Row(
        "anthropic: an event stream for an unstreamed ask",
        "a",
        anthropic(said("hi")),
        JSON,
        stream=False,
        text="hi",
        usage=USED,
        stop="stop",
    ),
    Row(
        "a byte order mark", "o", b"\xef\xbb\xbf" + whole({"content": "hi"}), JSON, stream=False, text="hi", stop="stop"
    ),
    Row("a byte order mark before events", "o", b"\xef\xbb\xbf" + chat(HI, END), text="hi", stop="stop"),
    Row(
        "NaN and Infinity in what nobody reads",
        "o",
        chat(HI, {**END, "logprobs": float("nan"), "x": float("inf")}),
        text="hi",
        stop="stop",
    ),
    Row(
        "ids and models of odd types",
        "o",
        chat({**HI, "id": 5, "model": None}, {**END, "id": None}),
        text="hi",
        stop="stop",
    ),
    Row(
        "content as a list of strings", "o", whole({"content": ["h", "i"]}), JSON, stream=False, text="hi", stop="stop"
    ),
    Row("content as a list of strings, streamed", "o", chat(delta(content=["h", "i"]), END), text="hi", stop="stop"),
    Row(
        "a pair split over two chunks",
        "o",
        chat(
            b'data: {"choices":[{"delta":{"content":"\\ud83d"}}]}\n\n',
            b'data: {"choices":[{"delta":{"content":"\\ude00"}}]}\n\n',
            END,
        ),
        text="\U0001f600",
        stop="stop",
    ),
    Row(
        "half a character",
        "o",
        chat(b'data: {"choices":[{"delta":{"content":"a\\ud83d"}}]}\n\n', delta(content="b"), END),
        text="a\ufffdb",
        stop="stop",
    ),
    Row(
        "half a character at the end",
        "o",
        chat(b'data: {"choices":[{"delta":{"content":"a\\ud83d"}}]}\n\n', END),
        text="a\ufffd",
        stop="stop",
    ),
    Row(
        "half a character in a whole answer",
        "o",
        whole({"content": "x"}).replace(b'"x"', b'"a\\ud83d"'),
        JSON,
        stream=False,
        text="a\ufffd",
        stop="stop",
    ),
    Row(
        "anthropic: a pair split over two events",
        "a",
        anthropic(block(0, type="text", text=""), said("\ud83d"), said("\ude00")),
        text="\U0001f600",
        usage=USED,
        stop="stop",
    ),
    Row(
        "zstd of a stream, in two frames",
        "o",
        zstd.compress(chat(HI, done=False)) + zstd.compress(chat(END)),
        (*EVENTS, ("content-encoding", "ZSTD")),
        text="hi",
        stop="stop",
    ),
    Row("a comment in the data", "o", chat(b"data: : still working\n\n", HI, END), text="hi", stop="stop"),
    Row(
        "an empty error on a good chunk", "o", chat({**HI, "error": {}}, {**END, "error": None}), text="hi", stop="stop"
    ),
    Row(
        "base_resp of success",
        "o",
        chat(HI, {**END, "base_resp": {"status_code": 0, "status_msg": "success"}}),
        text="hi",
        stop="stop",
    ),
    Row("a field nobody knows, between", "o", chat(b"noise: x\n\n", HI, END), text="hi", stop="stop"),
    Row(
        "a number of 5,000 digits",
        "o",
        b'{"created":' + b"9" * 5000 + b',"choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}]}',
        JSON,
        stream=False,
        text="hi",
        stop="stop",
    ),
    Row(
        "a number of 5,000 digits in a stream",
        "o",
        b"data: "
        b'{"created":'
        + b"9" * 5000
        + b',"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]}'
        + b"\n\n",
        text="hi",
        stop="stop",
    ),
    *(
        Row(f"a part {name}", "o", chat(delta(content=[part_of]), END), text="hi", stop="stop")
        for name, part_of in (
            ("in capitals", {"type": "Text", "text": "hi"}),
            ("without a type", {"type": None, "text": "hi"}),
            ("with its text within", {"type": "text", "text": {"value": "hi", "annotations": []}}),
            ("of a refusal", {"type": "refusal", "refusal": "hi"}),
        )
    ),
    Row(
        "anthropic: a block of nothing",
        "a",
        message(None, {"type": "text", "text": "hi"}),
        JSON,
        stream=False,
        text="hi",
        usage=USED,
        stop="stop",
    ),
    *(
        Row(
            f"a content encoding {name!r} of nothing packed",
            "o",
            body,
            (("content-encoding", name),),
            stream=stream,
            text="hi",
            stop="stop",
        )
        for name in ("utf-8", "none", "aws-chunked", "gzip")
        for stream, body in ((True, chat(HI, END)), (False, whole({"content": "hi"})))
    ),
    Row(
        "a content encoding that cannot be read",
        "o",
        whole({"content": "hi"}),
        (("content-encoding", "xz"),),
        stream=False,
        code="ParseError",
        says="compressed with 'xz'",
        counts=True,
    ),
]

LATER: tuple[Any, ...] = (0.0, "0.0", -1, "n/a", [], 10**400)
COUNTS = [
    Row(
        "later zeros",
        "a",
        anthropic(said("hi"), end={"input_tokens": 0, "output_tokens": 7, "cache_read_input_tokens": 0}),
        text="hi",
        usage=USED,
        stop="stop",
    ),
    Row(
        "later nothing",
        "a",
        anthropic(said("hi"), end={"input_tokens": None, "output_tokens": 7}),
        text="hi",
        usage=USED,
        stop="stop",
    ),
    Row(
        "usage beside the choice",
        "o",
        chat(
            HI,
            {
                "choices": [
                    {
                        "index": 0,
                        "delta": {},
                        "finish_reason": "stop",
                        "usage": {"prompt_tokens": 11, "completion_tokens": 7},
                    }
                ]
            },
        ),
        text="hi",
        usage=USED,
        stop="stop",
    ),
    Row(
        "x_groq",
        "o",
        chat(HI, {**END, "x_groq": {"usage": {"prompt_tokens": 11, "completion_tokens": 7}}}),
        text="hi",
        usage=USED,
        stop="stop",
    ),
    Row(
        "counts as text",
        "o",
        chat(HI, {**END, "usage": {"prompt_tokens": "11", "completion_tokens": "7"}}),
        text="hi",
        usage=USED,
        stop="stop",
    ),
    Row(
        "anthropic's names",
        "o",
        chat(HI, {**END, "usage": {"input_tokens": 11, "output_tokens": 7}}),
        text="hi",
        usage=USED,
        stop="stop",
    ),
    Row(
        "an empty usage last",
        "o",
        chat(
            HI,
            {**END, "usage": {"prompt_tokens": 11, "completion_tokens": 7}},
            {"choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": 0}},
        ),
        text="hi",
        usage=USED,
        stop="stop",
    ),
    Row(
        "whole: counts as text",
        "o",
        whole({"content": "hi"}, usage={"prompt_tokens": "11", "completion_tokens": "7"}),
        JSON,
        stream=False,
        text="hi",
        usage=USED,
        stop="stop",
    ),
    *(
        Row(
            f"later counts that are none: {later!r}",
            "o",
            chat(
                HI,
                {"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 7}},
                {**END, "usage": {"prompt_tokens": later, "completion_tokens": later}},
            ),
            text="hi",
            usage=USED,
            stop="stop",
        )
        for later in LATER
    ),
    Row(
        "counts with a fraction, as text",
        "o",
        whole({"content": "hi"}, usage={"prompt_tokens": "11.0", "completion_tokens": "7.0"}),
        JSON,
        stream=False,
        text="hi",
        usage=USED,
        stop="stop",
    ),
    Row(
        "a cost of 400 digits",
        "o",
        whole({"content": "hi"}, usage={"prompt_tokens": 11, "completion_tokens": 7, "cost": 10**400}),
        JSON,
        stream=False,
        text="hi",
        usage=USED,
        stop="stop",
    ),
    Row(
        "anthropic: counts by the names of the other form",
        "a",
        json.dumps(
            message_of({"type": "text", "text": "hi"}, usage={"prompt_tokens": 11, "completion_tokens": 7})
        ).encode(),
        JSON,
        stream=False,
        text="hi",
        usage=USED,
        stop="stop",
    ),
]

FAULTS = [
    Row(
        "an error as a field",
        "o",
        b'error: {"message":"too busy","code":503}\n\n',
        code="ApiError",
        says="too busy",
        counts=True,
    ),
    Row(
        "an error as a field, after text",
        "o",
        chat(HI, b'error: {"message":"too busy"}\n\n', done=False),
        code="ApiError",
        says="too busy",
        counts=True,
    ),
    Row(
        "plain words after event: error",
        "o",
        b"event: error\ndata: the engine is too busy\n\n",
        code="ApiError",
        says="the engine is too busy",
        counts=True,
    ),
    Row(
        "code and msg under 200",
        "o",
        b'{"code":5001,"msg":"too busy"}',
        JSON,
        stream=False,
        code="ApiError",
        says="too busy",
        counts=True,
    ),
    Row(
        "code and msg in the middle",
        "o",
        chat(HI, {"code": 5001, "msg": "too busy"}),
        code="ApiError",
        says="too busy",
        counts=True,
    ),
    Row(
        "a message under 200",
        "o",
        b'{"message":"too busy"}',
        JSON,
        stream=False,
        code="ApiError",
        says="too busy",
        counts=True,
    ),
    Row(
        "a bare document between events",
        "o",
        chat(HI, b'{"error":{"message":"too busy","type":"server_error"}}\n\n', done=False),
        code="ApiError",
        says="too busy",
        counts=True,
    ),
    Row(
        "base_resp of a rate limit",
        "o",
        b'{"base_resp":{"status_code":1002,"status_msg":"slow down"},"choices":null}',
        JSON,
        stream=False,
        code="RateLimited",
        says="slow down",
    ),
    Row(
        "an error list",
        "o",
        b'{"success":false,"errors":[{"code":7000,"message":"too busy"}]}',
        JSON,
        stream=False,
        code="ApiError",
        says="too busy",
        counts=True,
    ),
    Row(
        "anthropic: code and msg under 200",
        "a",
        b'{"code":500,"msg":"too busy"}',
        JSON,
        stream=False,
        code="ApiError",
        says="too busy",
        counts=True,
    ),
    Row(
        "anthropic: a message in the middle",
        "a",
        anthropic(said("hi")).partition(b"event: message_delta")[0] + b'data: {"message":"too busy"}\n\n',
        code="ApiError",
        says="too busy",
        counts=True,
    ),
    Row(
        "anthropic: plain words",
        "a",
        b"event: error\ndata: overloaded\n\n",
        code="ApiError",
        says="overloaded",
        counts=True,
    ),
    Row("nested without end", "o", DEEP, JSON, stream=False, code="ParseError", says="nested", counts=True),
    Row(
        "nested without end, in an event",
        "o",
        b"data: " + DEEP + b"\n\n",
        code="ParseError",
        says="nested",
        counts=True,
    ),
    Row(
        "anthropic: nested without end", "a", b"data: " + DEEP + b"\n\n", code="ParseError", says="nested", counts=True
    ),
    Row(
        "an encoding that nobody knows",
        "o",
        b"\x0b\x02\x80hi\x03",
        (*JSON, ("content-encoding", "snappy")),
        stream=False,
        code="ParseError",
        says="'snappy'",
        counts=True,
    ),
    Row(
        "br that is none",
        "o",
        whole({"content": "hi"}),
        (*JSON, ("content-encoding", "br")),
        stream=False,
        code="ParseError",
        says="damaged",
        counts=True,
    ),
    Row(
        "zstd that is cut",
        "o",
        zstd.compress(whole({"content": "hi" * 99}))[:40],
        (*JSON, ("content-encoding", "zstd")),
        stream=False,
        code="ParseError",
        says="in the middle",
        counts=True,
    ),
    Row(
        "gzip that is cut",
        "o",
        gzip.compress(whole({"content": "hi" * 99}))[:40],
        (*JSON, ("content-encoding", "gzip")),
        stream=False,
        code="ParseError",
        counts=True,
    ),
    Row(
        "a web page",
        "o",
        b"<html>log in</html>",
        (("content-type", "text/html"),),
        code="ParseError",
        says="web page",
        counts=True,
    ),
    *(
        Row(
            f"an error that is told as {json.dumps(told)}, {where}",
            "o",
            body,
            EVENTS if stream else JSON,
            stream=stream,
            code=code,
            says=says,
            counts=code == "ApiError" and "key" not in says,
        )
        for told, code, says in (
            ({"errors": {"message": "too busy"}}, "ApiError", "too busy"),
            ({"errors": "too busy"}, "ApiError", "too busy"),
            ({"error": True}, "ApiError", ""),
            ({"error": 429}, "RateLimited", ""),
            ({"error": "rate_limit_exceeded"}, "RateLimited", ""),
            ({"error": '{"message":"too busy","type":"rate_limit_error"}'}, "RateLimited", "too busy"),
            ({"Error": {"Message": "too busy", "Code": "X"}}, "ApiError", "too busy"),
            ({"fault": {"faultstring": "too busy"}}, "ApiError", "too busy"),
            ({"exception": "too busy"}, "ApiError", "too busy"),
            ({"throttlingException": {"message": "too busy"}}, "RateLimited", "too busy"),
            ({"error": {"error": {"type": "rate_limit_error", "message": "too busy"}}}, "RateLimited", "too busy"),
            ({"error_code": 18, "error_msg": "too busy"}, "RateLimited", "too busy"),
            ({"error_code": 110, "error_msg": "token"}, "ApiError", "the key was rejected (401)"),
            ({"error": "Invalid API key"}, "ApiError", "the key was rejected (401)"),
        )
        for where, stream, body in (
            ("at once", True, chat(told)),
            ("after text", True, chat(HI, told)),
            ("for a document", False, json.dumps(told).encode()),
        )
    ),
    Row(
        "codes of success",
        "o",
        chat({"code": "Success", "message": "", "choices": []}, HI, {**END, "code": "ok"}),
        text="hi",
        stop="stop",
    ),
]


def used(profile: str) -> tuple[int | None, int | None]:
    return USED if profile == "a" else (None, None)


def each(
    name: str, *, o: Sequence[Any] = (), whole_o: Any = None, a: Sequence[Any] = (), whole_a: Any = None, **told: Any
) -> list[Row]:
    """One kind of input in each form, streamed and not, which all come to the same.

    `o` and `a` are what a stream sends, `whole_o` and `whole_a` documents; `done` is the end mark that the first has.
    """
    bodies: list[tuple[str, bool, bytes]] = []
    if o:
        bodies.append(("o", True, chat(*o, done=told.pop("done", True))))
    if whole_o is not None:
        bodies.append(("o", False, _document(whole_o)))
    if a:
        bodies.append(("a", True, b"".join(e if isinstance(e, bytes) else named(e) for e in a)))
    if whole_a is not None:
        bodies.append(("a", False, _document(whole_a)))
    usage = told.pop("usage", None)
    is_ok = told.get("code") is None
    return [
        Row(
            f"{name}: {form}, {'streamed' if stream else 'whole'}",
            form,
            body,
            EVENTS if stream else JSON,
            stream=stream,
            usage=(usage or used(form)) if is_ok else (None, None),
            **told,
        )
        for form, stream, body in bodies
    ]


def _document(told: Any) -> bytes:
    return told if isinstance(told, bytes) else json.dumps(told).encode()


def events(*between: Any, stop: str | None = "end_turn", **told: Any) -> list[Any]:
    """What `anthropic` is made of, so that something can be put between."""
    start = {"type": "message_start", "message": message_of() | {"usage": {"input_tokens": 11, "output_tokens": 1}}}
    last = {"type": "message_delta", "delta": {"stop_reason": stop}, "usage": {"output_tokens": 7}} | told
    return [start, *between, last, {"type": "message_stop"}]


def used_tools(*blocks: dict[str, Any]) -> dict[str, Any]:
    return message_of(*blocks, stop="tool_use")


def tool_use(name: str, given: Any, **told: Any) -> dict[str, Any]:
    return {"type": "tool_use", "name": name, "input": given, **told}


F, G = '{"a":1}', '{"b":2}'
CALLED: dict[str, Any] = {"stop": "tool_calls"}
TEXT = {"type": "text", "text": "hi"}
OPEN_TEXT = block(0, type="text", text="")
EACH = [
    *each(
        "two calls under one number",
        o=[tool(F, index=0, id="1", name="f"), tool(G, index=0, id="2", name="g"), ENDS],
        whole_o=whole(
            {"tool_calls": [piece(F, index=0, id="1", name="f"), piece(G, index=0, id="2", name="g")]}, "tool_calls"
        ),
        a=events(
            block(0, type="tool_use", id="1", name="f", input={}),
            part(F),
            block(0, type="tool_use", id="2", name="g", input={}),
            part(G),
            stop="tool_use",
        ),
        whole_a=used_tools(tool_use("f", {"a": 1}, id="1", index=0), tool_use("g", {"b": 2}, id="2", index=0)),
        calls=TWO,
        **CALLED,
    ),
    *each(
        "empty ids",
        o=[tool("", index=0, id="", name="f"), tool(F, id=""), ENDS],
        whole_o=whole({"tool_calls": [piece(F, id="", name="f")]}, "tool_calls"),
        a=events(block(0, type="tool_use", id="", name="f", input={}), part(F), stop="tool_use"),
        whole_a=used_tools(tool_use("f", {"a": 1}, id="")),
        calls=ONE,
        **CALLED,
    ),
    *each(
        "no ids and no numbers",
        o=[tool(F, name="f"), tool(G, name="g"), ENDS],
        whole_o=whole({"tool_calls": [piece(F, name="f"), piece(G, name="g")]}, "tool_calls"),
        a=events(
            block(None, type="tool_use", name="f", input={}),
            part(F, None),
            block(None, type="tool_use", name="g", input={}),
            part(G, None),
            stop="tool_use",
        ),
        whole_a=used_tools(tool_use("f", {"a": 1}), tool_use("g", {"b": 2})),
        calls=TWO,
        **CALLED,
    ),
    *each(
        "numbers as ids and text as numbers",
        o=[tool(F, index="0", id=7, name="f"), ENDS],
        whole_o=whole({"tool_calls": [piece(F, index="0", id=7, name="f")]}, "tool_calls"),
        a=events(
            {"type": "content_block_start", "index": "0", "content_block": tool_use("f", {}, id=7)},
            {"type": "content_block_delta", "index": "0", "delta": {"type": "input_json_delta", "partial_json": F}},
            stop="tool_use",
        ),
        whole_a=used_tools(tool_use("f", {"a": 1}, id=7, index="0")),
        calls=ONE,
        **CALLED,
    ),
    *each(
        "arguments as an object, or as text",
        o=[tool({"a": 1}, index=0, id="1", name="f"), ENDS],
        whole_o=whole({"tool_calls": [piece({"a": 1}, id="1", name="f")]}, "tool_calls"),
        a=events(block(0, type="tool_use", id="1", name="f", input=F), stop="tool_use"),
        whole_a=used_tools(tool_use("f", F, id="1")),
        calls=ONE,
        **CALLED,
    ),
    *each(
        "a call that ends with stop",
        o=[tool(F, index=0, id="1", name="f"), END],
        whole_o=whole({"content": None, "tool_calls": [piece(F, id="1", name="f")]}, "stop"),
        calls=ONE,
        stop="stop",
    ),
    *each(
        "a call beside a text",
        o=[HI, tool(F, index=0, id="1", name="f"), ENDS],
        whole_o=whole({"content": "hi", "tool_calls": [piece(F, id="1", name="f")]}, "tool_calls"),
        a=events(
            OPEN_TEXT, said("hi"), block(1, type="tool_use", id="1", name="f", input={}), part(F, 1), stop="tool_use"
        ),
        whole_a=used_tools(TEXT, tool_use("f", {"a": 1}, id="1")),
        text="hi",
        calls=ONE,
        **CALLED,
    ),
    *each(
        "empty lists of calls, and refusals of false",
        o=[delta(content="hi", tool_calls={}, refusal=False), delta("stop", tool_calls=[])],
        whole_o=whole({"content": "hi", "tool_calls": {}, "refusal": False, "function_call": None}),
        text="hi",
        stop="stop",
    ),
    *each(
        "other tools of the server are read past",
        a=events(
            block(0, type="server_tool_use", id="1", name="web_search", input={}),
            part('{"q":1}'),
            block(1, type="web_search_tool_result", tool_use_id="1", content=[]),
            block(2, type="text", text=""),
            said("hi", 2),
        ),
        whole_a=message_of(
            {"type": "server_tool_use", "id": "1", "name": "web_search", "input": {}},
            {"type": "mcp_tool_use", "id": "2", "name": "x", "input": {}},
            TEXT,
        ),
        text="hi",
        stop="stop",
    ),
    *each(
        "an empty finish reason of a whole answer",
        whole_o=whole({"content": "hi"}, ""),
        whole_a=message_of(TEXT, stop=""),
        text="hi",
    ),
    *each(
        "no end",
        o=[HI, delta("")],
        a=events(OPEN_TEXT, said("hi"))[:-2],
        done=False,
        code="ParseError",
        says="after 1 piece",
        counts=True,
    ),
    *each(
        "length",
        o=[HI, delta("length"), delta("")],
        whole_o=whole({"content": "hi"}, "length"),
        a=events(OPEN_TEXT, said("hi"), stop="max_tokens"),
        whole_a=message_of(TEXT, stop="max_tokens"),
        text="hi",
        stop="length",
    ),
    *each(
        "a filter",
        o=[HI, delta("content_filter")],
        whole_o=whole({"content": "hi"}, "content_filter"),
        a=events(OPEN_TEXT, said("hi"), stop="refusal"),
        whole_a=message_of(TEXT, stop="refusal"),
        text="hi",
        stop="content_filter",
        says="content filter",
    ),
    *each(
        "only reasoning",
        o=[delta(reasoning_content="hm"), END],
        whole_o=whole({"content": "", "reasoning_content": "hm"}),
        a=events(block(0, type="thinking", thinking=""), more(0, type="thinking_delta", thinking="hm")),
        whole_a=message_of({"type": "thinking", "thinking": "hm", "signature": "x"}),
        stop="stop",
        says="only reasoning",
    ),
    *each(
        "nothing",
        o=[END],
        whole_o=whole({"content": None}),
        a=events(),
        whole_a=message_of(),
        stop="stop",
        says="empty",
    ),
    *each(
        "finish reason error",
        o=[HI, delta("error")],
        whole_o=whole({"content": ""}, "error"),
        code="ApiError",
        counts=True,
    ),
    *each(
        "an end mark with blanks, or two",
        o=[HI, END, b"data:[DONE] \n\n", b"data: [DONE]\t\n\n"],
        a=[*events(OPEN_TEXT, said("hi")), b"data:  [DONE]  \n\n"],
        text="hi",
        stop="stop",
    ),
    *each(
        "other choices",
        o=[delta(content="no", index=1), HI, delta("length", index=1), END],
        whole_o={
            "choices": [
                {"index": 1, "message": {"content": "no"}, "finish_reason": "length"},
                {"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"},
            ]
        },
        text="hi",
        stop="stop",
    ),
    *each(
        "code and msg",
        o=[HI, {"code": 5001, "msg": "too busy"}],
        whole_o={"code": 5001, "msg": "too busy"},
        a=[*events(OPEN_TEXT, said("hi"))[:-2], b'data: {"code":5001,"msg":"too busy"}\n\n'],
        whole_a={"code": 5001, "msg": "too busy"},
        code="ApiError",
        says="too busy",
        counts=True,
    ),
    *each(
        "a message alone",
        o=[HI, {"message": "too busy"}],
        whole_o={"message": "too busy"},
        a=[*events(OPEN_TEXT, said("hi"))[:-2], b'data: {"message":"too busy"}\n\n'],
        whole_a={"message": "too busy"},
        code="ApiError",
        says="too busy",
        counts=True,
    ),
    *each(
        "an error in a 200",
        o=[HI, {"error": {"message": "too busy", "type": "server_error"}}],
        whole_o={"error": {"message": "too busy", "type": "server_error"}},
        a=[
            *events(OPEN_TEXT, said("hi"))[:-2],
            {"type": "error", "error": {"type": "api_error", "message": "too busy"}},
        ],
        whole_a={"type": "error", "error": {"type": "api_error", "message": "too busy"}},
        code="ApiError",
        says="too busy",
        counts=True,
    ),
    *each(
        "an error as a text",
        o=[HI, {"error": "too busy"}],
        whole_o={"error": "too busy"},
        a=[*events(OPEN_TEXT, said("hi"))[:-2], b'data: {"type":"error","error":"too busy"}\n\n'],
        whole_a={"type": "error", "error": "too busy"},
        code="ApiError",
        says="too busy",
        counts=True,
    ),
    *each(
        "an error as a field",
        o=[HI, b'error: {"message":"too busy","code":503}\n\n'],
        a=[*events(OPEN_TEXT, said("hi"))[:-2], b'error: {"message":"too busy"}\n\n'],
        done=False,
        code="ApiError",
        says="too busy",
        counts=True,
    ),
    *each(
        "plain words after event: error",
        o=[HI, b"event: error\ndata: the engine is too busy\n\n"],
        a=[*events(OPEN_TEXT, said("hi"))[:-2], b"event: error\ndata: the engine is too busy\n\n"],
        done=False,
        code="ApiError",
        says="the engine is too busy",
        counts=True,
    ),
    *each(
        "base_resp with a status",
        o=[HI, {"base_resp": {"status_code": 1002, "status_msg": "slow down"}}],
        whole_o={"base_resp": {"status_code": 1002, "status_msg": "slow down"}, "choices": None},
        whole_a={"base_resp": {"status_code": 1002, "status_msg": "slow down"}},
        code="RateLimited",
        says="slow down",
    ),
    *each(
        "an error in an envelope",
        o=[HI, {"data": {"error": {"message": "the engine fell over"}}}, END],
        a=[*events(OPEN_TEXT, said("hi"))[:-2], b'data: {"data":{"error":{"message":"the engine fell over"}}}\n\n'],
        whole_o={"data": {"error": {"message": "the engine fell over"}}},
        code="ApiError",
        says="the engine fell over",
        counts=True,
    ),
    *each(
        "errors of nothing",
        o=[{**HI, "error": {}}, {**END, "error": None, "base_resp": {"status_code": 0}}],
        whole_o=whole({"content": "hi"}, error={}, base_resp={"status_code": 0, "status_msg": ""}),
        a=events(OPEN_TEXT, {**said("hi"), "error": {}}, error=None),
        whole_a=message_of(TEXT, error={}),
        text="hi",
        stop="stop",
    ),
    *each(
        "comments",
        o=[b": a\n\n", b"data: : still working\n\n", HI, b":\n\n", END],
        a=[*events(OPEN_TEXT)[:2], b"data: : still working\n\n", b": b\n\n", *events(said("hi"))[1:]],
        text="hi",
        stop="stop",
    ),
    *each(
        "nested without end",
        o=[b"data: " + DEEP + b"\n\n"],
        whole_o=DEEP,
        a=[b"data: " + DEEP + b"\n\n"],
        whole_a=DEEP,
        code="ParseError",
        says="nested",
        counts=True,
    ),
    *each(
        "counts as text",
        o=[HI, {**END, "usage": {"prompt_tokens": "11", "completion_tokens": "7"}}],
        whole_o=whole({"content": "hi"}, usage={"prompt_tokens": "11", "completion_tokens": "7"}),
        a=events(OPEN_TEXT, said("hi"), usage={"output_tokens": "7"}),
        whole_a=message_of(TEXT, usage={"input_tokens": "11", "output_tokens": "7"}),
        text="hi",
        usage=USED,
        stop="stop",
    ),
    *each(
        "usage beside the choice",
        o=[
            HI,
            {
                "choices": [
                    {"delta": {}, "finish_reason": "stop", "usage": {"prompt_tokens": 11, "completion_tokens": 7}}
                ]
            },
        ],
        whole_o={
            "choices": [
                {
                    "message": {"content": "hi"},
                    "finish_reason": "stop",
                    "usage": {"prompt_tokens": 11, "completion_tokens": 7},
                }
            ]
        },
        text="hi",
        usage=USED,
        stop="stop",
    ),
    *each(
        "usage of groq",
        o=[HI, {**END, "x_groq": {"usage": {"prompt_tokens": 11, "completion_tokens": 7}}}],
        whole_o=whole({"content": "hi"}, x_groq={"usage": {"prompt_tokens": 11, "completion_tokens": 7}}),
        text="hi",
        usage=USED,
        stop="stop",
    ),
    *each(
        "anthropic's names in the other form",
        o=[HI, {**END, "usage": {"input_tokens": 11, "output_tokens": 7}}],
        whole_o=whole({"content": "hi"}, usage={"input_tokens": 11, "output_tokens": 7}),
        text="hi",
        usage=USED,
        stop="stop",
    ),
    *each(
        "later counts of nothing",
        o=[
            {**HI, "usage": {"prompt_tokens": 11, "completion_tokens": 7}},
            {**END, "usage": {"prompt_tokens": 0, "completion_tokens": 0}},
            {"choices": [], "usage": {}},
        ],
        a=events(OPEN_TEXT, said("hi"), usage={"input_tokens": 0, "output_tokens": 7}),
        text="hi",
        usage=USED,
        stop="stop",
    ),
    *each(
        "a split pair",
        o=[delta(content="\ud83d"), delta(content="\ude00"), END],
        a=events(OPEN_TEXT, said("\ud83d"), said("\ude00")),
        text="\U0001f600",
        stop="stop",
    ),
    *each(
        "half a character",
        o=[delta(content="a\ud83d"), delta(content="b"), END],
        whole_o=whole({"content": "a\ud83db"}),
        a=events(OPEN_TEXT, said("a\ud83d"), said("b")),
        whole_a=message_of({"type": "text", "text": "a\ud83db"}),
        text="a\ufffdb",
        stop="stop",
    ),
    *each(
        "NaN in what nobody reads",
        o=[{**HI, "x": float("nan")}, {**END, "y": float("-inf")}],
        whole_o=whole({"content": "hi"}, x=float("nan")),
        a=events({**OPEN_TEXT, "x": float("nan")}, {**said("hi"), "y": float("inf")}),
        whole_a=message_of(TEXT, x=float("nan")),
        text="hi",
        stop="stop",
    ),
    *each(
        "a byte order mark",
        o=[b"\xef\xbb\xbf", HI, END],
        whole_o=b"\xef\xbb\xbf" + whole({"content": "hi"}),
        a=[b"\xef\xbb\xbf", *events(OPEN_TEXT, said("hi"))],
        whole_a=b"\xef\xbb\xbf" + _document(message_of(TEXT)),
        text="hi",
        stop="stop",
    ),
    *each(
        "ids and models of odd types",
        o=[{**HI, "id": 5, "model": None}, {**END, "id": {}, "model": 7}],
        whole_o=whole({"content": "hi"})[:-1] + b',"id":[],"model":{}}',
        a=events(OPEN_TEXT, said("hi"), id=5, model=None),
        whole_a=message_of(TEXT, id=5, model=None),
        text="hi",
        stop="stop",
    ),
    *each(
        "content as a list of strings",
        o=[delta(content=["h", "i"]), END],
        whole_o=whole({"content": ["h", "i"]}),
        whole_a=message_of("h", "i"),
        text="hi",
        stop="stop",
    ),
    *each(
        "content as parts",
        o=[delta(content=[{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]), END],
        whole_o=whole({"content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]}),
        whole_a=message_of({"type": "text", "text": "h"}, {"type": "text", "text": "i"}),
        text="hi",
        stop="stop",
    ),
    *each(
        "content as one text",
        whole_a=message_of() | {"content": "hi"},
        text="hi",
        stop="stop",
    ),
]
"""Kind × form × streamed."""
SHAPES = (
    ("o", "a document", whole({"content": "hi"})),
    ("o", "events", chat(HI, END)),
    ("a", "a document", _document(message_of(TEXT))),
    ("a", "events", anthropic(OPEN_TEXT, said("hi"))),
)
WRONG_WAY = [
    Row(
        f"{profile}: {shape} called {kind or 'nothing'}, {'events' if stream else 'a document'} asked for",
        profile,
        body,
        (("content-type", kind),),
        stream=stream,
        text="hi",
        stop="stop",
        usage=used(profile),
    )
    for profile, shape, body in SHAPES
    for stream in (True, False)
    for kind in ("application/json", "text/event-stream", "text/plain", "")
]
"""What a body is, is told by what it holds: not by what it is called, nor by what was asked for."""
PACKED = [
    Row(
        f"{profile}: {shape} in {encoding}",
        profile,
        pack(body),
        (("content-encoding", encoding),),
        stream=shape == "events",
        text="hi",
        stop="stop",
        usage=used(profile),
    )
    for encoding, pack in (
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("br", brotli.compress),
        ("zstd", zstd.compress),
    )
    for profile, shape, body in SHAPES
]
EVERY = [*TOOL_CALLS, *ENDINGS, *SPELLINGS, *COUNTS, *FAULTS, *EACH, *WRONG_WAY, *PACKED]


def asked(client: Client, row: Row) -> tuple[str, Reply]:
    """Ask as the row says; the text as it came, and the reply."""
    if not row.stream:
        reply = client.ask("hi", profile=row.profile, failover=False)
        return reply.text, reply
    stream = client.ask("hi", profile=row.profile, failover=False, stream=True)
    told = "".join(stream)
    return told, stream.reply


@pytest.mark.parametrize("row", EVERY, ids=lambda row: row.name)
def test_an_answer_comes_to_what_it_means(bench: Bench, row: Row) -> None:
    client = bench.client
    client.reset_breaker(row.profile)
    step = ScriptedStep(status=row.status, headers=row.headers, body=row.body)
    bench.client.recheck_provider(row.profile)
    bench.provider.script(PATHS[row.profile], step)
    if row.code is not None:
        with pytest.raises(errors.TundraError) as caught:
            asked(client, row)
        assert caught.value.code == row.code, str(caught.value)
        assert row.says in str(caught.value)
        if getattr(caught.value, "is_cut", False):
            assert caught.value.hint.startswith("Ask again")
    else:
        told, reply = asked(client, row)
        assert (reply.text, reply.stop_reason) == (row.text, row.stop)
        assert tuple((call.name, call.arguments) for call in reply.tool_calls) == row.calls
        assert len({call.id for call in reply.tool_calls} - {""}) == len(row.calls)
        assert (reply.usage.input_tokens, reply.usage.output_tokens) == row.usage
        assert row.says in " ".join(reply.remarks)
        assert told == row.text
    assert bench.failures(row.profile) == int(row.counts)


def test_unstreamed_asks_say_so(bench: Bench) -> None:
    bench.client.ask("hi", profile="o")
    bench.client.ask("hi", profile="a", failover=False)
    assert [request.json["stream"] for request in bench.provider.requests[-2:]] == [False, False]


def test_half_characters_in_what_is_asked_are_mended(bench: Bench) -> None:
    tool_told = {
        "type": "function",
        "function": {"name": "f", "description": "d\ud83d", "parameters": {"type": "object"}},
    }
    bench.client.ask("a\ud83d\ude00 \ude00", system="s\udc80", tools=[tool_told], profile="o")
    sent = bench.provider.requests[-1].json
    assert [m["content"] for m in sent["messages"]] == ["s\ufffd", "a\U0001f600 \ufffd"]
    assert sent["tools"][0]["function"]["description"] == "d\ufffd"


def test_escape_sequences_in_a_providers_words_reach_no_terminal(bench: Bench) -> None:
    bench.client.reset_breaker("o")
    body = json.dumps(
        {"error": {"message": "no \x1b[2J\x1b]0;title\x07 way \x9b31m \u202eback", "type": "server_error"}}
    ).encode()
    bench.provider.script(PATHS["o"], ScriptedStep(status=500, headers=JSON, body=body))
    with pytest.raises(errors.ApiError) as caught:
        bench.client.ask("hi", profile="o", failover=False)
    assert "\x1b" not in "".join([str(caught.value), *caught.value._render_traceback_()])
    assert not set("\x9b\u202e") & set(str(caught.value))


def test_a_stream_without_end_and_a_bomb_are_broken_off(bench: Bench) -> None:
    bench.client.reset_breaker("o")
    bench.client.set_setting("answers.max_mb", 1)
    bench.client.set_setting("answers.max_tokens", 50_000)
    long = chat(*[delta(content="x" * 1000) for _ in range(300)], END)
    bomb = gzip.compress(b" " * 50_000_000)
    try:
        bench.provider.script(PATHS["o"], ScriptedStep(headers=EVENTS, body=long))
        with pytest.raises(errors.ParseError, match="50000 tokens"):
            list(bench.client.ask("hi", profile="o", failover=False, stream=True))
        bench.provider.script(PATHS["o"], ScriptedStep(headers=(*JSON, ("content-encoding", "gzip")), body=bomb))
        with pytest.raises(errors.ParseError, match="1 MB"):
            bench.client.ask("hi", profile="o", failover=False)
    finally:
        bench.client.set_setting("answers.max_mb", 128)
        bench.client.set_setting("answers.max_tokens", 16_000_000)


def test_a_long_answer_arrives_whole(bench: Bench) -> None:
    bench.client.reset_breaker("o")
    text = "0123456789abcdef" * (512 * 1024)
    bench.provider.script(PATHS["o"], ScriptedStep(headers=JSON, body=whole({"content": text})))
    stream = bench.client.ask("hi", profile="o", failover=False, stream=True)
    pieces = list(stream)
    assert len(pieces) > 10
    assert stream.reply.text == "".join(pieces) == text


def test_a_required_tool_call_that_is_not_made_is_said(bench: Bench) -> None:
    tool_told = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    reply = bench.client.ask("hi", profile="o", tools=[tool_told], tool_choice="required")
    assert "a tool call was required, and the model made none" in reply.remarks
    row = bench.client.calls(limit=1).iloc[0]
    assert row["outcome"] == "ok"
    assert "a tool call was required" in bench.client.why(reply.operation_id).operation["message"]


def test_a_required_tool_call_is_refused_where_the_server_is_known_to_ignore_tools(bench: Bench) -> None:
    """A llama.cpp server says of itself whether its template has a place for tools; nothing is sent then."""
    tool_told = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    listed = b'{"object":"list","data":[{"id":"small","object":"model","owned_by":"llamacpp"}]}'
    props = b'{"chat_template_caps":{"supports_tools":false,"supports_tool_calls":false}}'
    bench.provider.script("/v1/models", ScriptedStep(headers=JSON, body=listed))
    bench.provider.script("/props", ScriptedStep(headers=JSON, body=props))
    bench.client.add_provider("llama", kind="local", base_url=f"{bench.provider.url}/v1", model="small")
    asks: dict[str, Any] = {"profile": "llama", "failover": False, "tools": [tool_told]}
    before = sum("messages" in (request.json or {}) for request in bench.provider.requests)
    for choice in ("required", {"type": "function", "function": {"name": "f"}}):
        with pytest.raises(errors.Unsupported, match="no place for tools"):
            bench.client.ask("hi", tool_choice=choice, **asks)
    assert sum("messages" in (request.json or {}) for request in bench.provider.requests) == before
    assert bench.client.ask("hi", tool_choice="auto", **asks).text
    assert bench.failures("llama") == 0


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("bare", b'[{"id":"t-1","object":"model"}]'),
        ("ollama", b'{"models":[{"name":"t-1","model":"t-1"}]}'),
        ("odd", b'\xef\xbb\xbf{"data":[{"id":"t-1","created":NaN,"owned_by":"\\ud83d"}]}'),
        ("names", b'{"object":"list","data":["t-1"]}'),
        ("digits", b'{"data":[{"id":"t-1","created":' + b"9" * 400 + b"}]}"),
        ("more-digits", b'{"data":[{"id":"t-1","created":' + b"9" * 5000 + b"}]}"),
    ],
)
def test_an_ask_without_a_model_reads_every_kind_of_list(bench: Bench, name: str, body: bytes) -> None:
    bench.client.add_provider(name, kind="local", base_url=f"{bench.provider.url}/v1")
    bench.provider.script("/v1/models", ScriptedStep(headers=JSON, body=body))
    bench.client.ask("hi", profile=name, failover=False)
    assert bench.provider.requests[-1].json["model"] == "t-1"
