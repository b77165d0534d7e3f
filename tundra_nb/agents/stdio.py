"""The MCP server over standard input and output: a JSON message a line.

Standard output is the wire. Whatever else would print there, a library's warning say, goes to standard error instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys
import threading
from collections.abc import Mapping
from typing import Any, BinaryIO

import msgspec

from .rpc import PARSE_ERROR, McpSession, RpcError, RpcServer, error
from .tools import Toolbox

MAX_LINE_BYTES = 16 * 1024 * 1024
ASK_TIMEOUT = 600.0
"""Seconds a person has to answer."""


def serve(toolbox: Toolbox) -> None:
    """Answer messages until standard input ends."""
    wire = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    # not `sys.stdin`: whoever waits in it, as a thread does here, lets no process end
    given = os.open(os.devnull, os.O_RDONLY) if sys.stdin is None else os.dup(0)
    asyncio.run(_Connection(toolbox, wire).serve(os.fdopen(given, "rb")))


class _Connection:
    def __init__(self, toolbox: Toolbox, wire: BinaryIO) -> None:
        self._server = RpcServer(toolbox)
        self._wire = wire
        self._session = McpSession(ask=self._ask)
        self._asked: dict[str, asyncio.Future[Mapping[str, Any]]] = {}
        self._numbers = itertools.count(1)

    async def serve(self, lines: BinaryIO) -> None:
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[bytes | None] = asyncio.Queue()

        def read() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                while line := lines.readline(MAX_LINE_BYTES):
                    loop.call_soon_threadsafe(arrived.put_nowait, line)
                loop.call_soon_threadsafe(arrived.put_nowait, None)

        threading.Thread(target=read, name="stdin", daemon=True).start()
        async with asyncio.TaskGroup() as tasks:
            while (line := await arrived.get()) is not None:
                if line.strip():
                    self._take(line, tasks)
            for future in self._asked.values():
                future.cancel()

    def _take(self, line: bytes, tasks: asyncio.TaskGroup) -> None:
        try:
            message = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._send(error(None, RpcError(PARSE_ERROR, "not a line of JSON")))
            return
        if isinstance(message, dict) and "method" not in message and message.get("id") in self._asked:
            future = self._asked.pop(message["id"])
            result = message.get("result")
            future.set_result(result if isinstance(result, dict) else {})
            return
        tasks.create_task(self._answer(message))

    async def _answer(self, message: Any) -> None:
        answer = await self._server.handle(message, self._session)
        if answer is not None:
            self._send(answer)

    async def _ask(self, method: str, params: dict[str, Any]) -> Mapping[str, Any]:
        identity = f"tundra-{next(self._numbers)}"
        future: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        self._asked[identity] = future
        self._send({"jsonrpc": "2.0", "id": identity, "method": method, "params": params})
        try:
            return await asyncio.wait_for(future, ASK_TIMEOUT)
        except (TimeoutError, asyncio.CancelledError):
            self._asked.pop(identity, None)
            return {}

    def _send(self, message: Mapping[str, Any]) -> None:
        data = msgspec.json.encode(message) + b"\n"
        with contextlib.suppress(BrokenPipeError):  # the client has gone; the end of its input follows
            while data:
                data = data[self._wire.write(data) :]
