"""A scripted daemon for what the real one does not do on demand: break off, talk nonsense, vanish and come back."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tundra_nb import errors
from tundra_nb.client.link import Link
from tundra_nb.client.sync import Client
from tundra_nb.local.place import Place
from tundra_nb.types import columns

ARROW_TYPES = {
    "id": pa.int64(),
    "int": pa.int64(),
    "float": pa.float64(),
    "text": pa.string(),
    "long_text": pa.string(),
    "time": pa.timestamp("us", "UTC"),
    "bool": pa.bool_(),
    "category": pa.dictionary(pa.int32(), pa.string()),
}


def arrow_stream(table: str, rows: list[dict[str, Any]]) -> bytes:
    """An Arrow stream as the daemon sends it."""
    schema = pa.schema([pa.field(column.name, ARROW_TYPES[column.type]) for column in columns(table)])
    data = pa.table({f.name: pa.array([row.get(f.name) for row in rows], f.type) for f in schema}, schema=schema)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_table(data)
    return bytes(sink.getvalue())


REPLY = {
    "operation_id": "123456789",
    "text": "one two three",
    "profile": "local",
    "model": "tiny",
    "usage": {"input_tokens": 5, "output_tokens": 3},
    "attempts": 2,
    "cost_usd": 0.0,
    "failed_over_from": ["first: status_529"],
}


def sse(event: str, value: Any) -> bytes:
    return f"event: {event}\ndata: {json.dumps(value)}\n\n".encode()


class ScriptedDaemon:
    """Answers the daemon's routes from `script`: path → value, error or handler."""

    def __init__(self, socket: Path | None = None, port: int = 0) -> None:
        self.socket = socket
        self.port = port
        self.tokens: list[str | None] = []
        self.seen: list[tuple[str, str, Any]] = []
        self.script: dict[str, Any] = {}
        self.cancelled = threading.Event()
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    async def _answer(self, request: Request) -> Response:
        body = await request.body()
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        self.tokens.append(request.headers.get("authorization"))
        self.seen.append((request.method, target, json.loads(body) if body else None))
        found = self.script.get(request.url.path)
        if found is None:
            return errors_response(errors.UsageError(problem="no such route"))
        if isinstance(found, errors.TundraError):
            return errors_response(found)
        if isinstance(found, Response):
            return found
        if callable(found):
            answer: Response = await found(request, json.loads(body) if body else None)
            return answer
        return JSONResponse(found)

    def stream(self, *frames: bytes, then: str = "end") -> Callable[..., Any]:
        """A handler that streams frames and then ends, breaks off or hangs until the client leaves."""

        async def handler(request: Request, body: Any) -> Response:
            async def events() -> AsyncIterator[bytes]:
                try:
                    for frame in frames:
                        yield frame
                    if then == "break":
                        raise RuntimeError("scripted break")
                    if then == "hang":
                        await asyncio.sleep(30)
                except asyncio.CancelledError:
                    self.cancelled.set()
                    raise

            return StreamingResponse(events(), media_type="text/event-stream")

        return handler

    def start(self) -> None:
        app = Starlette(routes=[Route("/{path:path}", self._answer, methods=["GET", "POST", "DELETE"])])
        where: dict[str, Any] = {"uds": str(self.socket)} if self.socket else {"port": self.port}
        config = uvicorn.Config(app, **where, log_level="critical", lifespan="off", timeout_graceful_shutdown=0)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        wait_for(lambda: self._server is not None and self._server.started)

    def stop(self) -> None:
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._server.force_exit = True
            self._thread.join(10)
        if self.socket is not None:
            self.socket.unlink(missing_ok=True)


def errors_response(error: errors.TundraError) -> Response:
    return JSONResponse(error.to_wire(), status_code=error.http_status)


def wait_for(condition: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("the condition did not come true in time")
        time.sleep(0.005)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[ScriptedDaemon]:
    scripted = ScriptedDaemon(tmp_path / "d.sock")
    scripted.start()
    yield scripted
    scripted.stop()


@pytest.fixture
def link(daemon: ScriptedDaemon) -> Link:
    return Link.to(Place(socket=str(daemon.socket)))


@pytest.fixture
def client(link: Link) -> Iterator[Client]:
    with Client(link=link, caller="python") as made:
        yield made
