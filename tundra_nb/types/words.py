"""Closed sets of words that cross rooms."""

from __future__ import annotations

from typing import Literal

Outcome = Literal["ok", "error", "refused", "cancelled", "interrupted"]
"""How an operation or attempt ended. `refused`: by our own limiter or breaker; `interrupted`: the daemon died."""
BreakerState = Literal["closed", "open", "half_open"]
Tier = Literal["global", "user", "profile"]
Resource = Literal["requests", "tokens"]
Decision = Literal["wait", "refused", "penalised", "corrected", "away", "back"]
PtyState = Literal["running", "exited", "killed", "refused", "lost"]
ConnectionState = Literal["establishing", "active", "idle", "lost", "ended"]
"""State of a viewer's connection to a PTY. `idle`: nothing has moved for long; `lost`: gone without a goodbye, it may
be resumed; `ended`: for good."""
IncidentState = Literal["open", "closed"]
RunOutcome = Literal["ok", "error", "cancelled", "interrupted"]
"""How an agent's run ended. `interrupted`: the process that ran it died."""
ProviderKind = Literal["anthropic", "openai", "openrouter", "local"]
