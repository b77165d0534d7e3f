"""Requests, answers, streams and errors in the callers' forms: there and back, and through the vendors' own SDKs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import anthropic
import msgspec
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tundra_nb import errors, sse
from tundra_nb.runtime.providers.anthropic import AnthropicFormat
from tundra_nb.runtime.providers.callers import FORMS, error_body
from tundra_nb.runtime.providers.contract import Answer, Target
from tundra_nb.runtime.providers.observe import Observer, observer
from tundra_nb.runtime.providers.openai import OpenAIFormat
from tundra_nb.types import ToolCall, Usage
from tundra_nb.types.pieces import Piece, Reasoning, Text, ToolCallPiece

CHAT, MESSAGES, RESPONSES = FORMS["chat"], FORMS["messages"], FORMS["responses"]
OPENAI = OpenAIFormat(Target(profile="o", kind="openai", base_url="https://o.example/v1"))
ANTHROPIC = AnthropicFormat(Target(profile="a", kind="anthropic", base_url="https://a.example"))
USAGE = Usage(input_tokens=10, output_tokens=7, cached_tokens=4, reasoning_tokens=2)
WHOLE = Answer(
    text="Hé",
    reasoning="let me see",
    model="m-1",
    usage=USAGE,
    stop_reason="tool_calls",
    tool_calls=(
        ToolCall(id="call_1", name="weather", arguments='{"city":"Ulm"}'),
        ToolCall(id="toolu_2", name="clock", arguments="{}"),
    ),
)
PIECES: list[Piece] = [
    Reasoning("let me "),
    Reasoning("see"),
    Text("H"),
    Text("é"),
    ToolCallPiece(0, "call_1", "weather"),
    ToolCallPiece(0, arguments='{"city":'),
    ToolCallPiece(1, "toolu_2", "clock", "{}"),
    ToolCallPiece(0, arguments='"Ulm"}'),
]
STAMP: dict[str, Any] = {"operation_id": "77", "created": 1_790_000_000}


def to_anthropic(body: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads(ANTHROPIC.body(CHAT.read(body, "a").ask, "m")))


def to_openai(body: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads(OPENAI.body(MESSAGES.read(body, "o").ask, "m")))


# --- requests


def test_an_openai_request_is_said_in_anthropics_form() -> None:
    body = {
        "model": "gpt-x",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": [
                {"type": "text", "text": "what is this?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,aaaa", "detail": "auto"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,bbbb"}},
            ]},
            {"role": "assistant", "content": None, "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}},
                {"id": "call_2", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
            ]},
            {"role": "tool", "tool_call_id": "call_1", "content": "one"},
            {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "two"}]},
        ],
        "max_completion_tokens": 50,
        "stop": "END",
        "top_p": 0.5,
        "n": 1,
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}}],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
        "reasoning_effort": "low",
        "user": "me",
        "store": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    question = CHAT.read(body, "a")
    assert question.dropped == ("user", "store")
    assert question.include_usage
    assert to_anthropic(body) == {
        "model": "m",
        "max_tokens": 50,
        "system": "be brief",
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "what is this?"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aaaa"}},
                {"type": "document", "title": "a.pdf",
                 "source": {"type": "base64", "media_type": "application/pdf", "data": "bbbb"}},
            ]},
            {"role": "assistant", "content": [
                {"type": "tool_use", "id": "call_1", "name": "f", "input": {}},
                {"type": "tool_use", "id": "call_2", "name": "f", "input": {"x": 1}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "call_1", "content": "one"},
                {"type": "tool_result", "tool_use_id": "call_2", "content": [{"type": "text", "text": "two"}]},
            ]},
        ],
        "stop_sequences": ["END"],
        "top_p": 0.5,
        "tools": [{"name": "f", "input_schema": {"type": "object"}, "strict": True}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
        "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}, "effort": "low"},
        "stream": True,
    }  # fmt: skip


def test_an_anthropic_request_is_said_in_openais_form() -> None:
    body = {
        "model": "claude-x",
        "max_tokens": 50,
        "system": [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}],
        "metadata": {"user_id": "me"},
        "messages": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": ""},
                {"type": "text", "text": "calling"},
                {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"x": 1}},
            ]},
            {"role": "user", "content": [
                {"type": "text", "text": "and?"},
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "no such file", "is_error": True},
            ]},
        ],
        "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
        "stop_sequences": ["END"],
    }  # fmt: skip
    assert MESSAGES.read(body, "o").dropped == ("metadata", "system[0].cache_control", "messages[1].content[0]")
    assert to_openai(body) == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "calling", "tool_calls": [
                {"id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}]},
            {"role": "tool", "tool_call_id": "toolu_1", "content": "Error: no such file"},
            {"role": "user", "content": "and?"},
        ],
        "max_tokens": 50,
        "tools": [{"type": "function",
                   "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "parallel_tool_calls": False,
        "stop": ["END"],
        "stream": False,
    }  # fmt: skip


def test_a_responses_request_is_read_like_the_same_chat() -> None:
    body = {
        "model": "gpt-x",
        "instructions": "be brief",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {"type": "message", "role": "assistant", "id": "m", "status": "completed",
             "content": [{"type": "output_text", "text": "calling", "annotations": []}]},
            {"type": "function_call", "id": "fc", "call_id": "c1", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "done"},
        ],
        "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False}],
        "text": {"format": {"type": "json_object"}},
        "reasoning": {"effort": "high", "summary": "auto"},
        "include": ["reasoning.encrypted_content"],
        "max_output_tokens": 9,
        "store": False,
    }  # fmt: skip
    question = RESPONSES.read(body, "o")
    assert question.dropped == ("store", "include", "reasoning.summary", "input[1]")
    assert json.loads(OPENAI.body(question.ask, "m")) == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "calling", "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "done"},
        ],
        "max_tokens": 9,
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": False}}],
        "response_format": {"type": "json_object"},
        "reasoning_effort": "high",
        "stream": False,
    }  # fmt: skip


HI = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("form", "more", "field"),
    [
        ("chat", {"n": 2}, "n"),
        ("chat", {"logprobs": True}, "logprobs"),
        ("chat", {"logit_bias": {"1": 2}}, "logit_bias"),
        ("chat", {"seed": 0}, "seed"),
        ("chat", {"presence_penalty": 0.5}, "presence_penalty"),
        ("chat", {"service_tier": "flex"}, "service_tier"),
        ("chat", {"prediction": {"type": "content"}}, "prediction"),
        ("chat", {"verbosity": "low"}, "verbosity"),
        ("chat", {"modalities": ["text", "audio"]}, "modalities"),
        ("chat", {"something_new": 1}, "something_new"),
        ("chat", {"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
        ("chat", {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
         "messages[0].content[0].type"),
        ("chat", {"messages": [{"role": "assistant", "content": "x", "thinking_blocks": [1]}, *HI]},
         "messages[0].thinking_blocks"),
        ("messages", {"top_k": 4}, "top_k"),
        ("messages", {"thinking": {"type": "enabled", "budget_tokens": 2000}}, "thinking.budget_tokens"),
        ("messages", {"container": "c"}, "container"),
        ("messages", {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ("messages", {"messages": [*HI, {"role": "assistant", "content": "Once"}]}, "messages"),
        ("messages", {"messages": [{"role": "assistant", "content": [
            {"type": "thinking", "thinking": "", "signature": "s"}]}, *HI]}, "messages[0].content[0].signature"),
        ("messages", {"messages": [{"role": "assistant", "content": [
            {"type": "redacted_thinking", "data": "x"}]}, *HI]}, "messages[0].content[0].type"),
        ("responses", {"previous_response_id": "resp_1"}, "previous_response_id"),
        ("responses", {"background": True}, "background"),
        ("responses", {"conversation": "c"}, "conversation"),
        ("responses", {"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ("responses", {"input": [{"type": "reasoning", "summary": [], "encrypted_content": "x"}]},
         "input[0].encrypted_content"),
        ("responses", {"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
    ],
)  # fmt: skip
def test_what_the_other_form_cannot_say_is_refused_by_name(form: str, more: dict[str, Any], field: str) -> None:
    body = {"model": "m", "max_tokens": 5, "messages": HI} if form != "responses" else {"model": "m", "input": "hi"}
    with pytest.raises(errors.Unsupported) as refused:
        FORMS[form].read(body | more, "p")
    assert refused.value.kind == "field"
    assert refused.value.detail.startswith(f"{field}: ")


WORDS = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=8).filter(str.strip)
NAMES = st.from_regex(r"[A-Za-z_]{1,8}", fullmatch=True)
ARGUMENTS = st.dictionaries(NAMES, st.integers(-9, 9) | WORDS | st.none(), max_size=2)
IMAGES = st.sampled_from(["data:image/png;base64,aaaa", "https://x.example/a.png"])
PARTS = WORDS.map(lambda text: {"type": "text", "text": text}) | IMAGES.map(
    lambda url: {"type": "image_url", "image_url": {"url": url}}
)


@st.composite
def chats(draw: st.DrawFn) -> dict[str, Any]:
    """Requests in the OpenAI form that Anthropic's can say too."""
    messages: list[dict[str, Any]] = []
    if draw(st.booleans()):
        messages.append({"role": "system", "content": draw(WORDS)})
    for round_ in range(draw(st.integers(0, 3))):
        several = st.lists(PARTS, min_size=2, max_size=3)
        messages.append({"role": "user", "content": draw(WORDS | several)})
        names = draw(st.lists(NAMES, max_size=2))
        turn: dict[str, Any] = {"role": "assistant"}
        if not names or draw(st.booleans()):
            turn["content"] = draw(WORDS)
        if names:
            turn["tool_calls"] = [
                {
                    "id": f"call_{round_}_{index}",
                    "type": "function",
                    "function": {"name": name, "arguments": msgspec.json.encode(draw(ARGUMENTS)).decode()},
                }
                for index, name in enumerate(names)
            ]
        messages.append(turn)
        messages += [
            {"role": "tool", "tool_call_id": f"call_{round_}_{index}", "content": draw(WORDS)}
            for index in range(len(names))
        ]
    messages.append({"role": "user", "content": draw(WORDS)})
    body: dict[str, Any] = {"messages": messages, "max_tokens": draw(st.integers(1, 99)), "stream": draw(st.booleans())}
    if draw(st.booleans()):
        body["temperature"] = draw(st.sampled_from([0, 0.5, 1]))
    if draw(st.booleans()):
        body["stop"] = draw(st.lists(WORDS, min_size=1, max_size=2))
    if draw(st.booleans()):
        name = draw(NAMES)
        body["tools"] = [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}]
        choice = draw(st.sampled_from(["auto", "required", {"type": "function", "function": {"name": name}}, None]))
        if choice is not None:
            body["tool_choice"] = choice
            if draw(st.booleans()):
                body["parallel_tool_calls"] = draw(st.booleans())
    return body


@settings(deadline=None, max_examples=150)
@given(chats())
def test_what_both_forms_can_say_survives_there_and_back(body: dict[str, Any]) -> None:
    first = CHAT.read(body, "a")
    there = json.loads(ANTHROPIC.body(first.ask, "m"))
    there.pop("model")
    back = MESSAGES.read(there, "o")
    assert (first.dropped, back.dropped) == ((), ())
    sent, again = (json.loads(OPENAI.body(question.ask, "m")) for question in (first, back))
    joined = _joined(sent.pop("messages")), _joined(again.pop("messages"))
    assert joined[0] == joined[1]
    assert again == sent


def _joined(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Neighbouring turns of a user as one: Anthropic's form knows no others."""
    joined: list[dict[str, Any]] = []
    for message in messages:
        if joined and message["role"] == joined[-1]["role"] == "user":
            joined[-1] = {"role": "user", "content": _parts(joined[-1]["content"]) + _parts(message["content"])}
        else:
            joined.append(message)
    return joined


def _parts(content: Any) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


# --- answers and streams


def observing(form: str) -> Observer:
    wire = ANTHROPIC if form == "messages" else OPENAI
    return observer(form, wire, wire.target)


@pytest.mark.parametrize("form", FORMS)
def test_an_answer_survives_being_written_and_read(form: str) -> None:
    read = observing(form).answer("m", FORMS[form].answer(WHOLE, **STAMP))
    assert (read.text, read.reasoning, read.tool_calls) == (WHOLE.text, WHOLE.reasoning, WHOLE.tool_calls)
    assert read.stop_reason == "tool_calls"
    assert (read.usage.input_tokens, read.usage.output_tokens, read.usage.cached_tokens) == (10, 7, 4)


def written(form: str, pieces: Iterable[Piece], answer: Answer, include_usage: bool = True) -> bytes:
    writer = FORMS[form].writer(**STAMP, model="m-1", include_usage=include_usage)
    return b"".join([*map(writer.piece, pieces), writer.finish(answer)])


@pytest.mark.parametrize("form", FORMS)
def test_a_stream_survives_being_written_and_read(form: str) -> None:
    reader = observing(form).reader("m")
    parser = sse.Parser()
    for event, data in parser.feed(written(form, PIECES, WHOLE)):
        reader.feed(event, data)
    read = reader.finish()
    assert reader.done
    assert (read.text, read.reasoning) == (WHOLE.text, WHOLE.reasoning)
    assert read.tool_calls == WHOLE.tool_calls
    assert (read.usage.input_tokens, read.usage.output_tokens, read.stop_reason) == (10, 7, "tool_calls")


def test_usage_is_shown_in_a_chat_only_to_who_asked_for_it() -> None:
    assert b'"usage"' not in written("chat", PIECES, WHOLE, include_usage=False)


@pytest.mark.parametrize("form", FORMS)
def test_an_empty_stream_is_still_a_whole_one(form: str) -> None:
    empty = Answer(text="", model="m-1", usage=Usage(), stop_reason="stop")
    reader = observing(form).reader("m")
    for event, data in sse.Parser().feed(written(form, [], empty)):
        reader.feed(event, data)
    assert (reader.finish().text, reader.finish().stop_reason) == ("", "stop")


@pytest.mark.parametrize("form", FORMS)
def test_an_error_in_a_stream_is_one_to_its_reader(form: str) -> None:
    reader = observing(form).reader("m")
    writer = FORMS[form].writer(**STAMP, model="m-1", include_usage=True)
    broken = errors.ApiError(profile="p", status=529, detail="too busy")
    raw = writer.piece(Text("so far")) + writer.fail(broken)
    *good, (event, data) = sse.Parser().feed(raw)
    for name, told in good:
        reader.feed(name, told)
    with pytest.raises(errors.ProviderError, match="too busy"):
        reader.feed(event, data)


# --- the vendors' own SDKs


def openai_client(body: bytes, kind: str, status: int = 200) -> openai.OpenAI:
    http = __import__(openai.DefaultHttpxClient.__mro__[-2].__module__.partition(".")[0])

    def answer(_: Any) -> Any:
        return http.Response(status, headers={"content-type": kind}, content=body)

    client = http.Client(transport=http.MockTransport(answer))
    return openai.OpenAI(api_key="k", base_url="http://x.example/v1", http_client=client, max_retries=0)


def anthropic_client(body: bytes, kind: str, status: int = 200) -> anthropic.Anthropic:
    http = __import__(anthropic.DefaultHttpxClient.__mro__[-2].__module__.partition(".")[0])

    def answer(_: Any) -> Any:
        return http.Response(status, headers={"content-type": kind}, content=body)

    client = http.Client(transport=http.MockTransport(answer))
    return anthropic.Anthropic(api_key="k", base_url="http://x.example", http_client=client, max_retries=0)


def test_openais_sdk_reads_a_chat_streamed_and_whole() -> None:
    with (
        openai_client(written("chat", PIECES, WHOLE), "text/event-stream") as client,
        client.chat.completions.stream(model="m", messages=[{"role": "user", "content": "hi"}]) as stream,
    ):
        told = stream.get_final_completion()
    (choice,) = told.choices
    assert (choice.message.content, choice.finish_reason) == ("Hé", "tool_calls")
    assert [call.function.arguments for call in choice.message.tool_calls or []] == ['{"city":"Ulm"}', "{}"]
    assert told.usage is not None
    assert told.usage.total_tokens == 17
    with openai_client(CHAT.answer(WHOLE, **STAMP), "application/json") as client:
        whole = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
    assert whole.choices[0].message.content == "Hé"


def test_openais_sdk_reads_a_response_streamed_and_whole() -> None:
    with (
        openai_client(written("responses", PIECES, WHOLE), "text/event-stream") as client,
        client.responses.stream(model="m", input="hi") as stream,
    ):
        numbers = [event.sequence_number for event in stream]
        told = stream.get_final_response()
    assert numbers == list(range(len(numbers)))
    assert told.output_text == "Hé"
    assert [item.type for item in told.output] == ["reasoning", "message", "function_call", "function_call"]
    with openai_client(RESPONSES.answer(WHOLE, **STAMP), "application/json") as client:
        assert client.responses.create(model="m", input="hi").output_text == "Hé"


def test_anthropics_sdk_reads_a_message_streamed_and_whole() -> None:
    asked: dict[str, Any] = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
    with (
        anthropic_client(written("messages", PIECES, WHOLE), "text/event-stream") as client,
        client.messages.stream(**asked) as stream,
    ):
        told = stream.get_final_message()
    assert [block.type for block in told.content] == ["thinking", "text", "tool_use", "tool_use"]
    assert told.content[2].input == {"city": "Ulm"}  # type: ignore[union-attr]
    assert (told.stop_reason, told.usage.output_tokens) == ("tool_use", 7)
    with anthropic_client(MESSAGES.answer(WHOLE, **STAMP), "application/json") as client:
        whole = client.messages.create(**asked)
    assert (whole.id, whole.content[1].text) == ("msg_77", "Hé")


EXHAUSTED = errors.AllProvidersExhausted(
    causes=[errors.ApiError(profile=name, status=529, detail="busy").to_wire() for name in ("a", "b")]
)


@pytest.mark.parametrize(
    ("error", "status", "of_openai", "of_anthropic"),
    [
        (errors.RateLimited(profile="p"), 429, openai.RateLimitError, anthropic.RateLimitError),
        (errors.ApiError(profile="p", status=529), 529, openai.InternalServerError, anthropic.InternalServerError),
        (EXHAUSTED, 529, openai.InternalServerError, anthropic.InternalServerError),
        (errors.RequestRejected(profile="p", status=400, field="x"), 400, openai.BadRequestError,
         anthropic.BadRequestError),
        (errors.Unsupported(profile="p", kind="model"), 404, openai.NotFoundError, anthropic.NotFoundError),
        (errors.Unsupported(profile="p", kind="field"), 400, openai.BadRequestError, anthropic.BadRequestError),
        (errors.KeyRejected(profile="p", status=401), 502, openai.InternalServerError, anthropic.InternalServerError),
        (errors.Timeout(deadline="total", seconds=1), 504, openai.InternalServerError, anthropic.InternalServerError),
        (errors.BreakerOpen(profile="p"), 503, openai.InternalServerError, anthropic.InternalServerError),
        (errors.ParseError(profile="p", problem="x"), 502, openai.InternalServerError, anthropic.InternalServerError),
    ],
)  # fmt: skip
def test_each_sdk_raises_its_own_class(
    error: errors.TundraError, status: int, of_openai: type[Exception], of_anthropic: type[Exception]
) -> None:
    told, body = error_body("openai", error, operation_id="77")
    assert told == status
    with openai_client(body, "application/json", status) as client, pytest.raises(of_openai) as caught:
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
    cause = errors.ApiError if error is EXHAUSTED else type(error)
    assert getattr(caught.value, "code", None) == cause.code
    told, body = error_body("anthropic", error, operation_id="77")
    with anthropic_client(body, "application/json", told) as other, pytest.raises(of_anthropic) as met:
        other.messages.create(model="m", max_tokens=5, messages=[{"role": "user", "content": "hi"}])
    assert error.message in str(met.value)
