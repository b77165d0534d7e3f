"""Closed sets of words that cross rooms."""

from __future__ import annotations

from typing import Literal

Outcome = Literal["ok", "error", "refused", "cancelled", "interrupted"]
"""How an operation or attempt ended. `refused`: by our own limiter or breaker; `interrupted`: the daemon died."""
BreakerState = Literal["closed", "open", "half_open"]
Tier = Literal["global", "user", "profile"]
Resource = Literal["requests", "tokens"]
Decision = Literal["wait", "refused", "penalised", "corrected"]
PtyState = Literal["running", "exited", "killed", "refused", "lost"]
ProviderKind = Literal["anthropic", "openai", "openrouter", "local"]
