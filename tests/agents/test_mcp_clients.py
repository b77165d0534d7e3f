"""The official SDK as a client: an oracle for what we send, in both eras, over stdio and HTTP."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from mcp import Client as McpClient
from mcp import StdioServerParameters, stdio_client
from mcp.client import ClientRequestContext
from mcp_types import CallToolResult, ElicitRequestParams, ElicitResult, TextContent, _v2025_11_25, _v2026_07_28

from tests.agents.conftest import opened
from tests.agents.test_mcp import breaker, meta
from tests.conftest import Home
from tundra_nb.client.sync import Client

pytestmark = [pytest.mark.part("doltlite"), pytest.mark.anyio]
ERAS = ["legacy", "auto", "2026-07-28"]


def text_of(result: CallToolResult) -> str:
    return "".join(block.text for block in result.content if isinstance(block, TextContent))


def door(home: Home, *args: str) -> Any:
    parameters = StdioServerParameters(
        command=sys.executable, args=["-m", "tundra_nb", "mcp", *args], env=dict(home.env)
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


def test_each_message_is_one_of_both_revisions(home: Home, outage: Client) -> None:
    """Results, errors and questions, parsed by the SDK's generated types of each."""
    asking = {"name": "tundra_breakers_reset", "arguments": {"name": "main"}}
    wrong = {"name": "tundra_why", "arguments": {"operation": "no such"}}
    with opened(home, "--allow", "all", answers={"action": "decline"}) as host:
        old, new = _v2025_11_25, _v2026_07_28
        old.InitializeResult.model_validate(host.initialize(elicitation={}), strict=True)
        for envelope, revision in (({}, old), ({"_meta": meta(elicitation={})}, new)):
            listed = host.request("tools/list", envelope)
            assert revision.JSONRPCResultResponse.model_validate(listed).result
            assert len(revision.ListToolsResult.model_validate(listed["result"]).tools) > 10
            for call in ({"name": "tundra_why"}, {"name": "tundra_calls"}, wrong):
                result = host.request("tools/call", {**call, **envelope})["result"]
                assert revision.CallToolResult.model_validate(result).content
            unknown = host.request("tools/call", {"name": "nope", **envelope})
            assert revision.JSONRPCErrorResponse.model_validate(unknown).error.code == -32602
        discovered = host.request("server/discover", {"_meta": meta()})["result"]
        assert new.DiscoverResult.model_validate(discovered).supported_versions
        question = host.request("tools/call", {**asking, "_meta": meta(elicitation={})})["result"]
        assert new.InputRequiredResult.model_validate(question).request_state
        declined = host.request("tools/call", asking)["result"]
        assert old.CallToolResult.model_validate(declined).is_error
        assert old.ElicitRequestFormParams.model_validate(host.questions[-1]).message
