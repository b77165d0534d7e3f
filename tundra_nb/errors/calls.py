"""What ends a call beside its attempts: our own limiter and breaker, no candidate left, the caller gone."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from . import spelling
from .base import Severity, TundraError
from .spans import span


@dataclasses.dataclass(eq=False, kw_only=True)
class LimitExceeded(TundraError):
    """Our limiter refused. `retry_after` is exact, in seconds; None = this cost can never be admitted."""

    tier: str
    key: str
    resource: str
    requested: float
    retry_after: float | None
    limit: float = 0.0
    code: ClassVar[str] = "RateLimitError::Exceeded"
    http_status: ClassVar[int] = 429
    retryable: ClassVar[bool] = True
    fails_over: ClassVar[bool] = True

    @property
    def message(self) -> str:
        whose = self.tier if self.key in ("", self.tier) else f"{self.tier} {self.key!r}"
        if self.retry_after is None:
            asked = f"{self.requested:g} {self.resource} at once"
            return f"{asked} is more than the {whose} limit ever admits ({self.limit:g})"
        return f"the {whose} limit of {self.resource} is reached, again in {span(self.retry_after)}"

    @property
    def hint(self) -> str:
        name = f"`limits.{self.tier}`" if self.tier != "profile" else "`rpm`/`tpm` of the profile"
        if self.retry_after is None:
            return f"Raise the burst in {name}, or ask for less (shorter prompt, smaller max_tokens)."
        return f"`%tundra limits` shows the buckets; raise {name} if this is normal load."


@dataclasses.dataclass(eq=False, kw_only=True)
class BreakerOpen(TundraError):
    """The breaker of the profile is open. `retry_after` seconds until it lets a probe through."""

    profile: str
    retry_after: float | None = None
    cause: str = ""
    code: ClassVar[str] = "CircuitBreakerError::Open"
    severity: ClassVar[Severity] = "high"
    http_status: ClassVar[int] = 503
    retryable: ClassVar[bool] = True
    fails_over: ClassVar[bool] = True

    @property
    def message(self) -> str:
        told = f"{self.profile}: breaker open"
        if self.retry_after is None:  # a probe is under way
            return f"{told}, {self.cause}" if self.cause else told
        return f"{told}, next probe in {span(self.retry_after)}" + (f" (after {self.cause})" if self.cause else "")

    @property
    def hint(self) -> str:
        return f"It closes by itself when probes succeed; `%tundra breakers reset {self.profile}` closes it now."


@dataclasses.dataclass(eq=False, kw_only=True)
class AllProvidersExhausted(TundraError):
    """Every candidate failed. `causes` is the wire form of one error per profile, in the order tried."""

    causes: list[dict[str, Any]]
    retry_after: float | None = None
    code: ClassVar[str] = "AllProvidersExhausted"
    severity: ClassVar[Severity] = "high"
    http_status: ClassVar[int] = 503
    retryable: ClassVar[bool] = True

    @property
    def message(self) -> str:
        if not self.causes:
            return "no profile can be asked"
        told = "; ".join(f"{cause['code']} {cause['message']}" for cause in self.causes)
        return f"no profile answered: {told}"

    @property
    def hint(self) -> str:
        if len(self.causes) == 1:
            return str(self.causes[0]["hint"])
        commands = [spelling.commands(str(cause["hint"])) for cause in self.causes]
        rechecks = [next(filter(_rechecks, named), "") for named in commands]
        if rechecks and all(rechecks):
            return (
                f"All are parked: `%tundra status` shows why; that mended, `%tundra {rechecks[0]}` takes the first of"
                " them back in."
            )
        return "`%tundra why last` shows each attempt; `%tundra status` shows parked and cooling profiles."


def _rechecks(command: str) -> bool:
    return command.startswith("providers recheck ")


@dataclasses.dataclass(eq=False, kw_only=True)
class TokenRefused(TundraError):
    """A program came to the gateway without a token that serves. `kind`: missing, unknown, revoked, expired, url."""

    kind: str
    name: str = ""
    """Name of the token, where it was one of ours."""
    code: ClassVar[str] = "TokenRefused"
    severity: ClassVar[Severity] = "low"
    http_status: ClassVar[int] = 401

    @property
    def message(self) -> str:
        return {
            "missing": "this address needs a gateway token, and none was sent",
            "unknown": "the token that was sent is none of this gateway's",
            "revoked": f"the token {self.name!r} has been revoked",
            "expired": f"the token {self.name!r} has expired",
            "url": "a token in the address is not accepted: addresses end up in logs",
        }.get(self.kind, "the token was refused")

    @property
    def hint(self) -> str:
        if self.kind == "url":
            return "Send it in a header, `x-api-key` or `Authorization`; make a new one, this one may have been logged."
        return "`tundra token new NAME` makes one; give it to the program as its API key."

    @property
    def reason(self) -> str:
        return f"token_{self.kind}"


@dataclasses.dataclass(eq=False, kw_only=True)
class BudgetSpent(TundraError):
    """The budget of a gateway token does not cover a call. Amounts in USD; `retry_after` seconds until it is new."""

    name: str
    profile: str
    budget: float
    spent: float
    """Settled and reserved since 00:00 UTC."""
    needed: float | None
    """Most that the call can cost; None: its model has no price, so nobody can say."""
    retry_after: float | None = None
    code: ClassVar[str] = "BudgetSpent"
    http_status: ClassVar[int] = 429
    fails_over: ClassVar[bool] = True

    @property
    def message(self) -> str:
        if self.needed is None:
            return f"{self.profile}: the model has no known price, and token {self.name!r} has a budget"
        return (
            f"{self.profile}: the call may cost {self.needed:.4g} USD, and of the {self.budget:g} USD a day of token "
            f"{self.name!r} {self.spent:.4g} are spent or reserved"
        )

    @property
    def hint(self) -> str:
        if self.needed is None:
            return "Ask a model with a price, or use a token without `--usd-per-day`."
        return "Ask for less (smaller max_tokens), wait until 00:00 UTC, or use a token with a larger budget."


@dataclasses.dataclass(eq=False, kw_only=True)
class Cancelled(TundraError):
    """The caller went away, or pressed stop."""

    code: ClassVar[str] = "Cancelled"
    severity: ClassVar[Severity] = "info"
    http_status: ClassVar[int] = 499

    @property
    def message(self) -> str:
        return "cancelled by the caller"

    @property
    def hint(self) -> str:
        return ""
