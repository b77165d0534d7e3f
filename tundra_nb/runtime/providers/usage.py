"""Token counts, normalised: input includes cached tokens, output includes reasoning tokens, whoever counted."""

from __future__ import annotations

from typing import Any

from tundra_nb.types import Usage


def from_openai(raw: Any) -> Usage:
    """Read the `usage` of the chat-completions form. Anything missing or not a count is None."""
    if not isinstance(raw, dict):
        return Usage()
    given = _count(raw, "prompt_tokens")
    written = _count(raw, "completion_tokens")
    prompt = raw.get("prompt_tokens_details")
    completion = raw.get("completion_tokens_details")
    reasoning = _count(completion, "reasoning_tokens")
    total = _count(raw, "total_tokens")
    if reasoning and given is not None and written is not None and total == given + written + reasoning:
        written += reasoning  # some servers (xAI) count reasoning beside the completion
    cached = _count(prompt, "cached_tokens")
    if cached is None:
        cached = _count(raw, "prompt_cache_hit_tokens")  # DeepSeek
    return Usage(
        input_tokens=given,
        output_tokens=written,
        cached_tokens=cached,
        cache_write_tokens=_count(prompt, "cache_write_tokens"),
        reasoning_tokens=reasoning,
    )


def from_anthropic(raw: Any) -> Usage:
    """Read the `usage` of the Messages form, whose `input_tokens` leave out what was read from and written to cache."""
    if not isinstance(raw, dict):
        return Usage()
    fresh = _count(raw, "input_tokens")
    cached = _count(raw, "cache_read_input_tokens")
    stored = _count(raw, "cache_creation_input_tokens")
    return Usage(
        input_tokens=None if fresh is None else fresh + (cached or 0) + (stored or 0),
        output_tokens=_count(raw, "output_tokens"),
        cached_tokens=cached,
        cache_write_tokens=stored,
        reasoning_tokens=_count(raw.get("output_tokens_details"), "thinking_tokens"),
    )


def cost_told(raw: Any) -> float | None:
    """The cost in USD that OpenRouter puts into its usage."""
    cost = raw.get("cost") if isinstance(raw, dict) else None
    return float(cost) if isinstance(cost, int | float) and not isinstance(cost, bool) and cost >= 0 else None


def _count(raw: Any, name: str) -> int | None:
    value = raw.get(name) if isinstance(raw, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1 << 53:
        return None
    return int(value)
