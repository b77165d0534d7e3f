"""The transport under the providers: httpx's interface over aiohttp. It only translates.

Why not httpx's own transport: its pool scans all connections on each request (calls per second *fall* with
concurrency), and it dies for good when waiters of a full pool are cancelled (https://github.com/encode/httpcore/issues/1093).
Why httpx's types: they are what providers, tests and recorded traffic share; `httpx.AsyncHTTPTransport` and
`httpx.MockTransport` fit in here unchanged.

Two differences from plain httpx are known and tested: a connection *reset* in mid-body is a `RemoteProtocolError`
(httpx: `ReadError`), and a GET or HEAD lost in the keep-alive race is sent again once. A POST never is.

Time limits come from the request's `timeout` extension (`connect`, `read`). There is no limit on writing and none on
the whole call: both are the caller's, who also closes the response.
"""

from __future__ import annotations

import asyncio
import io
import os
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Final

import aiohttp
import httpx
import yarl
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict, CIMultiDictProxy

from tundra_nb import descriptors
from tundra_nb.errors import ConfigError

from .proxies import Proxies

KEEPALIVE_SECONDS: Final = 30.0
"""Idle connections are closed after this long; common providers close theirs after 60 s or more."""
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
    ((aiohttp.ClientProxyConnectionError, aiohttp.ClientHttpProxyError), httpx.ProxyError),
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


class Transport(httpx.AsyncBaseTransport):
    """HTTP/1.1 over aiohttp with as many connections as there are calls in flight.

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
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tls: ssl.SSLContext | None = None
        self._tls_lock = asyncio.Lock()
        self._is_closed = False

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "open" if self._session else "unopened"
        return f"Transport({state})"

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request`; return once the headers of its answer are here.

        Cancelling closes the connection at once. The response's stream gives each piece as it arrives; leaving it
        early, by `aclose`, an error or cancellation, closes the connection too.

        Raises:
            httpx.TransportError: of the class that httpx's own transport would raise.
            ConfigError: the certificates to trust cannot be read.
        """
        session = self._session or self._open()
        if self._loop is not asyncio.get_running_loop():
            raise RuntimeError("a Transport belongs to the event loop of its first request")
        url = request.url
        body = await request.aread()
        limits = request.extensions.get("timeout") or {}
        headers = CIMultiDict(_decoded(request.headers))
        proxy = self._proxies.find(url.scheme, url.host, url.port)
        tunnel_headers: dict[str, str] | None = None
        if proxy is not None and proxy.authorization is not None:
            if url.scheme == "https":
                tunnel_headers = {"Proxy-Authorization": proxy.authorization}
            else:  # there is no tunnel: the proxy reads, and removes, the header of the request itself
                headers["Proxy-Authorization"] = proxy.authorization
        needs_tls = url.scheme == "https" or (proxy is not None and proxy.url.scheme == "https")
        try:
            got = await session.request(
                request.method,
                yarl.URL(str(url), encoded=True),
                headers=headers,
                data=(io.BytesIO(body) if len(body) > LARGE_BODY_BYTES else body) or None,
                allow_redirects=False,
                proxy=proxy.url if proxy else None,
                proxy_headers=tunnel_headers,
                ssl=(self._tls or await self._load_tls()) if needs_tls else True,
                timeout=aiohttp.ClientTimeout(total=None, connect=limits.get("connect"), sock_read=limits.get("read")),
            )
        except _FOREIGN as exc:
            if (error := descriptors.exhausted(exc)) is not None:
                raise error from exc
            raise _translated(exc, request) from exc
        return httpx.Response(
            got.status,
            headers=got.raw_headers,
            stream=_Body(got, request),
            request=request,
            extensions={"http_version": b"HTTP/1.1", "reason_phrase": (got.reason or "").encode("latin-1", "replace")},
        )

    async def aclose(self) -> None:
        """Close all connections, also those in use. May be called twice; no request can follow."""
        self._is_closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._is_closed:
            raise RuntimeError("the Transport is closed")
        self._loop = asyncio.get_running_loop()
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

    async def _load_tls(self) -> ssl.SSLContext:
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
    return "reset" if isinstance(exc.__cause__, aiohttp.ServerDisconnectedError) else "protocol"


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


def _tls_context(ca_file: str | None, ca_dir: str | None) -> ssl.SSLContext:
    if ca_file is None and ca_dir is None:
        return httpx.create_ssl_context(trust_env=False)
    if ca_dir is not None and not os.path.isdir(ca_dir):
        raise FileNotFoundError(f"no folder {ca_dir}")
    return ssl.create_default_context(cafile=ca_file, capath=ca_dir)
