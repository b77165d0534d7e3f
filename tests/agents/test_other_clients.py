"""Clients of others, unmodified and each in an environment of its own: they list the tools and read a real story."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.agents.test_mcp import listening
from tests.conftest import ROOT, Home
from tundra_nb.agents import tools
from tundra_nb.client.sync import Client

pytestmark = [pytest.mark.check, pytest.mark.part("doltlite"), pytest.mark.timeout(240)]
TOKEN = "secret"

FASTMCP = """
import asyncio, json, sys
from fastmcp import Client
from fastmcp.client.transports import StdioTransport, StreamableHttpTransport
given = json.loads(sys.argv[1])
async def main():
    if "url" in given:
        door = StreamableHttpTransport(given["url"], headers={"authorization": "Bearer " + given["token"]})
    else:
        door = StdioTransport(given["command"], given["args"], env=given["env"], keep_alive=False)
    async with Client(door, mode=given["mode"]) as client:
        listed = await client.list_tools()
        story = await client.call_tool("tundra_why", {"operation": given["operation"]})
        print(json.dumps({"tools": [tool.name for tool in listed], "text": story.content[0].text}))
asyncio.run(main())
"""
OPENAI_AGENTS = """
import asyncio, json, sys
from agents.mcp import MCPServerStdio, MCPServerStreamableHttp
given = json.loads(sys.argv[1])
async def main():
    if "url" in given:
        headers = {"authorization": "Bearer " + given["token"]}
        server = MCPServerStreamableHttp({"url": given["url"], "headers": headers}, client_session_timeout_seconds=60)
    else:
        params = {name: given[name] for name in ("command", "args", "env")}
        server = MCPServerStdio(params, client_session_timeout_seconds=60)
    async with server:
        listed = await server.list_tools()
        story = await server.call_tool("tundra_why", {"operation": given["operation"]})
        print(json.dumps({"tools": [tool.name for tool in listed], "text": story.content[0].text}))
asyncio.run(main())
"""
PYDANTIC_AI = """
import asyncio, json, sys
from fastmcp.client.transports import StdioTransport, StreamableHttpTransport
from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import FunctionModel
given = json.loads(sys.argv[1])
if "url" in given:
    door = StreamableHttpTransport(given["url"], headers={"authorization": "Bearer " + given["token"]})
else:
    door = StdioTransport(given["command"], given["args"], env=given["env"], keep_alive=False)
seen = {}
def model(messages, info):
    seen["tools"] = [tool.name for tool in info.function_tools]
    for part in messages[-1].parts:
        if isinstance(part, ToolReturnPart):
            seen["text"] = part.content if isinstance(part.content, str) else json.dumps(part.content)
            return ModelResponse(parts=[TextPart("read")])
    return ModelResponse(parts=[ToolCallPart("tundra_why", {"operation": given["operation"]})])
async def main():
    agent = Agent(FunctionModel(model), toolsets=[MCPToolset(door)])
    await agent.run("Why did it fail?")
    print(json.dumps(seen))
asyncio.run(main())
"""
CLIENTS = {
    "fastmcp": ("fastmcp>=4", FASTMCP),
    "openai-agents": ("openai-agents>=0.24", OPENAI_AGENTS),
    "pydantic-ai": ("pydantic-ai-slim[mcp,openai]>=2.68", PYDANTIC_AI),
}
INSPECTOR = "@modelcontextprotocol/inspector@0.15.0"


@dataclasses.dataclass(frozen=True)
class Door:
    """Where the server is, as a client is told it."""

    told: dict[str, Any]
    operation: str

    def given(self, **more: str) -> str:
        return json.dumps({**self.told, "operation": self.operation, **more})


def built(name: str, *command: str) -> Path:
    """A folder that a command filled, kept beside the tests; skips where the package cannot be had.

    The command is given the folder in place of `{}`.
    """
    folder = ROOT / "build" / "clients" / name
    if (folder / "ready").exists():
        return folder
    if shutil.which(command[0]) is None:
        pytest.skip(f"this machine has no {command[0]}, which installs {name}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    words = [word.replace("{}", str(folder)) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=180)
    if done.returncode:
        pytest.skip(f"{name} does not install here: {done.stderr.strip()[-300:]}")
    (folder / "ready").touch()
    return folder


def asked(name: str, given: str) -> dict[str, Any]:
    """What a client's program printed; it sees its own packages and none of ours."""
    requirement, program = CLIENTS[name]
    python = ("--python", sys.executable)
    folder = built(name, "uv", "pip", "install", "--quiet", *python, "--target", "{}", requirement)
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(folder), "OPENAI_API_KEY": "none"}
    done = subprocess.run(
        [sys.executable, "-S", "-c", program, given],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def door(home: Home, outage: Client) -> Door:
    told = {"command": sys.executable, "args": ["-m", "tundra_nb", "mcp"], "env": home.env}
    return Door(told, outage.why("last").operation_id)


def holds_the_story(found: dict[str, Any], operation: str) -> None:
    """The same twelve tools at most, and the text that a person sees."""
    assert found["tools"] == list(tools.readers())
    assert operation in found["text"]
    assert "529" in found["text"]
    assert "AllProvidersExhausted" in found["text"]


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_fastmcp_reads_the_story_in_both_eras(door: Door, mode: str) -> None:
    holds_the_story(asked("fastmcp", door.given(mode=mode)), door.operation)


@pytest.mark.parametrize("name", ["openai-agents", "pydantic-ai"])
def test_an_agents_library_reads_the_story(door: Door, name: str) -> None:
    holds_the_story(asked(name, door.given()), door.operation)


def test_clients_read_the_story_over_http(home: Home, door: Door) -> None:
    with listening(home) as url:
        remote = Door({"url": url, "token": TOKEN}, door.operation)
        for name in CLIENTS:
            holds_the_story(asked(name, remote.given(mode="auto")), door.operation)


@pytest.mark.part("node")
def test_the_inspector_reads_the_story(home: Home, door: Door) -> None:
    folder = built(
        "inspector", "npm", "install", "--silent", "--no-save", "--no-audit", "--no-fund", "--prefix", "{}", INSPECTOR
    )
    program = folder / "node_modules/.bin/mcp-inspector"

    def inspect(*args: str) -> Any:
        command = ["node", str(program), "--cli", door.told["command"], *door.told["args"], *args]
        done = subprocess.run(command, env=home.env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout)

    listed = inspect("--method", "tools/list")
    told = inspect("--method", "tools/call", "--tool-name", "tundra_why", "--tool-arg", f"operation={door.operation}")
    names = [tool["name"] for tool in listed["tools"]]
    holds_the_story({"tools": names, "text": told["content"][0]["text"]}, door.operation)
