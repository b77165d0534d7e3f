"""LiteLLM's records: `StandardLoggingPayload`, one JSON object per call, as its callbacks write them to files, S3, GCS.

Prompts and answers in them are not taken over. Its log lines in JSON (`json_logs`) are read by `tracing`, as lines.
"""

from __future__ import annotations

from typing import Any

from tundra_nb.runtime.sources.taking import Taker
from tundra_nb.types import Attempt, ErrorEvent, Operation

from .fields import amount, number, time_us
from .outcomes import facts, failure

KIND = "litellm"
_DIALECTS = {"acompletion": "chat", "completion": "chat", "aembedding": "embeddings", "embedding": "embeddings"}


def read(told: dict[str, Any], taker: Taker) -> bool:
    """One record; False when it is none of these."""
    if isinstance(told.get("standard_logging_object"), dict):
        told = told["standard_logging_object"]
    if "startTime" not in told or not {"model", "call_type"} & told.keys():
        return False
    at_us, end_us = time_us(told["startTime"]), time_us(told.get("endTime"))
    if at_us is None:
        return False
    first_us = time_us(told.get("completionStartTime"))
    is_ok = told.get("status", "success") == "success"
    information = told.get("error_information") or {}
    metadata = told.get("metadata") or {}
    profile = str(told.get("custom_llm_provider") or information.get("llm_provider") or "unknown")
    model = _text(told.get("model"))
    message = _text(told.get("error_str") or information.get("error_message"))
    code = reason = status = None
    if not is_ok:
        status = number(information.get("error_code"))
        code, reason = failure(status, str(information.get("error_class") or ""), message or "")
    operation_id = taker.key("operation", at_us)
    latency = (end_us - at_us) / 1000 if end_us is not None and end_us >= at_us else None
    cost = amount(told.get("response_cost")) if is_ok else None
    shared = {
        "outcome": "ok" if is_ok else "error",
        "code": code,
        "latency_ms": latency,
        "input_tokens": number(told.get("prompt_tokens")) if is_ok else None,
        "output_tokens": number(told.get("completion_tokens")) if is_ok else None,
        "cost_usd": cost,
        "message": message,
    }
    taker.add(
        Operation(
            operation_id=operation_id,
            at=at_us,
            kind=_DIALECTS.get(str(told.get("call_type")), str(told.get("call_type") or "chat")),
            requested_model=_text(told.get("model_group")) or model,
            profile=profile if is_ok else None,
            model=model,
            attempts=1,
            streamed=bool(told.get("stream")),
            user_name=_text(metadata.get("user_api_key_alias") or told.get("end_user")),
            caller="litellm",
            asked=profile,
            trace_id=_text(told.get("trace_id")),
            **shared,  # type: ignore[arg-type]  # by name
        )
    )
    taker.add(
        Attempt(
            attempt_id=taker.key("attempt", at_us),
            operation_id=operation_id,
            seq=1,
            at=at_us,
            profile=profile,
            model=model,
            reason=reason if not is_ok else "answered",
            status=status if not is_ok else 200,
            first_byte_ms=(first_us - at_us) / 1000 if first_us is not None and first_us >= at_us and is_ok else None,
            cause="first",
            request_id=_text(told.get("id")),
            **shared,  # type: ignore[arg-type]
        )
    )
    if code is not None:
        severity, retryable = facts(code)
        taker.add(
            ErrorEvent(
                error_id=taker.key("error_event", end_us or at_us),
                at=end_us or at_us,
                source="providers",
                code=code,
                severity=severity,  # type: ignore[arg-type]
                retryable=retryable,
                message=message or str(information.get("error_class") or "failed"),
                profile=profile,
                operation_id=operation_id,
                reason=reason,
            )
        )
    taker.line(KIND)
    return True


def _text(value: Any) -> str | None:
    return str(value) if isinstance(value, str | int | float) and value != "" else None
