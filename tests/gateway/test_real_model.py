"""The real local model behind the gateway, in OpenAI's form and in Anthropic's: llama.cpp speaks both."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal

import anthropic
import openai
import pydantic
import pytest

from tests.gateway.conftest import opened
from tundra_nb.client.sync import Client
from tundra_nb.testing.local_model import LocalModel

pytestmark = [pytest.mark.part("model", "doltlite"), pytest.mark.check, pytest.mark.timeout(240)]

TOML = """
[gateway]
listen = "127.0.0.1:0"
[[profile]]
name = "chat"
kind = "local"
base_url = "{chat}"
[[profile]]
name = "messages"
kind = "anthropic"
base_url = "{messages}"
model = "m"
api_key_env = "TWO_KEY"
priority = 1
"""
ASKED: list[Any] = [{"role": "user", "content": "Say hello."}]
PATIENCE = 120.0
"""Seconds: on a busy machine the model takes a third of one for each token."""


class Weather(pydantic.BaseModel):
    city: Literal["Oslo", "Bergen"]
    degrees: Literal[4, 21]


@dataclasses.dataclass
class Real:
    t: Client
    url: str
    token: str

    @property
    def openai(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url, api_key=self.token, timeout=PATIENCE)

    @property
    def anthropic(self) -> anthropic.Anthropic:
        return anthropic.Anthropic(base_url=self.url.removesuffix("/v1"), api_key=self.token, timeout=PATIENCE)

    def row(self) -> tuple[Any, ...]:
        """Profile, form, way and outcome of the latest call, and whether its tokens are known."""
        row = self.t.why("last").operation
        counted = row["input_tokens"] > 0 and row["output_tokens"] > 0
        return row["profile"], row["dialect"], row["way"], row["outcome"], counted


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    with LocalModel() as model:
        toml = TOML.format(chat=model.base_url, messages=model.url.replace("127.0.0.1", "localhost"))
        with opened(tmp_path_factory.mktemp("real"), toml) as made:
            yield Real(made.t, made.url, made.token)


@pytest.mark.parametrize(("profile", "way"), [("chat", "relayed"), ("messages", "translated")])
def test_a_chat_is_answered_whole_and_streamed(real: Real, profile: str, way: str) -> None:
    done = real.openai.chat.completions.create(model=profile, messages=ASKED, max_tokens=6, temperature=0)
    assert done.choices[0].message.content
    assert real.row() == (profile, "openai-chat", way, "ok", True)
    stream: Any = real.openai.chat.completions.create(
        model=profile, messages=ASKED, max_tokens=6, temperature=0, stream=True
    )
    chunks = list(stream)
    assert "".join(each.choices[0].delta.content or "" for each in chunks if each.choices)
    assert chunks[-1].choices[0].finish_reason in ("length", "stop")
    assert real.row() == (profile, "openai-chat", way, "ok", True)


def test_a_schema_holds_the_model_to_it(real: Real) -> None:
    done = real.openai.chat.completions.parse(
        model="chat", messages=[{"role": "user", "content": "The weather in Oslo?"}], response_format=Weather,
        max_tokens=80, temperature=0,
    )  # fmt: skip
    assert done.choices[0].message.parsed is not None
    assert done.choices[0].message.parsed.city in ("Oslo", "Bergen")
    assert real.row() == ("chat", "openai-chat", "relayed", "ok", True)


def test_responses_are_answered_by_the_servers_own_path(real: Real) -> None:
    # its events lack `content_index`, so the SDK's own helper `.stream()` would fail on them without a gateway, too
    events = list(real.openai.responses.create(model="chat", input="Say hello.", max_output_tokens=6, stream=True))
    assert "".join(each.delta for each in events if each.type == "response.output_text.delta")
    assert events[-1].type == "response.completed"
    assert real.row()[:4] == ("chat", "openai-responses", "relayed", "ok")


@pytest.mark.parametrize(("profile", "way"), [("messages", "relayed"), ("chat", "translated")])
def test_a_message_is_answered_with_tools_on_offer(real: Real, profile: str, way: str) -> None:
    tool: Any = {"name": "weather", "description": "tells it", "input_schema": {"type": "object", "properties": {}}}
    # without a temperature it begins now and then with half a character, and then the server tells no input tokens
    with real.anthropic.messages.stream(
        model=profile, max_tokens=6, messages=ASKED, tools=[tool], extra_body={"temperature": 0}
    ) as stream:
        done = stream.get_final_message()
    assert done.content
    assert done.usage.output_tokens > 0
    assert real.row() == (profile, "anthropic", way, "ok", True)


def test_tokens_are_counted_by_the_server(real: Real) -> None:
    assert real.anthropic.messages.count_tokens(model="messages", messages=ASKED).input_tokens > 5


@pytest.mark.anyio
async def test_the_async_sdks_stream_from_it(real: Real) -> None:
    async with openai.AsyncOpenAI(base_url=real.url, api_key=real.token, timeout=PATIENCE) as client:
        stream = await client.chat.completions.create(model="chat", messages=ASKED, max_tokens=4, stream=True)
        assert "".join([each.choices[0].delta.content or "" async for each in stream if each.choices])
    url = real.url.removesuffix("/v1")
    async with (
        anthropic.AsyncAnthropic(base_url=url, api_key=real.token, timeout=PATIENCE) as other,
        other.messages.stream(model="messages", max_tokens=4, messages=ASKED) as messages,
    ):
        assert await messages.get_final_text()
