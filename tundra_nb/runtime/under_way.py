"""Calls under way: whom each asks now, and what it waits for. For those who look while nothing comes."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

Doing = Literal["waiting for the limiter", "asking", "answering", "pausing before a retry", "waiting to be let in"]


@dataclasses.dataclass
class UnderWay:
    """One call. `began` is of the monotonic clock, `at` in µs since the epoch."""

    operation_id: int
    at: int
    began: float
    kind: str
    user: str
    requested_model: str | None
    profile: str | None = None
    """Whom it asks now; None before anybody is."""
    doing: Doing = "waiting to be let in"
    tried: list[str] = dataclasses.field(default_factory=list)
    """Whom it has asked in vain: `name: reason`."""

    def card(self, now: float) -> dict[str, Any]:
        """The call at one moment of the monotonic clock."""
        return {
            "operation_id": str(self.operation_id),
            "at": self.at,
            "kind": self.kind,
            "profile": self.profile,
            "doing": self.doing,
            "age_s": round(now - self.began, 3),
            "user_name": self.user,
            "requested_model": self.requested_model,
            "tried": list(self.tried),
        }
