"""A small HTTP proxy: CONNECT tunnels and plain forwarding, with or without a password."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from typing import Final, Self
from urllib.parse import quote, urlsplit

HEAD_BYTES: Final = 65_536
_REFUSED: Final = b"HTTP/1.1 %d %s\r\n%scontent-length: 0\r\nconnection: close\r\n\r\n"


class ConnectProxy:
    """Listens on loopback, inside this event loop. An async context manager.

    `tunnels` lists the `host:port` of every CONNECT, `forwarded` the URL of every plain request, `refused` counts what
    came without the right password.
    """

    def __init__(self, *, username: str = "", password: str = "") -> None:
        self._username = username
        self._password = password
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._port = 0
        self.tunnels: list[str] = []
        self.forwarded: list[str] = []
        self.refused = 0

    @property
    def url(self) -> str:
        """Without credentials."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def url_with_credentials(self) -> str:
        return f"http://{quote(self._username, safe='')}:{quote(self._password, safe='')}@127.0.0.1:{self._port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=HEAD_BYTES)
        self._port = self._server.sockets[0].getsockname()[1]

    async def aclose(self) -> None:
        """Stop listening and cut all tunnels. May be called twice."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await server.wait_closed()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._answer(reader, writer)
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        start, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
        method, target, version = start.split(" ")
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        if not self._is_allowed({name.lower(): value for name, value in headers}.get("proxy-authorization", "")):
            self.refused += 1
            ask = b'proxy-authenticate: Basic realm="test"\r\n'
            writer.write(_REFUSED % (407, b"Proxy Authentication Required", ask))
            await writer.drain()
            return
        if method == "CONNECT":
            self.tunnels.append(target)
            host, _, port = target.rpartition(":")
            opening = b""
        else:
            self.forwarded.append(target)
            url = urlsplit(target)
            host, port = url.hostname or "", str(url.port or 80)
            kept = "".join(f"{n}: {v}\r\n" for n, v in headers if not n.lower().startswith(("proxy-", "connection")))
            path = (url.path or "/") + (f"?{url.query}" if url.query else "")
            # One request per connection: what follows the head is passed on unread.
            opening = f"{method} {path} {version}\r\n{kept}connection: close\r\n\r\n".encode("latin-1")
        try:
            far_reader, far_writer = await asyncio.open_connection(host.strip("[]"), int(port))
        except OSError:
            writer.write(_REFUSED % (502, b"Bad Gateway", b""))
            await writer.drain()
            return
        try:
            if opening:
                far_writer.write(opening)
            else:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await _relay(reader, writer, far_reader, far_writer)
        finally:
            far_writer.close()

    def _is_allowed(self, given: str) -> bool:
        if not self._username:
            return True
        return given == "Basic " + base64.b64encode(f"{self._username}:{self._password}".encode()).decode()


async def _relay(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    far_reader: asyncio.StreamReader,
    far_writer: asyncio.StreamWriter,
) -> None:
    """Pass bytes both ways until either side hangs up."""
    ways = [asyncio.ensure_future(_pump(reader, far_writer)), asyncio.ensure_future(_pump(far_reader, writer))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await source.read(HEAD_BYTES):
            sink.write(piece)
            await sink.drain()
