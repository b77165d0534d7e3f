"""Traces made from rows, after the fact: a call with its attempts and waits as OTLP spans.

One span for the call, below the caller's own where it sent one; below it one per attempt, which has the GenAI names,
and one per wait. Nothing of prompts or answers is in them. Ids follow from the rows' ids: a span that is sent again,
because nobody knows whether it arrived, is the same span.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tundra_nb._version import __version__

from . import genai, otlp
from .unsampled import UNSAMPLED

INTERNAL, SERVER, CLIENT = 1, 2, 3
"""`SpanKind`."""
MESSAGE_CHARS = 1_000
_RATIO_BITS = 56


class TracedCall(NamedTuple):
    """What is read of a call, times in microseconds …"""

    operation_id: int
    at: int
    kind: str
    outcome: str
    writer_id: str
    requested_model: str | None = None
    profile: str | None = None
    model: str | None = None
    code: str | None = None
    attempts: int | None = None
    latency_ms: float | None = None
    cost_usd: float | None = None
    streamed: bool | None = None
    user_name: str | None = None
    caller: str | None = None
    message: str | None = None
    asked: str | None = None
    trace_id: str | None = None
    parent_span_id: str | None = None


class TracedAttempt(NamedTuple):
    """… and of an attempt."""

    attempt_id: int
    operation_id: int
    at: int
    profile: str
    outcome: str
    model: str | None = None
    reason: str | None = None
    status: int | None = None
    code: str | None = None
    limiter_wait_ms: float | None = None
    first_byte_ms: float | None = None
    latency_ms: float | None = None
    input_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost_usd: float | None = None
    stop_reason: str | None = None
    cause: str | None = None
    backoff_ms: float | None = None
    request_id: str | None = None
    message: str | None = None


def trace_id(writer_id: str, operation_id: int) -> str:
    """Make the trace id of a call that came without one."""
    return hashlib.sha256(f"{writer_id}/trace/{operation_id}".encode()).hexdigest()[:32]


def span_id(writer_id: str, kind: str, key: int) -> str:
    """Make the span id of a call (`call`), an attempt (`attempt`) or a wait before one (`wait`, `pause`)."""
    return hashlib.sha256(f"{writer_id}/{kind}/{key}".encode()).hexdigest()[:16]


def is_sampled(call: TracedCall, ratio: float) -> bool:
    """Whether a call is to be traced: the parent's word, else the ratio; failures and failovers always."""
    if call.outcome != "ok" or "," in (call.asked or ""):
        return True
    return _is_chosen(call.writer_id, call.operation_id, call.trace_id, call.parent_span_id, ratio)


def traceparent(
    writer_id: str, operation_id: int, trace: str | None, parent: str | None, attempt_id: int, ratio: float
) -> str:
    """The W3C's header for what happens below an attempt.

    Args:
        writer_id: of this daemon.
        operation_id: the call's.
        trace: the caller's own, if any.
        parent: the caller's span, if any.
        attempt_id: the attempt's.
        ratio: see `is_sampled`; that a call fails is not known yet.
    """
    is_chosen = _is_chosen(writer_id, operation_id, trace, parent, ratio)
    trace = trace or trace_id(writer_id, operation_id)
    return f"00-{trace}-{span_id(writer_id, 'attempt', attempt_id)}-{is_chosen:02x}"


def passed_on(trace: str | None, parent: str | None) -> str:
    """The caller's own header, for whoever adds no span of his own; "" where there is none."""
    if not trace or not parent:
        return ""
    return f"00-{trace}-{parent.removesuffix(UNSAMPLED)}-{not parent.endswith(UNSAMPLED):02x}"


def _is_chosen(writer_id: str, operation_id: int, trace: str | None, parent: str | None, ratio: float) -> bool:
    if parent:
        return not parent.endswith(UNSAMPLED)
    if ratio >= 1:
        return True
    return int((trace or trace_id(writer_id, operation_id))[-14:], 16) < ratio * (1 << _RATIO_BITS)


def of_call(call: TracedCall, attempts: Iterable[TracedAttempt], providers: Mapping[str, str]) -> list[bytes]:
    """The spans of one call.

    Args:
        call: its row.
        attempts: those of its attempts.
        providers: kind of each profile, for `gen_ai.provider.name`.
    """
    writer, key, kind = call.writer_id, call.operation_id, call.kind
    trace = call.trace_id or trace_id(writer, key)
    own = span_id(writer, "call", key)
    model = call.requested_model or call.model
    told = _told_of_calls(
        _operation(kind),
        model,
        providers.get(call.profile, call.profile) if call.profile else None,
        call.model,
        bool(call.streamed),
        call.outcome,
        call.code,
        call.profile,
        call.attempts,
        call.user_name,
        call.caller,
    )
    made = [
        otlp.span(
            trace_id=trace,
            span_id=own,
            parent_id=(call.parent_span_id or "").removesuffix(UNSAMPLED),
            name=_name(kind, model),
            kind=SERVER if call.caller == "gateway" else INTERNAL,
            began_us=call.at,
            ended_us=call.at + round((call.latency_ms or 0.0) * 1000),
            attributes=told + otlp.attributes({genai.OPERATION_ID: str(key), genai.COST: call.cost_usd}),
            error=_error(call),
        )
    ]
    for attempt in attempts:
        made += _of_attempt(attempt, trace, own, writer, kind, providers)
    return made


def _of_attempt(
    attempt: TracedAttempt, trace: str, parent: str, writer: str, kind: str, providers: Mapping[str, str]
) -> list[bytes]:
    key, begin, profile, model = attempt.attempt_id, attempt.at, attempt.profile, attempt.model
    waited = round((attempt.limiter_wait_ms or 0.0) * 1000)
    paused = round((attempt.backoff_ms or 0.0) * 1000)
    made = []
    for what, since, took in (("pause", begin - paused, paused), ("wait", begin, waited)):
        if took:
            reason = "limiter" if what == "wait" else "backoff"
            made.append(
                otlp.span(
                    trace_id=trace,
                    span_id=span_id(writer, what, key),
                    parent_id=parent,
                    name=f"wait {reason}",
                    kind=INTERNAL,
                    began_us=since,
                    ended_us=since + took,
                    attributes=otlp.attributes({genai.WAIT_REASON: reason, genai.PROFILE: profile}),
                    error=None,
                )
            )
    sent = begin + waited
    told = _told_of_attempts(
        _operation(kind),
        providers.get(profile, profile),
        model,
        attempt.stop_reason,
        attempt.status,
        profile,
        attempt.outcome,
        attempt.code,
        attempt.reason,
        attempt.cause,
    )
    first = attempt.first_byte_ms
    own = {
        genai.RESPONSE_ID: attempt.request_id,
        genai.FIRST_CHUNK: None if first is None else first / 1000,
        genai.USAGE_INPUT: attempt.input_tokens,
        genai.USAGE_OUTPUT: attempt.output_tokens,
        genai.USAGE_CACHED: attempt.cached_tokens or None,
        genai.USAGE_REASONING: attempt.reasoning_tokens or None,
        genai.ATTEMPT_ID: str(key),
        genai.COST: attempt.cost_usd,
    }
    made.append(
        otlp.span(
            trace_id=trace,
            span_id=span_id(writer, "attempt", key),
            parent_id=parent,
            name=_name(kind, model),
            kind=CLIENT,
            began_us=sent,
            ended_us=sent + round((attempt.latency_ms or 0.0) * 1000),
            attributes=told + otlp.attributes(own),
            error=_error(attempt),
        )
    )
    return made


@functools.lru_cache(maxsize=1024)
def _told_of_calls(
    operation: str,
    model: str | None,
    provider: str | None,
    answered_model: str | None,
    is_streamed: bool,
    outcome: str,
    code: str | None,
    profile: str | None,
    attempts: int | None,
    user: str | None,
    caller: str | None,
) -> bytes:
    """What most calls have in common, written once."""
    return otlp.attributes(
        {
            genai.OPERATION: operation,
            genai.REQUEST_MODEL: model,
            genai.PROVIDER: provider,
            genai.RESPONSE_MODEL: answered_model,
            genai.STREAM: True if is_streamed else None,
            genai.OUTCOME: outcome,
            genai.CODE: code,
            genai.PROFILE: profile,
            genai.ATTEMPTS: attempts,
            genai.USER: user,
            genai.CALLER: caller,
            genai.ERROR_TYPE: code,
        }
    )


@functools.lru_cache(maxsize=1024)
def _told_of_attempts(
    operation: str,
    provider: str,
    model: str | None,
    finish: str | None,
    status: int | None,
    profile: str,
    outcome: str,
    code: str | None,
    reason: str | None,
    cause: str | None,
) -> bytes:
    """The same of attempts."""
    return otlp.attributes(
        {
            genai.OPERATION: operation,
            genai.PROVIDER: provider,
            genai.REQUEST_MODEL: model,
            genai.RESPONSE_MODEL: model if outcome == "ok" else None,
            genai.FINISH_REASONS: (finish,) if finish else None,
            genai.STATUS: status,
            genai.ERROR_TYPE: code,
            genai.PROFILE: profile,
            genai.OUTCOME: outcome,
            genai.CODE: code,
            genai.REASON: reason,
            genai.CAUSE: cause,
        }
    )


def request(spans: Iterable[bytes], writer_id: str) -> bytes:
    """An export request with these spans."""
    resource = {"service.name": "tundra", "service.version": __version__, "service.instance.id": writer_id}
    return otlp.request(spans, resource, "tundra_nb", __version__)


def _error(row: TracedCall | TracedAttempt) -> str | None:
    if row.code or row.outcome not in ("ok", "cancelled"):
        return (row.message or row.code or row.outcome)[:MESSAGE_CHARS]
    return None


def _operation(kind: str) -> str:
    return kind if kind in genai.INFERENCES else genai.CHAT


def _name(kind: str, model: Any) -> str:
    return f"{_operation(kind)} {model}" if model else _operation(kind)
