"""One request and its response over the transport: deadlines, foreign errors turned into ours, and closing.

The transport is called directly, without `httpx.AsyncClient`, whose cookies, redirects and URL joining cost as much as
the call itself. So two duties are ours: closing the response, and the deadlines. Connect and idle are the transport's
(its `timeout` extension); the total deadline is kept here, read by read, because an `asyncio.timeout` that spans a
`yield` would fire inside the consumer's own code. A redirect is never followed: a key goes only to the host of its
profile.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import NoReturn

import httpx
import msgspec

from tundra_nb.errors import HttpError, ParseError, Redirected, Timeout
from tundra_nb.settings import AnswerSettings, DeadlineSettings

from . import classify, headers
from .contract import Seen, Target
from .transport import failure_kind
from .unpack import SLICE_BYTES, CannotUnpackError, Unpacker

MAX_ERROR_BYTES = 256 * 1024
"""More of an error's body is not read."""
ERROR_BODY_SECONDS = 5.0
"""How long the body of an error status is waited for: the status alone says most."""
DRAIN_SECONDS = 0.05
"""How long the end of the body is waited for after the end mark, so that the connection can be used again."""


class ProviderLine(msgspec.Struct, frozen=True):
    """What all exchanges of a provider share."""

    transport: httpx.AsyncBaseTransport
    deadlines: DeadlineSettings
    monotonic: Callable[[], float]
    """Seconds, for `Seen`."""
    now: Callable[[], float]
    """Seconds since the epoch, to read points of time in headers from."""
    answers: AnswerSettings = AnswerSettings()


class WireExchange:
    """One request and its response: deadlines kept, foreign errors turned into ours, closed by whoever made it."""

    __slots__ = (
        "_chunks",
        "_idle",
        "_kept",
        "_line",
        "_loop",
        "_most",
        "_response",
        "_size",
        "_target",
        "_total",
        "_until",
        "pieces",
        "seen",
    )

    def __init__(
        self, line: ProviderLine, target: Target, seen: Seen, kept: list[bytes] | None, *, idle: float, total: float
    ) -> None:
        self.seen = seen
        self._line = line
        self._target = target
        self._kept = kept
        self._idle = idle
        self._total = total
        self._loop = asyncio.get_running_loop()
        self._until = self._loop.time() + total
        self._most = line.answers.max_mb * 1e6
        self._size = 0
        self.pieces = 0
        """How many pieces of the answer have been passed on, for whoever is told that it was cut."""
        self._response: httpx.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None

    async def send(self, method: str, url: httpx.URL, head: list[tuple[bytes, bytes]], body: bytes) -> int:
        """Send, read the head of the answer into `seen`, and return its status. `head` names the host."""
        line, seen = self._line, self.seen
        limits = {"connect": line.deadlines.connect_seconds, "read": self._idle, "write": self._idle, "pool": None}
        # A stream, framed here: from `content` httpx would make the same request at eight times the cost.
        framed = [*head, (b"content-length", b"%d" % len(body))] if body else head
        stream = httpx.ByteStream(body)
        request = httpx.Request(method, url, headers=framed, stream=stream, extensions={"timeout": limits})
        seen.sent_at = line.monotonic()
        try:
            async with asyncio.timeout_at(self._until):
                response = await line.transport.handle_async_request(request)
        except TimeoutError as exc:
            raise self._timeout("total", self._total) from exc
        except (httpx.HTTPError, httpx.StreamError) as exc:
            self._raise_mapped(exc)
        self._response = response
        seen.status = response.status_code
        seen.first_byte_at = line.monotonic()
        told = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers.raw}
        seen.request_id = told.get("x-request-id") or told.get("request-id")
        seen.buckets, seen.retry_after, seen.should_retry, seen.headers = headers.read(told, line.now())
        return response.status_code

    @property
    def _open(self) -> httpx.Response:
        assert self._response is not None
        return self._response

    async def failure_body(self) -> bytes:
        """What a status other than 200 came with.

        Raises:
            Redirected: 3xx.
            ParseError: another 2xx.
        """
        response = self._open
        status = response.status_code
        if 300 <= status < 400:
            raise Redirected(profile=self._target.profile, status=status, location=_location(response))
        if status < 300:
            raise ParseError(profile=self._target.profile, problem=f"status {status} instead of an answer")
        return await self._error_body()

    def _body(self) -> AsyncIterator[bytes]:
        """The body as it arrives, decoded where it is compressed."""
        if self._chunks is None:
            response = self._open
            stream = response.stream
            assert isinstance(stream, httpx.AsyncByteStream)
            encodings = response.headers.get("content-encoding", "")
            self._chunks = _unpacked(stream, encodings) if encodings else aiter(stream)
        return self._chunks

    async def next(self) -> bytes | None:
        """The next chunk; None at the end."""
        try:
            if self._until - self._loop.time() > self._idle:  # then the transport's own limit comes first
                chunk = await anext(self._body())
            else:
                async with asyncio.timeout_at(self._until):
                    chunk = await anext(self._body())
        except StopAsyncIteration:
            return None
        except TimeoutError as exc:
            raise self._timeout("total", self._total) from exc
        except httpx.TimeoutException as exc:
            self._raise_mapped(exc)
        except CannotUnpackError as exc:
            raise ParseError(profile=self._target.profile, problem=f"the answer cannot be read: {exc}") from exc
        except (httpx.HTTPError, httpx.StreamError) as exc:
            # the provider has worked, and bills: not a connection to be simply tried again
            problem = f"the answer was cut off: {self.how_far} ({_words_of(exc)})"
            raise ParseError(profile=self._target.profile, problem=problem, is_cut=True) from exc
        self._size += len(chunk)
        if self._size > self._most:
            problem = f"the answer is longer than {self._line.answers.max_mb:g} MB (`answers.max_mb`)"
            raise ParseError(profile=self._target.profile, problem=problem)
        self._keep(chunk)
        return chunk

    def _keep(self, chunk: bytes) -> None:
        if self._kept is not None and self.seen.sent_at is not None:
            self._kept.append(chunk)
            self.seen.arrivals.append(self._line.monotonic() - self.seen.sent_at)

    async def body(self) -> bytes:
        """The whole body."""
        parts: list[bytes] = []
        while (chunk := await self.next()) is not None:
            parts.append(chunk)
        return b"".join(parts)

    @property
    def how_far(self) -> str:
        """How far the answer came."""
        if not self.pieces:
            return "the connection broke before its first piece"
        return f"the connection broke after {self.pieces} piece{'s' if self.pieces != 1 else ''}"

    async def drain(self) -> None:
        """Read on to the end of the body, which normally is already here: then the connection serves the next call."""
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while await anext(self._body(), None) is not None:
                    pass
        except (TimeoutError, httpx.HTTPError, httpx.StreamError, CannotUnpackError):
            return

    async def aclose(self) -> None:
        """Close the connection, or give it back when the body has been read to its end."""
        if isinstance(self._chunks, AsyncGenerator):  # else the garbage collector would, in a task of its own
            await self._chunks.aclose()
        if self._response is not None:
            await self._response.aclose()

    async def _error_body(self) -> bytes:
        """What can be had of an error's body soon; the status counts anyhow."""
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout_at(min(self._until, self._loop.time() + ERROR_BODY_SECONDS)):
                while size < MAX_ERROR_BYTES and (chunk := await anext(self._body(), None)) is not None:
                    parts.append(chunk)
                    size += len(chunk)
        except (TimeoutError, httpx.HTTPError, httpx.StreamError, CannotUnpackError):
            pass  # judged by the status and by what has come
        self._keep(b"".join(parts))
        return b"".join(parts)

    def _timeout(self, deadline: str, limit: float) -> Timeout:
        return Timeout(profile=self._target.profile, deadline=deadline, seconds=limit)

    def _raise_mapped(self, exc: Exception) -> NoReturn:
        """Raise ours for one of httpx's."""
        if isinstance(exc, httpx.ConnectTimeout | httpx.PoolTimeout):
            raise self._timeout("connect", self._line.deadlines.connect_seconds) from exc
        if isinstance(exc, httpx.TimeoutException):
            raise self._timeout("total" if self._idle >= self._total else "idle", self._idle) from exc
        raise HttpError(
            profile=self._target.profile,
            host=classify.host_of(self._target),
            kind=failure_kind(exc) if isinstance(exc, httpx.TransportError) else "protocol",
            cause=classify.clip(_words_of(exc), self._target.key),
        ) from exc


async def _unpacked(stream: httpx.AsyncByteStream, encodings: str) -> AsyncGenerator[bytes, None]:
    """The body, unpacked slice by slice; the loop gets its turn between two slices."""
    unpacker = Unpacker(encodings)
    async for packed in stream:
        for slice_ in unpacker.feed(packed):
            yield slice_
            if len(slice_) == SLICE_BYTES:
                await asyncio.sleep(0)
    unpacker.end()


def _location(response: httpx.Response) -> str:
    """Where a redirect leads: host and path, without what may be secret in its query."""
    try:
        url = httpx.URL(response.headers.get("location", ""))
    except httpx.InvalidURL:
        return ""
    return classify.clip(str(url.copy_with(query=None, fragment=None, userinfo=b"")) if url.host else url.path)


def _words_of(exc: BaseException) -> str:
    return str(exc) or type(exc).__name__
