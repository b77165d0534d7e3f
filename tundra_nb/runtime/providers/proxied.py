"""Requests that go through a proxy: httpx's interface over aiohttp, which knows tunnels. It only translates.

Loaded where a proxy is set up; everything else goes over `direct`. Two differences from plain httpx are known: a GET or
HEAD lost in the keep-alive race is sent again once, a POST never; and a reset in mid-body is a `RemoteProtocolError`.
"""

from __future__ import annotations

import asyncio
import io
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import aiohttp
import httpx
import yarl
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict, CIMultiDictProxy

from tundra_nb import descriptors

from .direct import KEEPALIVE_SECONDS, DisconnectedError
from .proxies import Proxy

HEADER_BYTES: Final = 65_536
"""Longest status line and longest header that is read; what httpx's parser accepts in practice."""
HEADER_COUNT: Final = 512
LARGE_BODY_BYTES: Final = 1 << 20
"""A larger body is written in pieces: in one piece aiohttp would warn that it blocks the loop."""

_FOREIGN: Final = (aiohttp.ClientError, HttpProcessingError, OSError, ValueError)
_NATIVE: Final[tuple[tuple[tuple[type[Exception], ...], type[httpx.TransportError]], ...]] = (
    # The first match wins: aiohttp's classes inherit from several of these at once.
    ((aiohttp.ConnectionTimeoutError,), httpx.ConnectTimeout),
    ((aiohttp.ServerTimeoutError,), httpx.ReadTimeout),
    # The only name that is resolved here is the proxy's: it resolves the provider's itself.
    (
        (aiohttp.ClientProxyConnectionError, aiohttp.ClientHttpProxyError, aiohttp.ClientConnectorDNSError),
        httpx.ProxyError,
    ),
    ((aiohttp.ClientConnectorError,), httpx.ConnectError),
    ((aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError), httpx.UnsupportedProtocol),
    (
        (
            aiohttp.ServerDisconnectedError,
            aiohttp.ClientResponseError,
            aiohttp.ClientPayloadError,
            HttpProcessingError,
        ),
        httpx.RemoteProtocolError,
    ),
    ((aiohttp.ClientError, OSError), httpx.ReadError),
    ((ValueError,), httpx.LocalProtocolError),
)


class ByProxy:
    """Sends through proxies, with as many connections as there are calls in flight. Redirects are not followed."""

    def __init__(self, load_tls: Callable[[], Awaitable[ssl.SSLContext]]) -> None:
        self._load_tls = load_tls
        self._session: aiohttp.ClientSession | None = None

    async def request(self, request: httpx.Request, proxy: Proxy) -> httpx.Response:
        """Send it; return once the headers of its answer are here. As `httpx.AsyncBaseTransport`.

        Raises:
            httpx.TransportError: of the class that httpx's own transport would raise.
        """
        session = self._session or self._open()
        url = request.url
        body = await request.aread()
        limits = request.extensions.get("timeout") or {}
        headers = CIMultiDict(_decoded(request.headers))
        tunnel_headers: dict[str, str] | None = None
        if proxy.authorization is not None:
            if url.scheme == "https":
                tunnel_headers = {"Proxy-Authorization": proxy.authorization}
            else:  # there is no tunnel: the proxy reads, and removes, the header of the request itself
                headers["Proxy-Authorization"] = proxy.authorization
        needs_tls = url.scheme == "https" or proxy.url.scheme == "https"
        try:
            got = await session.request(
                request.method,
                yarl.URL(str(url), encoded=True),
                headers=headers,
                data=(io.BytesIO(body) if len(body) > LARGE_BODY_BYTES else body) or None,
                allow_redirects=False,
                proxy=proxy.url,
                proxy_headers=tunnel_headers,
                ssl=await self._load_tls() if needs_tls else True,
                timeout=aiohttp.ClientTimeout(total=None, connect=limits.get("connect"), sock_read=limits.get("read")),
            )
        except _FOREIGN as exc:
            if (error := descriptors.exhausted(exc)) is not None:
                raise error from exc
            raise _translated(exc, request) from _cause(exc)
        return httpx.Response(
            got.status,
            headers=got.raw_headers,
            stream=_Body(got, request),
            request=request,
            extensions={"http_version": b"HTTP/1.1", "reason_phrase": (got.reason or "").encode("latin-1", "replace")},
        )

    async def aclose(self) -> None:
        """Close all connections, also those in use."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            max_line_size=HEADER_BYTES,
            max_field_size=HEADER_BYTES,
            max_headers=HEADER_COUNT,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )
        return self._session


class _Body(httpx.AsyncByteStream):
    """The body of an answer, piece by piece as it arrives."""

    def __init__(self, got: aiohttp.ClientResponse, request: httpx.Request) -> None:
        self._got = got
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        content = self._got.content
        connection = self._got.connection
        protocol = connection.protocol if connection is not None else None
        closed = protocol.closed if protocol is not None else None
        if closed is not None:
            closed.add_done_callback(self._fail_unless_done)
        else:  # closed before anybody asked, or at its end
            self._fail_unless_done()
        try:
            async for chunk in content.iter_any():
                yield chunk
        except _FOREIGN as exc:
            raise _translated(exc, self._request) from exc
        finally:
            if closed is not None:
                closed.remove_done_callback(self._fail_unless_done)
            self._got.close()

    def _fail_unless_done(self, _: asyncio.Future[None] | None = None) -> None:
        """Wake the reader of a body whose connection is gone.

        aiohttp 3.14 tells the reader nothing when a chunk in mid-body is malformed: it closes the connection, and drops
        the read timeout with it, so that the reader would wait for ever.
        """
        content = self._got.content
        if not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError("the body is malformed"))

    async def aclose(self) -> None:
        # After the end of the body the connection has gone back to the pool, and this does nothing.
        self._got.close()


def native_class(foreign: type[BaseException]) -> type[httpx.TransportError]:
    """The httpx class that stands for an exception class of aiohttp or of the operating system."""
    for classes, native in _NATIVE:
        if issubclass(foreign, classes):
            return native
    raise LookupError(f"{foreign.__name__} is no transport failure")


def _decoded(headers: httpx.Headers) -> list[tuple[str, str]]:
    raw = headers.raw
    try:
        return [(name.decode("ascii"), value.decode("ascii")) for name, value in raw]
    except UnicodeDecodeError:
        encoding = headers.encoding
        return [(name.decode(encoding), value.decode(encoding)) for name, value in raw]


def _translated(exc: Exception, request: httpx.Request) -> httpx.TransportError:
    if isinstance(exc, aiohttp.ClientResponseError):
        # Its `repr`, which a log may show, has all headers of the request: the key, and the proxy's password.
        exc.request_info = exc.request_info._replace(headers=CIMultiDictProxy(CIMultiDict()))
        exc.args = ()
    return native_class(type(exc))(_words(exc), request=request)


def _cause(exc: Exception) -> Exception:
    """What `failure_kind` tells a lost connection from a broken rule by."""
    return DisconnectedError(str(exc)) if isinstance(exc, aiohttp.ServerDisconnectedError) else exc


def _words(exc: Exception) -> str:
    if isinstance(exc, aiohttp.ClientConnectorError):
        # Its own text names the SSLContext by its address: no two would be alike.
        # the message says already to whom; asyncio's own words are those of a failed call, not of its cause
        error = exc.os_error
        if error.errno and not isinstance(error, ssl.SSLError | socket.gaierror):
            return os.strerror(error.errno)
        return str(error.strerror or error)
    if isinstance(exc, aiohttp.ClientResponseError):
        # The lines after the first quote what the server sent.
        return f"{exc.message.partition(chr(10))[0].rstrip(':')} ({exc.status})"
    return str(exc) or type(exc).__name__
