"""Calls that a profile of the other form serves: translated with every field carried, dropped by name, or refused."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest

from tests.gateway.conftest import CHAT, MESSAGES, Opened
from tundra_nb.testing.scripted_provider import ScriptedStep

pytestmark = pytest.mark.part("doltlite")

ASKED: list[Any] = [{"role": "user", "content": "hi"}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "looks",
        "parameters": {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]},
    },
}
STREAM = (("content-type", "text/event-stream"),)


def down(gateway: Opened, path: str = CHAT) -> None:
    (gateway.one if path == CHAT else gateway.two).script(path, ScriptedStep(status=503, text="down", repeat=0))


def test_a_chat_fails_over_to_the_other_vendor_translated(gateway: Opened) -> None:
    down(gateway)
    answer = gateway.openai().chat.completions.with_raw_response.create(
        model="one",
        messages=[
            {"role": "system", "content": "be brief"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "what is it?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
                ],
            },
        ],
        tools=[TOOL],
        stop=["END"],
        max_completion_tokens=77,
        user="u-1",
        store=False,
    )
    done = answer.parse()
    assert done.model == "claude-scripted"
    assert done.choices[0].message.content == "word0 word1 word2 word3 word4 "
    assert done.usage is not None
    assert done.usage.total_tokens > 0
    assert answer.headers["x-tundra-profile"] == "two"
    assert answer.headers["x-tundra-attempts"] == "3"
    assert set(answer.headers["x-tundra-dropped"].split(",")) >= {"user"}
    (sent,) = gateway.asked(gateway.two)
    assert sent.json["system"] == "be brief"
    assert sent.json["stop_sequences"] == ["END"]
    assert sent.json["max_tokens"] == 77
    assert sent.json["tools"][0]["name"] == "look"
    assert sent.json["messages"][0]["content"][1]["source"] == {
        "type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo=",
    }  # fmt: skip
    row = gateway.call()
    assert (row["profile"], row["way"], row["asked"], row["kind"], row["outcome"]) == (
        "two", "translated", "one,two", "chat", "ok",
    )  # fmt: skip
    assert "user" in row["dropped"]
    story = gateway.home.run("why", "last").stdout
    for words in (
        "token or user  tests",
        "openai-python/",
        "translated into the form",
        row["dropped"].replace(",", ", "),
    ):
        assert words in story, story
    shown = gateway.t.calls()
    assert {"user_name", "caller", "client", "kind", "dialect", "way", "dropped"} <= set(shown.columns)


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_a_stream_that_comes_for_a_document_is_put_together(gateway: Opened, path: str) -> None:
    """Some servers stream whatever was asked for; no SDK reads that as the document it waits for."""
    chat = (
        b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":"hel"}}]}\n\n'
        b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"lo"},"finish_reason":"stop"}],'
        b'"usage":{"prompt_tokens":5,"completion_tokens":2}}\n\ndata: [DONE]\n\n'
    )
    messages = b"".join(
        b"event: %s\ndata: %s\n\n" % (str(told["type"]).encode(), json.dumps(told).encode())
        for told in (
            {
                "type": "message_start",
                "message": {"id": "m", "role": "assistant", "model": "m", "usage": {"input_tokens": 5}},
            },
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hello"}},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
            {"type": "message_stop"},
        )
    )
    provider = gateway.one if path == CHAT else gateway.two
    provider.script(path, ScriptedStep(headers=STREAM, body=chat if path == CHAT else messages))
    if path == CHAT:
        done = gateway.openai().chat.completions.create(model="one", messages=ASKED)
        assert (done.choices[0].message.content, done.choices[0].finish_reason) == ("hello", "stop")
        assert done.usage is not None
        assert done.usage.total_tokens == 7
    else:
        said = gateway.anthropic().messages.create(model="two", max_tokens=9, messages=ASKED)
        assert [block.text for block in said.content if block.type == "text"] == ["hello"]
        assert (said.stop_reason, said.usage.output_tokens) == ("end_turn", 2)


@pytest.mark.parametrize(
    "body",
    [
        b'\xef\xbb\xbf{"choices":[{"message":{"content":"hel\\nlo"},"finish_reason":"stop"}]}',
        b'{"choices":[{"message":{"content":"hel\nlo"},"finish_reason":"stop"}]}',
        b'{"choices":[{"delta":{"content":"hel\\n"}}]}\n{"choices":[{"delta":{"content":"lo"},"finish_reason":"stop"}]}',
    ],
)
def test_an_answer_in_json_that_no_sdk_reads_is_written_anew(gateway: Opened, body: bytes) -> None:
    """A mark before it, a bare line feed in a text, lines of JSON."""
    gateway.one.script(CHAT, ScriptedStep(body=body))
    done = gateway.openai().chat.completions.create(model="one", messages=ASKED)
    assert (done.choices[0].message.content, done.choices[0].finish_reason) == ("hel\nlo", "stop")


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_a_document_that_comes_for_a_stream_is_sent_as_one(gateway: Opened, path: str) -> None:
    """Some servers never stream; what they answer is whole, and counts against no breaker."""
    chat = {
        "id": "c",
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2},
    }
    message = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "hello"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 5, "output_tokens": 2},
    }
    provider = gateway.one if path == CHAT else gateway.two
    provider.script(path, ScriptedStep(body=json.dumps(chat if path == CHAT else message).encode()))
    if path == CHAT:
        chunks = list(gateway.openai().chat.completions.create(model="one", messages=ASKED, stream=True))
        parts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
        assert ("".join(parts), chunks[-1].choices[0].finish_reason) == ("hello", "stop")
    else:
        with gateway.anthropic().messages.stream(model="two", max_tokens=9, messages=ASKED) as stream:
            said = stream.get_final_message()
        assert [block.text for block in said.content if block.type == "text"] == ["hello"]
        assert (said.stop_reason, said.usage.output_tokens) == ("end_turn", 2)
    row = gateway.call()
    assert (row["way"], row["outcome"]) == ("relayed", "ok")
    assert gateway.t.breakers()["failures"].sum() == 0


def test_a_translated_stream_is_a_chat_stream_with_tools(gateway: Opened) -> None:
    def event(name: str, **data: Any) -> bytes:
        return f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode()

    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "c", "content": []}
    usage = {"input_tokens": 3, "output_tokens": 1}
    tool = {"type": "tool_use", "id": "toolu_9", "name": "look", "input": {}}
    frames = (
        event("message_start", message={**message, "usage": usage}),
        event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        event("content_block_delta", index=0, delta={"type": "text_delta", "text": "let me"}),
        event("content_block_stop", index=0),
        event("content_block_start", index=1, content_block=tool),
        event("content_block_delta", index=1, delta={"type": "input_json_delta", "partial_json": '{"at":'}),
        event("content_block_delta", index=1, delta={"type": "input_json_delta", "partial_json": '"x"}'}),
        event("content_block_stop", index=1),
        event("message_delta", delta={"stop_reason": "tool_use"}, usage={"output_tokens": 8}),
        event("message_stop"),
    )
    gateway.two.script(MESSAGES, ScriptedStep(pieces=frames, headers=STREAM))
    with gateway.openai().chat.completions.stream(model="two", messages=ASKED, tools=[TOOL]) as stream:
        done = stream.get_final_completion()
    choice = done.choices[0]
    assert (choice.message.content, choice.finish_reason) == ("let me", "tool_calls")
    assert choice.message.tool_calls is not None
    call = choice.message.tool_calls[0]
    assert (call.id, call.function.name, json.loads(call.function.arguments)) == ("toolu_9", "look", {"at": "x"})
    assert gateway.call()["output_tokens"] == 8


def test_a_message_is_served_by_a_profile_of_openais_form(gateway: Opened) -> None:
    client = gateway.anthropic()
    done = client.messages.create(model="one", max_tokens=9, messages=ASKED, system="be brief", stop_sequences=["END"])
    assert done.content[0].type == "text"
    assert done.content[0].text == "word0 word1 word2 word3 word4 "
    assert done.stop_reason == "end_turn"
    (sent,) = gateway.asked(gateway.one)
    assert sent.json["messages"][0] == {"role": "system", "content": "be brief"}
    assert sent.json["stop"] == ["END"]
    with client.messages.stream(model="one", max_tokens=9, messages=ASKED) as stream:
        assert stream.get_final_text() == done.content[0].text
    assert gateway.call()["way"] == "translated"


def test_responses_reach_a_server_that_knows_only_chat(gateway: Opened) -> None:
    client = gateway.openai()
    done = client.responses.create(model="one", input="hi")
    assert done.output_text == "word0 word1 word2 word3 word4 "
    with client.responses.stream(model="one", input="hi") as stream:
        kinds = [event.type for event in stream]
        assert stream.get_final_response().output_text == done.output_text
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    row = gateway.call()
    assert (row["kind"], row["dialect"], row["way"]) == ("responses", "openai-responses", "translated")
    paths = [request.target for request in gateway.asked(gateway.one)]
    assert paths == ["/v1/responses", CHAT, CHAT]  # it is asked once, and then known


@pytest.mark.parametrize(
    ("field", "value"),
    [("n", 2), ("logprobs", True), ("seed", 3), ("logit_bias", {"5": 1}), ("audio", {"voice": "x", "format": "wav"})],
)
def test_what_has_no_words_in_the_other_form_passes_that_candidate_by_and_names_the_field(
    gateway: Opened, field: str, value: Any
) -> None:
    down(gateway)
    with pytest.raises(openai.APIStatusError) as caught:
        gateway.openai().chat.completions.create(model="one", messages=ASKED, extra_body={field: value})
    assert caught.value.status_code == 503
    assert field in str(caught.value)
    assert not gateway.asked(gateway.two)
    attempts = gateway.t.why("last").attempts
    assert [(row["profile"], row["outcome"]) for row in attempts][-1] == ("two", "refused")
    assert field in str(attempts[-1]["message"])


def test_signatures_and_ids_of_a_vendor_stay_there(gateway: Opened) -> None:
    down(gateway, MESSAGES)
    history: list[Any] = [
        *ASKED,
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "", "signature": "Sig=="},
                {"type": "redacted_thinking", "data": "xx"},
                {"type": "text", "text": "hm"},
            ],
        },
        {"role": "user", "content": "go on"},
    ]
    body = {"model": "two", "max_tokens": 9, "messages": history}
    answer = httpx.post(f"{gateway.url}/messages", json=body, headers={"x-api-key": gateway.token})
    assert answer.status_code == 503
    assert "signature" in answer.text
    assert gateway.asked(gateway.two)[0].json["messages"] == history
    assert not gateway.asked(gateway.one)
    with pytest.raises(openai.APIStatusError, match="previous_response_id"):
        gateway.openai().responses.create(model="one", input="hi", previous_response_id="resp_1")
    assert not [request for request in gateway.asked(gateway.two) if request.target != MESSAGES]


def test_failover_is_kept_to_one_vendor_or_switched_off_by_the_caller(gateway: Opened) -> None:
    for header in ("same-vendor", "off"):
        down(gateway)
        with pytest.raises(openai.InternalServerError):
            gateway.openai().chat.completions.create(
                model="one", messages=ASKED, extra_headers={"x-tundra-failover": header}
            )
        assert not gateway.asked(gateway.two)
        gateway.reset()
    with pytest.raises(openai.BadRequestError, match="x-tundra-failover"):
        gateway.openai().chat.completions.create(
            model="one", messages=ASKED, extra_headers={"x-tundra-failover": "perhaps"}
        )
