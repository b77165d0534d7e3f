"""The server's HTTP protocol, over real connections: how answers are framed, what is refused, and who is hung up on."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn

from tundra_nb.daemon.cut import Cuttable

pytestmark = pytest.mark.anyio
Lines = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers in the way that the path names."""
    path = scope["path"]
    body = (await receive())["body"]
    headers: list[tuple[bytes, bytes]] = [(b"x-path", path.encode()), (b"x-raw", scope["raw_path"])]
    told = b"%s %s?%s" % (scope["method"].encode(), path.encode(), scope["query_string"]) + body
    if path in ("/whole", "/two words", "/close"):
        headers.append((b"content-length", b"%d" % len(told)))
    if path == "/close":
        headers.append((b"connection", b"close"))
    if path == "/long":
        told = b"x" * 300_000
        headers.append((b"content-length", b"300000"))
    if path == "/short":
        headers.append((b"content-length", b"%d" % (len(told) + 1)))
    if path == "/injected":
        headers.append((b"x-name", b"a\r\nset-cookie: b=c"))
    status = 204 if path == "/nothing" else 200
    await send({"type": "http.response.start", "status": status, "headers": headers})
    if path == "/stream":
        for part in (b"one", b"", b"two"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        told = b""
    await send({"type": "http.response.body", "body": b"" if status == 204 else told})


@contextlib.asynccontextmanager
async def served(keep_alive: float = 60) -> AsyncIterator[int]:
    config = uvicorn.Config(
        app, port=0, http=Cuttable, ws="none", lifespan="off", log_config=None, server_header=False, date_header=False
    )
    config.timeout_keep_alive = keep_alive  # type: ignore[assignment]
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await server.shutdown()


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[Lines]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(10):
            yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def request(path: str, method: str = "GET", version: str = "1.1", body: bytes = b"") -> bytes:
    return f"{method} {path} HTTP/{version}\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


async def answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Head and body of one answer of a known length."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return head, await reader.readexactly(length)


async def test_a_whole_answer_comes_with_its_head_and_the_connection_serves_again() -> None:
    async with served() as port, connected(port) as (reader, writer):
        for body in (b"", b"abc"):
            writer.write(request("/whole?a=1", "POST", body=body))
            head, got = await answer(reader)
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert got == b"POST /whole?a=1" + body
        writer.write(request("/long"))
        assert (await answer(reader))[1] == b"x" * 300_000


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with served() as port, connected(port) as (reader, writer):
        writer.write(request("/whole?1") + request("/stream") + request("/whole?2"))
        assert (await answer(reader))[1] == b"GET /whole?1"
        assert (await reader.readuntil(b"\r\n\r\n")).endswith(b"transfer-encoding: chunked\r\n\r\n")
        assert await reader.readuntil(b"0\r\n\r\n") == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
        assert (await answer(reader))[1] == b"GET /whole?2"


async def test_a_path_is_read_decoded_and_as_it_was_written() -> None:
    async with served() as port, connected(port) as (reader, writer):
        writer.write(request("/two%20words"))
        head, _ = await answer(reader)
        assert b"x-path: /two words\r\nx-raw: /two%20words\r\n" in head


async def test_a_head_request_gets_the_head_alone() -> None:
    async with served() as port, connected(port) as (reader, writer):
        writer.write(request("/whole", "HEAD") + request("/whole"))
        assert b"content-length: 12\r\n" in await reader.readuntil(b"\r\n\r\n")
        assert (await answer(reader))[1] == b"GET /whole?"


async def test_an_answer_without_a_body_has_no_framing() -> None:
    async with served() as port, connected(port) as (reader, writer):
        writer.write(request("/nothing") + request("/whole"))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 204 ")
        assert b"transfer-encoding" not in head
        assert (await answer(reader))[1] == b"GET /whole?"


@pytest.mark.parametrize(("path", "version"), [("/whole", "1.0"), ("/close", "1.1")])
async def test_who_wants_no_further_request_is_told_so_and_hung_up_on(path: str, version: str) -> None:
    async with served() as port, connected(port) as (reader, writer):
        writer.write(request(path, version=version))
        head, _ = await answer(reader)
        assert head.count(b"connection: close\r\n") == 1
        assert await reader.read() == b""


async def test_a_header_that_would_begin_another_is_not_sent() -> None:
    async with served() as port, connected(port) as (reader, writer):
        writer.write(request("/injected"))
        assert b"set-cookie" not in await reader.read()


async def test_an_answer_shorter_than_its_head_says_is_cut() -> None:
    async with served() as port, connected(port) as (reader, writer):
        writer.write(request("/short"))
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await answer(reader)


async def test_what_is_no_http_is_answered_with_400() -> None:
    async with served() as port, connected(port) as (reader, writer):
        writer.write(b"\x16\x03\x01 hello\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")


async def test_an_idle_connection_is_closed_in_time_and_not_while_it_is_used() -> None:
    async with served(keep_alive=0.3) as port, connected(port) as (reader, writer):
        began = time.monotonic()
        while time.monotonic() - began < 0.7:  # longer than it may idle
            writer.write(request("/whole"))
            await answer(reader)
            await asyncio.sleep(0.02)
        used = time.monotonic()
        assert await reader.read() == b""
        assert 0.2 < time.monotonic() - used < 5
