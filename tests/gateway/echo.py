"""A provider that streams what it is asked to: each chunk repeats the question, so no stream can pass for another.

The body's own fields say how: `chunks`, `bytes` (of each), `gap` (seconds between two). It runs in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from typing import Any


class Echo:
    """What it has sent, and where it is."""

    def __init__(self) -> None:
        self.port = 0
        self.sent = 0
        """Bytes handed to its sockets so far."""
        self.longest = 0
        """Bytes of the longest body that reached it."""

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                if head.startswith("get"):
                    body = b'{"object":"list","data":[{"id":"echo","object":"model"}]}'
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
                    continue
                length = int(head.split("content-length:")[1].split("\r\n")[0])
                body = await reader.readexactly(length)
                self.longest = max(self.longest, length)
                await self._stream(json.loads(body), writer)
        writer.close()

    async def _stream(self, asked: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        question = asked["messages"][-1]["content"][:100]
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for number in range(asked.get("chunks", 3)):
            text = f"{question} {number} ".ljust(asked.get("bytes", 0), "x")
            await self._event(writer, {"delta": {"content": text}, "finish_reason": None})
            if gap := asked.get("gap"):
                await asyncio.sleep(gap)
        await self._event(writer, {"delta": {}, "finish_reason": "stop"})
        writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        await writer.drain()

    async def _event(self, writer: asyncio.StreamWriter, choice: dict[str, Any]) -> None:
        told = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        event = b"data: " + json.dumps({**told, "choices": [{"index": 0, **choice}]}).encode() + b"\n\n"
        writer.write(b"%x\r\n%s\r\n" % (len(event), event))
        await writer.drain()
        self.sent += len(event)


@contextlib.contextmanager
def echoing() -> Iterator[Echo]:
    echo = Echo()
    ready, over = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        server = await asyncio.start_server(echo.answer, "127.0.0.1", 0, backlog=1024)
        echo.port = server.sockets[0].getsockname()[1]
        ready.set()
        await over.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield echo
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(10)
        loop.close()
