"""Requests and answers of both wire formats, from literal bodies."""
# ruff: noqa: E501 (a table of bodies reads better one case a line)

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tundra_nb import errors, sse
from tundra_nb.runtime.providers import usage
from tundra_nb.runtime.providers.anthropic import DEFAULT_MAX_TOKENS, AnthropicFormat
from tundra_nb.runtime.providers.contract import Answer, Target, WireFormat
from tundra_nb.runtime.providers.events import answer_of
from tundra_nb.runtime.providers.openai import OpenAIFormat
from tundra_nb.runtime.providers.openrouter import OpenRouterFormat
from tundra_nb.types import Ask, ToolCall, Usage
from tundra_nb.types.pieces import Piece, Reasoning, Text, ToolCallPiece

PNG = "data:image/png;base64,iVBORw0KGgo="
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def target(kind: str, base_url: str = "https://api.example/v1") -> Target:
    return Target(profile="p", kind=kind, base_url=base_url, key="the-key", key_variable="THE_KEY")


OPENAI = OpenAIFormat(target("openai"))
OPENROUTER = OpenRouterFormat(target("openrouter"))
ANTHROPIC = AnthropicFormat(target("anthropic", "https://api.example"))


def ask(*messages: dict[str, Any], **more: Any) -> Ask:
    return Ask(messages=list(messages) or [{"role": "user", "content": "hi"}], **more)


def body(wire: WireFormat, asked: Ask) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(wire.body(asked, "m"))
    return found


def stream(wire: WireFormat, raw: bytes) -> tuple[list[Piece], Answer]:
    """The pieces and the answer of a stream, read whole and byte by byte, which must agree."""
    results = []
    for size in (len(raw), 1):
        pieces: list[Piece] = []
        parser, reader = sse.Parser(), wire.reader("m")
        for start in range(0, len(raw), size or 1):
            for event, data in parser.feed(raw[start : start + size]):
                pieces += reader.feed(event, data)
        for event, data in parser.close():
            pieces += reader.feed(event, data)
        results.append((pieces, reader.finish()))
    assert results[0] == results[1]
    return results[0]


def events(*data: Any) -> bytes:
    return b"".join(b"data: " + (d if isinstance(d, bytes) else json.dumps(d).encode()) + b"\n\n" for d in data)


def named(*data: dict[str, Any]) -> bytes:
    return b"".join(f"event: {d['type']}\ndata: {json.dumps(d)}\n\n".encode() for d in data)


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"id": "c1", "model": "m-1", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


# --- requests ---------------------------------------------------------------------------------------------------------


def test_the_openai_form_passes_messages_through_and_leaves_out_what_is_not_given() -> None:
    assert body(OPENAI, ask()) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": False,
    }
    assert OPENAI.url == "https://api.example/v1/chat/completions"
    assert ("authorization", "Bearer the-key") in OPENAI.headers


def test_the_openai_form_says_everything_an_ask_can_say() -> None:
    asked = ask(
        max_tokens=5, temperature=0.0, tools=[TOOL], tool_choice="auto", json_mode=True, stop=["x"], stream=True,
        extra={"seed": 1},
    )  # fmt: skip
    assert body(OPENAI, asked) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 5,
        "temperature": 0.0,
        "tools": [TOOL],
        "tool_choice": "auto",
        "response_format": {"type": "json_object"},
        "stop": ["x"],
        "stream": True,
        "stream_options": {"include_usage": True},
        "seed": 1,
    }


def test_openai_itself_is_told_the_new_name_of_the_token_limit() -> None:
    wire = OpenAIFormat(target("openai", "https://api.openai.com/v1"))
    assert body(wire, ask(max_tokens=5))["max_completion_tokens"] == 5


def test_no_key_no_authorization() -> None:
    bare = Target(profile="p", kind="local", base_url="http://127.0.0.1:8080/v1")
    assert not [name for name, _ in OpenAIFormat(bare).headers if name == "authorization"]
    assert not [name for name, _ in AnthropicFormat(bare).headers if name == "x-api-key"]


def test_openrouter_is_asked_for_the_cost_and_given_its_routing_fields() -> None:
    sent = body(OPENROUTER, ask(extra={"provider": {"order": ["a"]}, "models": ["x/y"]}))
    assert sent["usage"] == {"include": True}
    assert sent["provider"] == {"order": ["a"]}
    assert sent["models"] == ["x/y"]
    assert OPENROUTER.check_url.endswith("/key")


def test_the_messages_form_has_its_own_headers_and_a_token_limit_always() -> None:
    assert body(ANTHROPIC, ask()) == {
        "model": "m",
        "max_tokens": DEFAULT_MAX_TOKENS,
        "messages": [{"role": "user", "content": "hi"}],
        "stream": False,
    }
    assert ANTHROPIC.url == "https://api.example/v1/messages"
    assert {("x-api-key", "the-key"), ("anthropic-version", "2023-06-01")} <= set(ANTHROPIC.headers)


def test_a_conversation_with_tools_and_images_becomes_the_messages_form() -> None:
    sent = body(
        ANTHROPIC,
        ask(
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": [{"type": "text", "text": "And kind."}]},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look:"},
                    {"type": "image_url", "image_url": {"url": PNG}},
                    {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
                ],
            },
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {"id": "t1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Ulm"}'}},
                    {"id": "t2", "type": "function", "function": {"name": "weather", "arguments": ""}},
                ],
            },
            {"role": "tool", "tool_call_id": "t1", "content": "rain"},
            {"role": "tool", "tool_call_id": "t2", "content": "sun"},
            {"role": "user", "content": "So?"},
            tools=[TOOL],
            tool_choice="required",
            stop=["END"],
            max_tokens=9,
            temperature=0.5,
            stream=True,
        ),
    )
    assert sent == {
        "model": "m",
        "max_tokens": 9,
        "temperature": 0.5,
        "stream": True,
        "stop_sequences": ["END"],
        "system": "Be brief.\n\nAnd kind.",
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look:"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
                    {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Ulm"}},
                    {"type": "tool_use", "id": "t2", "name": "weather", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": "rain"},
                    {"type": "tool_result", "tool_use_id": "t2", "content": "sun"},
                    {"type": "text", "text": "So?"},
                ],
            },
        ],
        "tools": [
            {"name": "weather", "description": "The weather.", "input_schema": TOOL["function"]["parameters"]}  # type: ignore[index]
        ],
        "tool_choice": {"type": "any"},
    }


@pytest.mark.parametrize(
    ("given_choice", "expected"),
    [
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ({"type": "function", "function": {"name": "weather"}}, {"type": "tool", "name": "weather"}),
    ],
)
def test_each_tool_choice_has_its_word_in_the_messages_form(given_choice: Any, expected: dict[str, str]) -> None:
    assert body(ANTHROPIC, ask(tools=[TOOL], tool_choice=given_choice))["tool_choice"] == expected


def test_cache_marks_survive_the_translation() -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    sent = body(
        ANTHROPIC,
        ask(
            {"role": "system", "content": [{"type": "text", "text": "long", **mark}]},
            {"role": "user", "content": [{"type": "text", "text": "hi", **mark}]},
        ),
    )
    assert sent["system"] == [{"type": "text", "text": "long", **mark}]
    assert sent["messages"] == [{"role": "user", "content": [{"type": "text", "text": "hi", **mark}]}]


def test_what_the_messages_form_cannot_say_is_refused_before_the_call() -> None:
    with pytest.raises(errors.Unsupported) as no_json:
        ANTHROPIC.body(ask(json_mode=True), "m")
    assert no_json.value.kind == "json"
    with pytest.raises(errors.UsageError) as too_hot:
        ANTHROPIC.body(ask(temperature=1.5), "m")
    assert too_hot.value.field == "temperature"


# --- answers ----------------------------------------------------------------------------------------------------------

OPENAI_USAGE = {
    "prompt_tokens": 10,
    "completion_tokens": 7,
    "total_tokens": 17,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
COUNTED = Usage(input_tokens=10, output_tokens=7, cached_tokens=4, reasoning_tokens=2)


def test_a_whole_openai_answer_is_read() -> None:
    call = {"id": "t1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Ulm"}'}}
    message = {"role": "assistant", "content": "Hé", "tool_calls": [call]}
    raw = {
        "id": "c1", "model": "m-1", "usage": OPENAI_USAGE,
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
    }  # fmt: skip
    assert OPENAI.answer("m", json.dumps(raw).encode()) == Answer(
        text="Hé",
        model="m-1",
        usage=COUNTED,
        stop_reason="tool_calls",
        tool_calls=(ToolCall(id="t1", name="weather", arguments='{"city":"Ulm"}'),),
        request_id="c1",
    )


ODD: st.SearchStrategy[Any] = st.sampled_from(
    [None, "", 0, 7, -1, 1.5, True, "12", [], {}, "\ud83d", "\ud83d\ude00", "stop", "length", "error"]
)
COUNTS = st.fixed_dictionaries(
    {},
    optional={
        "prompt_tokens": ODD,
        "completion_tokens": st.one_of(st.just(2), ODD),
        "total_tokens": st.one_of(st.just(9), ODD),
        "input_tokens": ODD,
        "cost": ODD,
        "prompt_tokens_details": st.one_of(st.just({"cached_tokens": 3}), ODD),
        "completion_tokens_details": st.one_of(st.just({"reasoning_tokens": 7}), ODD),
    },
)


def members(plain: dict[str, Any], odd: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects that nearly always are as they should be: each member is left out, or odd, now and then."""
    usual = {name: st.one_of(st.just(value), st.just(value), odd.get(name, ODD)) for name, value in plain.items()}
    rest = {name: strategy for name, strategy in odd.items() if name not in plain}
    return st.fixed_dictionaries({}, optional={**usual, **rest})


MESSAGE = members({"role": "assistant", "content": "Hi"}, {"refusal": ODD, "annotations": ODD, "tool_calls": ODD})
CHOICE = members(
    {"index": 0, "finish_reason": "stop", "message": {"content": "Hi"}}, {"message": MESSAGE, "usage": COUNTS}
)
WHOLE = members(
    {"id": "c", "model": "m-1", "choices": [{"finish_reason": "stop", "message": {"content": "Hi"}}], "usage": {}},
    {"choices": st.lists(CHOICE, max_size=2), "usage": COUNTS, "error": ODD, "created": ODD},
)


@given(WHOLE)
@settings(max_examples=300)
def test_a_plain_answer_is_read_as_the_careful_reader_reads_it(told: dict[str, Any]) -> None:
    raw = json.dumps(told).encode()

    def read(answer: Callable[[], Answer]) -> Answer | str:
        try:
            return answer()
        except errors.TundraError as error:
            return f"{error.code}: {error}"

    carefully = read(lambda: answer_of(OPENAI.reader("m"), "p", raw))
    assert read(lambda: OPENAI.answer("m", raw)) == carefully


def test_openrouters_cost_comes_with_the_answer() -> None:
    raw = {"choices": [{"message": {"content": "x"}}], "usage": {**OPENAI_USAGE, "cost": 0.25}}
    assert OPENROUTER.answer("m", json.dumps(raw).encode()).cost_usd == 0.25


def test_a_streamed_openai_answer_is_read_in_pieces_with_usage_and_tool_calls() -> None:
    def tool(index: int, arguments: str, **more: str) -> dict[str, Any]:
        name = more.pop("name", None)
        function = {"arguments": arguments} | ({"name": name} if name else {})
        return chunk({"tool_calls": [{"index": index, "function": function, **more}]})

    pieces, answer = stream(
        OPENAI,
        b": a comment\n\n"
        + events(
            chunk({"role": "assistant", "content": ""}),
            chunk({"content": "Hé"}),
            chunk({"content": [{"type": "text", "text": "llo"}]}),
            chunk({"reasoning_content": "hidden"}),
            tool(0, "", id="t1", name="weather"),
            tool(1, "{}", id="t2", name="clock"),
            tool(0, '{"city":'),
            tool(0, '"Ulm"}'),
            chunk({}, "tool_calls"),
            {"id": "c1", "model": "m-1", "choices": [], "usage": OPENAI_USAGE},
            b"[DONE]",
        ),
    )
    assert pieces == [
        Text("Hé"),
        Text("llo"),
        Reasoning("hidden"),
        ToolCallPiece(0, "t1", "weather"),
        ToolCallPiece(1, "t2", "clock"),
        ToolCallPiece(0, arguments='{"city":'),
        ToolCallPiece(0, arguments='"Ulm"}'),
    ]
    assert answer == Answer(
        text="Héllo",
        reasoning="hidden",
        model="m-1",
        usage=COUNTED,
        stop_reason="tool_calls",
        tool_calls=(
            ToolCall(id="t1", name="weather", arguments='{"city":"Ulm"}'),
            ToolCall(id="t2", name="clock", arguments="{}"),
        ),
        request_id="c1",
    )


def test_tool_calls_without_an_index_are_kept_apart_by_their_ids() -> None:
    def tool(**more: Any) -> dict[str, Any]:
        return chunk({"tool_calls": [more]})

    _, answer = stream(
        OPENAI,
        events(
            tool(id="a", function={"name": "x", "arguments": "{"}),
            tool(function={"arguments": "}"}),
            tool(id="b", function={"name": "y", "arguments": "{}"}),
            chunk({}, "tool_calls"),
            b"[DONE]",
        ),
    )
    assert [(c.id, c.name, c.arguments) for c in answer.tool_calls] == [("a", "x", "{}"), ("b", "y", "{}")]


ANTHROPIC_USAGE = {"input_tokens": 5, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 2}
ANTHROPIC_COUNTED = Usage(input_tokens=10, output_tokens=7, cached_tokens=3, cache_write_tokens=2)


def test_a_whole_anthropic_answer_is_read() -> None:
    raw = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m-1", "stop_reason": "tool_use",
        "content": [
            {"type": "thinking", "thinking": "hidden", "signature": "s"},
            {"type": "text", "text": "Hé"},
            {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Ulm"}},
        ],
        "usage": {**ANTHROPIC_USAGE, "output_tokens": 7},
    }  # fmt: skip
    assert ANTHROPIC.answer("m", json.dumps(raw).encode()) == Answer(
        text="Hé",
        reasoning="hidden",
        model="m-1",
        usage=ANTHROPIC_COUNTED,
        stop_reason="tool_calls",
        tool_calls=(ToolCall(id="t1", name="weather", arguments='{"city":"Ulm"}'),),
        request_id="msg_1",
    )


def test_a_streamed_anthropic_answer_is_read_in_pieces_with_usage_and_tool_calls() -> None:
    message = {
        "id": "msg_1",
        "type": "message",
        "model": "m-1",
        "content": [],
        "usage": {**ANTHROPIC_USAGE, "output_tokens": 1},
    }
    pieces, answer = stream(
        ANTHROPIC,
        named(
            {"type": "message_start", "message": message},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "ping"},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hé"}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "llo"}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hidden"}},
            {"type": "content_block_stop", "index": 0},
            {"type": "something_new", "index": 0},
            {"type": "content_block_start", "index": 1, "content_block":
             {"type": "tool_use", "id": "t1", "name": "weather", "input": {}}},
            {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": ""}},
            {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"city":'}},
            {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '"Ulm"}'}},
            {"type": "content_block_stop", "index": 1},
            {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 7}},
            {"type": "message_stop"},
        ),
    )  # fmt: skip
    assert pieces == [
        Text("Hé"),
        Text("llo"),
        Reasoning("hidden"),
        ToolCallPiece(0, "t1", "weather"),
        ToolCallPiece(0, arguments='{"city":'),
        ToolCallPiece(0, arguments='"Ulm"}'),
    ]
    assert answer == Answer(
        text="Héllo",
        reasoning="hidden",
        model="m-1",
        usage=ANTHROPIC_COUNTED,
        stop_reason="tool_calls",
        tool_calls=(ToolCall(id="t1", name="weather", arguments='{"city":"Ulm"}'),),
        request_id="msg_1",
    )


@pytest.mark.parametrize(
    ("told", "expected"),
    [("end_turn", "stop"), ("stop_sequence", "stop"), ("max_tokens", "length"), ("refusal", "content_filter"),
     ("model_context_window_exceeded", "length"), ("pause_turn", "pause_turn"), (None, None)],
)  # fmt: skip
def test_stop_reasons_are_told_in_one_vocabulary(told: str | None, expected: str | None) -> None:
    raw = {"content": [{"type": "text", "text": "x"}], "stop_reason": told}
    assert ANTHROPIC.answer("m", json.dumps(raw).encode()).stop_reason == expected


# --- what cannot be read ----------------------------------------------------------------------------------------------

START = {"type": "message_start", "message": {"id": "msg_1", "model": "m-1"}}
DELTA = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}}


@pytest.mark.parametrize(
    ("wire", "raw", "problem"),
    [
        (OPENAI, events(chunk({"content": "x"})), "cut"),
        (ANTHROPIC, named(START, DELTA), "cut"),
        (OPENAI, b"", "no answer"),
        (ANTHROPIC, b"", "no answer"),
        (OPENAI, b"<html></html>", "no answer"),
        (OPENAI, events(b'{"choices": [{"delta": {"con'), "not valid JSON"),
        (ANTHROPIC, b'data: {"type": "content_blo\n\n', "not valid JSON"),
        (OPENAI, events(b'{"choices": [{"delta": {"content": "\xff\xfe"}}]}'), "UTF-8"),
        (
            ANTHROPIC,
            b'data: {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "\xff"}}\n\n',
            "UTF-8",
        ),
        (OPENAI, events({"choices": "x"}), "form"),
        (ANTHROPIC, named({"type": "message_start", "message": 5}), "form"),
    ],
)
def test_a_stream_that_cannot_be_read_says_why(wire: WireFormat, raw: bytes, problem: str) -> None:
    with pytest.raises(errors.ParseError, match=problem):
        stream(wire, raw)


@pytest.mark.parametrize("wire", [OPENAI, OPENROUTER, ANTHROPIC])
@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"<html>", "not valid JSON"),
        (b'{"choices": [', "not valid JSON"),
        (b'{"id": "\xff"}', "UTF-8"),
        (b"{}", "no message"),
        (b"[]", "form"),
        (b"", "not valid JSON"),
    ],
)
def test_a_whole_answer_that_cannot_be_read_says_why(wire: WireFormat, raw: bytes, problem: str) -> None:
    with pytest.raises(errors.ParseError, match=problem):
        wire.answer("m", raw)


def test_an_answer_without_done_but_with_its_reason_to_stop_is_whole() -> None:
    pieces, answer = stream(OPENAI, events(chunk({"content": "x"}, "stop")))
    assert (pieces, answer.stop_reason) == ([Text("x")], "stop")


# --- counts -----------------------------------------------------------------------------------------------------------


def test_reasoning_counted_beside_the_completion_is_added_to_the_output() -> None:
    counted = usage.from_openai({
        "prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 18, "completion_tokens_details": {"reasoning_tokens": 3},
    })  # fmt: skip
    assert counted.output_tokens == 8


def test_deepseeks_cache_hits_are_cached_tokens() -> None:
    assert usage.from_openai({"prompt_tokens": 9, "prompt_cache_hit_tokens": 4}).cached_tokens == 4


LONG = "n" * 3_000_000


@pytest.mark.parametrize(
    ("wire", "whole"),
    [
        (
            OPENAI,
            {"id": LONG, "model": LONG, "choices": [{"message": {"content": "hi"}, "finish_reason": end}]},
        )
        for end in ("stop", LONG)
    ]
    + [
        (
            ANTHROPIC,
            {"id": LONG, "model": LONG, "stop_reason": LONG, "content": [{"type": "text", "text": "hi"}]},
        )
    ],
)
def test_a_name_an_id_and_a_reason_are_never_megabytes(wire: WireFormat, whole: dict[str, Any]) -> None:
    answer = wire.answer("m", json.dumps(whole).encode())
    assert answer.text == "hi"
    assert max(len(text or "") for text in (answer.model, answer.request_id, answer.stop_reason)) <= 16 * 1024


@settings(deadline=None)
@given(st.recursive(st.none() | st.floats() | st.integers() | st.text(max_size=3),
                    lambda inner: st.dictionaries(st.sampled_from(["prompt_tokens", "completion_tokens", "total_tokens",
                     "prompt_tokens_details", "cached_tokens", "input_tokens", "output_tokens", "cost",
                     "cache_read_input_tokens", "completion_tokens_details", "reasoning_tokens"]), inner)))  # fmt: skip
def test_counts_are_never_negative_whatever_a_server_sends(raw: Any) -> None:
    for counted in (usage.from_openai(raw), usage.from_anthropic(raw)):
        for name in counted.__struct_fields__:
            value = getattr(counted, name)
            assert value is None or (isinstance(value, int) and value >= 0)
    cost = usage.cost_told(raw)
    assert cost is None or cost >= 0
