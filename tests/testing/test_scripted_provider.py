"""The scripted provider: in this loop, and as a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator

import anthropic
import httpx
import openai
import psutil
import pytest

from tundra_nb.faults.child import Child
from tundra_nb.runtime.providers.transport import Transport
from tundra_nb.testing.scripted_provider import KEPT_REQUESTS, ScriptedProvider, ScriptedStep, scripted_process

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
ASK = {"model": "scripted-1", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
async def provider() -> AsyncIterator[ScriptedProvider]:
    async with ScriptedProvider() as provider:
        yield provider


@pytest.fixture
async def client(provider: ScriptedProvider) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=Transport(), base_url=provider.url, timeout=5) as client:
        yield client


@pytest.mark.anyio
async def test_the_openai_sdk_reads_its_answers(provider: ScriptedProvider) -> None:
    async with openai.AsyncOpenAI(base_url=provider.base_url, api_key="k", max_retries=0) as sdk:
        whole = await sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
        assert whole.choices[0].message.content == "Hello from the script."
        assert whole.usage is not None
        assert (whole.model, whole.usage.completion_tokens) == ("m", 5)
        stream = await sdk.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": "hi"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Hello from the script."
        assert chunks[-1].usage is not None
        assert [model.id async for model in sdk.models.list()] == ["scripted-1", "scripted-2"]
        provider.script("*", ScriptedStep(status=429))
        with pytest.raises(openai.RateLimitError):
            await sdk.models.list()


@pytest.mark.anyio
async def test_the_anthropic_sdk_reads_its_answers(provider: ScriptedProvider) -> None:
    async with anthropic.AsyncAnthropic(base_url=provider.url, api_key="k", max_retries=0) as sdk:
        whole = await sdk.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}])
        assert whole.content[0].type == "text"
        assert whole.content[0].text == "Hello from the script."
        async with sdk.messages.stream(model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}]) as stream:
            assert [piece async for piece in stream.text_stream] == ["Hello", " from", " the", " script", "."]
            assert (await stream.get_final_message()).usage.output_tokens == 5
        assert [model.id async for model in sdk.models.list()] == ["scripted-1", "scripted-2"]
        provider.script(MESSAGES, ScriptedStep(status=529))
        with pytest.raises(anthropic.APIStatusError) as caught:
            await sdk.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}])
        assert caught.value.status_code == 529


@pytest.mark.anyio
async def test_usage_is_told_in_a_stream_only_when_asked(client: httpx.AsyncClient) -> None:
    assert '"usage"' not in (await client.post(CHAT, json={**ASK, "stream": True})).text


@pytest.mark.anyio
async def test_queue_of_the_path_goes_before_the_queue_of_any(
    provider: ScriptedProvider, client: httpx.AsyncClient
) -> None:
    provider.script("*", ScriptedStep(status=500, repeat=2))
    provider.script(CHAT, ScriptedStep(status=429, headers=(("retry-after", "7"),)))
    answers = [await client.post(path, json=ASK) for path in (CHAT, MESSAGES, CHAT, CHAT)]
    assert [answer.status_code for answer in answers] == [429, 500, 500, 200]
    assert answers[0].headers["retry-after"] == "7"
    assert answers[0].json()["error"]["code"] == "rate_limit_exceeded"
    assert answers[1].json()["type"] == "error"


@pytest.mark.anyio
async def test_endless_step_answers_all_that_follow(provider: ScriptedProvider, client: httpx.AsyncClient) -> None:
    provider.script(CHAT, ScriptedStep(text="one two", repeat=0))
    for _ in range(3):
        answer = await client.post(CHAT, json=ASK)
        assert answer.json()["choices"][0]["message"]["content"] == "one two"
    provider.reset()
    assert "Hello" in (await client.post(CHAT, json=ASK)).text


@pytest.mark.anyio
async def test_requests_are_captured_as_sent(provider: ScriptedProvider, client: httpx.AsyncClient) -> None:
    await client.post(CHAT + "?a=1", json=ASK, headers={"authorization": "Bearer k"})
    request = provider.requests[-1]
    assert (request.method, request.path, request.target) == ("POST", CHAT, CHAT + "?a=1")
    assert request.headers["authorization"] == "Bearer k"
    assert request.json == ASK
    assert provider.requests.maxlen == KEPT_REQUESTS


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (ScriptedStep(body=b"{}"), (200, b"{}")),
        (ScriptedStep(status=503, body=b"<html>", headers=(("content-type", "text/html"),)), (503, b"<html>")),
        (ScriptedStep(pieces=(b"a", b"b"), gap=0.01, delay=0.01, body_delay=0.01), (200, b"ab")),
        (ScriptedStep(cut=10), httpx.RemoteProtocolError),
        (ScriptedStep(pieces=(b"abc", b"def"), cut=9), httpx.RemoteProtocolError),
        (ScriptedStep(end="close"), httpx.RemoteProtocolError),
        (ScriptedStep(raw=b"", end="close"), httpx.RemoteProtocolError),
        (ScriptedStep(raw=b"", end="reset"), httpx.ReadError),
        (ScriptedStep(raw=b"220 ready\r\n\r\n", end="close"), httpx.RemoteProtocolError),
        (ScriptedStep(end="hang"), httpx.ReadTimeout),
        (ScriptedStep(raw=b"", end="hang"), httpx.ReadTimeout),
    ],
)
async def test_step_says_how_the_answer_comes_and_ends(
    step: ScriptedStep,
    expected: tuple[int, bytes] | type[Exception],
    provider: ScriptedProvider,
    client: httpx.AsyncClient,
) -> None:
    provider.script(CHAT, step)
    if isinstance(expected, tuple):
        answer = await client.post(CHAT, json=ASK)
        assert (answer.status_code, answer.content) == expected
    else:
        with pytest.raises(expected):
            await client.post(CHAT, json=ASK, timeout=0.2)
    assert (await client.post(CHAT, json=ASK)).status_code == 200


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "content", "status"), [("/nowhere", b"{}", 404), (CHAT, b"{", 400), (MESSAGES, b'{"model": 1}', 400)]
)
async def test_what_no_provider_understands_is_refused_in_its_words(
    path: str, content: bytes, status: int, client: httpx.AsyncClient
) -> None:
    answer = await client.post(path, content=content)
    assert answer.status_code == status
    assert "message" in answer.json()["error"]


@pytest.mark.anyio
async def test_what_is_not_http_is_refused_and_closed(provider: ScriptedProvider) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", provider.port)
    writer.write(b"nonsense\r\n\r\n")
    assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 400")
    writer.close()


@pytest.mark.anyio
async def test_pipelined_requests_are_answered_in_order(provider: ScriptedProvider) -> None:
    provider.script("*", ScriptedStep(body=b"first", delay=0.05), ScriptedStep(body=b"second"))
    reader, writer = await asyncio.open_connection("127.0.0.1", provider.port)
    request = b"POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n%s\r\n{}"
    writer.write(request % b"" + request % b"connection: close\r\n")
    told = await asyncio.wait_for(reader.read(), 5)
    assert told.index(b"first") < told.index(b"second")
    writer.close()


@pytest.mark.anyio
async def test_client_that_goes_away_is_noticed(provider: ScriptedProvider, client: httpx.AsyncClient) -> None:
    provider.script(CHAT, ScriptedStep(raw=b"", end="hang"))
    with pytest.raises(httpx.ReadTimeout):
        await client.post(CHAT, json=ASK, timeout=0.1)
    async with asyncio.timeout(5):
        while provider.abandoned != 1:  # noqa: ASYNC110 (the server's own loop is this one)
            await asyncio.sleep(0.005)


# --- as a process -----------------------------------------------------------------------------------------------------


def test_child_is_scripted_and_read_from_outside() -> None:
    with scripted_process(pieces=2) as provider:
        provider.script(MESSAGES, ScriptedStep(status=529, text="busy"), ScriptedStep(pieces=(b"\xff",)))
        first, second, third = (httpx.post(provider.url + MESSAGES, json=ASK) for _ in range(3))
        assert (first.status_code, first.json()["error"]["message"]) == (529, "busy")
        assert second.content == b"\xff"
        assert third.json()["content"][0]["text"] == "word0 word1 "
        assert [request.json for request in provider.requests] == [ASK] * 3
        assert provider.stats["served"] == 3
        provider.reset()
        assert provider.requests == []
        pid = provider.pid
    assert not psutil.pid_exists(pid)
    provider.close()


def test_child_ends_when_its_parent_is_killed() -> None:
    code = (
        "import json, sys, time\n"
        "from tundra_nb.testing.scripted_provider import scripted_process\n"
        "print(scripted_process().pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        os.kill(parent.pid, signal.SIGKILL)
    psutil.wait_procs([child], timeout=5)
    assert not child.is_running()


def test_child_that_cannot_start_says_why() -> None:
    with scripted_process() as first, pytest.raises(RuntimeError, match=r"port \d+ is taken"):
        Child("tundra_nb.testing.scripted_provider", ["--port", first.url.rpartition(":")[2]])


def test_by_hand_it_runs_until_interrupted() -> None:
    command = [sys.executable, "-m", "tundra_nb.testing.scripted_provider"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        assert httpx.get(url + "/v1/models").status_code == 200
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 0
        assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("module", "option"),
    [
        ("testing.scripted_provider", "--port"),
        pytest.param("testing.local_model", "--port", marks=pytest.mark.part("model")),
        ("faults.fault_proxy", "--control-port"),
    ],
)
def test_a_taken_port_is_said_in_one_line(module: str, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", f"tundra_nb.{module}", option, port]
        if module == "faults.fault_proxy":
            command += ["--upstream", "http://127.0.0.1:9"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, f"port {port} is taken: choose another with {option}\n")
