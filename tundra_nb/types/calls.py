"""Calls: what is asked of a model, and what comes back."""

from __future__ import annotations

from typing import Any

import msgspec


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Tokens of one answer as the provider counted them. Input includes cached, output includes reasoning tokens."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """A tool that the model wants called. `arguments` is the JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str


class Ask(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What to ask: the body of `POST /api/operations`.

    `messages` are in the OpenAI chat form (`role`, `content` as text or parts, `tool_calls`, `tool_call_id`); adapters
    translate. `profile` is asked first, the others after it unless `failover` is False.
    """

    messages: list[dict[str, Any]]
    profile: str | None = None
    model: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    json_mode: bool = False
    json_schema: dict[str, Any] | None = None
    """The form that the answer must have: `name`, `schema`, and perhaps `strict`."""
    stop: list[str] | None = None
    top_p: float | None = None
    parallel_tool_calls: bool | None = None
    """False: at most one tool call per answer."""
    effort: str | None = None
    """How much a model that reasons is to reason (low, medium, high …), in the vendors' own words."""
    failover: bool = True
    stream: bool = False
    caller: str = "python"
    run_id: str | None = None
    """The run of an agent that this call is part of; decimal text."""
    record: bool = False
    """Keep request and answer of this call, masked, whatever `record.content` says."""
    extra: dict[str, Any] | None = None
    """Further fields of the provider's own body, passed through (OpenRouter's routing fields, seeds)."""


class Reply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came back. `str(reply)` is its text."""

    operation_id: str
    """Decimal text, because JavaScript rounds large integers."""
    text: str
    reasoning: str = ""
    """What the model showed of its reasoning, where it did."""
    profile: str
    model: str
    usage: Usage
    attempts: int
    cost_usd: float | None = None
    price_at: str | None = None
    stop_reason: str | None = None
    tool_calls: list[ToolCall] = []
    requested_model: str | None = None
    waited_ms: float = 0.0
    latency_ms: float = 0.0
    request_id: str | None = None
    remarks: list[str] = []
    """What a reader should know beside the text: it is empty, a filter ended it, a field was not sent."""
    failed_over_from: list[str] = []
    """Profiles that were tried before the one that answered, with the reason: `name: reason`."""

    def __str__(self) -> str:
        return self.text
