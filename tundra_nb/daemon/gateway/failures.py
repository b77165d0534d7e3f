"""An error in the caller's dialect: status, headers and body by which each SDK raises its right class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from tundra_nb import errors
from tundra_nb.errors.spelling import as_typed
from tundra_nb.runtime.providers.callers.failure import fault, status_of
from tundra_nb.runtime.providers.relay import Refusal

from .paths import Dialect

LONGEST_WAIT_SECONDS = 60.0
"""A longer wait is not left to the SDK: a new Anthropic client sleeps through any, an old one asks again at once."""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller is told."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    in_band: bytes
    """The same as an event inside a stream that has begun."""


def telling(error: errors.TundraError, causes: Sequence[errors.TundraError]) -> errors.TundraError:
    """The error that says most: the cause itself where there is one, or all are of one kind."""
    if isinstance(error, errors.AllProvidersExhausted) and causes:
        first = causes[0]
        if all(type(cause) is type(first) and status_of(cause) == status_of(first) for cause in causes):
            return first
    return error


def failure(
    family: Dialect,
    error: errors.TundraError,
    *,
    causes: Sequence[errors.TundraError] = (),
    operation_id: int | None = None,
    has_retried: bool = False,
    refusal: Refusal | None = None,
    form: str = "",
) -> Failure:
    """What a caller of this dialect is told.

    Args:
        family: whose form.
        error: how the call ended.
        causes: one error per profile that was asked.
        operation_id: of the call, where there was one.
        has_retried: we have tried again already, so the SDK must not multiply that.
        refusal: the error answer of the provider, in the caller's own form.
        form: of the stream that the error may have to be put into.
    """
    told = telling(error, causes)
    status = status_of(told)
    name = str(operation_id) if operation_id is not None else ""
    wait = getattr(error, "retry_after", None)
    if wait is None:
        wait = getattr(told, "retry_after", None)
    headers = _hints(status, wait, is_final=has_retried or not _may_pass(told, causes))
    body = _kept(refusal, status, told, name) if refusal is not None else None
    if body is None:
        body = fault(family, told, operation_id=name)
        if told.hint:  # most programs show the message, and nothing else
            body["error"]["message"] = f"{told.message} ({as_typed(told.hint)})"
    encoded = msgspec.json.encode(body)
    if form in ("chat", "embeddings", ""):
        in_band = b"data: " + encoded + b"\n\n"
    else:
        in_band = b"event: error\ndata: " + _nested(body) + b"\n\n"
    return Failure(status=status, body=encoded, headers=headers, in_band=in_band)


def _may_pass(told: errors.TundraError, causes: Sequence[errors.TundraError]) -> bool:
    """Whether the same call may succeed after a pause."""
    if isinstance(told, errors.AllProvidersExhausted):
        return any(cause.retryable for cause in causes)
    return told.retryable or isinstance(told, errors.Timeout | errors.ParseError)


def _hints(status: int, wait: float | None, *, is_final: bool) -> tuple[tuple[bytes, bytes], ...]:
    headers: list[tuple[bytes, bytes]] = []
    if wait is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(wait))))
    retried_by_sdks = status in (408, 409, 429) or status >= 500
    if retried_by_sdks and (is_final or (wait is not None and wait > LONGEST_WAIT_SECONDS)):
        headers.append((b"x-should-retry", b"false"))
    return tuple(headers)


def _kept(refusal: Refusal, status: int, error: errors.TundraError, operation_id: str) -> dict[str, Any] | None:
    """The provider's own words, with ours beside them; None where they are no JSON error, or not about the request."""
    if refusal.status != status or not isinstance(error, errors.ProviderError):
        return None
    try:
        body = msgspec.json.decode(refusal.body)
    except (msgspec.DecodeError, RecursionError):
        return None
    inner = body.get("error") if isinstance(body, dict) else None
    if not isinstance(inner, dict) or not isinstance(inner.get("message"), str):
        return None
    inner["tundra"] = {"code": error.code, "hint": as_typed(error.hint), "operation_id": operation_id or None}
    return dict(body)


def _nested(body: dict[str, Any]) -> bytes:
    """The form that both SDKs of both vendors raise a proper error for inside a stream."""
    return msgspec.json.encode({"type": "error", **body})
