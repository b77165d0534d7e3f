"""The official SDK as a client: an oracle for what we send, in both eras, over stdio and HTTP."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from mcp import Client as McpClient
from mcp import StdioServerParameters, stdio_client
from mcp.client import ClientRequestContext
from mcp_types import CallToolResult, ElicitRequestParams, ElicitResult, TextContent

from tests.agents.test_mcp import breaker
from tests.conftest import Home
from tundra_nb.client.sync import Client

pytestmark = [pytest.mark.part("doltlite"), pytest.mark.anyio]
ERAS = ["legacy", "auto", "2026-07-28"]


def text_of(result: CallToolResult) -> str:
    return "".join(block.text for block in result.content if isinstance(block, TextContent))


def door(home: Home, *args: str) -> Any:
    parameters = StdioServerParameters(
        command=sys.executable, args=["-m", "tundra_nb.cli", "mcp", *args], env=dict(home.env)
    )
    return stdio_client(parameters)


@pytest.mark.parametrize("era", ERAS)
async def test_the_sdk_lists_the_tools_and_reads_the_same_story(home: Home, outage: Client, era: str) -> None:
    async with McpClient(door(home), mode=era) as client:
        listed = await client.list_tools()
        assert all(tool.annotations and tool.annotations.read_only_hint for tool in listed.tools)
        story = await client.call_tool("tundra_why", {"operation": outage.why("last").operation_id})
        assert not story.is_error
        assert "529" in text_of(story)
        assert story.structured_content is None


@pytest.mark.parametrize("era", ERAS)
async def test_a_person_who_says_yes_through_the_sdk_closes_the_breaker(home: Home, outage: Client, era: str) -> None:
    asked: list[str] = []

    async def answer(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        del context
        asked.append(params.message)
        return ElicitResult(action="accept", content={"approve": True})

    async with McpClient(door(home, "--allow", "breakers-reset"), mode=era, elicitation_callback=answer) as client:
        given = await client.call_tool("tundra_breakers_reset", {"name": "main"})
        assert not given.is_error
    assert len(asked) == 1
    assert "tundra breakers reset main" in asked[0]
    assert breaker(outage) == "closed"


@pytest.mark.parametrize("era", ERAS)
async def test_a_client_of_the_sdk_without_elicitation_is_given_the_line(home: Home, outage: Client, era: str) -> None:
    async with McpClient(door(home, "--allow", "breakers-reset"), mode=era) as client:
        given = await client.call_tool("tundra_breakers_reset", {"name": "main"})
        assert given.is_error
        assert "Run it yourself" in text_of(given)
    assert breaker(outage) == "open"
