"""What a program sends, read from its ASGI request: who it is, what it wants, its body, within bounds."""

from __future__ import annotations

import asyncio
import logging
import re
import zlib
from typing import Any
from urllib.parse import unquote_plus

import msgspec

from tundra_nb import errors
from tundra_nb.daemon.life import Receive, Scope
from tundra_nb.runtime.providers import bodies
from tundra_nb.runtime.providers.relay import CallerBody

from . import stays
from .paths import Path
from .tokens import PREFIX

PASSED_ON = (b"anthropic-version", b"anthropic-beta")
"""Headers of the caller that go to the provider, beside the content type; nothing else does."""
LIMITS = {
    "chat": ("max_completion_tokens", "max_tokens"),
    "responses": ("max_output_tokens",),
    "messages": ("max_tokens",),
}
"""What bounds an answer, by form."""
FAILOVER = b"x-tundra-failover"
"""The one header of ours that a caller may send."""
MAX_CLIENT_CHARS = 80
BIG_BYTES = 1 << 20
"""Reading a larger body would hold up the loop: a millisecond for every two million bytes."""

_TOKEN_IN_URL = re.compile(r"tnd-[A-Za-z0-9_-]{8,}")
_SDK = re.compile(r"(?:Async)?(OpenAI|Anthropic)/(\w+) (\S+)")

_log = logging.getLogger("tundra.daemon")


class BodyError(Exception):
    """A body that is not read: too long (413), or of a form that nobody can read (400)."""

    def __init__(self, status: int, problem: str, remedy: str = "") -> None:
        super().__init__(problem)
        self.status = status
        self.error = errors.UsageError(problem=problem, field="body", remedy=remedy)


class ClientGoneError(Exception):
    """The caller went away before its request was whole."""


def headers_of(scope: Scope) -> dict[bytes, bytes]:
    """Headers by name in lower case; of several the first."""
    return dict(reversed(scope["headers"]))


def credential(headers: dict[bytes, bytes], query: bytes) -> str:
    """The token that a caller presents, "" where it presents none.

    Raises:
        TokenRefused: it stands in the address.
    """
    if query and _TOKEN_IN_URL.search(unquote_plus(query.decode("latin-1"))):
        raise errors.TokenRefused(kind="url")
    key = headers.get(b"x-api-key", b"").strip()
    scheme, _, bearer = headers.get(b"authorization", b"").strip().partition(b" ")
    bearer = bearer.strip() if scheme.lower() == b"bearer" else b""
    if key and bearer and key != bearer:
        _log.info("a program sent both x-api-key and Authorization, which differ: x-api-key counts")
    return (key or bearer).decode("latin-1")


def is_ours(presented: str) -> bool:
    """Whether a credential has the form of a gateway token."""
    return presented.startswith(PREFIX)


async def read_body(receive: Receive, headers: dict[bytes, bytes], most: int) -> bytes:
    """The whole body, decompressed.

    Raises:
        BodyError: longer than `most` bytes, or not compressed as it says.
        ClientGoneError: the caller left.
    """
    told = headers.get(b"content-length", b"")
    if told.isdigit() and int(told) > most:
        raise _too_long(most)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        part = message.get("body", b"")
        size += len(part)
        if size > most:
            raise _too_long(most)
        parts.append(part)
        if not message.get("more_body"):
            break
    body = parts[0] if len(parts) == 1 else b"".join(parts)
    encoding = headers.get(b"content-encoding", b"").strip().lower()
    if encoding in (b"", b"identity"):
        return body
    if encoding not in (b"gzip", b"deflate"):
        raise BodyError(415, f"the body is compressed as {encoding.decode('latin-1')!r}", "Send it plain, or as gzip.")
    unpacker = zlib.decompressobj(wbits=47 if encoding == b"gzip" else 15)
    try:
        if len(body) < BIG_BYTES // 8:
            body = unpacker.decompress(body, most + 1)
        else:
            body = await asyncio.to_thread(unpacker.decompress, body, most + 1)
    except zlib.error as exc:
        raise BodyError(400, f"the body is not compressed as it says: {exc}") from exc
    if len(body) > most:
        raise _too_long(most)
    if not unpacker.eof:
        raise BodyError(400, "the compressed body is cut")
    return body


async def read_given(path: Path, body: bytes, headers: dict[bytes, bytes]) -> tuple[CallerBody, tuple[str, ...]]:
    """The call that a body asks for, and the fields in it that bind it to one vendor; a big body is read in a thread.

    Raises:
        BodyError: it is no JSON object.
    """

    def read() -> tuple[CallerBody, tuple[str, ...]]:
        given = given_of(path, body, headers)
        return given, stays.staying(given)

    return read() if len(body) < BIG_BYTES else await asyncio.to_thread(read)


def given_of(path: Path, body: bytes, headers: dict[bytes, bytes]) -> CallerBody:
    """The call that a body asks for.

    Raises:
        BodyError: it is no JSON object.
    """
    try:
        found = bodies.members(body)
    except bodies.NotAnObjectError as exc:
        raise BodyError(400, f"the body is no JSON object: {exc}") from exc
    passed = tuple((name, headers[name]) for name in PASSED_ON if name in headers)
    options = bodies.value(found, "stream_options", dict[str, Any]) if path.form == "chat" else None
    return CallerBody(
        form=path.form,
        body=body,
        members=found,
        headers=passed,
        is_streamed=bodies.value(found, "stream", bool) is True,
        shows_usage=path.form != "chat" or bool(options and options.get("include_usage")),
    )


def max_tokens(given: CallerBody) -> int | None:
    """Most output tokens that a body allows, where it says so by a field that its form has."""
    most = 0
    for name in LIMITS.get(given.form, ()):
        if name in given.members:
            most = max(most, bodies.value(given.members, name, int) or 0)
    return min(most, 1 << 40) or None


def client_of(headers: dict[bytes, bytes]) -> str | None:
    """Name and version of the program's own library: `openai-python/3.57.0`."""
    agent = headers.get(b"user-agent", b"").decode("latin-1").strip()
    if not agent:
        return None
    if (sdk := _SDK.match(agent)) is not None:
        return f"{sdk[1].lower()}-{sdk[2].lower()}/{sdk[3]}"[:MAX_CLIENT_CHARS]
    first = agent.split(" ", 1)[0]
    return "".join(character for character in first if character.isprintable())[:MAX_CLIENT_CHARS]


def retry_count(headers: dict[bytes, bytes]) -> int | None:
    """How often the library has sent this call before, by its own word."""
    told = headers.get(b"x-stainless-retry-count", b"")
    return int(told) if told.isdigit() and len(told) < 6 else None


def members_told(given: CallerBody) -> dict[str, Any]:
    """The whole body, decoded."""
    told: dict[str, Any] = msgspec.json.decode(given.body)
    return told


def _too_long(most: int) -> BodyError:
    return BodyError(
        413, f"the body is longer than {most:,} bytes", "Send less at once, or raise `gateway.max_body_mb`."
    )
