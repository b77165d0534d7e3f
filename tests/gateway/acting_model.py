"""A provider that acts by what it is asked, in the forms of chat completions, Responses and Messages.

Tools are called with arguments of their schema, a schema for the answer is filled, tool results are answered with
text, and a question with "status 429" in it gets that status. So any framework can hold its own conversation with it.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tundra_nb.faults import dialects
from tundra_nb.runtime.providers.callers import FORMS
from tundra_nb.runtime.providers.contract import Answer
from tundra_nb.types import Usage
from tundra_nb.types.calls import ToolCall
from tundra_nb.types.pieces import Piece, Text, ToolCallPiece

SAYS = ("Hello", " from", " the", " model", ".")
AFTER_TOOL = ("It", " is", " 21", " degrees", ".")
FORM_OF = {"/chat/completions": "chat", "/responses": "responses", "/messages": "messages"}
_STATUS = re.compile(r"status (\d{3})")


def filled(schema: dict[str, Any], root: dict[str, Any] | None = None) -> Any:
    """A value that a JSON schema allows."""
    root = schema if root is None else root
    if "$ref" in schema:
        found: Any = root
        for name in schema["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        return filled(found, root)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return filled(schema[several][0], root)
    kind = schema.get("type", "object")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        return {name: filled(value, root) for name, value in schema.get("properties", {}).items()}
    if kind == "array":
        return [filled(schema.get("items", {"type": "string"}), root)]
    return {"string": "Oslo", "integer": 21, "number": 21.5, "boolean": True, "null": None}[kind]


def answered(form: str, body: dict[str, Any]) -> Answer | int:
    """What is answered to a body; a number is the status of an error."""
    turns = body.get("input" if form == "responses" else "messages") or []
    turns = [{"role": "user", "content": turns}] if isinstance(turns, str) else turns
    last = json.dumps(turns[-1])
    if match := _STATUS.search(last):
        return int(match[1])
    usage = Usage(input_tokens=8, output_tokens=5)
    has_result = any(mark in last for mark in ('"role": "tool"', '"tool_result"', '"function_call_output"'))
    format_ = {
        "chat": lambda: (body.get("response_format") or {}).get("json_schema"),
        "responses": lambda: (body.get("text") or {}).get("format"),
        "messages": lambda: (body.get("output_config") or {}).get("format"),
    }[form]()
    schema = (format_ or {}).get("schema")
    if body.get("tools") and not has_result:
        tool = body["tools"][0]
        tool = tool.get("function", tool)
        arguments = json.dumps(filled(tool.get("parameters") or tool.get("input_schema") or {}))
        call = ToolCall(id="call_1", name=tool["name"], arguments=arguments)
        return Answer(text="", model=body["model"], usage=usage, stop_reason="tool_calls", tool_calls=(call,))
    text = json.dumps(filled(schema)) if schema else "".join(AFTER_TOOL if has_result else SAYS)
    return Answer(text=text, model=body["model"], usage=usage, stop_reason="stop")


def pieces_of(answer: Answer) -> Iterator[Piece]:
    """The answer in pieces, tool arguments too."""
    for word in re.findall(r"\s*\S+", answer.text):
        yield Text(word)
    for index, call in enumerate(answer.tool_calls):
        yield ToolCallPiece(index, call.id, call.name)
        half = len(call.arguments) // 2
        yield ToolCallPiece(index, arguments=call.arguments[:half])
        yield ToolCallPiece(index, arguments=call.arguments[half:])


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["content-length"]))
        form = next(name for path, name in FORM_OF.items() if self.path.endswith(path))
        body = json.loads(raw)
        self.server.bodies.append((form, body))  # type: ignore[attr-defined]
        answer = answered(form, body)
        if isinstance(answer, int):
            vendor: dialects.Dialect = "anthropic" if form == "messages" else "openai"
            self._send(answer, "application/json", dialects.error(vendor, answer, "by request"))
        elif body.get("stream"):
            options = body.get("stream_options") or {}
            writer = FORMS[form].writer(
                operation_id="1", created=1, model=answer.model, include_usage=bool(options.get("include_usage"))
            )
            frames = [*map(writer.piece, pieces_of(answer)), writer.finish(answer)]
            self._send(200, "text/event-stream", b"".join(frames))
        else:
            self._send(200, "application/json", FORMS[form].answer(answer, operation_id="1", created=1))

    def do_GET(self) -> None:
        self._send(
            200, "application/json", b'{"object":"list","data":[{"id":"acting","object":"model","type":"model"}]}'
        )

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the library
        del format, args


@contextlib.contextmanager
def acting_model() -> Iterator[tuple[str, list[tuple[str, dict[str, Any]]]]]:
    """Its address, and the bodies that reached it with their form."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.bodies = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", server.bodies  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
