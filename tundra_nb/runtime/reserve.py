"""What a call takes from the limiter: which buckets, and how many tokens it is reckoned to need."""

from __future__ import annotations

import math

import msgspec

from tundra_nb.runtime.caller import Caller
from tundra_nb.runtime.resilience.limiter import Limit
from tundra_nb.settings import ProfileSettings, Settings, TierSettings
from tundra_nb.types import Ask, Tier, Usage

DEFAULT_OUTPUT_TOKENS = 256
"""Output tokens reserved when the caller names no `max_tokens`; real usage settles the difference."""
BYTES_PER_TOKEN = 4
"""The usual estimate for text."""
MOST_TOKENS_PER_BYTE = 1
"""No tokenizer makes more tokens than there are bytes."""
FRAME_TOKENS = 1000
"""What a vendor adds to a prompt at most by itself: marks of turns, and the words that tell a model of its tools
(Anthropic's pricing page names up to 700)."""
MOST_CONTEXT_TOKENS = 1_000_000
"""Context assumed of a model that nobody tells it of: the largest sold in November 2026."""


def limits_for(settings: Settings, profile: ProfileSettings, caller: Caller) -> list[Limit]:
    """The buckets that a call of `caller` on `profile` goes through: global → user → profile, where switched on.

    `rpm` and `tpm` of a profile, or of a caller's token, stand in for their tier.
    """
    return [
        *_of_tier("global", "global", settings.limits.global_),
        *_own_or_tier("user", caller.limit_key, caller.rpm, caller.tpm, settings.limits.user),
        *_own_or_tier("profile", profile.name, profile.rpm, profile.tpm, settings.limits.profile),
    ]


def _own_or_tier(tier: Tier, key: str, rpm: float | None, tpm: float | None, values: TierSettings) -> list[Limit]:
    if rpm is None and tpm is None:
        return _of_tier(tier, key, values)
    limits = []
    if rpm is not None:
        limits.append(Limit(tier, key, "requests", rpm / 60, max(rpm, 1.0)))
    if tpm is not None:
        limits.append(Limit(tier, key, "tokens", tpm / 60, tpm))
    return limits


def _of_tier(tier: Tier, key: str, values: TierSettings) -> list[Limit]:
    if not values.enabled:
        return []
    limits = [Limit(tier, key, "requests", values.rate, values.burst)]
    if values.tokens_per_minute is not None:
        limits.append(Limit(tier, key, "tokens", values.tokens_per_minute / 60, values.tokens_per_minute))
    return limits


def estimate_tokens(ask: Ask) -> int:
    """Tokens to reserve: a quarter of the UTF-8 bytes of the messages, rounded up, and the output asked for."""
    size = 0
    rest = []
    for message in ask.messages:
        content = message.get("content")
        if isinstance(content, str):
            size += len(content) if content.isascii() else len(content.encode())
        elif content is not None:
            rest.append(content)
    if rest or ask.tools:
        size += len(msgspec.json.encode([rest, ask.tools]))
    return math.ceil(size / BYTES_PER_TOKEN) + (ask.max_tokens or DEFAULT_OUTPUT_TOKENS)


def used_tokens(usage: Usage, reserved: int) -> int:
    """What to settle with: the real usage, or what was reserved where the provider does not tell."""
    if usage.input_tokens is None and usage.output_tokens is None:
        return reserved
    return (usage.input_tokens or 0) + (usage.output_tokens or 0)
