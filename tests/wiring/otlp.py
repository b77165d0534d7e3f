"""An OTLP receiver over HTTP, and what the trace of a failed-over call must be, whoever has received it.

As a program (`python otlp.py PORT FILE`) it writes each request as a line of base64 before it answers, so that it may
be killed at any moment.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import gzip
import http.server
import os
import select
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

WAIT_US = 2_000
"""Rows have their times in milliseconds, with a fraction: an attempt may seem to end so much after its call."""


@dataclasses.dataclass(frozen=True)
class Span:
    """A span as a receiver tells it: ids in hex, times in microseconds, `status` unset, ok or error."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    """Empty: it has none."""
    began_us: int
    ended_us: int
    status: str
    attributes: dict[str, Any]
    kind: str = ""


def check_failed_over(spans: list[Span], operation_id: str, began_us: int) -> None:
    """Two failed attempts at `first`, a pause between them, then the answer of `second`."""
    (top,) = [span for span in spans if not span.parent_id]
    attempts = [span for span in spans if "tundra.attempt_id" in span.attributes]
    attempts.sort(key=lambda span: span.began_us)
    (pause,) = [span for span in spans if span.name == "wait backoff"]
    assert len(spans) == 5
    assert {span.trace_id for span in spans} == {top.trace_id}
    assert {span.parent_id for span in (*attempts, pause)} == {top.span_id}
    assert len({span.span_id for span in spans}) == 5
    assert [span.name for span in attempts] == ["chat first-1", "chat first-1", "chat second-1"]
    assert [span.status for span in attempts] == ["error", "error", "unset"]
    assert [int(span.attributes["http.response.status_code"]) for span in attempts] == [500, 500, 200]
    assert [span.attributes["tundra.cause"] for span in attempts] == ["first", "retry", "failover"]
    assert attempts[0].attributes["error.type"] == "ApiError"
    assert attempts[2].attributes["gen_ai.provider.name"] == "openai"
    assert attempts[2].attributes["gen_ai.operation.name"] == "chat"
    assert (top.status, top.attributes["tundra.operation_id"]) == ("unset", operation_id)
    assert began_us <= top.began_us
    for span in (*attempts, pause):
        assert top.began_us <= span.began_us <= span.ended_us <= top.ended_us + WAIT_US
    assert attempts[0].ended_us <= pause.began_us + WAIT_US
    assert pause.ended_us <= attempts[1].began_us + WAIT_US
    assert pause.ended_us - pause.began_us >= 10_000


def decoded(body: bytes) -> list[Span]:
    """The spans of a request, read by the messages of `opentelemetry-proto`."""
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service

    request = service.ExportTraceServiceRequest.FromString(body)
    return [
        Span(
            name=span.name,
            trace_id=span.trace_id.hex(),
            span_id=span.span_id.hex(),
            parent_id=span.parent_span_id.hex(),
            began_us=span.start_time_unix_nano // 1000,
            ended_us=span.end_time_unix_nano // 1000,
            status={0: "unset", 1: "ok", 2: "error"}[span.status.code],
            attributes={pair.key: _value(pair.value) for pair in span.attributes},
            kind={1: "internal", 2: "server", 3: "client"}[span.kind],
        )
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _value(value: Any) -> Any:
    inner = getattr(value, value.WhichOneof("value"))
    return [_value(one) for one in inner.values] if value.WhichOneof("value") == "array_value" else inner


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a receiver says."""

    status: int = 200
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    words: bytes = b"{}"
    drips: bool = False
    """A byte now and then, for as long as somebody listens."""


class Receiver:
    """Takes what is posted; `status` is what it answers, with `more` headers, 413 to more bytes than `longest`.

    While it `drips`, an answer comes a byte at a time and does not end. What somebody sent who is dead by then is not
    taken.
    """

    def __init__(self, port: int = 0) -> None:
        self.spans: list[Span] = []
        self.headers: list[dict[str, str]] = []
        self.raw: list[bytes] = []
        self.status = 200
        self.more: dict[str, str] = {}
        self.words = b"{}"
        self.longest: int | None = None
        self.drips = False
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), _handler(self._answer))
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def _answer(self, headers: dict[str, str], body: bytes) -> Answer:
        status = 413 if self.longest is not None and len(body) > self.longest else self.status
        self.headers.append(headers)
        if self.drips:
            return Answer(status, {"Content-Length": "100000"}, drips=True)
        if status == 200:
            self.raw.append(body)
            self.spans += decoded(body)
        return Answer(status, self.more, self.words)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def operations(self) -> set[str]:
        """Ids of the calls whose spans have come."""
        return {str(span.attributes.get("tundra.operation_id")) for span in self.spans}

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def _handler(answer: Any) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = gzip.decompress(self.rfile.read(int(self.headers["Content-Length"])))
            if _is_gone(self.connection):
                return
            told: Answer = answer(dict(self.headers), body)
            self.send_response(told.status)
            for name, value in told.headers.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                while told.drips:
                    self.wfile.write(b"x")
                    time.sleep(0.5)
                self.wfile.write(told.words)

        def log_message(self, *_: Any) -> None:
            """Nothing is printed."""

    return Handler


def _is_gone(connection: socket.socket) -> bool:
    """Whether nobody is left at the other end to read an answer."""
    if not select.select([connection], [], [], 0)[0]:
        return False
    return connection.recv(1, socket.MSG_PEEK) == b""


def _run(port: int, file: Path) -> None:
    def answer(_: dict[str, str], body: bytes) -> Answer:
        with file.open("ab", buffering=0) as stream:
            stream.write(base64.b64encode(body) + b"\n")
        return Answer()

    server = http.server.HTTPServer(("127.0.0.1", port), _handler(answer))
    print(os.getpid(), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    _run(int(sys.argv[1]), Path(sys.argv[2]))
