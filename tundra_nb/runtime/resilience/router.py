"""The router: which profiles are asked, in which order, and what follows an error.

It knows two reasons to pass a profile by: it is **parked** (its key is wrong or its quota spent: until settings change
or it is rechecked), or it **cools** (the provider said when to come back). Limiter and breaker say the rest themselves.

`decide` is the outcome table as code. What an error means is written on its class (`retryable`, `fails_over`, `parks`);
here stand only the rules that join them: how often, how long, and where another profile cannot help.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import urlsplit

import msgspec

from tundra_nb.errors import (
    AllProvidersExhausted,
    LimitExceeded,
    ProviderError,
    RateLimited,
    Timeout,
    TundraError,
    Unsupported,
    UsageError,
)
from tundra_nb.nearest import nearest
from tundra_nb.settings import VENDORS, ProfileSettings, RouterSettings

from .retry import Backoff

ROUNDING_SECONDS = 1e-6
"""Whoever has slept for what was left is not late by the rounding of a sum."""


class Retry(msgspec.Struct, frozen=True):
    """Ask the same profile again after `delay` seconds."""

    delay: float


class FailOver(msgspec.Struct, frozen=True):
    """Ask the next candidate; with `larger_context`, the next whose model takes more than the one that failed."""

    larger_context: bool = False


class StopRouting(msgspec.Struct, frozen=True):
    """Nobody else is asked: the error is the answer."""


Decision = Retry | FailOver | StopRouting


class Router:
    """Order, state and failover of the profiles.

    Args:
        profiles: all profiles, in the order of the settings.
        settings: retries, waits, failover rule.
        monotonic: the clock, in seconds.
        jitter: a number from 0 to 1, for the jitter of pauses.
    """

    def __init__(
        self,
        profiles: Sequence[ProfileSettings],
        settings: RouterSettings,
        monotonic: Callable[[], float],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._monotonic = monotonic
        self._jitter = jitter
        self._parked: dict[str, TundraError] = {}
        self._cooling: dict[str, float] = {}
        self._profiles: dict[str, ProfileSettings] = {}
        self.configure(profiles, settings)

    def __repr__(self) -> str:
        return f"<Router {len(self._profiles)} profiles, {len(self._parked)} parked>"

    def configure(self, profiles: Sequence[ProfileSettings], settings: RouterSettings) -> None:
        """Change profiles and settings, live. A profile that changed is no longer parked or cooling."""
        new = {profile.name: profile for profile in profiles}
        for name, profile in self._profiles.items():
            if new.get(name) != profile:
                self._parked.pop(name, None)
                self._cooling.pop(name, None)
        self._profiles = new
        self._in_order = sorted((p for p in profiles if p.enabled), key=lambda p: p.priority)
        self._settings = settings
        self._backoff = Backoff(settings, self._jitter)

    # --- who

    def candidates(self, profile: str | None = None, *, failover: bool = True) -> list[ProfileSettings]:
        """Whom to ask, in order: the named profile first, then by priority; only the first without `failover`.

        Parked and cooling profiles are among them: `unavailable` gives the cause, to be told when all fail.

        Raises:
            UsageError: no such profile (names the nearest), or it is disabled.
        """
        order = self._in_order
        if profile is not None:
            named = self._named(profile)
            order = [named, *(other for other in order if other.name != profile)]
        if not failover:
            return order[:1]
        if self._settings.failover == "same-vendor" and order:
            allowed = vendor(order[0])
            return [candidate for candidate in order if vendor(candidate) == allowed]
        return list(order)

    def _named(self, name: str) -> ProfileSettings:
        profile = self._profiles.get(name)
        if profile is None:
            known = ", ".join(self._profiles) or "none"
            raise UsageError(
                problem=f"no profile {name!r}",
                field="profile",
                nearest=nearest(name, self._profiles),
                remedy=f"Profiles: {known}.",
            )
        if not profile.enabled:
            raise UsageError(
                problem=f"profile {name!r} is disabled",
                field="profile",
                remedy="Set its `enabled = true`, or leave the profile out.",
            )
        return profile

    # --- parked and cooling

    def unavailable(self, name: str) -> TundraError | None:
        """Why a profile is passed by at the moment; None when it may be asked."""
        parked = self._parked.get(name)
        if parked is not None:
            return parked
        rest = self.cooling(name)
        return RateLimited(profile=name, retry_after=rest, detail="cooling") if rest > 0 else None

    def parked(self, name: str) -> TundraError | None:
        """The error that parked it."""
        return self._parked.get(name)

    def cooling(self, name: str) -> float:
        """Seconds for which the provider wants no more."""
        rest = self._cooling.get(name, 0.0) - self._monotonic()
        if rest <= ROUNDING_SECONDS:
            self._cooling.pop(name, None)
            return 0.0
        return rest

    def park(self, name: str, error: TundraError) -> None:
        self._parked[name] = error

    def unpark(self, name: str) -> bool:
        """Let a profile be asked again, cooling or parked. Whether it had been kept out."""
        cooled = self._cooling.pop(name, None) is not None
        return self._parked.pop(name, None) is not None or cooled

    def cool(self, name: str, until: float) -> None:
        """Pass a profile by until then (monotonic seconds). The latest answer of the provider counts."""
        self._cooling[name] = until

    def note(self, name: str, error: TundraError) -> None:
        """Park or cool a profile, as the error it just gave asks for."""
        if error.parks:
            self.park(name, error)
        elif isinstance(error, RateLimited) and error.retry_after is not None and error.retry_after > 0:
            self.cool(name, self._monotonic() + error.retry_after)

    # --- what next

    def decide(
        self,
        error: TundraError,
        retries_made: int,
        *,
        should_retry: bool | None = None,
        delivered: bool = False,
        time_left: float | None = None,
    ) -> Decision:
        """What follows an error of one attempt.

        Args:
            error: what the latest attempt ended with.
            retries_made: how often this profile has been retried in this operation.
            should_retry: the provider's `x-should-retry`. False forbids a retry; True never makes a wrong
                request right.
            delivered: text has reached the caller: another answer would repeat it.
            time_left: seconds until the operation's own deadline; a retry that cannot begin before it is not made.
        """
        if delivered or (isinstance(error, Timeout) and error.deadline == "operation"):
            return StopRouting()
        if isinstance(error, LimitExceeded) and error.tier != "profile":
            return StopRouting()  # every profile goes through that bucket
        if retries_made < self._settings.retries and self._may_retry(error, should_retry):
            delay = self._backoff.delay(retries_made + 1, getattr(error, "retry_after", None))
            if delay is not None and (time_left is None or delay < time_left):
                return Retry(delay)
        if error.fails_over:
            return FailOver(larger_context=isinstance(error, Unsupported) and error.kind == "context")
        return StopRouting()

    @staticmethod
    def _may_retry(error: TundraError, should_retry: bool | None) -> bool:
        # Limiter and breaker have their own waits: what they refuse now they would refuse again.
        return isinstance(error, ProviderError) and error.retryable and should_retry is not False


def remaining(
    candidates: Sequence[ProfileSettings],
    failed: ProfileSettings,
    decision: FailOver,
    context_tokens: Callable[[ProfileSettings], int | None],
) -> list[ProfileSettings]:
    """The candidates after `failed` that the decision leaves.

    `context_tokens` gives the size of a profile's context, None when unknown. A prompt that was too long goes only to a
    model known to take more; when the size of the one that failed is unknown, to any whose size is known.
    """
    rest = list(candidates[candidates.index(failed) + 1 :])
    if not decision.larger_context:
        return rest
    too_small = context_tokens(failed) or 0
    return [candidate for candidate in rest if (context_tokens(candidate) or 0) > too_small]


def exhausted(causes: Iterable[TundraError]) -> AllProvidersExhausted:
    """The error for when every candidate failed: one cause per profile, and the earliest moment that may help."""
    causes = list(causes)
    waits = [getattr(cause, "retry_after", None) for cause in causes if not cause.parks]
    return AllProvidersExhausted(
        causes=[cause.to_wire() for cause in causes],
        retry_after=min((wait for wait in waits if wait is not None), default=None),
    )


def vendor(profile: ProfileSettings) -> str:
    """Who gets the text: the vendor of the kind at its own host, else the host itself."""
    host = (urlsplit(profile.base_url).hostname or "").lower()
    own = VENDORS.get(profile.kind)
    return profile.kind if own and host in ("", urlsplit(own[0]).hostname) else host
