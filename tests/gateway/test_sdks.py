"""Unmodified SDKs through the gateway: what reaches the provider, and what the SDK's objects hold."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.conftest import wait_until
from tests.gateway.conftest import CHAT, MESSAGES, TWO_KEY, Opened
from tundra_nb.testing.scripted_provider import ScriptedStep

pytestmark = pytest.mark.part("doltlite")

ASKED: list[Any] = [{"role": "user", "content": "hi \U0001f600 \u2028"}]


def events(*data: Any, done: bytes = b"data: [DONE]\n\n") -> tuple[bytes, ...]:
    return (*(b"data: " + json.dumps(each).encode() + b"\n\n" for each in data), done)


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        **more,
    }


STREAM = (("content-type", "text/event-stream"),)
MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [],
    "stop_reason": None,
    "stop_sequence": None,
    "usage": {"input_tokens": 3, "output_tokens": 1},
}


# --- relay, OpenAI's form


def test_a_chat_reaches_the_provider_byte_for_byte_but_for_the_model(gateway: Opened) -> None:
    body = (
        b'{"model" : "auto","messages":[{"role":"user","content":"a\\ud83d\\ude00 \\u2028"}],'
        b'"foo":12345678901234567890.0100 , "x":1e400}'
    )
    answer = httpx.post(
        f"{gateway.url}/chat/completions",
        content=body,
        headers={"authorization": f"Bearer {gateway.token}", "x-foo": "1", "content-type": "application/json"},
    )
    assert answer.status_code == 200, answer.text
    (request,) = gateway.asked(gateway.one)
    assert request.body == body.replace(b'"auto"', b'"scripted-1"')
    headers = dict(request.headers)
    assert "authorization" not in headers
    assert "x-foo" not in headers
    assert gateway.token not in str(request)
    assert answer.headers["x-tundra-profile"] == "one"
    assert answer.headers["x-tundra-attempts"] == "1"
    assert answer.headers["x-request-id"] == answer.headers["x-tundra-operation"] == str(gateway.call()["operation_id"])
    assert int(answer.headers["x-ratelimit-remaining-requests"]) > 0


def test_a_chat_answers_the_openai_sdk_and_leaves_its_row(gateway: Opened) -> None:
    client = gateway.openai()
    done = client.chat.completions.create(
        model="one", messages=ASKED, extra_body={"foo": 1}, seed=3, service_tier="auto", metadata={"a": "b"}
    )
    assert done.choices[0].message.content == "word0 word1 word2 word3 word4 "
    assert done.usage is not None
    assert done.usage.total_tokens > 0
    row = gateway.call()
    assert done._request_id == row["operation_id"]
    assert (row["kind"], row["caller"], row["user_name"], row["dialect"], row["way"]) == (
        "chat", "gateway", "tests", "openai-chat", "relayed",
    )  # fmt: skip
    assert row["client"].startswith("openai-python/")
    assert (row["profile"], row["asked"], row["retry_count"], row["outcome"]) == ("one", "one", 0, "ok")
    sent = gateway.asked(gateway.one)[0].json
    assert sent == {
        "messages": ASKED, "model": "scripted-1", "foo": 1, "seed": 3, "service_tier": "auto", "metadata": {"a": "b"},
    }  # fmt: skip


@pytest.mark.parametrize("asks", [False, True], ids=["usage not asked", "usage asked"])
def test_a_stream_shows_usage_only_where_it_was_asked_for_and_the_row_always_has_it(
    gateway: Opened, asks: bool
) -> None:
    options = {"stream_options": {"include_usage": True}} if asks else {}
    stream: Any = gateway.openai().chat.completions.create(model="one", messages=ASKED, stream=True, **options)  # type: ignore[call-overload]
    chunks = list(stream)
    text = "".join(each.choices[0].delta.content or "" for each in chunks if each.choices)
    assert text == "word0 word1 word2 word3 word4 "
    assert [bool(each.choices) for each in chunks].count(False) == int(asks)
    assert gateway.asked(gateway.one)[0].json["stream_options"] == {"include_usage": True}
    row = gateway.call()
    assert row["output_tokens"] > 0
    assert row["streamed"]


def test_a_relayed_stream_reaches_the_caller_byte_for_byte(gateway: Opened) -> None:
    first = b'data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,'
    second = b'"logprobs":{"x":1.50},"finish_reason":null}],"new":{"field":1e2}}\r\n\r\n'
    last = b'data: {"id":"c1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    frames = (
        b": hello\n\n",
        first + b'"delta":{"content":"\xe2\x82',
        b'\xac"},' + second + last,
        b"event: ping\n\n",
        b"data: [DONE]\n\n",
    )
    gateway.one.script(CHAT, ScriptedStep(pieces=frames, headers=STREAM, gap=0.01))
    answer = httpx.post(
        f"{gateway.url}/chat/completions",
        json={"model": "one", "messages": ASKED, "stream": True},
        headers={"x-api-key": gateway.token},
    )
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.content == b"".join((*frames[1:3], frames[4]))


def test_parallel_tool_calls_in_pieces_are_joined_by_the_sdk(gateway: Opened) -> None:
    def call(index: int, arguments: str, **more: str) -> dict[str, Any]:
        function = {"arguments": arguments} | ({"name": more["name"]} if more else {})
        return {"index": index, "function": function} | ({"id": more["id"], "type": "function"} if more else {})

    gateway.one.script(
        CHAT,
        ScriptedStep(
            headers=STREAM,
            pieces=events(
                chunk({"role": "assistant", "tool_calls": [call(0, "", id="call_a", name="f")]}),
                chunk({"tool_calls": [call(0, '{"a"')]}),
                chunk({"tool_calls": [call(1, "{}", id="call_b", name="g")]}),
                chunk({"tool_calls": [call(0, ":1}")]}),
                chunk({}, "tool_calls"),
                chunk({}, None, choices=[], usage={"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}),
            ),
        ),
    )
    with gateway.openai().chat.completions.stream(model="one", messages=ASKED) as stream:
        done = stream.get_final_completion()
    calls = done.choices[0].message.tool_calls
    assert calls is not None
    assert [(each.id, each.function.name, each.function.arguments) for each in calls] == [
        ("call_a", "f", '{"a":1}'), ("call_b", "g", "{}"),
    ]  # fmt: skip
    assert gateway.call()["output_tokens"] == 4


def test_embeddings_pass_in_both_encodings(gateway: Opened) -> None:
    import base64
    import struct

    packed = base64.b64encode(struct.pack("<2f", 0.25, -1.5)).decode()
    body = {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": packed}],
        "model": "e",
        "usage": {"prompt_tokens": 2, "total_tokens": 2},
    }
    gateway.one.script("/v1/embeddings", ScriptedStep(body=json.dumps(body).encode()))
    done = gateway.openai().embeddings.create(model="one", input=["a"], dimensions=2)
    assert done.data[0].embedding == [0.25, -1.5]
    assert gateway.asked(gateway.one)[0].json == {
        "input": ["a"], "model": "scripted-1", "dimensions": 2, "encoding_format": "base64",
    }  # fmt: skip
    row = gateway.call()
    assert (row["kind"], row["input_tokens"], row["dialect"]) == ("embeddings", 2, "openai-embeddings")


@pytest.mark.parametrize("status", [404, 501])
def test_a_server_without_embeddings_stays_open_for_what_it_can(gateway: Opened, status: int) -> None:
    step = ScriptedStep(status=status, body=b'{"error": {"message": "This server does not support embeddings"}}')
    gateway.one.script("/v1/embeddings", *[step] * 8)
    sdk = gateway.openai(max_retries=0)
    for _ in range(6):
        with pytest.raises(openai.APIStatusError):
            sdk.embeddings.create(model="one", input=["a"])
    assert len(gateway.asked(gateway.one)) == 6, "each was asked once"
    assert gateway.t.status()["profiles"][0]["state"] == "ready"
    assert sdk.chat.completions.create(model="one", messages=ASKED).choices


# --- relay, Anthropic's form


def test_a_message_answers_the_anthropic_sdk_with_the_profiles_own_key(gateway: Opened) -> None:
    done = gateway.anthropic().messages.create(
        model="two", max_tokens=9, messages=ASKED, extra_headers={"anthropic-beta": "a-1,b-2", "x-foo": "1"}
    )
    assert done.content[0].type == "text"
    assert done.content[0].text == "word0 word1 word2 word3 word4 "
    row = gateway.call()
    assert done._request_id == row["operation_id"]
    assert (row["kind"], row["dialect"], row["way"], row["profile"]) == ("messages", "anthropic", "relayed", "two")
    assert row["client"].startswith("anthropic-python/")
    (request,) = gateway.asked(gateway.two)
    headers = dict(request.headers)
    assert headers["x-api-key"] == TWO_KEY
    assert "authorization" not in headers
    assert headers["anthropic-beta"] == "a-1,b-2"
    assert headers["anthropic-version"] == "2026-10-21"
    assert "x-foo" not in headers
    assert gateway.token not in str(request)


@pytest.mark.parametrize("version", ["2023-06-01", None])
def test_the_callers_version_goes_on_and_ours_where_it_sends_none(gateway: Opened, version: str | None) -> None:
    headers = {"x-api-key": gateway.token} | ({"anthropic-version": version} if version else {})
    body = {"model": "two", "max_tokens": 5, "messages": ASKED, "temperature": 0.5}
    answer = httpx.post(f"{gateway.url}/messages", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    sent = dict(gateway.asked(gateway.two)[0].headers)
    assert sent["anthropic-version"] == (version or sent["anthropic-version"])
    assert sent["anthropic-version"]
    assert gateway.asked(gateway.two)[0].json["temperature"] == 0.5


def test_a_streamed_message_keeps_signatures_and_unknown_events(gateway: Opened) -> None:
    def event(name: str, **data: Any) -> bytes:
        return f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode()

    frames = (
        event("message_start", message=MESSAGE),
        event("content_block_start", index=0, content_block={"type": "thinking", "thinking": "", "signature": ""}),
        event("ping"),
        event("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "hm"}),
        event("content_block_delta", index=0, delta={"type": "signature_delta", "signature": "Sig=="}),
        event("content_block_stop", index=0),
        event(
            "content_block_start",
            index=1,
            content_block={"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}},
        ),
        event("content_block_delta", index=1, delta={"type": "input_json_delta", "partial_json": ""}),
        event("content_block_delta", index=1, delta={"type": "input_json_delta", "partial_json": '{"a":'}),
        event("content_block_delta", index=1, delta={"type": "input_json_delta", "partial_json": "1}"}),
        event("content_block_stop", index=1),
        event("message_delta", delta={"stop_reason": "tool_use", "stop_sequence": None}, usage={"output_tokens": 7}),
        event("message_stop"),
    )
    gateway.two.script(MESSAGES, ScriptedStep(pieces=frames, headers=STREAM))
    with gateway.anthropic().messages.stream(model="two", max_tokens=9, messages=ASKED) as stream:
        done = stream.get_final_message()
    thinking, tool = done.content
    assert thinking.type == "thinking"
    assert (thinking.thinking, thinking.signature) == ("hm", "Sig==")
    assert tool.type == "tool_use"
    assert (tool.id, tool.input) == ("toolu_1", {"a": 1})
    row = gateway.call()
    assert (row["output_tokens"], row["stop_reason"], row["streamed"]) == (7, "tool_calls", True)


def test_tokens_are_counted_by_the_vendor_or_refused(gateway: Opened) -> None:
    gateway.two.script("/v1/messages/count_tokens", ScriptedStep(body=b'{"input_tokens": 17}'))
    client = gateway.anthropic(max_retries=0)
    assert client.messages.count_tokens(model="two", messages=ASKED).input_tokens == 17
    assert gateway.call()["kind"] == "count_tokens"
    with pytest.raises(anthropic.APIStatusError) as caught:
        client.messages.count_tokens(model="one", messages=ASKED, extra_headers={"x-tundra-failover": "off"})
    assert "count_tokens" in str(caught.value)


# --- who may


def test_both_keys_at_once_and_the_x_api_key_decides(gateway: Opened) -> None:
    body = {"model": "two", "max_tokens": 5, "messages": ASKED}
    headers = {"x-api-key": gateway.token, "authorization": "Bearer something-else"}
    assert httpx.post(f"{gateway.url}/messages", json=body, headers=headers).status_code == 200
    headers = {"x-api-key": "wrong", "authorization": f"Bearer {gateway.token}"}
    assert httpx.post(f"{gateway.url}/messages", json=body, headers=headers).status_code == 401


def test_no_wrong_revoked_or_expired_token_reaches_a_provider(gateway: Opened) -> None:
    revoked = gateway.new_token("gone")
    assert gateway.openai(api_key=revoked).models.list().data
    gateway.t.tokens.revoke("gone")
    expiring = gateway.new_token("short", expires="1s")
    wait_until(lambda: list(gateway.t.tokens.list().query("name == 'short'")["state"]) == ["expired"])
    for key in ("tnd-" + "x" * 43, "sk-other", revoked, expiring):
        with pytest.raises(openai.AuthenticationError) as told:
            gateway.openai(api_key=key).chat.completions.create(model="one", messages=ASKED)
        assert told.value.code == "TokenRefused"
        assert key not in str(told.value)
        with pytest.raises(anthropic.AuthenticationError) as caught:
            gateway.anthropic(api_key=key).messages.create(model="two", max_tokens=5, messages=ASKED)
        assert caught.value.type == "authentication_error"
    answer = httpx.post(f"{gateway.url}/chat/completions?api_key={gateway.token}", json={})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "TokenRefused")
    assert "address" in answer.json()["error"]["message"]
    assert not gateway.asked(gateway.one)
    assert not gateway.asked(gateway.two)


def test_a_token_for_one_profile_sees_and_asks_no_other(gateway: Opened) -> None:
    token = gateway.new_token("only-two", profiles=["two"])
    assert {model.id for model in gateway.openai(api_key=token).models.list()} >= {"two", "claude-scripted", "auto"}
    assert "scripted-1" not in {
        model.id for model in gateway.openai(api_key=token).models.list() if model.owned_by == "one"
    }
    with pytest.raises(openai.NotFoundError):
        gateway.openai(api_key=token).models.retrieve("one")
    done = gateway.anthropic(api_key=token).messages.create(model="auto", max_tokens=5, messages=ASKED)
    assert done.model
    assert gateway.call()["profile"] == "two"


def test_the_token_limits_its_own_requests_and_says_when_to_come_back(gateway: Opened) -> None:
    token = gateway.new_token("slow", rpm=1)
    client = gateway.openai(api_key=token, max_retries=0)
    client.chat.completions.create(model="one", messages=ASKED)
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model="one", messages=ASKED)
    assert caught.value.code == "RateLimitError::Exceeded"
    headers = caught.value.response.headers
    assert 1 <= int(headers["retry-after"]) <= 60
    assert "x-should-retry" not in headers
    assert len(gateway.asked(gateway.one)) == 1
    assert gateway.call()["outcome"] == "refused"


# --- models


def test_both_sdks_list_the_models_and_find_one(gateway: Opened) -> None:
    names = {model.id for model in gateway.openai().models.list()}
    assert names >= {"scripted-1", "scripted-2", "claude-scripted", "one", "two", "auto"}
    assert {model.id for model in gateway.anthropic().models.list()} == names
    assert gateway.openai().models.retrieve("scripted-2").owned_by == "one"
    with pytest.raises(openai.NotFoundError, match="scripted-2"):
        gateway.openai().models.retrieve("scripted-3")
    with pytest.raises(openai.NotFoundError, match="org/m"):
        gateway.openai().models.retrieve("org/m")


@pytest.mark.parametrize(
    ("name", "profile", "model"),
    [
        ("one", "one", "scripted-1"),
        ("scripted-2", "one", "scripted-2"),
        ("gpt-alias", "one", "scripted-1"),
        ("one/anything-else", "one", "anything-else"),
        ("auto", "one", "scripted-1"),
    ],
)
def test_a_name_is_a_profile_a_model_an_alias_or_both(gateway: Opened, name: str, profile: str, model: str) -> None:
    gateway.openai().chat.completions.create(model=name, messages=ASKED)
    assert gateway.asked(gateway.one)[-1].json["model"] == model
    assert (gateway.call()["profile"], gateway.call()["requested_model"]) == (profile, name)


def test_an_unknown_model_is_not_found_and_the_nearest_is_named(gateway: Opened) -> None:
    with pytest.raises(openai.NotFoundError, match="scripted-1") as caught:
        gateway.openai().chat.completions.create(model="scripted-l", messages=ASKED)
    assert caught.value.code == "Unsupported"
    with pytest.raises(anthropic.NotFoundError) as told:
        gateway.anthropic().messages.create(model="claude-nonsense", max_tokens=5, messages=ASKED)
    assert told.value.type == "not_found_error"
    assert "gateway.models" in str(told.value)


# --- errors


@pytest.mark.parametrize(
    ("status", "kind", "other"),
    [
        (400, openai.BadRequestError, anthropic.BadRequestError),
        (413, openai.APIStatusError, anthropic.APIStatusError),
        (422, openai.UnprocessableEntityError, anthropic.UnprocessableEntityError),
        (500, openai.InternalServerError, anthropic.InternalServerError),
        (529, openai.InternalServerError, anthropic.APIStatusError),
    ],
)
def test_a_status_of_the_provider_raises_the_sdks_own_class_once(
    gateway: Opened, status: int, kind: type[openai.APIStatusError], other: type[anthropic.APIStatusError]
) -> None:
    gateway.one.script(CHAT, ScriptedStep(status=status, text="broken", repeat=0))
    gateway.two.script(MESSAGES, ScriptedStep(status=status, text="broken", repeat=0))
    only = {"x-tundra-failover": "off"}
    with pytest.raises(kind) as caught:
        gateway.openai().chat.completions.create(model="one", messages=ASKED, extra_headers=only)
    assert caught.value.status_code == status
    with pytest.raises(other) as told:
        gateway.anthropic().messages.create(model="two", max_tokens=5, messages=ASKED, extra_headers=only)
    assert told.value.status_code == status
    tries = 2 if status >= 500 else 1  # ours: those of the SDKs do not multiply them
    assert len(gateway.asked(gateway.one)) == tries
    assert len(gateway.asked(gateway.two)) == tries
    if tries == 2:
        assert caught.value.response.headers["x-should-retry"] == "false"


def test_a_wrong_request_keeps_the_providers_param_and_code(gateway: Opened) -> None:
    body = {
        "error": {"message": "no such thing", "type": "invalid_request_error", "param": "tools[0]", "code": "bad_tool"}
    }
    gateway.one.script(CHAT, ScriptedStep(status=400, body=json.dumps(body).encode()))
    with pytest.raises(openai.BadRequestError) as caught:
        gateway.openai().chat.completions.create(model="one", messages=ASKED)
    assert (caught.value.param, caught.value.code) == ("tools[0]", "bad_tool")
    assert caught.value.body["tundra"]["operation_id"] == gateway.call()["operation_id"]  # type: ignore[index]
    assert not gateway.asked(gateway.two)


def test_a_rate_limit_of_the_provider_is_told_with_its_time_after_our_own_tries(gateway: Opened) -> None:
    gateway.one.script(CHAT, ScriptedStep(status=429, headers=(("retry-after", "1"),), repeat=0))
    client = gateway.openai()
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model="one", messages=ASKED, extra_headers={"x-tundra-failover": "off"})
    headers = caught.value.response.headers
    assert (headers["retry-after"], headers["x-should-retry"]) == ("1", "false")
    assert len(gateway.asked(gateway.one)) == 2
    gateway.t.recheck_provider("one")


def test_a_long_wait_is_not_left_to_the_sdk(gateway: Opened) -> None:
    gateway.two.script(MESSAGES, ScriptedStep(status=429, headers=(("retry-after", "3600"),), repeat=0))
    with pytest.raises(anthropic.RateLimitError) as caught:
        gateway.anthropic().messages.create(
            model="two", max_tokens=5, messages=ASKED, extra_headers={"x-tundra-failover": "off"}
        )
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert int(caught.value.response.headers["retry-after"]) > 3500
    gateway.t.recheck_provider("two")


def test_an_error_as_the_first_event_is_a_true_status(gateway: Opened) -> None:
    error = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"busy"}}\n\n'
    gateway.two.script(MESSAGES, ScriptedStep(pieces=(error,), headers=STREAM, repeat=0))
    with pytest.raises(anthropic.APIStatusError) as caught:
        gateway.anthropic().messages.create(
            model="two", max_tokens=5, messages=ASKED, stream=True, extra_headers={"x-tundra-failover": "off"}
        )
    assert (caught.value.status_code, caught.value.type) == (529, "overloaded_error")
    assert len(gateway.asked(gateway.two)) == 2


def test_a_stream_that_breaks_gives_what_came_then_the_error_then_a_cut(gateway: Opened) -> None:
    whole = events(chunk({"content": "one"}), chunk({"content": " two"}))[:2]
    gateway.one.script(CHAT, ScriptedStep(pieces=whole, headers=STREAM, end="close", gap=0.05))
    texts = []
    with pytest.raises(openai.APIError) as caught:  # noqa: PT012 - what came before counts too
        for each in gateway.openai().chat.completions.create(model="one", messages=ASKED, stream=True):
            texts.append(each.choices[0].delta.content)  # noqa: PERF401 - what came before the error counts
    assert texts == ["one", " two"]
    assert caught.value.code == "ParseError"
    assert "the connection broke after 2 pieces" in caught.value.message
    row = gateway.call()
    assert (row["outcome"], row["attempts"]) == ("error", 1)
    with httpx.stream(
        "POST", f"{gateway.url}/chat/completions", headers={"x-api-key": gateway.token},
        json={"model": "one", "messages": ASKED, "stream": True},
    ) as answer:  # fmt: skip
        assert answer.read()
    gateway.one.script(CHAT, ScriptedStep(pieces=whole, headers=STREAM, end="close", gap=0.05))
    with (
        pytest.raises(httpx.RemoteProtocolError),
        httpx.stream(
            "POST", f"{gateway.url}/chat/completions", headers={"x-api-key": gateway.token},
            json={"model": "one", "messages": ASKED, "stream": True},
        ) as answer,
    ):  # fmt: skip
        answer.read()


@pytest.mark.parametrize("status", [200, 400])
def test_a_key_that_a_provider_sends_back_as_the_requests_name_reaches_no_program(gateway: Opened, status: int) -> None:
    given = (("content-type", "application/json"), ("request-id", f"req-{TWO_KEY}"))
    body = json.dumps({**MESSAGE, "content": [{"type": "text", "text": "hi"}], "stop_reason": "end_turn"}).encode()
    gateway.two.script(MESSAGES, ScriptedStep(status=status, body=body, headers=given))
    answer = httpx.post(
        f"{gateway.url}/messages", headers={"x-api-key": gateway.token},
        json={"model": "two", "max_tokens": 5, "messages": ASKED},
    )  # fmt: skip
    assert answer.status_code == status
    assert answer.headers["x-tundra-upstream-request-id"] == "req-[key]"
    assert TWO_KEY not in str(answer.headers)


def test_an_error_inside_a_stream_keeps_its_kind_in_both_sdks(gateway: Opened) -> None:
    start = (
        b"event: message_start\ndata: " + json.dumps({"type": "message_start", "message": MESSAGE}).encode() + b"\n\n"
    )
    error = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"busy"}}\n\n'
    gateway.two.script(MESSAGES, ScriptedStep(pieces=(start, error), headers=STREAM, gap=0.05))
    with pytest.raises(anthropic.APIStatusError) as caught:
        list(gateway.anthropic().messages.create(model="two", max_tokens=5, messages=ASKED, stream=True))
    assert caught.value.type == "overloaded_error"


@pytest.mark.parametrize("before", [b"", b'event: ping\ndata: {"type":"ping"}\n\n'], ids=["at once", "after a ping"])
def test_a_message_whose_start_the_server_left_out_is_started(gateway: Opened, before: bytes) -> None:
    told: list[dict[str, Any]] = [
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "\U0001f30c"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
    ]
    pieces = [b"event: %b\ndata: %b\n\n" % (each["type"].encode(), json.dumps(each).encode()) for each in told]
    end = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    gateway.two.script(MESSAGES, ScriptedStep(pieces=(*filter(None, (before, *pieces)), end), headers=STREAM, gap=0.02))
    with gateway.anthropic().messages.stream(model="two", max_tokens=5, messages=ASKED) as stream:
        done = stream.get_final_message()
    assert done.content[0].model_dump(include={"text"}) == {"text": "\U0001f30c"}
    assert (done.model, done.stop_reason, done.usage.output_tokens) == ("claude-scripted", "end_turn", 2)
    assert gateway.t.why("last").operation["output_tokens"] == 2


# --- streams that wait


def test_silence_after_the_hold_is_filled_with_comments_that_no_sdk_minds(gateway: Opened) -> None:
    gateway.one.script(CHAT, ScriptedStep(body_delay=1.0))
    with httpx.stream(
        "POST", f"{gateway.url}/chat/completions", headers={"x-api-key": gateway.token},
        json={"model": "one", "messages": ASKED, "stream": True},
    ) as answer:  # fmt: skip
        text = answer.read().decode()
    assert text.startswith(": waiting\n")
    assert text.endswith("data: [DONE]\n\n")
    gateway.one.script(CHAT, ScriptedStep(body_delay=1.0))
    chunks = list(gateway.openai().chat.completions.create(model="one", messages=ASKED, stream=True))
    assert "".join(each.choices[0].delta.content or "" for each in chunks) == "word0 word1 word2 word3 word4 "
    gateway.two.script(MESSAGES, ScriptedStep(body_delay=1.0))
    with gateway.anthropic().messages.stream(model="two", max_tokens=9, messages=ASKED) as stream:
        assert stream.get_final_text() == "word0 word1 word2 word3 word4 "


def test_a_client_that_goes_away_closes_the_provider_and_is_a_cancelled_row(gateway: Opened) -> None:
    gateway.one.script(CHAT, ScriptedStep(gap=0.5))
    abandoned = gateway.one.stats["abandoned"]
    stream = gateway.openai().chat.completions.create(model="one", messages=ASKED, stream=True)
    assert next(iter(stream)).choices
    stream.close()
    wait_until(lambda: gateway.one.stats["abandoned"] == abandoned + 1, timeout=5, what="the provider sees it")
    wait_until(lambda: gateway.call()["outcome"] == "cancelled", what="the row")


# --- bodies and paths


def test_bad_bodies_and_paths_are_told_in_the_dialect(gateway: Opened) -> None:
    post = lambda path, **more: httpx.post(  # noqa: E731 - a shorthand
        f"{gateway.url}{path}", headers={"x-api-key": gateway.token} | more.pop("headers", {}), **more
    )
    for content in (
        b"",
        b"{",
        b"[]",
        b'"x"',
        b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"model":"one","m":"\xff"}',
    ):
        answer = post("/chat/completions", content=content)
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error"), content[:20]
    answer = post("/messages", content=b"nope")
    assert (answer.status_code, answer.json()["type"]) == (400, "error")
    answer = post("/chat/completions", json={"model": 3})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model")
    answer = post("/nothing")
    assert answer.status_code == 404
    assert "/v1/chat/completions" in answer.json()["error"]["message"]
    answer = httpx.get(f"{gateway.url}/chat/completions", headers={"x-api-key": gateway.token})
    assert answer.status_code == 405
    with httpx.Client() as client:
        big = b'{"model":"one","x":"' + b"a" * (40 * 1024 * 1024) + b'"}'
        answer = client.post(f"{gateway.url}/chat/completions", content=big, headers={"x-api-key": gateway.token})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "UsageError")
    assert not gateway.asked(gateway.one)
    root = gateway.url.removesuffix("/v1")
    for path in ("/v1/v1/messages", "/messages", "/v1/messages?beta=true"):
        answer = httpx.post(root + path, headers={"x-api-key": gateway.token},
                            json={"model": "two", "max_tokens": 5, "messages": ASKED})  # fmt: skip
        assert answer.status_code == 200, path
    for path in ("/api/status", "/api/tokens", "/metrics", "/api/operations", "/"):
        assert httpx.get(root + path, headers={"x-api-key": gateway.token}).status_code == 404, path


def test_a_gzipped_body_and_an_image_of_eight_megabytes_arrive_whole(gateway: Opened) -> None:
    import gzip

    image = "data:image/png;base64," + "A" * (8 * 1024 * 1024)
    parts = [{"type": "image_url", "image_url": {"url": image}}, {"type": "input_audio", "input_audio": {"data": "x"}}]
    body = json.dumps({"model": "scripted-1", "messages": [{"role": "user", "content": parts}]}).encode()
    answer = httpx.post(
        f"{gateway.url}/chat/completions",
        content=gzip.compress(body, 1),
        headers={"x-api-key": gateway.token, "content-encoding": "gzip"},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    assert gateway.asked(gateway.one)[0].body == body


def test_the_callers_trace_and_its_own_count_of_tries_are_in_the_row(gateway: Opened) -> None:
    trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    httpx.post(
        f"{gateway.url}/chat/completions",
        json={"model": "one", "messages": ASKED},
        headers={"x-api-key": gateway.token, "traceparent": f"00-{trace}-{span}-03", "x-stainless-retry-count": "2"},
    )
    row = gateway.call()
    assert (row["trace_id"], row["parent_span_id"], row["retry_count"]) == (trace, span, 2)


@pytest.mark.anyio
async def test_the_async_sdks_work_alike(gateway: Opened) -> None:
    url = gateway.url.removesuffix("/v1")
    async with openai.AsyncOpenAI(api_key=gateway.token, base_url=gateway.url) as client:
        stream = await client.chat.completions.create(model="one", messages=ASKED, stream=True)
        text = "".join([each.choices[0].delta.content or "" async for each in stream])
        assert text == "word0 word1 word2 word3 word4 "
    async with (
        anthropic.AsyncAnthropic(api_key=gateway.token, base_url=url) as other,
        other.messages.stream(model="two", max_tokens=9, messages=ASKED) as messages,
    ):
        assert await messages.get_final_text() == text
