"""The transport under the providers: straight over its own connections (`direct`), or through a proxy (`proxied`).

Two faces. `send` is what `Exchange` calls: bytes in, bytes out, no object more than need be. `handle_async_request` is
httpx's, so that whatever wants a transport of httpx is served too; and `sender` puts any transport of httpx (its
own, `httpx.MockTransport`, a recording) behind `send`.

Why not httpx's own transport: its pool scans all connections on each request (calls per second *fall* with
concurrency), and it dies for good when waiters of a full pool are cancelled (https://github.com/encode/httpcore/issues/1093).

One difference from plain httpx is known and tested: a request lost in the keep-alive race is sent again once. There is
no limit on writing: the caller's on the whole call holds.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from typing import TYPE_CHECKING, Protocol

import httpx

from tundra_nb.errors import ConfigError

from .direct import Address, Connections, DisconnectedError, RawHeaders, Received
from .proxies import Proxies, Proxy

if TYPE_CHECKING:
    from .proxied import ByProxy


class Incoming(Protocol):
    """One answer: `direct.Received`, or what stands for it."""

    status: int
    headers: RawHeaders

    @property
    def is_here(self) -> bool: ...
    async def next(self) -> bytes | None: ...
    async def aclose(self) -> None: ...


class RequestSender(Protocol):
    """What requests are sent by; see `direct.Connections.send`."""

    async def send(
        self,
        method: str,
        address: Address,
        headers: RawHeaders,
        body: bytes,
        *,
        connect: float | None,
        read: float | None,
        until: float,
    ) -> Incoming: ...


class Transport(httpx.AsyncBaseTransport):
    """HTTP/1.1 with as many connections as there are calls in flight.

    Belongs to the event loop of its first request, and must be closed in it. Redirects are not followed, cookies not
    kept, netrc not read, so that a key goes nowhere but where it was meant to.

    Args:
        ca_file: File with the certificates to trust instead of the public ones; None looks into `environ`.
        environ: Where `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`, `SSL_CERT_FILE` and `SSL_CERT_DIR` are
            looked up. Empty by default: the process's own environment is never read.
    """

    def __init__(self, *, ca_file: str | None = None, environ: Mapping[str, str] | None = None) -> None:
        environ = environ or {}
        self._ca_file = ca_file or environ.get("SSL_CERT_FILE") or None
        self._ca_dir = None if self._ca_file else environ.get("SSL_CERT_DIR") or None
        self._ca_source = "ca_file" if ca_file else "SSL_CERT_FILE" if self._ca_file else "SSL_CERT_DIR"
        self._proxies = Proxies(environ)
        self._connections = Connections(self._load_tls)
        self._by_proxy: ByProxy | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tls: ssl.SSLContext | None = None
        self._tls_lock = asyncio.Lock()
        self._is_closed = False

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "open" if self._loop else "unopened"
        return f"Transport({state})"

    async def send(
        self,
        method: str,
        address: Address,
        headers: RawHeaders,
        body: bytes,
        *,
        connect: float | None,
        read: float | None,
        until: float | None,
    ) -> Incoming:
        """Send a request; see `direct.Connections.send`.

        Raises:
            httpx.TransportError: why there is no answer.
            TimeoutError: `until` is past.
            ConfigError: the certificates to trust cannot be read.
        """
        self._check()
        if (proxy := self._proxy(address.url)) is None:
            return await self._connections.send(method, address, headers, body, connect=connect, read=read, until=until)
        request = _request(method, address.url, headers, body, connect, read)
        return await _received(self._proxied(request, proxy), until)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request`; return once the headers of its answer are here. The limits are its `timeout` extension's.

        Cancelling closes the connection at once. The response's stream gives what has arrived as it arrives; leaving it
        early, by `aclose`, an error or cancellation, closes the connection too.

        Raises:
            httpx.TransportError: of the class that httpx's own transport would raise.
            ConfigError: the certificates to trust cannot be read.
        """
        self._check()
        if (proxy := self._proxy(request.url)) is not None:
            return await self._proxied(request, proxy)
        limits = request.extensions.get("timeout") or {}
        body = await request.aread()
        head = [header for header in request.headers.raw if header[0].lower() != b"transfer-encoding"]
        if len(head) != len(request.headers.raw):  # its length was not known when it was made
            head.append((b"content-length", b"%d" % len(body)))
        received = await self._connections.send(
            request.method,
            Address(request.url),
            head,
            body,
            connect=limits.get("connect"),
            read=limits.get("read"),
            until=None,
        )
        return httpx.Response(
            received.status,
            headers=received.headers,
            stream=_Body(received),
            request=request,
            extensions={"http_version": b"HTTP/1.1", "reason_phrase": received.reason},
        )

    async def aclose(self) -> None:
        """Close all connections, also those in use. May be called twice; no request can follow."""
        self._is_closed = True
        self._connections.close()
        if self._by_proxy is not None:
            await self._by_proxy.aclose()

    def _check(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None:
                raise RuntimeError("a Transport belongs to the event loop of its first request")
            self._loop = loop
        if self._is_closed:
            raise RuntimeError("the Transport is closed")

    def _proxy(self, url: httpx.URL) -> Proxy | None:
        return self._proxies.find(url.scheme, url.host, url.port) if self._proxies else None

    async def _proxied(self, request: httpx.Request, proxy: Proxy) -> httpx.Response:
        if self._by_proxy is None:
            from .proxied import ByProxy

            self._by_proxy = ByProxy(self._load_tls)
        return await self._by_proxy.request(request, proxy)

    async def _load_tls(self) -> ssl.SSLContext:
        if self._tls is not None:
            return self._tls
        async with self._tls_lock:
            if self._tls is None:
                try:
                    # In a thread: reading the public certificates takes longer than the loop may stand still.
                    self._tls = await asyncio.to_thread(_tls_context, self._ca_file, self._ca_dir)
                except OSError as exc:  # ssl.SSLError is one
                    raise ConfigError(
                        where=self._ca_source,
                        problem=f"cannot read certificates from {self._ca_file or self._ca_dir}: {exc}",
                        remedy="Give a readable file of PEM certificates, or leave it out to trust the public ones.",
                    ) from exc
            return self._tls


class _Body(httpx.AsyncByteStream):
    """The body of an answer, as it arrives."""

    def __init__(self, received: Received) -> None:
        self._received = received

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while (chunk := await self._received.next()) is not None:
                yield chunk
        finally:
            self._received.hang_up()

    async def aclose(self) -> None:
        self._received.hang_up()


class _ByHttpx:
    """Any transport of httpx as a `RequestSender`."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    async def send(
        self,
        method: str,
        address: Address,
        headers: RawHeaders,
        body: bytes,
        *,
        connect: float | None,
        read: float | None,
        until: float,
    ) -> Incoming:
        request = _request(method, address.url, headers, body, connect, read)
        return await _received(self._transport.handle_async_request(request), until)


class _Response:
    """An answer of httpx's as an `Incoming`."""

    def __init__(self, response: httpx.Response, until: float | None) -> None:
        assert isinstance(response.stream, httpx.AsyncByteStream)
        self.status = response.status_code
        self.headers: RawHeaders = response.headers.raw
        self._response = response
        self._chunks = aiter(response.stream)
        self._until = until
        self.is_here = False
        """Nobody can say."""

    async def next(self) -> bytes | None:
        async with asyncio.timeout_at(self._until):
            return await anext(self._chunks, None)

    async def aclose(self) -> None:
        if isinstance(self._chunks, AsyncGenerator):  # else the garbage collector would, in a task of its own
            await self._chunks.aclose()
        await self._response.aclose()


def sender(transport: httpx.AsyncBaseTransport) -> RequestSender:
    """What sends by a transport."""
    return transport if isinstance(transport, Transport) else _ByHttpx(transport)


async def _received(asking: Awaitable[httpx.Response], until: float | None) -> _Response:
    async with asyncio.timeout_at(until):
        return _Response(await asking, until)


def _request(
    method: str, url: httpx.URL, headers: RawHeaders, body: bytes, connect: float | None, read: float | None
) -> httpx.Request:
    limits = {"connect": connect, "read": read, "write": read, "pool": None}
    # a stream, framed by the caller: from `content` httpx would make the same request at eight times the cost
    return httpx.Request(method, url, headers=headers, stream=httpx.ByteStream(body), extensions={"timeout": limits})


def failure_kind(exc: httpx.TransportError) -> str:
    """Why there is no answer, in one word: dns, tls, proxy, connect, reset or protocol.

    Reads the chain of causes, so that it holds for ours and for httpx's own transport.
    """
    if isinstance(exc, httpx.ProxyError):
        return "proxy"
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return "dns"
        if isinstance(cause, ssl.SSLError | ssl.CertificateError):
            return "tls"
        cause = cause.__cause__ or cause.__context__
    if isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout):
        return "connect"
    if isinstance(exc, httpx.ReadError | httpx.WriteError | httpx.CloseError):
        return "reset"
    # A server that hangs up between messages breaks no rule of HTTP: for the user it is the same as a reset.
    return "reset" if isinstance(exc.__cause__, DisconnectedError) else "protocol"


def _tls_context(ca_file: str | None, ca_dir: str | None) -> ssl.SSLContext:
    if ca_file is None and ca_dir is None:
        return httpx.create_ssl_context(trust_env=False)
    if ca_dir is not None and not os.path.isdir(ca_dir):
        raise FileNotFoundError(f"no folder {ca_dir}")
    return ssl.create_default_context(cafile=ca_file, capath=ca_dir)
