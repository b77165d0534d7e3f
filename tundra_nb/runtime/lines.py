"""Log lines of an outage: one per failed attempt, parked profile, breaker move and failover.

Each carries the ids of its operation and attempt as fields, so that a line leads to its rows and back. What our own
limiter or breaker refuses is a line at debug only: an open breaker refuses thousands of calls, and its move is told.
"""

from __future__ import annotations

import logging

from tundra_nb import errors
from tundra_nb.runtime.resilience.breaker import BreakerChange
from tundra_nb.types import Outcome

_providers = logging.getLogger("tundra.providers")
_router = logging.getLogger("tundra.router")
_breaker = logging.getLogger("tundra.breaker")
_limiter = logging.getLogger("tundra.limiter")


def _ids(operation_id: int | None, attempt_id: int | None) -> dict[str, int]:
    return {
        name: value for name, value in (("operation_id", operation_id), ("attempt_id", attempt_id)) if value is not None
    }


def attempt_failed(
    error: errors.TundraError, outcome: Outcome, operation_id: int, attempt_id: int, profile: str
) -> None:
    """An attempt has ended without an answer, or was refused before anything was sent."""
    fields = _ids(operation_id, attempt_id) | {"profile": profile, "code": error.code, "reason": error.reason}
    if outcome != "refused":
        _providers.warning("attempt failed: %s", error, extra=fields)
    else:
        (_limiter if isinstance(error, errors.LimitExceeded) else _breaker).debug("refused: %s", error, extra=fields)


def failed_over(profile: str, cause: errors.TundraError, operation_id: int, attempt_id: int) -> None:
    """The next candidate is asked."""
    fields = _ids(operation_id, attempt_id) | {"profile": profile}
    _router.warning("failing over to %s: %s", profile, cause, extra=fields)


def breaker_moved(change: BreakerChange, operation_id: int | None, attempt_id: int | None) -> None:
    """A breaker has changed its state."""
    fields = _ids(operation_id, attempt_id) | {"profile": change.name, "reason": change.reason}
    level = logging.WARNING if change.new == "open" else logging.INFO
    until = f", probed again in {change.open_for:g} s" if change.open_for else ""
    _breaker.log(level, "breaker of %s: %s → %s%s", change.name, change.old, change.new, until, extra=fields)


def parked(
    profile: str, reason: str, error: errors.TundraError | None, operation_id: int | None, attempt_id: int | None
) -> None:
    """A profile was taken out because of an error or, with None, taken back in."""
    fields = _ids(operation_id, attempt_id) | {"profile": profile, "reason": reason}
    if error is not None:
        _router.error("profile %s is parked: %s", profile, error, extra=fields)
    else:
        _router.info("profile %s is taken back in", profile, extra=fields)
