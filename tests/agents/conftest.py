"""A home with an outage in its history, and the door opened on it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import tundra_nb
from tests.conftest import Home, fresh_home
from tundra_nb import errors
from tundra_nb.client.sync import Client
from tundra_nb.testing.scripted_provider import ScriptedProcess, ScriptedStep, scripted_process

CHAT = "/v1/chat/completions"
TOML = """
[router]
retries = 0
[breaker]
failures = 3
open_seconds = 600
[[profile]]
name = "main"
kind = "local"
base_url = "{base_url}"
model = "scripted-1"
"""


@pytest.fixture
def provider() -> Iterator[ScriptedProcess]:
    with scripted_process() as process:
        yield process


@contextlib.contextmanager
def fallen_over(home: Home, provider: ScriptedProcess) -> Iterator[Client]:
    """Two answers, then three 529s that opened the breaker of profile `main`."""
    home.write_settings(TOML.format(base_url=provider.base_url))
    with tundra_nb.connect() as t:
        for _ in range(2):
            t.ask("hi")
        provider.script(CHAT, ScriptedStep(status=529, repeat=3))
        for _ in range(3):
            with pytest.raises(errors.AllProvidersExhausted):
                t.ask("hi")
        yield t


@pytest.fixture
def outage(home: Home, provider: ScriptedProcess) -> Iterator[Client]:
    with fallen_over(home, provider) as t:
        yield t


@dataclasses.dataclass(frozen=True)
class Standing:
    """An outage that stays as it is."""

    home: Home
    t: Client


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """An outage for all tests of a file that change nothing of it."""
    with (
        fresh_home(tmp_path_factory.mktemp("standing")) as home,
        scripted_process() as process,
        fallen_over(home, process) as t,
    ):
        yield Standing(home, t)


class Host:
    """A host that speaks the handshake's era over pipes, a line at a time."""

    def __init__(self, process: subprocess.Popen[str], answers: dict[str, Any] | None = None) -> None:
        self._process = process
        self._next = 0
        self.answers = answers or {}
        self.questions: list[dict[str, Any]] = []

    def send(self, message: dict[str, Any] | str) -> None:
        assert self._process.stdin is not None
        line = message if isinstance(message, str) else json.dumps(message)
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the server closed its output"
        found: dict[str, Any] = json.loads(line)
        return found

    def request(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answer to a request; questions that come before it are answered as `answers` says."""
        self._next += 1
        self.send({"jsonrpc": "2.0", "id": self._next, "method": method, "params": params or {}})
        while True:
            message = self.receive()
            if "method" in message:
                self.questions.append(message["params"])
                answer = self.answers if "error" in self.answers else {"result": self.answers}
                self.send({"jsonrpc": "2.0", "id": message["id"], **answer})
                continue
            assert message["id"] == self._next
            return message

    def initialize(self, **capabilities: Any) -> dict[str, Any]:
        params = {
            "protocolVersion": "2025-11-25",
            "capabilities": capabilities,
            "clientInfo": {"name": "host", "version": "1"},
        }
        answer = self.request("initialize", params)
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        assert "result" in answer, answer
        return answer["result"]  # type: ignore[no-any-return]

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        answer = self.request("tools/call", {"name": tool, "arguments": arguments})
        assert "result" in answer, answer
        return answer["result"]  # type: ignore[no-any-return]


@contextlib.contextmanager
def opened(home: Home, *args: str, answers: dict[str, Any] | None = None) -> Iterator[Host]:
    """`tundra mcp` as its host starts it."""
    command = [sys.executable, "-m", "tundra_nb", "mcp", *args]
    process = subprocess.Popen(
        command, env=home.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield Host(process, answers)
    finally:
        process.communicate(timeout=30)


def text_of(result: dict[str, Any]) -> str:
    return "".join(block["text"] for block in result["content"])
