"""What else an SDK sends and needs back: rows of the conformance list that the other tests leave out."""

from __future__ import annotations

import json
import socket
from typing import Any

import anthropic
import httpx
import openai
import pydantic
import pytest

from tests.gateway.conftest import CHAT, MESSAGES, Opened
from tundra_nb.testing.scripted_provider import ScriptedStep

pytestmark = pytest.mark.part("doltlite")

ASKED: list[Any] = [{"role": "user", "content": "hi"}]
STREAM = (("content-type", "text/event-stream"),)
OFF = {"x-tundra-failover": "off"}


class Weather(pydantic.BaseModel):
    city: str
    degrees: int


def completion(*contents: str, **more: Any) -> ScriptedStep:
    choices = [
        {"index": index, "message": {"role": "assistant", "content": content}, "finish_reason": "stop", **more}
        for index, content in enumerate(contents)
    ]
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": choices, "usage": usage}
    return ScriptedStep(body=json.dumps(body).encode())


def event(name: str, **data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode()


def test_choices_log_probabilities_and_unknown_fields_come_back(gateway: Opened) -> None:
    logprobs = {"content": [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}], "refusal": None}
    gateway.one.script(CHAT, completion("a", "b", logprobs=logprobs, new_field={"x": 1}))
    done = gateway.openai().chat.completions.create(model="one", messages=ASKED, n=2, logprobs=True)
    assert [choice.message.content for choice in done.choices] == ["a", "b"]
    assert done.choices[1].logprobs is not None
    assert done.choices[1].logprobs.content is not None
    assert done.choices[1].logprobs.content[0].logprob == -0.5
    assert done.choices[0].model_extra == {"new_field": {"x": 1}}
    assert gateway.asked(gateway.one)[0].json["n"] == 2


def test_a_strict_schema_arrives_unchanged_and_its_answer_is_parsed(gateway: Opened) -> None:
    gateway.one.script(CHAT, completion('{"city":"Oslo","degrees":4}'))
    done = gateway.openai().chat.completions.parse(model="one", messages=ASKED, response_format=Weather)
    assert done.choices[0].message.parsed == Weather(city="Oslo", degrees=4)
    schema = gateway.asked(gateway.one)[0].json["response_format"]["json_schema"]
    assert (schema["strict"], schema["schema"]["additionalProperties"]) == (True, False)


def test_the_vendors_own_tools_citations_and_stop_reasons_are_passed_on(gateway: Opened) -> None:
    usage = {"input_tokens": 3, "output_tokens": 1}
    message: dict[str, Any] = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": []}
    message |= {"stop_reason": None, "stop_sequence": None, "usage": usage}
    citation = {
        "type": "char_location",
        "cited_text": "x",
        "document_index": 0,
        "document_title": None,
        "start_char_index": 0,
        "end_char_index": 1,
    }
    search = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
    frames = (
        event("message_start", message=message),
        event("content_block_start", index=0, content_block=search),
        event("content_block_delta", index=0, delta={"type": "input_json_delta", "partial_json": '{"query":"x"}'}),
        event("content_block_stop", index=0),
        event("content_block_start", index=1, content_block={"type": "text", "text": "", "citations": []}),
        event("content_block_delta", index=1, delta={"type": "text_delta", "text": "so"}),
        event("content_block_delta", index=1, delta={"type": "citations_delta", "citation": citation}),
        event("content_block_stop", index=1),
        event("message_delta", delta={"stop_reason": "pause_turn", "stop_sequence": None}, usage={"output_tokens": 7}),
        event("message_stop"),
    )
    gateway.two.script(MESSAGES, ScriptedStep(pieces=frames, headers=STREAM))
    tools: Any = [{"type": "web_search_20250305", "name": "web_search"}]
    with gateway.anthropic().messages.stream(model="two", max_tokens=9, messages=ASKED, tools=tools) as stream:
        done = stream.get_final_message()
    used, text = done.content
    assert (used.type, used.input) == ("server_tool_use", {"query": "x"})  # type: ignore[union-attr]
    assert text.type == "text"
    assert text.citations is not None
    assert text.citations[0].cited_text == "x"
    assert done.stop_reason == "pause_turn"
    assert gateway.asked(gateway.two)[0].json["tools"] == tools


def test_a_web_page_instead_of_an_error_is_told_in_the_dialect(gateway: Opened) -> None:
    page = ScriptedStep(
        status=502, headers=(("content-type", "text/html"),), body=b"<html><h1>Bad Gateway</h1></html>", repeat=0
    )
    gateway.one.script(CHAT, page)
    with pytest.raises(openai.InternalServerError) as caught:
        gateway.openai().chat.completions.create(model="one", messages=ASKED, extra_headers=OFF)
    assert caught.value.status_code == 502
    assert "<html" not in caught.value.response.text
    assert caught.value.code


def test_an_error_in_an_answer_of_status_200_gets_its_own_status(gateway: Opened) -> None:
    error = {"error": {"message": "busy", "type": "rate_limit_exceeded", "code": "rate_limit_exceeded"}}
    gateway.one.script(CHAT, ScriptedStep(body=json.dumps(error).encode(), repeat=0))
    with pytest.raises(openai.RateLimitError):
        gateway.openai(max_retries=0).chat.completions.create(model="one", messages=ASKED, extra_headers=OFF)
    gateway.t.recheck_provider("one")


def test_a_spent_account_is_not_tried_again(gateway: Opened) -> None:
    gateway.two.script(MESSAGES, ScriptedStep(status=402, text="your credit balance is too low", repeat=0))
    with pytest.raises(anthropic.APIStatusError) as caught:
        gateway.anthropic().messages.create(model="two", max_tokens=5, messages=ASKED, extra_headers=OFF)
    assert caught.value.response.headers.get("x-should-retry", "false") == "false"
    assert len(gateway.asked(gateway.two)) == 1
    gateway.t.recheck_provider("two")


def test_an_overload_is_the_sdks_own_class(gateway: Opened) -> None:
    gateway.two.script(MESSAGES, ScriptedStep(status=529, text="busy", repeat=0))
    with pytest.raises(anthropic.APIStatusError) as caught:
        gateway.anthropic().messages.create(model="two", max_tokens=5, messages=ASKED, extra_headers=OFF)
    assert type(caught.value).__name__ == "OverloadedError"
    assert caught.value.type == "overloaded_error"


def test_an_open_breaker_is_a_503_with_a_time_in_both_dialects(gateway: Opened) -> None:
    gateway.t.set_setting("breaker.failures", 1)
    try:
        gateway.one.script(CHAT, ScriptedStep(status=500, text="down", repeat=0))
        gateway.two.script(MESSAGES, ScriptedStep(status=500, text="down", repeat=0))
        ask = gateway.openai(max_retries=0).chat.completions.create
        say = gateway.anthropic(max_retries=0).messages.create
        with pytest.raises(openai.InternalServerError):
            ask(model="one", messages=ASKED, extra_headers=OFF)
        with pytest.raises(openai.InternalServerError) as caught:
            ask(model="one", messages=ASKED, extra_headers=OFF)
        assert (caught.value.status_code, caught.value.code) == (503, "CircuitBreakerError::Open")
        assert int(caught.value.response.headers["retry-after"]) >= 1
        with pytest.raises(anthropic.InternalServerError):
            say(model="two", max_tokens=5, messages=ASKED, extra_headers=OFF)
        with pytest.raises(anthropic.APIStatusError) as told:
            say(model="two", max_tokens=5, messages=ASKED, extra_headers=OFF)
        assert type(told.value).__name__ == "ServiceUnavailableError"
        assert len(gateway.asked(gateway.one)) == len(gateway.asked(gateway.two)) == 1
    finally:
        gateway.t.set_setting("breaker.failures", 1000)
        for name in ("one", "two"):
            gateway.t.reset_breaker(name)


@pytest.mark.parametrize("end", [b"", b"data: [DONE]\n\n"], ids=["no end mark", "end mark without an answer"])
def test_a_stream_that_ends_without_an_answer_is_an_error(gateway: Opened, end: bytes) -> None:
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
             "choices": [{"index": 0, "delta": {"content": "so far"}, "finish_reason": None}]}  # fmt: skip
    pieces = (b"data: " + json.dumps(chunk).encode() + b"\n\n",) if not end else (end,)
    gateway.one.script(CHAT, ScriptedStep(pieces=pieces, headers=STREAM, repeat=0))
    stream: Any = gateway.openai(max_retries=0).chat.completions
    with pytest.raises(openai.APIError):
        list(stream.create(model="one", messages=ASKED, stream=True, extra_headers=OFF))
    assert gateway.call()["outcome"] == "error"


def test_frames_with_other_line_ends_and_split_anywhere_give_the_same_text(gateway: Opened) -> None:
    choice = {"index": 0, "delta": {"content": "na\u00efve \U0001f600"}, "finish_reason": "stop"}
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    body = f"data: {json.dumps(chunk, ensure_ascii=False)}\r\n\r\ndata: [DONE]\r\n\r\n".encode()
    gateway.one.script(CHAT, ScriptedStep(pieces=tuple(body[at : at + 1] for at in range(len(body))), headers=STREAM))
    stream: Any = gateway.openai().chat.completions.create(model="one", messages=ASKED, stream=True)
    assert "".join(each.choices[0].delta.content or "" for each in stream) == "na\u00efve \U0001f600"


def test_no_redirect_is_given_and_other_methods_are_told_what_there_is(gateway: Opened) -> None:
    for method in ("HEAD", "OPTIONS", "PUT", "DELETE"):
        answer = httpx.request(method, f"{gateway.url}/completions", headers={"x-api-key": gateway.token})
        assert answer.status_code == 404, method
        if method != "HEAD":
            assert "/v1/chat/completions" in answer.json()["error"]["message"]


def test_a_name_that_no_model_has_is_refused_by_its_length(gateway: Opened) -> None:
    with pytest.raises(openai.BadRequestError, match="model has 5,000,000 characters; 255 at most"):
        gateway.openai().chat.completions.create(model="m" * 5_000_000, messages=ASKED)


def test_a_client_of_http_1_0_gets_a_stream_without_chunks(gateway: Opened) -> None:
    body = json.dumps({"model": "one", "stream": True, "messages": ASKED}).encode()
    head = f"POST /v1/chat/completions HTTP/1.0\r\nAuthorization: Bearer {gateway.token}\r\n"
    with socket.create_connection(("127.0.0.1", httpx.URL(gateway.url).port or 0), timeout=20) as line:
        line.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        told = b"".join(iter(lambda: line.recv(65536), b""))
    answered, _, streamed = told.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in answered.lower()
    assert streamed.startswith(b"data: ")
    assert streamed.endswith(b"data: [DONE]\n\n")
