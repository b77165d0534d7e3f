"""OTLP as JSON: spans and log records, one export request a line or one document, as collectors write them to files.

A span of a call to a model becomes a call with its attempts, whatever generation of names it has: OpenTelemetry's GenAI
names of today and of before, OpenInference's, and our own. A call within a call (an SDK's span below a gateway's) is an
attempt of the outer one. Other spans are read over. Prompts and answers in them are not taken over.
"""

from __future__ import annotations

from typing import Any

from tundra_nb.runtime.sources.taking import Taker, plausible
from tundra_nb.runtime.telemetry import genai
from tundra_nb.types import Attempt, ErrorEvent, ImportedLog, LimitEvent, Operation

from .fields import UNCLASSIFIED, amount, number
from .outcomes import facts, failure

KIND = "otlp"
_SEVERITIES = ((20, "error"), (17, "error"), (13, "warning"), (9, "info"), (5, "debug"), (1, "trace"))
ERROR = 2
"""`StatusCode`."""
_KINDS = {"text_completion": "completion", "generate_content": "chat", "EMBEDDING": "embeddings", "LLM": "chat"}


def read(told: dict[str, Any], taker: Taker) -> bool:
    """One export request; False when it is none."""
    if not {"resourceSpans", "resource_spans", "resourceLogs", "resource_logs", "resourceMetrics"} & told.keys():
        return False
    spans: list[_Span] = []
    for resource in told.get("resourceSpans") or told.get("resource_spans") or ():
        service = _attributes((resource.get("resource") or {}).get("attributes")).get("service.name", "")
        for scope in (
            resource.get("scopeSpans")
            or resource.get("scope_spans")
            or resource.get("instrumentationLibrarySpans")
            or ()
        ):
            for span in scope.get("spans") or ():
                try:
                    spans.append(_Span(span, str(service)))
                except (ValueError, TypeError, KeyError, AttributeError):
                    taker.not_understood(f"a span without times or ids: {str(span)[:160]}")
    _take_spans(spans, taker)
    for resource in told.get("resourceLogs") or told.get("resource_logs") or ():
        service = _attributes((resource.get("resource") or {}).get("attributes")).get("service.name", KIND)
        for scope in resource.get("scopeLogs") or resource.get("scope_logs") or ():
            name = str((scope.get("scope") or {}).get("name") or "")
            for record in scope.get("logRecords") or scope.get("log_records") or ():
                _take_log(record, str(service), name, taker)
    if told.get("resourceMetrics"):
        taker.line(KIND)  # metrics are sums already: nothing of them is a row
    return True


class _Span:
    """One span, as far as it tells of a call."""

    def __init__(self, told: dict[str, Any], service: str) -> None:
        self.trace_id = _id(told.get("traceId", told.get("trace_id")))
        self.span_id = _id(told.get("spanId", told.get("span_id")))
        self.parent_id = _id(told.get("parentSpanId", told.get("parent_span_id")) or "")
        self.name = str(told.get("name") or "")
        self.start_us = int(told.get("startTimeUnixNano", told.get("start_time_unix_nano"))) // 1000  # type: ignore[arg-type]
        self.end_us = int(told.get("endTimeUnixNano", told.get("end_time_unix_nano")) or 0) // 1000
        if not plausible(self.start_us) or not self.span_id:
            raise ValueError("no time or no id")
        self.service = service
        self.attributes = _attributes(told.get("attributes"))
        status = told.get("status") or {}
        self.is_error = status.get("code") in (ERROR, "STATUS_CODE_ERROR", "2")
        self.message = str(status.get("message") or "")
        for event in told.get("events") or ():
            given = _attributes(event.get("attributes"))
            if given.get("exception.type") and "error.type" not in self.attributes:
                self.attributes["error.type"] = str(given["exception.type"])
            if given.get("exception.message") and not self.message:
                self.message = str(given["exception.message"])

    def first(self, names: tuple[str, ...]) -> Any:
        """The value of the first of these names that it has."""
        return next((self.attributes[name] for name in names if self.attributes.get(name) not in (None, "")), None)

    @property
    def kind(self) -> str:
        """Which call it is of, in our words; empty when it is of none."""
        operation = str(self.attributes.get(genai.OPERATION) or "")
        if operation in genai.INFERENCES:
            return _KINDS.get(operation, operation)
        inference = str(self.first(genai.OPENINFERENCE_KIND) or "")
        if inference in ("LLM", "EMBEDDING"):
            return _KINDS[inference]
        if not operation and not inference and self.first(genai.REQUEST_MODELS) and self.first(genai.PROVIDERS):
            return "chat"  # before there were operation names
        return ""

    @property
    def is_wait(self) -> bool:
        return genai.WAIT_REASON in self.attributes

    @property
    def profile(self) -> str:
        return str(self.first((genai.PROFILE, *genai.PROVIDERS)) or self.service or "unknown")

    @property
    def model(self) -> str | None:
        found = self.first((*genai.RESPONSE_MODELS, *genai.REQUEST_MODELS))
        return None if found is None else str(found)

    @property
    def latency_ms(self) -> float | None:
        return (self.end_us - self.start_us) / 1000 if self.end_us >= self.start_us else None

    @property
    def failure(self) -> tuple[str | None, str | None]:
        """Code and reason, where it failed."""
        own = self.attributes.get(genai.CODE)
        kind = str(self.first(genai.ERROR_TYPES) or "")
        if not self.is_error and not own and not kind:
            return None, None
        if own:
            return str(own), str(self.attributes.get(genai.REASON) or "") or None
        return failure(number(self.first(genai.STATUSES)), kind, self.message)

    @property
    def outcome(self) -> str:
        told = str(self.attributes.get(genai.OUTCOME) or "")
        if told in ("ok", "error", "refused", "cancelled", "interrupted"):
            return told
        code, _ = self.failure
        return "ok" if code is None else "cancelled" if code == "Cancelled" else "error"


def _take_spans(spans: list[_Span], taker: Taker) -> None:
    by_id = {(span.trace_id, span.span_id): span for span in spans}
    tops: dict[tuple[str, str], list[_Span]] = {}
    waits: list[tuple[_Span, _Span | None]] = []
    for span in spans:
        top = _top(span, by_id)
        if span.is_wait:
            waits.append((span, top))
        elif span.kind:
            found = tops.setdefault((top.trace_id, top.span_id), []) if top is not None else []
            if span is not top:
                found.append(span)
        taker.line(KIND)
    ids: dict[tuple[str, str], int] = {}
    for key in sorted(tops, key=lambda key: by_id[key].start_us):
        ids[key] = _take_call(by_id[key], sorted(tops[key], key=lambda span: span.start_us), taker)
    for span, top in waits:
        taker.add(
            LimitEvent(
                limit_event_id=taker.key("limit_event", span.start_us),
                at=span.start_us,
                tier="profile",
                limit_key=span.profile,
                resource="requests",
                decision="wait",
                retry_after_s=(span.latency_ms or 0.0) / 1000,
                operation_id=ids.get((top.trace_id, top.span_id)) if top is not None else None,
            )
        )


def _top(span: _Span, by_id: dict[tuple[str, str], _Span]) -> _Span | None:
    """The outermost call that a span is within; itself when it is one and is within none."""
    found = span if span.kind else None
    seen = {span.span_id}
    above = by_id.get((span.trace_id, span.parent_id))
    while above is not None and above.span_id not in seen:
        seen.add(above.span_id)
        if above.kind:
            found = above
        above = by_id.get((above.trace_id, above.parent_id))
    return found


def _take_call(span: _Span, inner: list[_Span], taker: Taker) -> int:
    operation_id = taker.key("operation", span.start_us)
    attempts = inner or [span]
    code, reason = span.failure
    answered = next((one for one in reversed(attempts) if one.outcome == "ok"), None)
    taker.add(
        Operation(
            operation_id=operation_id,
            at=span.start_us,
            kind=span.kind,
            requested_model=_text(span.first(genai.REQUEST_MODELS)),
            profile=(answered or span).profile if span.outcome == "ok" else None,
            model=span.model,
            outcome=span.outcome,  # type: ignore[arg-type]  # of the closed set
            code=code,
            attempts=number(span.attributes.get(genai.ATTEMPTS)) or len(attempts),
            latency_ms=span.latency_ms,
            input_tokens=_input_tokens(span),
            output_tokens=number(span.first(genai.OUTPUT_TOKENS)),
            cached_tokens=number(span.first(genai.CACHED_TOKENS)),
            reasoning_tokens=number(span.first(genai.REASONING_TOKENS)),
            cost_usd=amount(span.first(genai.COSTS)),
            stop_reason=_first_text(span.first(genai.FINISHES)),
            streamed=span.attributes.get(genai.STREAM) is True,
            user_name=_text(span.first(genai.USERS)),
            caller=span.service or KIND,
            message=span.message or None,
            asked=",".join(dict.fromkeys(one.profile for one in attempts)),
            trace_id=span.trace_id or None,
            parent_span_id=span.parent_id or None,
        )
    )
    for seq, one in enumerate(attempts, 1):
        its_code, its_reason = one.failure
        first = amount(one.first(genai.FIRST_CHUNKS))
        taker.add(
            Attempt(
                attempt_id=taker.key("attempt", one.start_us),
                operation_id=operation_id,
                seq=seq,
                at=one.start_us,
                profile=one.profile,
                model=one.model,
                outcome=one.outcome,  # type: ignore[arg-type]
                reason=its_reason if its_code else "answered",
                status=number(one.first(genai.STATUSES)),
                code=its_code,
                first_byte_ms=None if first is None else first * 1000,
                latency_ms=one.latency_ms,
                input_tokens=_input_tokens(one),
                output_tokens=number(one.first(genai.OUTPUT_TOKENS)),
                cached_tokens=number(one.first(genai.CACHED_TOKENS)),
                cost_usd=amount(one.first(genai.COSTS)),
                stop_reason=_first_text(one.first(genai.FINISHES)),
                cause=str(one.attributes.get(genai.CAUSE) or ("first" if seq == 1 else "retry")),
                request_id=_text(one.first(genai.RESPONSE_IDS)),
                message=one.message or None,
            )
        )
        if its_code and one is not span:
            _take_error(one, its_code, its_reason, operation_id, taker)
    if code:
        _take_error(span, code, reason, operation_id, taker)
    return operation_id


def _take_error(span: _Span, code: str, reason: str | None, operation_id: int, taker: Taker) -> None:
    severity, retryable = facts(code)
    at_us = max(span.start_us, span.end_us)
    taker.add(
        ErrorEvent(
            error_id=taker.key("error_event", at_us),
            at=at_us,
            source="providers",
            code=code,
            severity=severity,  # type: ignore[arg-type]
            retryable=retryable,
            message=span.message or str(span.first(genai.ERROR_TYPES) or span.name),
            profile=span.profile,
            operation_id=operation_id,
            reason=reason,
        )
    )


def _take_log(record: dict[str, Any], service: str, scope: str, taker: Taker) -> None:
    try:
        at_us = int(record.get("timeUnixNano") or record.get("observedTimeUnixNano") or 0) // 1000
        level = int(record.get("severityNumber") or 9)
    except (TypeError, ValueError):
        taker.not_understood(f"a log record without a time: {str(record)[:160]}")
        return
    given = _attributes(record.get("attributes"))
    body = _value(record.get("body") or {})
    name = str(record.get("eventName") or given.get("event.name") or "")
    if name.startswith("gen_ai.") and "exception" not in name:
        body = name  # its content is a prompt or an answer
    severity = next((word for least, word in _SEVERITIES if level >= least), "info")
    told = str(given.get("exception.message") or body or name)
    kind = str(given.get("exception.type") or given.get("error.type") or "")
    taker.add(
        ImportedLog(
            imported_log_id=taker.key("imported_log", at_us),
            at=at_us,
            origin=service,
            severity=severity,
            logger=scope,
            message=f"{kind}: {told}" if kind else told,
        )
    )
    taker.line(KIND)
    if severity not in ("warning", "error"):
        return
    code, reason = failure(number(given.get("http.response.status_code")), kind, told)
    if code == UNCLASSIFIED and severity != "error":
        return
    its_severity, retryable = facts(code)
    taker.add(
        ErrorEvent(
            error_id=taker.key("error_event", at_us),
            at=at_us,
            source=service,
            code=code,
            severity=its_severity,  # type: ignore[arg-type]
            retryable=retryable,
            message=told,
            reason=reason,
        )
    )


def _input_tokens(span: _Span) -> int | None:
    return number(span.first(genai.INPUT_TOKENS))


def _attributes(given: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for pair in given or ():
        if isinstance(pair, dict) and isinstance(pair.get("key"), str):
            found[pair["key"]] = _value(pair.get("value") or {})
    return found


def _value(told: Any) -> Any:
    """An `AnyValue`."""
    if not isinstance(told, dict):
        return told
    for name, value in told.items():
        match name:
            case "stringValue" | "string_value" | "boolValue" | "bool_value" | "doubleValue" | "double_value":
                return value
            case "intValue" | "int_value":
                return int(value)
            case "arrayValue" | "array_value":
                return [_value(one) for one in (value or {}).get("values") or ()]
    return None


def _id(value: Any) -> str:
    return str(value or "").lower()


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _first_text(value: Any) -> str | None:
    found = value[0] if isinstance(value, list) and value else value
    return None if found in (None, [], "") else str(found)
