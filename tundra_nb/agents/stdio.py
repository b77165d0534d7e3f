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

from .rpc import PARSE_ERROR, McpSession, Message, RpcError, RpcServer, error, mapping

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


class _Call(threading.Thread):
    """A call of a tool, with the question to the person that it waits for."""

    def __init__(self, connection: _Connection, message: Message) -> None:
        super().__init__(name="tools/call", daemon=True)
        self._connection = connection
        self._message = message
        self.identity = message.get("id")
        self.is_cancelled = False
        self.question: str | None = None
        self.answer: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()

    def run(self) -> None:
        self._connection.answer(self._message)


class _Connection:
    def __init__(self, server: RpcServer, wire: BinaryIO) -> None:
        self._server = server
        self._wire = wire
        self._session = McpSession(ask=self._ask)
        self._asking: dict[str, _Call] = {}
        self._is_over = False
        self._lock = threading.Lock()
        """Holds `_asking`, `_is_over` and what calls wait for together, and one line on the wire."""
        self._numbers = itertools.count(1)

    def serve(self, lines: BinaryIO) -> None:
        calls: list[_Call] = []
        while line := lines.readline(MAX_LINE_BYTES):
            if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                self._skip(lines)
                continue
            message = self._read(line) if line.strip() else None
            if message is None or self._is_answer(message):
                continue
            method = message.get("method") if isinstance(message, dict) else None
            if method == "tools/call":
                call = _Call(self, message)
                call.start()
                calls = [other for other in calls if other.is_alive()] + [call]
            elif method == "notifications/cancelled":
                self._cancel(mapping(message.get("params")).get("requestId"), calls)
            else:
                self.answer(message)
        with self._lock:
            self._is_over = True
            for asking in self._asking.values():
                asking.answer.put({})
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
        """Whether it is an answer: whoever asked has it then; where nobody asks any more it is dropped."""
        if not isinstance(message, dict) or "method" in message or not {"result", "error"} & message.keys():
            return False
        identity = message.get("id")
        with self._lock:
            call = self._asking.pop(identity, None) if isinstance(identity, str) else None
        if call is not None:
            is_error = "error" in message
            call.answer.put({"error": message["error"]} if is_error else mapping(message["result"]))
        return True

    def _cancel(self, identity: Any, calls: list[_Call]) -> None:
        """Nobody waits for this call any more: its question is taken back, and a yes to it runs nothing."""
        for call in calls:
            if call.identity != identity:
                continue
            with self._lock:
                call.is_cancelled = True
                question = call.question if self._asking.pop(call.question or "", None) else None
            if question is not None:
                params = {"requestId": question, "reason": "the call was cancelled"}
                self._send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})
                call.answer.put({})

    def answer(self, message: Any) -> None:
        """Answer one message, unless its call was cancelled meanwhile."""
        answer = self._server.handle(message, self._session)
        call = threading.current_thread()
        if answer is not None and not (isinstance(call, _Call) and call.is_cancelled):
            self._send(answer)

    def _ask(self, method: str, params: dict[str, Any]) -> Mapping[str, Any]:
        call = threading.current_thread()
        assert isinstance(call, _Call)
        identity = f"tundra-{next(self._numbers)}"
        with self._lock:
            if self._is_over or call.is_cancelled:
                return {}
            call.question = identity
            self._asking[identity] = call
        self._send({"jsonrpc": "2.0", "id": identity, "method": method, "params": params})
        try:
            return call.answer.get(timeout=ASK_TIMEOUT)
        except queue.Empty:
            with self._lock:
                self._asking.pop(identity, None)
            return {"late": ASK_TIMEOUT}

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
