"""The MCP server over standard input and output: a JSON message a line.

Standard output is the wire. Whatever else would print there, a library's warning say, goes to standard error instead.
The standard library's JSON and threads: a host waits for the list of tools, and msgspec and asyncio would take longer
than everything else until then.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import queue
import sys
import threading
from collections.abc import Mapping
from typing import Any, BinaryIO, NoReturn

from .rpc import PARSE_ERROR, McpSession, RpcError, RpcServer, error

MAX_LINE_BYTES = 16 * 1024 * 1024
ASK_TIMEOUT = 600.0
"""Seconds a person has to answer."""


def serve(server: RpcServer) -> None:
    """Answer messages until standard input ends."""
    wire = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    given = os.open(os.devnull, os.O_RDONLY) if sys.stdin is None else os.dup(0)
    with os.fdopen(given, "rb") as lines:
        _Connection(server, wire).serve(lines)


class _Connection:
    def __init__(self, server: RpcServer, wire: BinaryIO) -> None:
        self._server = server
        self._wire = wire
        self._session = McpSession(ask=self._ask)
        self._asked: dict[str, queue.SimpleQueue[Mapping[str, Any]]] = {}
        self._is_over = False
        self._lock = threading.Lock()
        """Holds `_asked` and `_is_over` together, and one line on the wire."""
        self._numbers = itertools.count(1)

    def serve(self, lines: BinaryIO) -> None:
        calls: list[threading.Thread] = []
        while line := lines.readline(MAX_LINE_BYTES):
            if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                self._skip(lines)
                continue
            message = self._read(line) if line.strip() else None
            if message is None or self._is_answer(message):
                continue
            if isinstance(message, dict) and message.get("method") == "tools/call":
                call = threading.Thread(target=self._answer, args=(message,), name="tools/call", daemon=True)
                call.start()
                calls = [other for other in calls if other.is_alive()] + [call]
            else:
                self._answer(message)
        with self._lock:
            self._is_over = True
            for waiting in self._asked.values():
                waiting.put({})
        for call in calls:
            call.join()

    def _skip(self, lines: BinaryIO) -> None:
        """Answer a line that is too long once, and read past its end: what follows in it is no line of its own."""
        while (rest := lines.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
            continue
        self._send(error(None, RpcError(PARSE_ERROR, f"a line has at most {MAX_LINE_BYTES:,} bytes")))

    def _read(self, line: bytes) -> Any:
        """The message of a line; None after the answer to what is none."""
        try:
            message = json.loads(line.decode(), parse_constant=_no_number, parse_float=_number)
            json.dumps(message, ensure_ascii=False).encode()  # halves of surrogate pairs are no text
        except (ValueError, RecursionError):
            self._send(error(None, RpcError(PARSE_ERROR, "not a line of JSON")))
            return None
        return {} if message is None else message

    def _is_answer(self, message: Any) -> bool:
        """Whether it answers a question of ours; then whoever asked has it."""
        if not isinstance(message, dict) or "method" in message or not isinstance(message.get("id"), str):
            return False
        with self._lock:
            waiting = self._asked.pop(message["id"], None)
        if waiting is not None:
            result = message.get("result")
            waiting.put(result if isinstance(result, dict) else {})
        return waiting is not None

    def _answer(self, message: Any) -> None:
        answer = self._server.handle(message, self._session)
        if answer is not None:
            self._send(answer)

    def _ask(self, method: str, params: dict[str, Any]) -> Mapping[str, Any]:
        identity = f"tundra-{next(self._numbers)}"
        waiting: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()
        with self._lock:
            if self._is_over:
                return {}
            self._asked[identity] = waiting
        self._send({"jsonrpc": "2.0", "id": identity, "method": method, "params": params})
        try:
            return waiting.get(timeout=ASK_TIMEOUT)
        except queue.Empty:
            with self._lock:
                self._asked.pop(identity, None)
            return {}

    def _send(self, message: Mapping[str, Any]) -> None:
        data = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        with self._lock, contextlib.suppress(BrokenPipeError):  # the client has gone; the end of its input follows
            while data:
                data = data[self._wire.write(data) :]


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"JSON has no {word}")


def _number(word: str) -> float:
    number = float(word)
    if math.isinf(number):
        _no_number(word)
    return number
