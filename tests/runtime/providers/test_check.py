# ruff: noqa: E501 (a table of cases reads better one case a line)
from __future__ import annotations

import json
import math
from typing import Any

import pytest

from tundra_nb import errors
from tundra_nb.runtime.providers import check
from tundra_nb.runtime.providers.anthropic import AnthropicFormat
from tundra_nb.runtime.providers.check import AskSize, check_ask
from tundra_nb.runtime.providers.contract import Target
from tundra_nb.runtime.providers.openai import OpenAIFormat
from tundra_nb.types import Ask

USER = {"role": "user", "content": "hi"}
CALL = {"id": "t1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLS = {"role": "assistant", "content": None, "tool_calls": [CALL]}
PNG = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}


def tool(**function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", **function}}


def schema(**parameters: Any) -> list[dict[str, Any]]:
    return [tool(parameters={"type": "object", **parameters})]


GOOD = [
    Ask(messages=[USER]),
    Ask(
        messages=[
            {"role": "system", "content": "x"},
            USER,
            CALLS,
            {"role": "tool", "tool_call_id": "t1", "content": ""},
        ]
    ),
    Ask(messages=[{"role": "user", "content": [PNG]}]),
    Ask(messages=[USER], tools=schema(properties={"a": {"type": ["string", "null"]}, "b": True}), tool_choice="auto"),
    Ask(messages=[USER], tools=[tool()], tool_choice={"type": "function", "function": {"name": "f"}}),
    Ask(messages=[USER], temperature=0, max_tokens=1, stop=["x"], extra={"seed": 1}),
]


@pytest.mark.parametrize("ask", GOOD)
def test_what_is_right_passes(ask: Ask) -> None:
    check_ask(ask)


BAD: list[tuple[str, dict[str, Any]]] = [
    ("messages", {"messages": []}),
    ("messages", {"messages": [{"role": "user", "content": ""}]}),
    ("messages", {"messages": [{"role": "user", "content": " \n"}]}),
    ("messages", {"messages": [{"role": "system", "content": "x"}]}),
    ("messages[0]", {"messages": ["hi"]}),
    ("messages[0].role", {"messages": [{"content": "hi"}]}),
    ("messages[1].role", {"messages": [USER, {"role": "asistant", "content": "hi"}]}),
    ("messages[0].content", {"messages": [{"role": "user"}]}),
    ("messages[0].content", {"messages": [{"role": "user", "content": 5}]}),
    ("messages[0].content", {"messages": [{"role": "user", "content": "\ud800"}]}),
    ("messages[0].content[0].type", {"messages": [{"role": "user", "content": ["hi"]}]}),
    ("messages[0].content[0].type", {"messages": [{"role": "user", "content": [{"type": "image"}]}]}),
    ("messages[0].content[0].text", {"messages": [{"role": "user", "content": [{"type": "text"}]}]}),
    ("messages[0].content[0].image_url.url", {"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}]}),
    ("messages[0].content[0]", {"messages": [{"role": "assistant", "content": [PNG]}]}),
    ("messages[0].tool_calls", {"messages": [{"role": "user", "content": "x", "tool_calls": [CALL]}]}),
    ("messages[0].tool_calls[0].function.arguments", {"messages": [
        {"role": "assistant", "tool_calls": [{"id": "t", "function": {"name": "f", "arguments": {"x": 1}}}]}]}),
    ("messages[0].tool_calls[0].id", {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}]}),
    ("messages[2].tool_call_id", {"messages": [USER, CALLS, {"role": "tool", "tool_call_id": "t2", "content": ""}]}),
    ("tools[0]", {"tools": [{"type": "web_search"}]}),
    ("tools[0].function.name", {"tools": [tool(name="no spaces")]}),
    ("tools[1].function.name", {"tools": [tool(), tool()]}),
    ("tools[0].function.parameters", {"tools": [tool(parameters={"type": "array"})]}),
    ("tools[0].function.parameters.properties.a.type", {"tools": schema(properties={"a": {"type": "strin"}})}),
    ("tools[0].function.parameters.properties", {"tools": schema(properties=[])}),
    ("tools[0].function.parameters.required", {"tools": schema(required="a")}),
    ("tools[0].function.description", {"tools": [tool(description=5)]}),
    ("tool_choice", {"tool_choice": "auto"}),
    ("tool_choice", {"tools": [tool()], "tool_choice": "any"}),
    ("tool_choice", {"tools": [tool()], "tool_choice": {"type": "function", "function": {"name": "g"}}}),
    ("temperature", {"temperature": math.nan}),
    ("temperature", {"temperature": -0.1}),
    ("temperature", {"temperature": 2.1}),
    ("max_tokens", {"max_tokens": 0}),
    ("stop[0]", {"stop": [""]}),
    ("extra.model", {"extra": {"model": "x"}}),
    ("extra.n", {"extra": {"n": 2}}),
    ("extra.top_p", {"extra": {"top_p": math.inf}}),
]  # fmt: skip


@pytest.mark.parametrize("arguments", ['{"city": "Ul', "[1", "not JSON", ""])
def test_broken_arguments_of_a_model_may_be_sent_back_and_are_marked(arguments: str) -> None:
    call = {"id": "t", "type": "function", "function": {"name": "f", "arguments": arguments}}
    asked = Ask(
        messages=[
            {"role": "user", "content": "hi"},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "t", "content": "that was no JSON"},
        ]
    )
    check_ask(asked)
    target = Target(profile="p", kind="openai", base_url="https://x.example")
    (sent,) = json.loads(OpenAIFormat(target).body(asked, "m"))["messages"][1]["tool_calls"]
    (block,) = json.loads(AnthropicFormat(target).body(asked, "m"))["messages"][1]["content"]
    kept = {"unreadable_arguments": arguments} if arguments else {}
    assert json.loads(sent["function"]["arguments"]) == kept
    assert block["input"] == kept


@pytest.mark.parametrize(("field", "ask"), BAD)
def test_what_is_wrong_is_named_before_anything_is_sent(field: str, ask: dict[str, Any]) -> None:
    with pytest.raises(errors.UsageError) as refused:
        check_ask(Ask(**{"messages": [USER], **ask}))
    assert refused.value.field == field
    assert refused.value.message


def test_the_nearest_right_word_is_named() -> None:
    with pytest.raises(errors.UsageError, match="asistant") as refused:
        check_ask(Ask(messages=[{"role": "asistant", "content": "x"}]))
    assert refused.value.hint == "Did you mean 'assistant'?"


def test_five_megabytes_of_prompt_are_refused() -> None:
    with pytest.raises(errors.UsageError, match="5,000,000 bytes") as refused:
        check_ask(Ask(messages=[{"role": "user", "content": "x" * 5_000_000}]))
    assert refused.value.field == "messages"


def test_images_count_for_the_whole_request_only() -> None:
    url = "data:image/png;base64," + "A" * (check.MAX_BODY_BYTES // 2)
    part = {"type": "image_url", "image_url": {"url": url}}
    check_ask(Ask(messages=[{"role": "user", "content": [part]}]))
    with pytest.raises(errors.UsageError, match="request has more than"):
        check_ask(Ask(messages=[{"role": "user", "content": [part, part]}]))


def test_an_ask_is_measured_in_utf8_bytes_and_images() -> None:
    content = [{"type": "text", "text": "hé"}, PNG]
    assert check_ask(Ask(messages=[{"role": "user", "content": content}])) == AskSize(3, 1)
