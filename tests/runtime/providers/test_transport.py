"""The transport against a server that misbehaves by script, beside httpx's own on the same server."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import gzip
import inspect
import os
import socket
import ssl
import struct
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import aiohttp.http_exceptions
import httpx
import pytest
import trustme

from tundra_nb.errors import ConfigError, HttpError
from tundra_nb.runtime.providers import direct
from tundra_nb.runtime.providers.direct import Address, Connections, Received
from tundra_nb.runtime.providers.proxied import native_class
from tundra_nb.runtime.providers.transport import Transport, failure_kind

DEADLINE = 5.0
LIMIT = 0.25
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(params=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """The loop that the daemon runs on, and the one that Python brings."""
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


# --- the scripted fault server ----------------------------------------------------------------------------------------


@asynccontextmanager
async def serving(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    tasks: set[asyncio.Task[None]] = set()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await script(reader, writer)
        finally:
            with contextlib.suppress(OSError):
                writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(accepted(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = [int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    return head + (await reader.readexactly(length[0]) if length else b"")


def reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def says(*pieces: bytes, then: str = "keep") -> Script:
    """Read one request, write the pieces apart, then keep the connection, close it, reset it, or hang."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            for number, piece in enumerate(pieces):
                if number:
                    await asyncio.sleep(0.02)  # apart on the wire
                writer.write(piece)
                await writer.drain()
            if then == "hang":
                await reader.read()
            if then == "reset":
                await asyncio.sleep(0.02)  # let the client take what was written: a reset throws it away
                reset(writer)
            if then != "keep":
                return

    return script


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def plain_only(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(body(b"", status=b"400 Bad Request"))


async def shut_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


def body(data: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    lines = b"".join(header + b"\r\n" for header in headers)
    return b"HTTP/1.1 %s\r\n%scontent-length: %d\r\n\r\n%s" % (status, lines, len(data), data)


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
SIZED = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n"
DEFLATED = zlib.compress(b"squeezed")


@dataclasses.dataclass(frozen=True)
class Case:
    script: Script
    expected: type[Exception] | tuple[int, bytes]
    method: str = "POST"


CASES = {
    "no answer": Case(silent, httpx.ReadTimeout),
    "headers, then nothing": Case(says(SIZED, then="hang"), httpx.ReadTimeout),
    "half a body, then nothing": Case(says(SIZED + b"half", then="hang"), httpx.ReadTimeout),
    "half the headers, then nothing": Case(says(b"HTTP/1.1 200 OK\r\nx: ", then="hang"), httpx.ReadTimeout),
    "closed before the answer": Case(says(then="close"), httpx.RemoteProtocolError),
    "reset before the answer": Case(says(then="reset"), httpx.ReadError),
    "closed in the headers": Case(says(b"HTTP/1.1 200 OK\r\nx: ", then="close"), httpx.RemoteProtocolError),
    "sized body cut short": Case(says(SIZED + b"half", then="close"), httpx.RemoteProtocolError),
    "chunked body cut short": Case(says(CHUNKED + b"4\r\nhalf\r\n", then="close"), httpx.RemoteProtocolError),
    "chunk cut short": Case(says(CHUNKED + b"a\r\nhalf", then="close"), httpx.RemoteProtocolError),
    "bad chunk size": Case(says(CHUNKED + b"zz\r\nhalf\r\n", then="close"), httpx.RemoteProtocolError),
    "bad chunk size after a good chunk": Case(
        says(CHUNKED + b"2\r\nok\r\n", b"zz\r\nhalf\r\n", then="close"), httpx.RemoteProtocolError
    ),
    "reset in the body": Case(says(SIZED + b"half", then="reset"), httpx.ReadError),
    "not HTTP": Case(says(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", then="close"), httpx.RemoteProtocolError),
    "not even text": Case(says(bytes(range(128, 256)) + b"\r\n\r\n", then="close"), httpx.RemoteProtocolError),
    "bad status": Case(says(b"HTTP/1.1 abc OK\r\n\r\n", then="close"), httpx.RemoteProtocolError),
    "bad header": Case(says(b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", then="close"), httpx.RemoteProtocolError),
    "bad content length": Case(
        says(b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", then="close"), httpx.RemoteProtocolError
    ),
    "header of 60 kB": Case(says(body(b"ok", b"x: " + b"a" * 60_000)), (200, b"ok")),
    "header of 1 MB": Case(says(body(b"ok", b"x: " + b"a" * 1_000_000), then="close"), httpx.RemoteProtocolError),
    "200 headers": Case(says(body(b"ok", *(b"x-%d: y" % n for n in range(200)))), (200, b"ok")),
    "plain": Case(says(body(b"ok")), (200, b"ok")),
    "in many pieces": Case(says(b"HTTP/1.1 2", b"00 OK\r\ncontent-le", b"ngth: 2\r\n\r\no", b"k"), (200, b"ok")),
    "chunked": Case(says(CHUNKED + b"2\r\nok\r\n", b"1;ext=1\r\n!\r\n0\r\n\r\n"), (200, b"ok!")),
    "chunked with a trailer": Case(says(CHUNKED + b"2\r\nok\r\n0\r\nx: y\r\n\r\n"), (200, b"ok")),
    "body ended by close": Case(says(b"HTTP/1.1 200 OK\r\n\r\nok", then="close"), (200, b"ok")),
    "HTTP/1.0": Case(says(b"HTTP/1.0 200 OK\r\n\r\nok", then="close"), (200, b"ok")),
    "no reason phrase": Case(says(b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nok"), (200, b"ok")),
    "no content": Case(says(b"HTTP/1.1 204 No Content\r\n\r\n"), (204, b"")),
    "empty body": Case(says(body(b"")), (200, b"")),
    "answer to HEAD": Case(says(SIZED), (200, b""), method="HEAD"),
    "early hints": Case(says(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + body(b"ok")), (200, b"ok")),
    "continue": Case(says(b"HTTP/1.1 100 Continue\r\n\r\n" + body(b"ok")), (200, b"ok")),
    "redirect is not followed": Case(says(body(b"", b"location: http://x.invalid/", status=b"307 T")), (307, b"")),
    "overloaded": Case(says(body(b"{}", status=b"529 Overloaded")), (529, b"{}")),
    "closed after an error status": Case(says(body(b"{}", status=b"500 E"), then="close"), (500, b"{}")),
    "gzip": Case(says(body(gzip.compress(b"squeezed"), b"content-encoding: gzip")), (200, b"squeezed")),
    "deflate": Case(says(body(DEFLATED, b"content-encoding: deflate")), (200, b"squeezed")),
    "broken gzip": Case(says(body(b"not gzip at all", b"content-encoding: gzip")), httpx.DecodingError),
    "unknown encoding": Case(says(body(b"as it is", b"content-encoding: rot13")), (200, b"as it is")),
    "bad UTF-8": Case(says(body(b"\xff\xfe\xfd")), (200, b"\xff\xfe\xfd")),
}


async def outcome(transport: httpx.AsyncBaseTransport, request: httpx.Request) -> type[Exception] | tuple[int, bytes]:
    try:
        async with asyncio.timeout(DEADLINE):
            response = await transport.handle_async_request(request)
            async with aclosing(response):
                return response.status_code, await response.aread()
    except httpx.HTTPError as exc:
        return type(exc)


def post(
    url: str, content: bytes = b"{}", method: str = "POST", limit: float = LIMIT, connect: float = DEADLINE
) -> httpx.Request:
    timeout = {"connect": connect, "read": limit, "write": limit, "pool": limit}
    return httpx.Request(method, url, content=content, extensions={"timeout": timeout})


@pytest.fixture
async def ours() -> AsyncIterator[Transport]:
    async with Transport() as transport:
        yield transport


@pytest.fixture(params=["ours", "httpx"])
async def either(request: pytest.FixtureRequest) -> AsyncIterator[httpx.AsyncBaseTransport]:
    async with Transport() if request.param == "ours" else httpx.AsyncHTTPTransport() as transport:
        yield transport


def open_files() -> int:
    return len(os.listdir("/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"))


async def until(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not claim():  # noqa: ASYNC110 (what is waited for is the kernel's)
            await asyncio.sleep(0.005)


# --- the fault table --------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("name", CASES)
async def test_answer_or_error_is_the_one_of_plain_httpx(name: str, either: httpx.AsyncBaseTransport) -> None:
    case = CASES[name]
    async with serving(case.script) as url:
        assert await outcome(either, post(url, method=case.method)) == case.expected


@pytest.mark.anyio
async def test_refused_connection_is_a_connect_error(either: httpx.AsyncBaseTransport) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert await outcome(either, post(f"http://127.0.0.1:{unused.getsockname()[1]}/")) is httpx.ConnectError


@pytest.mark.anyio
async def test_unknown_host_is_a_connect_error_of_kind_dns(either: httpx.AsyncBaseTransport) -> None:
    with pytest.raises(httpx.ConnectError) as caught:
        await either.handle_async_request(post("http://nowhere.invalid/", limit=DEADLINE))
    assert failure_kind(caught.value) == "dns"


@pytest.mark.anyio
async def test_connecting_that_hangs_is_a_connect_timeout(either: httpx.AsyncBaseTransport) -> None:
    """A full backlog drops further connection attempts on Linux."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(2):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        assert await outcome(either, post(url, connect=LIMIT)) is httpx.ConnectTimeout


@pytest.mark.anyio
async def test_tls_handshake_that_hangs_is_a_connect_timeout(either: httpx.AsyncBaseTransport) -> None:
    async with serving(silent) as url:
        assert await outcome(either, post(url.replace("http", "https"), connect=1.0)) is httpx.ConnectTimeout


@pytest.mark.anyio
@pytest.mark.parametrize("script", [plain_only, shut_at_once], ids=["plain server", "closed"])
async def test_tls_to_a_server_without_it_is_a_connect_error(script: Script, either: httpx.AsyncBaseTransport) -> None:
    async with serving(script) as url:
        assert await outcome(either, post(url.replace("http", "https"), limit=DEADLINE)) is httpx.ConnectError


@pytest.mark.anyio
async def test_unsupported_scheme_is_named_as_such(either: httpx.AsyncBaseTransport) -> None:
    assert await outcome(either, post("ftp://127.0.0.1/")) is httpx.UnsupportedProtocol


@pytest.mark.anyio
async def test_forbidden_character_in_a_header_is_refused_before_sending(either: httpx.AsyncBaseTransport) -> None:
    async with serving(says(body(b"ok"))) as url:
        request = httpx.Request("POST", url, headers={"x": "a\r\nb: c"}, content=b"{}")
        assert await outcome(either, request) is httpx.LocalProtocolError


def aiohttp_exceptions() -> list[type[BaseException]]:
    """Every exception that aiohttp's client and its parser define."""
    return [
        item
        for module in (aiohttp.client_exceptions, aiohttp.http_exceptions)
        for item in vars(module).values()
        if inspect.isclass(item) and issubclass(item, Exception) and item.__module__ == module.__name__
        and item is not aiohttp.WSMessageTypeError  # a TypeError of WebSockets, which are not used
    ]  # fmt: skip


NATIVE = {
    httpx.ConnectTimeout: {"ConnectionTimeoutError"},
    httpx.ReadTimeout: {"ServerTimeoutError", "SocketTimeoutError"},
    httpx.ProxyError: {"ClientProxyConnectionError", "ClientHttpProxyError", "ClientConnectorDNSError"},
    httpx.ConnectError: {
        "ClientConnectorError", "UnixClientConnectorError", "ClientSSLError",
        "ClientConnectorSSLError", "ClientConnectorCertificateError",
    },
    httpx.UnsupportedProtocol: {
        "InvalidURL", "InvalidUrlClientError", "InvalidUrlRedirectClientError", "NonHttpUrlClientError",
        "NonHttpUrlRedirectClientError",
    },
    httpx.RemoteProtocolError: {
        "ServerDisconnectedError", "ClientResponseError", "ClientPayloadError", "ContentTypeError",
        "TooManyRedirects", "WSServerHandshakeError",
    },
    httpx.ReadError: {
        "ClientError", "ClientConnectionError", "ClientConnectionResetError", "ClientOSError",
        "ServerConnectionError", "ServerFingerprintMismatch", "RedirectClientError", "UploadAbortedError",
    },
}  # fmt: skip


@pytest.mark.parametrize("foreign", aiohttp_exceptions(), ids=lambda cls: cls.__name__)
def test_every_exception_of_aiohttp_has_its_place_in_the_tree_of_httpx(foreign: type[BaseException]) -> None:
    by_name = {name: native for native, names in NATIVE.items() for name in names}
    if foreign.__module__ == "aiohttp.http_exceptions":
        assert native_class(foreign) is httpx.RemoteProtocolError
    else:
        assert native_class(foreign) is by_name[foreign.__name__]


@pytest.mark.parametrize("foreign", [ConnectionResetError, BrokenPipeError, OSError, TimeoutError])
def test_errors_of_the_operating_system_are_read_errors(foreign: type[BaseException]) -> None:
    assert native_class(foreign) is httpx.ReadError


@pytest.mark.anyio
async def test_errors_show_neither_the_key_nor_what_the_server_sent(ours: Transport) -> None:
    async with serving(says(b"HTTP/1.1 200 OK\r\nserver canary\r\n\r\n", then="close")) as url:
        request = httpx.Request("POST", url, headers={"authorization": "Bearer canary"}, content=b"{}")
        with pytest.raises(httpx.RemoteProtocolError) as caught:
            await ours.handle_async_request(request)
    assert "canary" not in str(caught.value)
    assert "Bearer" not in repr(caught.value.__cause__) + str(caught.value.__cause__)


@pytest.mark.anyio
async def test_malformed_chunk_is_noticed_also_when_nobody_reads_yet(ours: Transport) -> None:
    async with serving(says(CHUNKED + b"2\r\nok\r\n", b"zz\r\n", then="hang")) as url:
        before = open_files()
        response = await ours.handle_async_request(post(url, limit=DEADLINE))
        await until(lambda: open_files() <= before)
        async with asyncio.timeout(DEADLINE):
            with pytest.raises(httpx.RemoteProtocolError):
                await response.aread()


# --- what is sent and what comes back ---------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_request_is_sent_as_it_was_written(either: httpx.AsyncBaseTransport) -> None:
    """Path escapes, repeated headers and their case stay; nothing is added that nobody asked for."""
    seen: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))
        writer.write(body(b"ok"))

    async with serving(script) as url:
        headers: list[tuple[Any, Any]] = [
            ("X-Case", "Kept"),
            ("x-twice", "1"),
            ("x-twice", "2"),
            ("x-name", "Zoë".encode()),
        ]
        request = httpx.Request("POST", url + "/a%2Fb/%7Ec?q=%20+&r=ü", headers=headers, content=b'{"a":1}')
        assert await outcome(either, request) == (200, b"ok")
    head, _, sent = seen[0].partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    assert first == b"POST /a%2Fb/%7Ec?q=%20+&r=%C3%BC HTTP/1.1"
    assert sent == b'{"a":1}'
    assert [line for line in lines if line.lower().startswith(b"x-")] == [
        b"X-Case: Kept", b"x-twice: 1", b"x-twice: 2", "x-name: Zoë".encode(),
    ]  # fmt: skip
    assert {line.split(b":")[0].lower() for line in lines} == {
        b"host",
        b"content-length",
        b"x-case",
        b"x-twice",
        b"x-name",
    }


@pytest.mark.anyio
async def test_response_headers_keep_order_case_and_repeats(either: httpx.AsyncBaseTransport) -> None:
    answer = body(b"ok", b"X-Case: Kept", b"set-cookie: a=1", b"set-cookie: b=2", b"x-latin: caf\xe9")
    async with serving(says(answer)) as url:
        response = await either.handle_async_request(post(url))
        await response.aread()
    assert response.headers.raw[:4] == [
        (b"X-Case", b"Kept"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"x-latin", b"caf\xe9"),
    ]  # fmt: skip
    assert response.reason_phrase == "OK"
    assert response.http_version == "HTTP/1.1"


@pytest.mark.anyio
async def test_cookies_are_not_kept(ours: Transport) -> None:
    seen: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            seen.append(await read_request(reader))
            writer.write(body(b"ok", b"set-cookie: session=1"))

    async with serving(script) as url:
        for _ in range(2):
            await outcome(ours, post(url))
    assert b"cookie" not in seen[1].lower()


@pytest.mark.anyio
async def test_netrc_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ours: Transport) -> None:
    seen: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))
        writer.write(body(b"ok"))

    (tmp_path / "netrc").write_text("default login someone password canary\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with serving(script) as url:
        assert await outcome(ours, post(url)) == (200, b"ok")
    assert b"authorization" not in seen[0].lower()


@pytest.mark.anyio
async def test_body_of_five_megabytes_arrives_whole(ours: Transport) -> None:
    sizes: list[int] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sizes.append(len((await read_request(reader)).partition(b"\r\n\r\n")[2]))
        writer.write(body(b"ok"))

    async with serving(script) as url:
        assert await outcome(ours, post(url, b"x" * 5_000_000, limit=DEADLINE)) == (200, b"ok")
    assert sizes == [5_000_000]


@pytest.mark.anyio
async def test_each_chunk_is_handed_on_before_the_next_is_written(ours: Transport) -> None:
    taken = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(CHUNKED)
        for _ in range(5):
            taken.clear()
            writer.write(b"2\r\nok\r\n")
            await taken.wait()
        writer.write(b"0\r\n\r\n")

    async with serving(script) as url, asyncio.timeout(DEADLINE):
        response = await ours.handle_async_request(post(url, limit=DEADLINE))
        count = 0
        async for chunk in response.aiter_raw():
            assert chunk == b"ok"
            count += 1
            taken.set()
    assert count == 5


# --- life of connections ----------------------------------------------------------------------------------------------


class Watched:
    """A server that tells when its client has hung up."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces
        self.reached = asyncio.Event()
        self.hung_up = asyncio.Event()
        self.accepted = 0

    async def script(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        await read_request(reader)
        for piece in self.pieces:
            writer.write(piece)
        self.reached.set()
        with contextlib.suppress(OSError):
            await reader.read()
        self.hung_up.set()


@pytest.mark.anyio
async def test_cancelling_while_waiting_closes_upstream_at_once(ours: Transport) -> None:
    watched = Watched()
    async with serving(watched.script) as url, asyncio.timeout(DEADLINE):
        task = asyncio.ensure_future(ours.handle_async_request(post(url, limit=DEADLINE)))
        await watched.reached.wait()
        task.cancel()
        await watched.hung_up.wait()
    assert task.cancelled()


@pytest.mark.anyio
async def test_cancelling_in_mid_stream_closes_upstream_at_once(ours: Transport) -> None:
    watched = Watched(CHUNKED, b"2\r\nok\r\n")
    got = asyncio.Event()

    async def consume(url: str) -> None:
        response = await ours.handle_async_request(post(url, limit=DEADLINE))
        async for _ in response.aiter_raw():
            got.set()

    async with serving(watched.script) as url, asyncio.timeout(DEADLINE):
        task = asyncio.ensure_future(consume(url))
        await got.wait()
        task.cancel()
        await watched.hung_up.wait()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.anyio
async def test_closing_an_unread_response_closes_upstream(ours: Transport) -> None:
    watched = Watched(CHUNKED, b"2\r\nok\r\n")
    async with serving(watched.script) as url, asyncio.timeout(DEADLINE):
        response = await ours.handle_async_request(post(url, limit=DEADLINE))
        await response.aclose()
        await watched.hung_up.wait()


@pytest.mark.anyio
async def test_closing_the_transport_closes_calls_in_flight() -> None:
    watched = Watched()
    transport = Transport()
    async with serving(watched.script) as url, asyncio.timeout(DEADLINE):
        task = asyncio.ensure_future(outcome(transport, post(url, limit=DEADLINE)))
        await watched.reached.wait()
        await transport.aclose()
        await transport.aclose()
        await watched.hung_up.wait()
        assert issubclass(await task, httpx.TransportError)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="closed"):
        await transport.handle_async_request(post(url))
    assert repr(transport) == "Transport(closed)"


@pytest.mark.anyio
async def test_600_cancelled_calls_leave_no_descriptor(ours: Transport) -> None:
    """A third each: while connecting, while waiting, in mid-stream."""
    calls: list[asyncio.Task[Any]] = []

    async def consume(url: str) -> None:
        response = await ours.handle_async_request(post(url, limit=DEADLINE))
        async for _ in response.aiter_raw():
            pass

    waiting, streaming = Watched(), Watched(CHUNKED, b"2\r\nok\r\n")
    async with serving(waiting.script) as slow_url, serving(streaming.script) as stream_url:
        before = open_files()
        for _ in range(10):
            calls = [asyncio.ensure_future(consume(url)) for url in (slow_url, stream_url) for _ in range(20)]
            want = waiting.accepted + 20, streaming.accepted + 20
            await until(lambda want=want: (waiting.accepted, streaming.accepted) == want)  # type: ignore[misc]
            calls += [asyncio.ensure_future(consume(slow_url)) for _ in range(20)]
            await asyncio.sleep(0)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            assert all(call.cancelled() for call in calls)
            await until(lambda: open_files() <= before)


@pytest.mark.anyio
async def test_finished_answers_leave_the_connection_for_the_next_call(ours: Transport) -> None:
    accepted = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        await says(body(b"ok"))(reader, writer)

    async with serving(script) as url:
        for _ in range(3):
            assert await outcome(ours, post(url)) == (200, b"ok")
    assert accepted == 1


@pytest.mark.anyio
async def test_idle_connection_closed_by_the_server_is_not_used_again(either: httpx.AsyncBaseTransport) -> None:
    """The server closes each connection a moment after its answer."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(body(b"ok"))

    async with serving(script) as url:
        before = open_files()
        for _ in range(3):
            assert await outcome(either, post(url)) == (200, b"ok")
            if isinstance(either, Transport):
                await until(lambda: open_files() <= before)
            else:  # it looks at the socket only when it is asked again
                await until(lambda: open_files() <= before + 1)


@pytest.mark.anyio
@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_request_lost_in_the_keep_alive_race_is_sent_again(
    method: str, either: httpx.AsyncBaseTransport
) -> None:
    """The one known difference: httpx repeats none."""
    asked = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await read_request(reader)
        asked += 1
        writer.write(body(b"ok"))
        if asked == 1:
            await read_request(reader)  # arrives on the kept connection just as the server hangs up
            asked += 1

    async with serving(script) as url:
        assert await outcome(either, post(url, b"", method=method)) == (200, b"ok")
        again = isinstance(either, Transport)
        expected = (200, b"ok") if again else httpx.RemoteProtocolError
        assert await outcome(either, post(url, b"", method=method)) == expected
    assert asked == (3 if again else 2)


@pytest.mark.anyio
@pytest.mark.parametrize("late", [False, True])
async def test_what_a_server_may_have_worked_on_is_not_sent_again(
    late: bool, ours: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a new connection nothing was being closed; nor on one that was held open for a while."""
    monkeypatch.setattr(direct, "RACE_SECONDS", -1.0 if late else 60.0)
    asked = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        if late:
            await read_request(reader)
            writer.write(body(b"ok"))
        await read_request(reader)
        asked += 1

    async with serving(script) as url:
        if late:
            assert await outcome(ours, post(url)) == (200, b"ok")
        assert await outcome(ours, post(url)) == httpx.RemoteProtocolError
    assert asked == 1


@pytest.mark.anyio
async def test_300_calls_at_once_open_300_connections_and_all_are_answered(ours: Transport) -> None:
    async with serving(says(body(b"ok"))) as url:
        answers = await asyncio.gather(*(outcome(ours, post(url, limit=DEADLINE)) for _ in range(300)))
    assert set(answers) == {(200, b"ok")}


def test_a_second_event_loop_is_refused_in_words() -> None:
    transport = Transport()

    async def ask() -> None:
        await outcome(transport, post("http://127.0.0.1:9/"))

    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(ask())
        with pytest.raises(RuntimeError, match="event loop"):
            second.run(ask())
        first.run(transport.aclose())


# --- what only the connections of our own are asked -------------------------------------------------------------------


async def sent(connections: Connections, url: str, *, until: float | None = None) -> Received:
    head = [(b"host", b"x"), (b"content-length", b"2")]
    return await connections.send(
        "POST", Address(httpx.URL(url)), head, b"{}", connect=DEADLINE, read=DEADLINE, until=until
    )


async def whole(answer: Received) -> int:
    """Read it to its end; how many bytes there were."""
    size = 0
    while (chunk := await answer.next()) is not None:
        size += len(chunk)
    return size


async def no_tls(*_: Any, **__: Any) -> Any:
    raise AssertionError("nobody asks for this")


@pytest.fixture
async def connections() -> AsyncIterator[Connections]:
    found = Connections(no_tls)
    yield found
    found.close()


@pytest.mark.anyio
async def test_time_for_the_whole_call_ends_a_body_that_trickles(connections: Connections) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(CHUNKED)
        while True:
            writer.write(b"2\r\nok\r\n")
            await asyncio.sleep(0.01)

    async with serving(script) as url:
        answer = await sent(connections, url, until=asyncio.get_running_loop().time() + LIMIT)
        with pytest.raises(TimeoutError):
            await whole(answer)
        await until(lambda: not connections.lines)


@pytest.mark.anyio
async def test_server_that_nobody_reads_from_is_stopped_and_not_given_up(connections: Connections) -> None:
    written = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 33554432\r\n\r\n")
        for _ in range(512):
            writer.write(b"x" * 65536)
            await writer.drain()
            written += 65536

    async with serving(script) as url:
        answer = await connections.send(
            "GET", Address(httpx.URL(url)), [(b"host", b"x")], b"", connect=5, read=0.1, until=None
        )
        await asyncio.sleep(0.3)  # longer than the limit on the server's silence
        assert written < 30_000_000
        assert await whole(answer) == 33_554_432
        assert repr(connections) == "<Connections 1 open, 1 idle>"


@pytest.mark.anyio
async def test_idle_connection_is_closed_in_time(connections: Connections, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tundra_nb.runtime.providers.direct.KEEPALIVE_SECONDS", 0.05)
    async with serving(says(body(b"ok"))) as url:
        answer = await sent(connections, url)
        assert await whole(answer) == 2
        async with asyncio.timeout(DEADLINE):
            while connections.lines:  # noqa: ASYNC110 - a timer of the connection's is waited for
                await asyncio.sleep(0.01)


@pytest.mark.anyio
async def test_what_nobody_asked_for_is_no_answer_to_the_next_call(connections: Connections) -> None:
    async with serving(says(body(b"ok") + body(b"not asked for"))) as url:
        for _ in range(2):
            answer = await sent(connections, url)
            assert await answer.next() == b"ok"
            assert await answer.next() is None
            await until(lambda: not connections.lines)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("before", "endless"),
    [(b"", b"x-a: 1\r\n"), (CHUNKED + b"2\r\nok\r\n0\r\n", b"x-a: 1\r\n"), (CHUNKED + b"2\r\nok\r\n5;", b"a=b;")],
    ids=["headers", "trailers", "chunk extension"],
)
async def test_what_frames_a_body_may_not_go_on_for_ever(
    connections: Connections, before: bytes, endless: bytes
) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(before or b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(endless * 1000)
            await writer.drain()

    async with serving(script) as url:
        with pytest.raises(httpx.RemoteProtocolError, match="longer than 131072 bytes"):
            await whole(await sent(connections, url))
        await until(lambda: not connections.lines)


@pytest.mark.anyio
async def test_bare_line_feeds_and_spaces_around_values_are_read(connections: Connections) -> None:
    answered = b"HTTP/1.1 200 OK\nx-a:   b \t\ncontent-length: 2\n\nok"
    async with serving(says(answered)) as url:
        answer = await sent(connections, url)
        assert (answer.headers, await answer.next()) == ([(b"x-a", b"b"), (b"content-length", b"2")], b"ok")


@pytest.mark.anyio
async def test_user_and_password_of_an_address_go_as_basic_authorization(connections: Connections) -> None:
    seen: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))
        writer.write(body(b"ok"))

    async with serving(script) as url:
        await sent(connections, url.replace("://", "://me:p%40ss@"))
    assert b"authorization: Basic bWU6cEBzcw==\r\n" in seen[0]


@pytest.mark.anyio
async def test_an_address_in_numbers_is_not_looked_up(connections: Connections) -> None:
    connections.look_up = no_tls
    async with serving(says(body(b"ok"))) as url:
        assert await whole(await sent(connections, url)) == 2


@pytest.mark.anyio
async def test_many_who_ask_at_once_look_a_host_up_once(connections: Connections) -> None:
    loop = asyncio.get_running_loop()
    asked = 0

    async with serving(says(body(b"ok"))) as url:
        found = await loop.getaddrinfo("127.0.0.1", httpx.URL(url).port, type=socket.SOCK_STREAM)

        async def looked_up(*_: Any, **__: Any) -> Any:
            nonlocal asked
            asked += 1
            await asyncio.sleep(0)
            return found

        connections.look_up = looked_up
        await asyncio.gather(*(sent(connections, url.replace("127.0.0.1", "a.name")) for _ in range(20)))
    assert asked == 1


# --- certificates -----------------------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> tuple[ssl.SSLContext, str]:
    """A server's context, and the file of the private CA that signed it."""
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    file = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(file))
    return context, str(file)


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["ca_file", "SSL_CERT_FILE"])
async def test_private_authority_is_trusted_when_named(how: str, authority: tuple[ssl.SSLContext, str]) -> None:
    context, file = authority
    transport = Transport(ca_file=file) if how == "ca_file" else Transport(environ={how: file})
    async with transport, serving(says(body(b"ok")), context) as url:
        assert await outcome(transport, post(url, limit=DEADLINE)) == (200, b"ok")


@pytest.mark.anyio
async def test_private_authority_is_not_trusted_unless_named(
    ours: Transport, authority: tuple[ssl.SSLContext, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the process's own environment names it: only what is passed in counts."""
    context, file = authority
    monkeypatch.setenv("SSL_CERT_FILE", file)
    async with serving(says(body(b"ok")), context) as url:
        with pytest.raises(httpx.ConnectError) as caught:
            await ours.handle_async_request(post(url, limit=DEADLINE))
    assert failure_kind(caught.value) == "tls"
    assert "0x" not in str(caught.value)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("server", "remedy"),
    [
        ("plain", "write http:// in base_url"),
        ("expired", "Renew the server's certificate"),
        ("of another name", "for another name"),
        ("of an unknown authority", "SSL_CERT_FILE"),
    ],
)
async def test_what_to_do_fits_why_there_is_no_secure_connection(server: str, remedy: str, tmp_path: Path) -> None:
    ca, file = trustme.CA(), tmp_path / "ca.pem"
    (trustme.CA() if "unknown" in server else ca).cert_pem.write_to_path(str(file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    past = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    name = "127.0.0.2" if "name" in server else "127.0.0.1"
    ca.issue_cert(name, not_before=past, not_after=past if server == "expired" else None).configure_cert(context)

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    async with (
        Transport(environ={"SSL_CERT_FILE": str(file)}) as transport,
        serving(refuse, None if server == "plain" else context) as url,
    ):
        with pytest.raises(httpx.ConnectError) as caught:
            await transport.handle_async_request(post(url.replace("http:", "https:"), limit=DEADLINE))
    kind = failure_kind(caught.value)
    assert remedy in HttpError(profile="p", host="h", kind=kind, cause=str(caught.value)).hint


@pytest.mark.anyio
@pytest.mark.parametrize("content", [None, "not a certificate"])
@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
async def test_unreadable_certificates_are_a_config_error(content: str | None, variable: str, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    async with Transport(environ={variable: str(file)}) as transport:
        with pytest.raises(ConfigError) as caught:
            await transport.handle_async_request(post("https://127.0.0.1:9/"))
    assert caught.value.where == variable
    assert str(file) in caught.value.message


@pytest.mark.parametrize(
    ("exc", "kind"),
    [
        (httpx.ConnectTimeout("x"), "connect"),
        (httpx.ReadError("x"), "reset"),
        (httpx.ProxyError("x"), "proxy"),
        (httpx.RemoteProtocolError("x"), "protocol"),
    ],
)
def test_failure_kind_is_one_word(exc: httpx.TransportError, kind: str) -> None:
    assert failure_kind(exc) == kind
