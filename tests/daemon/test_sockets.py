"""WebSockets of the daemon, by the protocol alone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.asyncio.client import connect

from tundra_nb.daemon.sockets import PART_BYTES, socket_class

MASKED_PING = b"\x89\x80\0\0\0\0"


async def echo(_scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] != "websocket.disconnect":
        if "text" in message:
            await send({"type": "websocket.send", "text": message["text"]})


@pytest.mark.anyio
async def test_a_flood_of_pings_is_answered_in_parts_and_what_comes_behind_it_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []
    read = WebSocketsSansIOProtocol.data_received

    def counted(self: WebSocketsSansIOProtocol, data: bytes) -> None:
        sizes.append(len(data))
        read(self, data)

    monkeypatch.setattr(WebSocketsSansIOProtocol, "data_received", counted)
    made = socket_class(30.0, 10.0)
    config = Config(echo, ws=made, lifespan="off", log_config=None)
    config.load()
    served = await asyncio.get_running_loop().create_server(
        lambda: made(config=config, server_state=ServerState(), app_state={}), "127.0.0.1", 0
    )
    async with served, connect(f"ws://127.0.0.1:{served.sockets[0].getsockname()[1]}", ping_interval=None) as socket:
        for word in ("one", "two"):
            socket.transport.write(MASKED_PING * 20_000)
            await socket.send(word)
            assert await asyncio.wait_for(socket.recv(), 30) == word
    assert sum(sizes) > 2 * 20_000 * len(MASKED_PING)
    assert max(sizes) <= PART_BYTES
