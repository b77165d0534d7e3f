"""Good streams, spoiled at random: the same answer or a typed error, never a defect, never other content."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tundra_nb import errors, sse
from tundra_nb.runtime.providers.anthropic import AnthropicFormat
from tundra_nb.runtime.providers.contract import Target, WireFormat
from tundra_nb.runtime.providers.openai import OpenAIFormat

OPENAI = OpenAIFormat(Target(profile="p", kind="openai", base_url="https://o.example/v1"))
ANTHROPIC = AnthropicFormat(Target(profile="p", kind="anthropic", base_url="https://a.example"))


def _chunk(delta: dict[str, Any], stop: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": stop}
    return {"id": "c", "object": "chat.completion.chunk", "created": 5, "model": "m", "choices": [choice], **more}


def _tool(index: int, arguments: str, **more: str) -> dict[str, Any]:
    name = more.pop("name", None)
    function = {"arguments": arguments, **({"name": name} if name else {})}
    return _chunk({"tool_calls": [{"index": index, **more, "function": function}]})


CHAT: list[Any] = [
    _chunk({"role": "assistant", "content": "", "refusal": None}),
    _chunk({"reasoning_content": "hm"}),
    _chunk({"content": "Hé"}),
    _chunk({"content": "llo \U0001f600"}),
    _tool(0, "", id="t1", type="function", name="weather"),
    _tool(0, '{"city":'),
    _tool(0, '"Ulm"}'),
    _tool(1, "", id="t2", type="function", name="clock"),
    _tool(1, '{"zone":1}'),
    _chunk({}, "tool_calls", usage=None),
    {"id": "c", "model": "m", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}},
]
MESSAGES: list[Any] = [
    {"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "model": "m",
     "content": [], "usage": {"input_tokens": 3, "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "abc"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Hé"}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "llo \U0001f600"}},
    {"type": "content_block_stop", "index": 1},
    {"type": "content_block_start", "index": 2, "content_block":
     {"type": "tool_use", "id": "t1", "name": "weather", "input": {}}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"city":'}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '"Ulm"}'}},
    {"type": "content_block_stop", "index": 2},
    {"type": "content_block_start", "index": 3, "content_block":
     {"type": "tool_use", "id": "t2", "name": "clock", "input": {}}},
    {"type": "content_block_delta", "index": 3, "delta": {"type": "input_json_delta", "partial_json": '{"zone":1}'}},
    {"type": "content_block_stop", "index": 3},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 4}},
    {"type": "message_stop"},
]  # fmt: skip
TEXT = "Héllo \U0001f600"
CALLS = [("weather", '{"city":"Ulm"}'), ("clock", '{"zone":1}')]
SAID = frozenset({"content", "refusal", "text", "arguments", "partial_json", "name", "thinking", "reasoning_content"})
"""What bears content: without it another answer was sent."""
NOT_TOLD = object()
ODD: tuple[Any, ...] = (None, "", [], {}, True, False, 1.5, float("nan"), "\ud83d")


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield (*path, name)
            yield from _paths(inner, (*path, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _paths(inner, (*path, index))


def _bears_content(value: Any, path: tuple[Any, ...]) -> bool:
    """Whether a part of a chunk is, or holds, something said."""
    for step in path:
        value = value[step]
    return path[-1] in SAID or any(inner[-1] in SAID for inner in _paths(value))


@st.composite
def spoiled(draw: st.DrawFn, events: list[Any], *, is_named: bool, end: bytes) -> list[bytes]:
    """The chunks of bytes of a stream that was spoiled in up to four places."""
    told = copy.deepcopy(events)
    for _ in range(draw(st.integers(0, 4))):
        event = draw(st.sampled_from(told))
        places = [path for path in _paths(event) if not _bears_content(event, path)]
        if not places:
            continue
        *way, last = draw(st.sampled_from(places))
        owner = event
        for step in way:
            owner = owner[step]
        value = draw(st.sampled_from([*ODD, NOT_TOLD]))
        if last == "type" and value == "\ud83d":
            continue  # a type that nobody knows is read past, as the vendor asks
        if value is NOT_TOLD:
            del owner[last]
        elif last == "index":
            owner[last] = str(owner[last])
        else:
            owner[last] = value
    doubled = draw(st.booleans())
    frames = []
    for event, before in zip(told, events, strict=True):
        name = f"event: {before['type']}\n" if is_named and draw(st.integers(0, 9)) else ""
        raw = json.dumps(event, ensure_ascii=draw(st.booleans()) or "\\ud83d" in repr(event))
        if doubled and isinstance(event, dict) and event:
            field = next(iter(event))
            raw = "{" + f"{json.dumps(field)}: {json.dumps(event[field])}, " + raw[1:]
        frames.append(f"{name}data: {raw}\n\n".encode())
    whole = b"".join([*frames, end])
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    return [whole[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(whole)], strict=True)]


def _read(wire: WireFormat, chunks: list[bytes]) -> None:
    """Read a stream; it must come to the one answer, or to a typed error."""
    parser, reader = sse.Parser(), wire.reader("m")
    try:
        for chunk in chunks:
            for event, data in parser.feed(chunk):
                reader.feed(event, data)
        for event, data in parser.close():
            reader.feed(event, data)
        answer = reader.finish()
    except errors.ProviderError:
        return
    assert answer.text == TEXT
    assert [(call.name, call.arguments) for call in answer.tool_calls] == CALLS
    assert json.dumps(answer.reasoning)
    answer.model.encode()


CHATS = spoiled(CHAT, is_named=False, end=b"data: [DONE]\n\n")
MESSAGE_STREAMS = spoiled(MESSAGES, is_named=True, end=b"")


def _without_type_and_input() -> list[bytes]:
    """A tool call whose block tells neither its type nor an input: its name alone says what it is."""
    told = copy.deepcopy(MESSAGES)
    for event in told:
        block = event.get("content_block", {})
        if block.get("name") == "clock":
            del block["type"], block["input"]
    return [f"data: {json.dumps(event)}\n\n".encode() for event in told]


SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(deadline=None, max_examples=200, suppress_health_check=SLOW)
@given(CHATS)
def test_a_spoiled_chat_stream_is_the_same_answer_or_an_error(chunks: list[bytes]) -> None:
    _read(OPENAI, chunks)


@settings(deadline=None, max_examples=200, suppress_health_check=SLOW)
@given(MESSAGE_STREAMS)
@example(_without_type_and_input())
def test_a_spoiled_messages_stream_is_the_same_answer_or_an_error(chunks: list[bytes]) -> None:
    _read(ANTHROPIC, chunks)


@pytest.mark.soak
@settings(deadline=None, max_examples=5000, suppress_health_check=SLOW)
@given(CHATS, MESSAGE_STREAMS)
def test_ten_thousand_spoiled_streams_are_the_same_answer_or_an_error(
    chats: list[bytes], messages: list[bytes]
) -> None:
    _read(OPENAI, chats)
    _read(ANTHROPIC, messages)


def test_the_streams_as_they_are_come_to_the_answer() -> None:
    for wire, events, end in ((OPENAI, CHAT, b"data: [DONE]\n\n"), (ANTHROPIC, MESSAGES, b"")):
        raw = b"".join(f"data: {json.dumps(event)}\n\n".encode() for event in events) + end
        reader = wire.reader("m")
        for event, data in sse.Parser().feed(raw):
            reader.feed(event, data)
        answer = reader.finish()
        assert (answer.text, answer.reasoning, answer.usage.input_tokens) == (TEXT, "hm", 3)
