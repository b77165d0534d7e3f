"""What a provider adapter is, and the values that cross between adapter, transport and operation.

A **wire format** is pure: it builds request bodies and reads answers, events and errors; it does no I/O. There is one
module per format (`openai.py`, `anthropic.py`); OpenRouter and local servers use the OpenAI form with their own
differences. A wire format is made for one target, so that its URLs and headers are built once and not per call. A
**provider** (`provider.py`) joins one profile, its key, a wire format and the transport.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec

from tundra_nb.errors import ProviderError
from tundra_nb.types import Ask, ToolCall, Usage
from tundra_nb.types.pieces import Piece

LONGEST_RECORDED_BYTES = 16_000_000
"""Of request and answer together. What is longer is not kept, but for its size: masking takes 0.1 to 0.8 s a megabyte,
and holds up the other threads for some of it."""

ANSWERED = frozenset({200, 201, 203})
"""Statuses of an answer; a server whose framework answers every POST with 201 means the same."""

Deliver = Callable[[Piece], Awaitable[None]]
"""Takes the pieces of an answer as they arrive. Being slow there slows the provider's stream down."""


def _unknown() -> float:
    return 0.0


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a request goes to: what a wire format must know of the profile."""

    profile: str
    kind: str
    base_url: str
    """Normalised: no trailing slash, with `/v1` for the OpenAI form and without it for Anthropic's."""
    key: str = msgspec.field(default="")
    """The key itself; never logged. `repr` of this struct is masked."""
    key_variable: str = ""
    anthropic_version: str = "2023-06-01"
    now: Callable[[], float] = _unknown
    """Seconds since the epoch, to read points of time in bodies from."""

    def __repr__(self) -> str:
        return f"Target({self.profile}, {self.kind}, {self.base_url})"


class BucketSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A provider's own rate-limit bucket, as told by its headers. `reset_after` in seconds from when it was told."""

    resource: str
    """requests, tokens, input_tokens, output_tokens, unified."""
    limit: float | None = None
    remaining: float | None = None
    reset_after: float | None = None


class Seen(msgspec.Struct, kw_only=True):
    """What an attempt saw on the wire; filled while it runs, also when it then fails."""

    status: int | None = None
    request_id: str | None = None
    headers: dict[str, str] = {}
    """Rate-limit and retry headers, as sent."""
    buckets: tuple[BucketSeen, ...] = ()
    retry_after: float | None = None
    should_retry: bool | None = None
    """`x-should-retry`, when the provider sent it. It outranks `TundraError.retryable`."""
    traceparent: str = ""
    """Sent along where it is not empty: the attempt's place in the call's trace."""
    sent_at: float | None = None
    first_byte_at: float | None = None
    """Monotonic seconds."""
    dropped: list[str] = []
    """Fields of the ask that were not sent, because this model or vendor takes none."""
    request_body: bytes = b""
    response_body: bytes = b""
    """Kept only when recording is on."""
    arrivals: list[float] = []
    """When each of `pieces` came, in seconds since the request was sent."""
    pieces: list[bytes] = []
    """The same body as it came; kept only when recording is on."""
    unkept_bytes: int = 0
    """Bytes of an answer that recording is on for, and that is too long to be kept."""

    def keep(self, pieces: list[bytes], key: str) -> None:
        """Keep the body of the answer, with the key of the call masked, also where it lies across two pieces."""
        body, secret = b"".join(pieces), key.encode()
        self.response_body = body.replace(secret, b"[key]") if secret else body
        self.pieces = pieces if self.response_body == body else [self.response_body]
        if len(self.pieces) != len(self.arrivals):
            self.arrivals = self.arrivals[-1:]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A complete answer of a provider."""

    text: str
    reasoning: str = ""
    model: str
    """The model that answered, by its own word; the requested one when it did not say."""
    usage: Usage
    stop_reason: str | None = None
    """In the OpenAI form's words, whoever answered (stop, length, tool_calls, content_filter); else the provider's."""
    tool_calls: tuple[ToolCall, ...] = ()
    request_id: str | None = None
    cost_usd: float | None = None
    """Only when the provider itself names the cost (OpenRouter)."""

    @property
    def length(self) -> int:
        """Characters in it, about; a tool call has some beside its arguments."""
        return len(self.text) + len(self.reasoning) + sum(100 + len(call.arguments) for call in self.tool_calls)


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One model that a profile can reach, as its provider lists it."""

    model: str
    context_tokens: int | None = None
    input_usd: float | None = None
    output_usd: float | None = None
    """USD per million tokens."""
    created_at: float | None = None
    vision: bool | None = None
    tools: bool | None = None
    """None: the listing does not say."""
    ignores_tools: bool = False
    """Takes tools without a word, and never shows them to the model."""
    deprecated: bool = False


class StreamReader(Protocol):
    """Reads the events of one streamed answer."""

    @property
    def done(self) -> bool:
        """The stream's own end mark has been read."""
        ...

    def feed(self, event: str, data: bytes) -> Sequence[Piece]:
        """Take one server-sent event; return the pieces it adds.

        Raises:
            TundraError: the event is an error, classified as a status would be; or it cannot be parsed.
        """
        ...

    def flush(self) -> Sequence[Piece]:
        """What was held back because more of it might have come."""
        ...

    def finish(self) -> Answer:
        """The whole answer, once the stream has ended.

        Raises:
            ParseError: the stream ended before its own end mark.
        """
        ...


class WireFormat(Protocol):
    """Pure translation between `Ask` and one vendor's HTTP form, for one target."""

    @property
    def url(self) -> str:
        """Where asks are posted to."""
        ...

    @property
    def models_url(self) -> str:
        """Where the model list is read from."""
        ...

    @property
    def check_url(self) -> str:
        """What can be read only with a valid key, free of charge."""
        ...

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """Headers of every request, with the key."""
        ...

    def body(self, ask: Ask, model: str) -> bytes:
        """Build the request body. `ask.stream` decides whether the answer is to be streamed.

        Raises:
            Unsupported: this form has no way to say what is asked.
            UsageError: a value that this form cannot carry.
        """
        ...

    def answer(self, model: str, body: bytes) -> Answer:
        """Read a whole (unstreamed) 200 answer: a JSON document, or a stream of events sent all the same.

        Raises:
            ParseError: it is not what this format promises.
            TundraError: the body is an error in spite of the status 200.
        """
        ...

    def reader(self, model: str) -> StreamReader:
        """A reader for one streamed answer."""
        ...

    def error(self, model: str, status: int, retry_after: float | None, body: bytes) -> ProviderError:
        """Classify an error answer by the outcome table. `retry_after` is what its headers said, in seconds."""
        ...

    def models(self, body: bytes) -> list[ModelInfo]:
        """Read the answer of `models_url`."""
        ...
