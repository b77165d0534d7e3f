"""The awaited client against a scripted daemon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tundra_nb import errors
from tundra_nb.client.aio import AsyncClient
from tundra_nb.client.link import Link
from tundra_nb.types.pieces import Reasoning, Text

from .conftest import REPLY, ScriptedDaemon, arrow_stream, sse

pytestmark = pytest.mark.anyio


@pytest.fixture
async def aclient(link: Link) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(link=link) as made:
        yield made


async def test_calls_are_awaited_and_give_the_same_results(aclient: AsyncClient, daemon: ScriptedDaemon) -> None:
    from starlette.responses import Response

    daemon.script["/api/operations"] = REPLY
    daemon.script["/api/history/calls"] = Response(arrow_stream("operation", []))
    assert str(await aclient.ask("count")) == "one two three"
    frame = await aclient.calls(since="1h")
    assert len(frame) == 0
    assert frame.columns[0] == "operation_id"


async def test_many_calls_run_at_once_over_kept_connections(aclient: AsyncClient, daemon: ScriptedDaemon) -> None:
    daemon.script["/api/operations"] = REPLY
    replies = await asyncio.gather(*(aclient.ask(f"count {n}") for n in range(50)))
    assert {reply.text for reply in replies} == {"one two three"}


async def test_a_stream_gives_pieces_and_then_the_reply(aclient: AsyncClient, daemon: ScriptedDaemon) -> None:
    notice = sse("notice", {"kind": "wait", "message": "bucket", "profile": "p"})
    daemon.script["/api/operations"] = daemon.stream(notice, sse("text", {"text": "one "}), sse("reply", REPLY))
    stream = aclient.ask("count", stream=True)
    assert [piece async for piece in stream] == ["one "]
    assert stream.reply.model == "tiny"
    assert stream.notices[0]["kind"] == "wait"


async def test_a_stream_gives_reasoning_to_who_asks_for_all_pieces(
    aclient: AsyncClient, daemon: ScriptedDaemon
) -> None:
    daemon.script["/api/operations"] = daemon.stream(
        sse("reasoning", {"text": "hm"}), sse("text", {"text": "one"}), sse("reply", REPLY)
    )
    stream = aclient.ask("count", stream=True)
    assert [piece async for piece in stream.pieces()] == [Reasoning("hm"), Text("one")]


async def test_leaving_a_stream_cancels_the_call_in_the_daemon(aclient: AsyncClient, daemon: ScriptedDaemon) -> None:
    daemon.script["/api/operations"] = daemon.stream(sse("text", {"text": "one"}), then="hang")
    async with aclient.ask("count", stream=True) as stream:
        assert await anext(stream) == "one"
    assert await asyncio.to_thread(daemon.cancelled.wait, 5)


async def test_cancelling_the_task_cancels_the_call_in_the_daemon(aclient: AsyncClient, daemon: ScriptedDaemon) -> None:
    daemon.script["/api/operations"] = daemon.stream(sse("text", {"text": "one"}), then="hang")
    started = asyncio.Event()

    async def reading() -> None:
        async for _ in aclient.ask("count", stream=True):
            started.set()

    task = asyncio.create_task(reading())
    await asyncio.wait_for(started.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(daemon.cancelled.wait, 5)


async def test_errors_have_the_same_class_as_in_the_daemon(aclient: AsyncClient, daemon: ScriptedDaemon) -> None:
    daemon.script["/api/operations"] = errors.LimitExceeded(
        tier="global", key="global", resource="requests", requested=1, retry_after=0.5
    )
    with pytest.raises(errors.LimitExceeded) as caught:
        await aclient.ask("x")
    assert caught.value.retry_after == 0.5


async def test_a_stream_that_breaks_off_is_an_ipc_error(aclient: AsyncClient, daemon: ScriptedDaemon) -> None:
    daemon.script["/api/operations"] = daemon.stream(sse("text", {"text": "a"}), then="break")
    with pytest.raises(errors.IpcError, match="went away in the middle"):
        async for _ in aclient.ask("x", stream=True):
            pass


async def test_a_daemon_that_is_gone_is_an_ipc_error(aclient: AsyncClient, daemon: ScriptedDaemon) -> None:
    await asyncio.to_thread(daemon.stop)
    with pytest.raises(errors.IpcError):
        await aclient.status()


async def test_awaiting_the_client_connects_it(link: Link, daemon: ScriptedDaemon) -> None:
    daemon.script["/api/status"] = {"pid": 3}
    client = await AsyncClient(link=link)
    assert (await client.status()).pid == 3
    await client.aclose()
