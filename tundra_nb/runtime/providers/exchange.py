"""One request and its response over the transport: deadlines, foreign errors turned into ours, and closing.

The transport is called directly, without `httpx.AsyncClient`, whose cookies, redirects and URL joining cost as much as
the call itself. So closing the answer is ours; the deadlines are the transport's, which is told all three. A redirect
is never followed: a key goes only to the host of its profile.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import NoReturn

import httpx
import msgspec

from tundra_nb.errors import HttpError, ParseError, Redirected, Timeout
from tundra_nb.settings import AnswerSettings, DeadlineSettings

from . import classify, events, headers
from .contract import LONGEST_RECORDED_BYTES, Answer, Seen, StreamReader, Target
from .direct import Address
from .lenient import word
from .transport import Incoming, RequestSender, failure_kind
from .unpack import SLICE_BYTES, CannotUnpackError, Unpacker

MAX_ERROR_BYTES = 256 * 1024
"""More of an error's body is not read."""
ERROR_BODY_SECONDS = 5.0
"""How long the body of an error status is waited for: the status alone says most."""
PART_BYTES = 16 * 1024
"""So much of a stream is read at once: the tiniest pieces are read at some 3 MB a second, so that this takes 5 ms."""
DRAIN_SECONDS = 0.05
"""How long the end of the body is waited for after the end mark, so that the connection can be used again."""


@functools.lru_cache(maxsize=256)
def _name(raw: bytes) -> str:
    """A header's name in lower case; servers repeat theirs."""
    return raw.decode("latin-1").lower()


class ProviderLine(msgspec.Struct, frozen=True):
    """What all exchanges of a provider share."""

    transport: RequestSender
    deadlines: DeadlineSettings
    monotonic: Callable[[], float]
    """Seconds, for `Seen`."""
    now: Callable[[], float]
    """Seconds since the epoch, to read points of time in headers from."""
    answers: AnswerSettings = AnswerSettings()


class WireExchange:
    """One request and its response: deadlines kept, foreign errors turned into ours, closed by whoever made it."""

    __slots__ = (
        "_answer",
        "_burst",
        "_burst_at",
        "_idle",
        "_kept",
        "_line",
        "_loop",
        "_most",
        "_pause",
        "_says",
        "_size",
        "_target",
        "_told",
        "_total",
        "_unpacked",
        "_until",
        "pieces",
        "seen",
    )

    def __init__(
        self,
        line: ProviderLine,
        target: Target,
        seen: Seen,
        kept: list[bytes] | None,
        *,
        idle: float,
        total: float,
        pause: float | None = None,
    ) -> None:
        self.seen = seen
        self._line = line
        self._target = target
        self._kept = kept
        self._idle = idle
        self._total = total
        self._pause = pause
        """Longest silence in an answer that has begun, in seconds; None: as before it."""
        self._says = False
        self._loop = asyncio.get_running_loop()
        self._until = self._loop.time() + total
        self._most = line.answers.max_mb * 1e6
        self._size = 0
        self.pieces = 0
        """How many pieces of the answer have been passed on, for whoever is told that it was cut."""
        self._answer: Incoming | None = None
        self._told: dict[str, str] = {}
        """The answer's headers, names in lower case."""
        self._unpacked: AsyncGenerator[bytes, None] | None = None
        self._burst = b""
        """What came at once, read up to `_burst_at`."""
        self._burst_at = 0

    async def send(self, method: str, address: Address, head: list[tuple[bytes, bytes]], body: bytes) -> int:
        """Send, read the head of the answer into `seen`, and return its status. `head` names the host."""
        line, seen = self._line, self.seen
        framed = [*head, (b"content-length", b"%d" % len(body))] if body else head
        if seen.traceparent:
            framed = [*framed, (b"traceparent", seen.traceparent.encode())]
        seen.sent_at = line.monotonic()
        try:
            answer = await line.transport.send(
                method,
                address,
                framed,
                body,
                connect=line.deadlines.connect_seconds,
                read=self._idle,
                until=self._until,
            )
        except TimeoutError as exc:
            raise self._timeout("total", self._total) from exc
        except (httpx.HTTPError, httpx.StreamError) as exc:
            self._raise_mapped(exc)
        self._answer = answer
        seen.status = answer.status
        seen.first_byte_at = line.monotonic()
        told = self._told = {_name(name): value.decode("latin-1") for name, value in answer.headers}
        self.identify(word(told.get("x-request-id") or told.get("request-id")))
        seen.buckets, seen.retry_after, seen.should_retry, seen.headers = headers.read(told, line.now())
        if "content-encoding" in told:
            names = [value for name, value in answer.headers if name.lower() == b"content-encoding"]
            self._unpacked = _unpacked(answer, b", ".join(names).decode("latin-1"))
        return answer.status

    def identify(self, told: str | None) -> None:
        """Keep the first name that the provider gives this request: people and programs are told it."""
        key = self._target.key
        self.seen.request_id = self.seen.request_id or (told.replace(key, "[key]") if told and key else told) or None

    async def failure_body(self) -> bytes:
        """What a status other than those of an answer came with.

        Raises:
            Redirected: 3xx.
            ParseError: another 2xx.
        """
        status = self.seen.status
        assert status is not None
        if 300 <= status < 400:
            raise Redirected(profile=self._target.profile, status=status, location=_location(self._told))
        if status < 300:
            raise ParseError(profile=self._target.profile, problem=f"status {status} instead of an answer")
        return await self._error_body()

    async def _chunk(self) -> bytes | None:
        """The body as it arrives, decoded where it is compressed; None at its end."""
        if self._unpacked is not None:
            return await anext(self._unpacked, None)
        assert self._answer is not None
        return await self._answer.next()

    async def next(self, most: int = PART_BYTES) -> bytes | None:
        """The next chunk, of at most `most` bytes; None at the end.

        Between two parts of what came in one burst the loop has its turn.
        """
        if self._burst:
            return await self._part()
        try:
            chunk = await (self._soon(self._pause) if self._pause and self._may_wait() else self._chunk())
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
        if chunk is None:
            return None
        self._size += len(chunk)
        if self._size > self._most:
            problem = f"the answer is longer than {self._line.answers.max_mb:g} MB (`answers.max_mb`)"
            raise ParseError(profile=self._target.profile, problem=problem)
        self._keep(chunk)
        # blanks keep a connection alive while the model still thinks
        self._says = self._says or self._pause is None or not chunk.isspace()
        return chunk if len(chunk) <= most else self._cut(chunk)

    def _may_wait(self) -> bool:
        """Whether an answer has begun, and its next part may not be here yet; a limit costs a tenth of a call."""
        assert self._answer is not None
        return self._says and (self._unpacked is not None or not self._answer.is_here)

    async def _soon(self, seconds: float) -> bytes | None:
        """The next chunk of an answer that has begun and so is known whole by the provider: silence is no thought."""
        deadline = asyncio.timeout(seconds)
        try:
            async with deadline:
                return await self._chunk()
        except TimeoutError:
            if deadline.expired():
                raise self._timeout("idle", seconds) from None
            raise

    async def _part(self) -> bytes:
        """The next part of a burst, after the loop has had its turn."""
        await asyncio.sleep(0)
        return self._cut(self._burst, self._burst_at)

    def _cut(self, burst: bytes, at: int = 0) -> bytes:
        self._burst, self._burst_at = burst, at + PART_BYTES
        if self._burst_at >= len(burst):
            self._burst = b""
        return burst[at : at + PART_BYTES]

    async def start(self) -> bytes:
        """As much of the answer as says whether it is a stream of events (`events.looks_whole`)."""
        start = b""
        while events.looks_whole(start) is None and (part := await self.next()) is not None:
            start = events.begun(start) + part
        return start

    def _keep(self, chunk: bytes) -> None:
        if self._kept is None or self.seen.sent_at is None:
            return
        if self._size > LONGEST_RECORDED_BYTES:
            self._kept.clear()
            self.seen.arrivals.clear()
            self.seen.unkept_bytes = self._size
            return
        self._kept.append(chunk)
        self.seen.arrivals.append(self._line.monotonic() - self.seen.sent_at)

    async def body(self) -> bytes:
        """The whole body, or what follows the parts that have been read."""
        parts = [self._burst[self._burst_at :]]
        self._burst = b""
        while (chunk := await self.next(sys.maxsize)) is not None:
            parts.append(chunk)
        return b"".join(parts)

    @property
    def how_far(self) -> str:
        """How far the answer came."""
        if not self.pieces:
            return "the connection broke before its first piece"
        return f"the connection broke after {self.pieces} piece{'s' if self.pieces != 1 else ''}"

    def finish(self, reader: StreamReader) -> Answer:
        """What a reader made of the whole stream.

        Raises:
            ParseError: the stream was cut; it says how far it came.
        """
        try:
            return reader.finish()
        except ParseError as exc:
            if exc.is_cut:
                exc.problem = f"{exc.problem.partition(':')[0]}: {self.how_far}"
            raise

    async def drain(self) -> None:
        """Read on to the end of the body, which normally is already here: then the connection serves the next call."""
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while await self._chunk() is not None:
                    pass
        except (TimeoutError, httpx.HTTPError, httpx.StreamError, CannotUnpackError):
            return

    async def aclose(self) -> None:
        """Close the connection, or give it back when the body has been read to its end."""
        if self._unpacked is not None:  # else the garbage collector would, in a task of its own
            await self._unpacked.aclose()
        if self._answer is not None:
            await self._answer.aclose()

    async def _error_body(self) -> bytes:
        """What can be had of an error's body soon; the status counts anyhow."""
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout_at(min(self._until, self._loop.time() + ERROR_BODY_SECONDS)):
                while size < MAX_ERROR_BYTES and (chunk := await self._chunk()) is not None:
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


async def _unpacked(answer: Incoming, encodings: str) -> AsyncGenerator[bytes, None]:
    """The body, unpacked slice by slice; the loop gets its turn between two slices."""
    unpacker = Unpacker(encodings)
    while (packed := await answer.next()) is not None:
        for slice_ in unpacker.feed(packed):
            yield slice_
            if len(slice_) == SLICE_BYTES:
                await asyncio.sleep(0)
    unpacker.end()


def _location(told: Mapping[str, str]) -> str:
    """Where a redirect leads: host and path, without what may be secret in its query."""
    if not (place := told.get("location")):
        return ""
    try:
        url = httpx.URL(place)
    except httpx.InvalidURL:
        return ""
    return classify.clip(str(url.copy_with(query=None, fragment=None, userinfo=b"")) if url.host else url.path)


def _words_of(exc: BaseException) -> str:
    return str(exc) or type(exc).__name__
