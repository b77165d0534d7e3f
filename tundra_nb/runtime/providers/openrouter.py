"""OpenRouter: the chat-completions form, with its own errors, headers, routing fields and cost.

Its errors wrap those of the provider behind it (`metadata.raw`), which are read too: a full context reported by
Anthropic behind OpenRouter is the same error as one reported by Anthropic. Routing fields (`provider`, `models`,
`route`, `transforms`, `plugins` …) are given in `Ask.extra`.
"""

from __future__ import annotations

from typing import Any

from tundra_nb.errors import ProviderError, Unsupported
from tundra_nb.types import Ask

from . import classify, listing
from .contract import ModelInfo, Target
from .lenient import NotJsonError, loads
from .openai import OpenAIFormat


class OpenRouterFormat(OpenAIFormat):
    """The chat-completions form as OpenRouter speaks it."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.check_url = f"{target.base_url}/key"  # the model list is public and proves nothing

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        return (*super().headers, ("x-title", "tundra_nb"))

    def fields(self, ask: Ask, model: str) -> dict[str, Any]:
        return {"usage": {"include": True}, **super().fields(ask, model)}

    def error(self, model: str, status: int, retry_after: float | None, body: bytes) -> ProviderError:
        fault = self.fault_in(body)
        if fault is not None and "availability:final" in fault.words and status in (404, 503):
            # nobody behind OpenRouter can ever take this request as it stands: asking again is no use
            detail = classify.clip(fault.message, self.target.key)
            return Unsupported(profile=self.target.profile, kind="model", model=model, detail=detail, status=status)
        return classify.answer_error(self.target, model, status, retry_after=retry_after, body=body, fault=fault)

    def fault_in(self, body: bytes) -> classify.ErrorBody | None:
        try:
            value = loads(body)
        except NotJsonError:
            return super().fault_in(body)
        return self.fault_of(value) or super().fault_in(body)

    def fault_of(self, value: Any) -> classify.ErrorBody | None:
        fault = super().fault_of(value)
        error = value.get("error") if isinstance(value, dict) else None
        if fault is None or not isinstance(error, dict):
            return fault
        words = set(fault.words)
        message = fault.message
        availability = error.get("availability")
        if isinstance(availability, dict):
            words |= {str(availability.get("code", "")).lower()}
            if availability.get("retryable") is False:
                words.add("availability:final")
        metadata = error.get("metadata")
        retry_after = fault.retry_after
        field = fault.field
        if isinstance(metadata, dict):
            words |= {
                word.lower()
                for name in ("error_type", "provider_code", "limit_source")
                if isinstance(word := metadata.get(name), str)
            }
            if metadata.get("reasons") or "flagged_input" in metadata:
                words.add("content_policy_violation")
                reasons = metadata.get("reasons")
                if isinstance(reasons, list):
                    message = f"{message} ({', '.join(str(reason) for reason in reasons)})"
            inner, told = _inner(metadata.get("raw"))
            if inner is not None:
                words |= inner.words
                retry_after = retry_after if retry_after is not None else inner.retry_after
                field = field or inner.field
            who = metadata.get("provider_name")
            if told:
                message = f"{who}: {told}" if isinstance(who, str) else told
            elif isinstance(who, str):
                message = f"{who}: {message}"
        return classify.ErrorBody(
            message=message, words=frozenset(words), field=field, status=fault.status, retry_after=retry_after
        )

    def models(self, body: bytes) -> list[ModelInfo]:
        return listing.read(self.target.profile, body, listing.from_openrouter)


def _inner(raw: Any) -> tuple[classify.ErrorBody | None, str]:
    """The fault of the provider behind, and its words."""
    value = raw
    if isinstance(raw, str):
        try:
            value = loads(raw.encode(errors="replace"))
        except NotJsonError:
            return None, raw
    fault = classify.read(value)
    return fault, fault.message if fault else raw if isinstance(raw, str) else ""
