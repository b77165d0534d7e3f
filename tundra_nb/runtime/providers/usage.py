"""Token counts, normalised: input includes cached tokens, output includes reasoning tokens, whoever counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from tundra_nb.types import Usage

from .lenient import amount, count

if TYPE_CHECKING:
    from .draft import Draft


def from_openai(raw: Any) -> Usage:
    """Read the `usage` of the chat-completions form. Anything missing or not a count is None."""
    if not isinstance(raw, dict):
        return Usage()
    if raw.get("prompt_tokens") is None and raw.get("completion_tokens") is None:
        return _by_other_names(raw)
    given, written = count(raw.get("prompt_tokens")), count(raw.get("completion_tokens"))
    prompt, completion = raw.get("prompt_tokens_details"), raw.get("completion_tokens_details")
    reasoning = _count(completion, "reasoning_tokens") if completion else None
    if reasoning and given is not None and written is not None:
        beside = given + written + reasoning
        written += reasoning if count(raw.get("total_tokens")) == beside else 0  # some servers (xAI) count it apart
    cached = _count(prompt, "cached_tokens") if prompt else None
    if cached is None:
        cached = count(raw.get("prompt_cache_hit_tokens"))  # DeepSeek
    if cached is None:
        cached = count(raw.get("cached_tokens"))  # Moonshot
    return Usage(
        input_tokens=given,
        output_tokens=written,
        cached_tokens=cached,
        cache_write_tokens=_count(prompt, "cache_write_tokens") if prompt else None,
        reasoning_tokens=reasoning,
    )


def from_anthropic(raw: Any) -> Usage:
    """Read the `usage` of the Messages form, whose `input_tokens` leave out what was read from and written to cache."""
    if not isinstance(raw, dict):
        return Usage()
    if "input_tokens" not in raw and raw.get("completion_tokens") is not None:
        return from_openai(raw)  # a gateway between left the names of the other form
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
    return amount(raw.get("cost")) if isinstance(raw, dict) else None


def count_chunk(draft: Draft, told: dict[str, Any]) -> None:
    """Take the counts of one chunk of the chat-completions form, wherever it has them."""
    if counts := told.get("usage"):
        draft.count(counts)
    if isinstance(groq := told.get("x_groq"), dict):
        draft.count(groq.get("usage"))
    if (cached := told.get("cached_tokens")) is not None:
        draft.count({"cached_tokens": cached})


def count_choice(draft: Draft, choice: dict[str, Any]) -> None:
    """The same for what stands beside a choice (Moonshot)."""
    if counts := choice.get("usage"):
        draft.count(counts)


def _by_other_names(raw: dict[str, Any]) -> Usage:
    """Counts under the names of the Messages form or of Responses, which say `input_tokens` both."""
    details = raw.get("input_tokens_details")
    if not isinstance(details, dict):
        told = from_anthropic(raw)
        if told.cached_tokens is None and (cached := _count(raw, "cached_tokens")) is not None:
            return msgspec.structs.replace(told, cached_tokens=cached)
        return told
    return Usage(
        input_tokens=_count(raw, "input_tokens"),
        output_tokens=_count(raw, "output_tokens"),
        cached_tokens=_count(details, "cached_tokens"),
        reasoning_tokens=_count(raw.get("output_tokens_details"), "reasoning_tokens"),
    )


def _count(raw: Any, name: str) -> int | None:
    return count(raw.get(name)) if isinstance(raw, dict) else None
