"""Answers and errors in the words of OpenAI's chat completions, Anthropic's messages, and OpenRouter.

Written against the vendors' documented forms, not against our own adapters, so that adapters can be tested with it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

Dialect = Literal["openai", "anthropic", "openrouter"]

INPUT_TOKENS: Final = 8
"""What every scripted answer claims to have read; each piece of its text counts as one output token."""

_ANTHROPIC_TYPES: Final = {
    400: "invalid_request_error", 401: "authentication_error", 402: "billing_error", 403: "permission_error",
    404: "not_found_error", 409: "conflict_error", 413: "request_too_large", 422: "invalid_request_error",
    429: "rate_limit_error", 500: "api_error", 504: "timeout_error", 529: "overloaded_error",
}  # fmt: skip
_OPENAI_TYPES: Final = {
    401: ("invalid_request_error", "invalid_api_key"), 403: ("invalid_request_error", "unsupported_country"),
    404: ("invalid_request_error", "model_not_found"), 429: ("requests", "rate_limit_exceeded"),
}  # fmt: skip
_OPENROUTER_TYPES: Final = {
    400: "invalid_request", 401: "authentication", 402: "payment_required", 403: "permission_denied",
    404: "not_found", 408: "timeout", 413: "payload_too_large", 422: "unprocessable", 429: "rate_limit_exceeded",
    500: "server", 502: "provider_unavailable", 503: "provider_overloaded", 504: "timeout", 529: "provider_overloaded",
}  # fmt: skip


class Gist(msgspec.Struct):
    """The little that an answer depends on."""

    model: str = "scripted-1"
    stream: bool = False
    stream_options: dict[str, Any] | None = None


def dialect_of(path: str) -> Dialect:
    """By the last part of the path. OpenRouter cannot be told from OpenAI this way, and must be named."""
    return "anthropic" if path.endswith(("/messages", "/messages/count_tokens")) else "openai"


def event(data: Mapping[str, Any] | str, name: str = "") -> bytes:
    """One server-sent event."""
    text = data if isinstance(data, str) else msgspec.json.encode(data).decode()
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()


def answer(dialect: Dialect, model: str, pieces: Sequence[str], answer_id: str = "scripted") -> bytes:
    """A whole answer."""
    text, count = "".join(pieces), len(pieces)
    if dialect == "anthropic":
        return msgspec.json.encode(
            {
                "id": f"msg_{answer_id}",
                "type": "message",
                "role": "assistant",
                "model": model,
                "content": [{"type": "text", "text": text}],
                "stop_reason": "end_turn",
                "stop_sequence": None,
                "usage": {"input_tokens": INPUT_TOKENS, "output_tokens": count},
            }
        )
    return msgspec.json.encode(
        {
            "id": f"chatcmpl-{answer_id}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": model,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": _openai_usage(count),
        }
    )


def stream(
    dialect: Dialect, model: str, pieces: Sequence[str], *, usage: bool = True, answer_id: str = "scripted"
) -> list[bytes]:
    """A streamed answer: one element per event. `usage` is whether OpenAI's form tells it, which it does when asked."""
    if dialect == "anthropic":
        message: dict[str, Any] = {
            "id": f"msg_{answer_id}", "type": "message", "role": "assistant", "model": model, "content": [],
            "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": INPUT_TOKENS, "output_tokens": 1},
        }  # fmt: skip
        block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        end = {"stop_reason": "end_turn", "stop_sequence": None}
        return [
            event({"type": "message_start", "message": message}, "message_start"),
            event(block, "content_block_start"),
            event({"type": "ping"}, "ping"),
            *(
                event(
                    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}},
                    "content_block_delta",
                )
                for piece in pieces
            ),
            event({"type": "content_block_stop", "index": 0}, "content_block_stop"),
            event({"type": "message_delta", "delta": end, "usage": {"output_tokens": len(pieces)}}, "message_delta"),
            event({"type": "message_stop"}, "message_stop"),
        ]
    base = {
        "id": f"chatcmpl-{answer_id}",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": model,
    }

    def part(delta: Mapping[str, str], finish: str | None = None) -> bytes:
        return event({**base, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    events = [
        part({"role": "assistant", "content": ""}),
        *(part({"content": piece}) for piece in pieces),
        part({}, "stop"),
    ]
    if usage:
        events.append(event({**base, "choices": [], "usage": _openai_usage(len(pieces))}))
    return [*events, event("[DONE]")]


def models(dialect: Dialect, names: Sequence[str]) -> bytes:
    """The answer of `/v1/models`."""
    if dialect == "anthropic":
        data: list[dict[str, Any]] = [
            {"type": "model", "id": name, "display_name": name, "created_at": "2026-01-01T00:00:00Z"} for name in names
        ]
        ends = {"has_more": False, "first_id": names[0] if names else None, "last_id": names[-1] if names else None}
        return msgspec.json.encode({"data": data, **ends})
    data = [{"id": name, "object": "model", "created": 1_767_225_600, "owned_by": "scripted"} for name in names]
    return msgspec.json.encode({"object": "list", "data": data})


def error(
    dialect: Dialect,
    status: int,
    message: str = "",
    *,
    kind: str | None = None,
    code: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> bytes:
    """An error body. `kind` is the vendor's word for it (`type`, for OpenRouter `error_type`), `code` its finer one."""
    message = message or f"scripted error {status}"
    if dialect == "anthropic":
        facts: dict[str, Any] = {"type": kind or _ANTHROPIC_TYPES.get(status, "api_error"), "message": message}
        if code:
            facts["details"] = {"error_code": code}
        return msgspec.json.encode({"type": "error", "error": facts, "request_id": "req_scripted"})
    if dialect == "openrouter":
        more = {"error_type": kind or _OPENROUTER_TYPES.get(status, "unmapped"), **(metadata or {})}
        return msgspec.json.encode({"error": {"code": status, "message": message, "metadata": more}})
    default_kind, default_code = _OPENAI_TYPES.get(
        status, ("server_error" if status >= 500 else "invalid_request_error", None)
    )
    facts = {"message": message, "type": kind or default_kind, "param": None, "code": code or default_code}
    return msgspec.json.encode({"error": facts})


def error_event(dialect: Dialect, status: int, message: str = "", model: str = "scripted-1") -> list[bytes]:
    """How an error looks inside a stream that began with status 200; the stream ends after it."""
    body = error(dialect, status, message)
    if dialect == "anthropic":
        return [event(body.decode(), "error")]
    if dialect == "openrouter":
        facts = msgspec.json.decode(body)
        choice = {"index": 0, "delta": {"content": ""}, "finish_reason": "error"}
        base = {"id": "gen-scripted", "object": "chat.completion.chunk", "model": model}
        return [event({**base, **facts, "choices": [choice]})]
    return [event(body.decode())]


def _openai_usage(output: int) -> dict[str, int]:
    return {"prompt_tokens": INPUT_TOKENS, "completion_tokens": output, "total_tokens": INPUT_TOKENS + output}
