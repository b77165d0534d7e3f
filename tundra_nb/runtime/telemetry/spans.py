"""Traces made from rows, after the fact: a call with its attempts and waits as OTLP spans.

One span for the call, below the caller's own where it sent one; below it one per attempt, which has the GenAI names,
and one per wait. Nothing of prompts or answers is in them. Ids follow from the rows' ids: a span that is sent again,
because nobody knows whether it arrived, is the same span.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tundra_nb._version import __version__

from . import genai, otlp
from .unsampled import UNSAMPLED

Row = Mapping[str, Any]
INTERNAL, SERVER, CLIENT = 1, 2, 3
"""`SpanKind`."""
MESSAGE_CHARS = 1_000
CALL_COLUMNS = [
    "operation_id",
    "at",
    "kind",
    "requested_model",
    "profile",
    "model",
    "outcome",
    "code",
    "attempts",
    "latency_ms",
    "cost_usd",
    "streamed",
    "user_name",
    "caller",
    "message",
    "asked",
    "trace_id",
    "parent_span_id",
    "writer_id",
]
"""What is read of a call …"""
ATTEMPT_COLUMNS = [
    "attempt_id",
    "operation_id",
    "at",
    "profile",
    "model",
    "outcome",
    "reason",
    "status",
    "code",
    "limiter_wait_ms",
    "first_byte_ms",
    "latency_ms",
    "input_tokens",
    "cached_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cost_usd",
    "stop_reason",
    "cause",
    "backoff_ms",
    "request_id",
    "message",
]
"""… and of an attempt."""
_RATIO_BITS = 56


def trace_id(writer_id: str, operation_id: int) -> str:
    """Make the trace id of a call that came without one."""
    return hashlib.sha256(f"{writer_id}/trace/{operation_id}".encode()).hexdigest()[:32]


def span_id(writer_id: str, kind: str, key: int) -> str:
    """Make the span id of a call (`call`), an attempt (`attempt`) or a wait before one (`wait`, `pause`)."""
    return hashlib.sha256(f"{writer_id}/{kind}/{key}".encode()).hexdigest()[:16]


def is_sampled(operation: Row, ratio: float) -> bool:
    """Whether a call is to be traced: the parent's word, else the ratio; failures and failovers always."""
    asked = str(operation.get("asked") or "")
    return operation["outcome"] != "ok" or "," in asked or _is_chosen(operation, ratio)


def traceparent(operation: Row, attempt_id: int, ratio: float) -> str:
    """The W3C's header for what happens below an attempt.

    Args:
        operation: of its row what is known before it ends: ids, the caller's trace, the writer.
        attempt_id: the attempt's.
        ratio: see `is_sampled`; that a call fails is not known yet.
    """
    writer, key = str(operation["writer_id"]), int(operation["operation_id"])
    trace = operation["trace_id"] or trace_id(writer, key)
    return f"00-{trace}-{span_id(writer, 'attempt', attempt_id)}-{_is_chosen(operation, ratio):02x}"


def passed_on(trace: str | None, parent: str | None) -> str:
    """The caller's own header, for whoever adds no span of his own; "" where there is none."""
    if not trace or not parent:
        return ""
    return f"00-{trace}-{parent.removesuffix(UNSAMPLED)}-{not parent.endswith(UNSAMPLED):02x}"


def _is_chosen(operation: Row, ratio: float) -> bool:
    parent = operation.get("parent_span_id")
    if parent:
        return not str(parent).endswith(UNSAMPLED)
    trace = operation.get("trace_id") or trace_id(str(operation.get("writer_id")), int(operation["operation_id"]))
    return int(str(trace)[-14:], 16) < ratio * (1 << _RATIO_BITS)


def of_call(operation: Row, attempts: Sequence[Row], providers: Mapping[str, str]) -> list[bytes]:
    """The spans of one call.

    Args:
        operation: its row, times in microseconds.
        attempts: those of its attempts.
        providers: kind of each profile, for `gen_ai.provider.name`.
    """
    writer, key = str(operation.get("writer_id")), int(operation["operation_id"])
    trace = str(operation.get("trace_id") or trace_id(writer, key))
    own = span_id(writer, "call", key)
    kind = str(operation["kind"])
    begin = int(operation["at"])
    end = begin + round(float(operation.get("latency_ms") or 0.0) * 1000)
    answered = operation.get("profile")
    model = operation.get("requested_model") or operation.get("model")
    shared = {genai.OPERATION: _operation(kind), genai.REQUEST_MODEL: model}
    top = _span(
        trace,
        own,
        str(operation.get("parent_span_id") or "").removesuffix(UNSAMPLED),
        _name(kind, model),
        SERVER if operation.get("caller") == "gateway" else INTERNAL,
        begin,
        end,
        shared
        | {
            genai.PROVIDER: providers.get(str(answered), answered) if answered else None,
            genai.RESPONSE_MODEL: operation.get("model"),
            genai.STREAM: True if operation.get("streamed") else None,
            genai.OPERATION_ID: str(key),
            genai.OUTCOME: operation["outcome"],
            genai.CODE: operation.get("code"),
            genai.PROFILE: answered,
            genai.ATTEMPTS: operation.get("attempts"),
            genai.COST: operation.get("cost_usd"),
            genai.USER: operation.get("user_name"),
            genai.CALLER: operation.get("caller"),
            genai.ERROR_TYPE: operation.get("code"),
        },
        operation,
    )
    made = [top]
    for attempt in attempts:
        made += _of_attempt(attempt, trace, own, writer, kind, providers)
    return made


def _of_attempt(
    attempt: Row, trace: str, parent: str, writer: str, kind: str, providers: Mapping[str, str]
) -> list[bytes]:
    key = int(attempt["attempt_id"])
    begin = int(attempt["at"])
    waited = round(float(attempt.get("limiter_wait_ms") or 0.0) * 1000)
    paused = round(float(attempt.get("backoff_ms") or 0.0) * 1000)
    made = []
    profile = str(attempt["profile"])
    for what, since, took in (("pause", begin - paused, paused), ("wait", begin, waited)):
        if took:
            reason = "limiter" if what == "wait" else "backoff"
            told = {genai.WAIT_REASON: reason, genai.PROFILE: profile}
            its_id = span_id(writer, what, key)
            made.append(_span(trace, its_id, parent, f"wait {reason}", INTERNAL, since, since + took, told, {}))
    sent = begin + waited
    end = sent + round(float(attempt.get("latency_ms") or 0.0) * 1000)
    model = attempt.get("model")
    first = attempt.get("first_byte_ms")
    finish = attempt.get("stop_reason")
    made.append(
        _span(
            trace,
            span_id(writer, "attempt", key),
            parent,
            _name(kind, model),
            CLIENT,
            sent,
            end,
            {
                genai.OPERATION: _operation(kind),
                genai.PROVIDER: providers.get(profile, profile),
                genai.REQUEST_MODEL: model,
                genai.RESPONSE_MODEL: model if attempt["outcome"] == "ok" else None,
                genai.RESPONSE_ID: attempt.get("request_id"),
                genai.FINISH_REASONS: (finish,) if finish else None,
                genai.FIRST_CHUNK: None if first is None else first / 1000,
                genai.USAGE_INPUT: attempt.get("input_tokens"),
                genai.USAGE_OUTPUT: attempt.get("output_tokens"),
                genai.USAGE_CACHED: attempt.get("cached_tokens") or None,
                genai.USAGE_REASONING: attempt.get("reasoning_tokens") or None,
                genai.STATUS: attempt.get("status"),
                genai.ERROR_TYPE: attempt.get("code"),
                genai.ATTEMPT_ID: str(key),
                genai.PROFILE: profile,
                genai.OUTCOME: attempt["outcome"],
                genai.CODE: attempt.get("code"),
                genai.REASON: attempt.get("reason"),
                genai.CAUSE: attempt.get("cause"),
                genai.COST: attempt.get("cost_usd"),
            },
            attempt,
        )
    )
    return made


def request(spans: Iterable[bytes], writer_id: str) -> bytes:
    """An export request with these spans."""
    resource = {"service.name": "tundra", "service.version": __version__, "service.instance.id": writer_id}
    return otlp.request(spans, resource, "tundra_nb", __version__)


def _span(
    trace: str,
    span: str,
    parent: str,
    name: str,
    kind: int,
    began_us: int,
    ended_us: int,
    attributes: Mapping[str, Any],
    row: Row,
) -> bytes:
    error = None
    if row.get("code") or row.get("outcome", "ok") not in ("ok", "cancelled"):
        error = str(row.get("message") or row.get("code") or row["outcome"])[:MESSAGE_CHARS]
    return otlp.span(
        trace_id=trace,
        span_id=span,
        parent_id=parent,
        name=name,
        kind=kind,
        began_us=began_us,
        ended_us=ended_us,
        attributes=attributes,
        error=error,
    )


def _operation(kind: str) -> str:
    return kind if kind in genai.INFERENCES else genai.CHAT


def _name(kind: str, model: Any) -> str:
    return f"{_operation(kind)} {model}" if model else _operation(kind)
