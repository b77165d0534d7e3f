"""One daemon with its gateway open, and scripted providers of both forms behind it, for a whole module."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

import tundra_nb
from tests.conftest import Home, stop_processes
from tundra_nb.client.sync import Client
from tundra_nb.testing.scripted_provider import CapturedRequest, ScriptedProcess, scripted_process

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
TOML = """
[router]
retries = 1
backoff_seconds = 0.01
backoff_cap_seconds = 0.02
[breaker]
failures = 1000
[limits.global]
rate = 1e6
burst = 1e6
[gateway]
listen = "127.0.0.1:0"
hold_seconds = 0.4
max_body_mb = 40
[gateway.models]
"gpt-alias" = "one"
[[profile]]
name = "one"
kind = "local"
base_url = "{one}"
model = "scripted-1"
[[profile]]
name = "two"
kind = "anthropic"
base_url = "{two}"
model = "claude-scripted"
api_key_env = "TWO_KEY"
priority = 1
"""
TWO_KEY = "sk-ant-two-0123456789abcdef"


@dataclasses.dataclass
class Opened:
    """A daemon with an open gateway."""

    home: Home
    one: ScriptedProcess
    two: ScriptedProcess
    t: Client
    url: str
    token: str

    def openai(self, **options: Any) -> openai.OpenAI:
        return openai.OpenAI(**({"api_key": self.token, "base_url": self.url} | options))

    def anthropic(self, **options: Any) -> anthropic.Anthropic:
        url = self.url.removesuffix("/v1")
        return anthropic.Anthropic(**({"api_key": self.token, "base_url": url} | options))

    def new_token(self, name: str, **options: Any) -> str:
        return str(self.t.tokens.new(name, **options)["token"])

    def asked(self, provider: ScriptedProcess) -> list[CapturedRequest]:
        """The questions that reached a provider; model lists do not count."""
        return [request for request in provider.requests if request.method == "POST"]

    def reset(self) -> None:
        self.one.reset()
        self.two.reset()

    def call(self) -> dict[str, Any]:
        """The row of the latest call."""
        row: dict[str, Any] = self.t.why("last").operation
        return row


@contextlib.contextmanager
def opened(folder: Path, toml: str = TOML) -> Iterator[Opened]:
    before = dict(os.environ)
    os.environ.update(TUNDRA_DATA_DIR=str(folder / "data"), TUNDRA_CONFIG=str(folder / "tundra.toml"), TWO_KEY=TWO_KEY)
    home = Home(folder, dict(os.environ))
    try:
        with scripted_process() as one, scripted_process() as two:
            home.write_settings(toml.format(one=one.base_url, two=two.url.replace("127.0.0.1", "localhost")))
            with tundra_nb.connect() as t:
                status = t.gateway.status()
                assert status["listening"], status
                token = str(t.tokens.new("tests")["token"])
                yield Opened(home, one, two, t, str(status["url"]), token)
    finally:
        stop_processes(home)
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    with opened(tmp_path_factory.mktemp("gateway")) as made:
        yield made


@pytest.fixture(autouse=True)
def fresh(request: pytest.FixtureRequest) -> None:
    """Scripts and captured requests of the test before are forgotten."""
    if "gateway" in request.fixturenames:
        request.getfixturevalue("gateway").reset()
