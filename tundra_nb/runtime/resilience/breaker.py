"""The circuit breaker of one profile.

| State | Meaning | Leaves it when |
|---|---|---|
| closed | calls pass | `failures` failures in a row → open |
| open | calls are refused | `open_seconds` have passed → half_open |
| half_open | one probe at a time passes | `successes` good probes in a row → closed; a bad one → open |

The state is a function of time: an open breaker *is* half open once its deadline has passed, whether or not anybody
called meanwhile. Every transition begins a new generation, and a result counts only in the generation of its permit: a
call that was let through before the breaker opened neither prolongs nor ends the open period, however late it ends.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

import msgspec

from tundra_nb.errors import BreakerOpen
from tundra_nb.settings import BreakerSettings
from tundra_nb.types import BreakerState


class BreakerChange(msgspec.Struct, frozen=True, kw_only=True):
    """One transition. `open_for` seconds until the next probe, 0 unless it opened."""

    name: str
    old: BreakerState
    new: BreakerState
    reason: str
    failures: int
    open_for: float


class Permit:
    """Leave for one call. Its first result counts, further ones do nothing.

    As a context manager it is released at the end unless a result was told: a cancelled call is neither good nor bad.
    """

    __slots__ = ("_breaker", "_generation", "state")

    def __init__(self, breaker: Breaker, state: BreakerState, generation: int) -> None:
        self._breaker: Breaker | None = breaker
        self._generation = generation
        self.state = state
        """The state in which the breaker let it through: closed, or half_open for a probe."""

    def __repr__(self) -> str:
        return f"<Permit {self.state}, {'unused' if self._breaker else 'told'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def success(self) -> None:
        """The provider answered, if only with a refusal of the request."""
        breaker, self._breaker = self._breaker, None
        if breaker is not None and breaker.generation == self._generation:
            if self.state == "closed":
                breaker.failures = 0
            else:
                breaker._probe_succeeded()  # noqa: SLF001

    def failure(self, reason: str) -> None:
        """The provider failed. `reason` is one stable word."""
        breaker, self._breaker = self._breaker, None
        if breaker is not None and breaker.generation == self._generation:
            breaker._failed(reason)  # noqa: SLF001

    def release(self) -> None:
        """No result: cancelled, or refused before anything was sent."""
        breaker, self._breaker = self._breaker, None
        if breaker is not None and breaker.generation == self._generation and self.state == "half_open":
            breaker._probe_left()  # noqa: SLF001


class _Probe(Permit):
    __slots__ = ()

    def __del__(self) -> None:
        # A probe that is dropped without a word would otherwise keep the profile out of use for good.
        self.release()


class Breaker:
    """Closed, Open, HalfOpen of one profile.

    Args:
        name: the profile.
        settings: thresholds; `configure` changes them.
        monotonic: the clock, in seconds.
        on_change: told of each transition as it is made; must not raise.
    """

    def __init__(
        self,
        name: str,
        settings: BreakerSettings,
        monotonic: Callable[[], float],
        on_change: Callable[[BreakerChange], None] | None = None,
    ) -> None:
        self.name = name
        self.settings = settings
        self.failures = 0
        """Failures in a row; those that opened it while it is open."""
        self.generation = 0
        self._monotonic = monotonic
        self._on_change = on_change
        self._open_until: float | None = None
        """None while closed."""
        self._has_probed = False
        """The transition to half_open has been told."""
        self._is_probing = False
        self._successes = 0
        self._cause = ""

    def __repr__(self) -> str:
        rest = f", {self.open_for:.1f} s left" if self.state == "open" else ""
        return f"<Breaker {self.name} {self.state}, {self.failures} failures{rest}>"

    @property
    def state(self) -> BreakerState:
        if self._open_until is None:
            return "closed"
        return "open" if self._monotonic() < self._open_until else "half_open"

    @property
    def open_for(self) -> float:
        """Seconds until it lets a probe through; 0 when it is not open."""
        return 0.0 if self._open_until is None else max(0.0, self._open_until - self._monotonic())

    @property
    def is_probing(self) -> bool:
        """A probe is under way."""
        return self._is_probing

    @property
    def is_untouched(self) -> bool:
        """Nothing has failed, and nobody has closed it, since it was made."""
        return self.generation == 0 and self.failures == 0

    def admit(self) -> Permit:
        """Let one call through.

        Raises:
            BreakerOpen: open (`retry_after` is the rest of its time), or half open with a probe under way (None).
        """
        if self._open_until is None:
            return Permit(self, "closed", self.generation)
        rest = self._open_until - self._monotonic()
        if rest > 0:
            raise BreakerOpen(profile=self.name, retry_after=rest, cause=self._cause)
        if self._is_probing:
            raise BreakerOpen(profile=self.name, retry_after=None, cause="a probe is under way")
        self._is_probing = True
        if not self._has_probed:
            self._has_probed = True
            self._tell("open", "half_open", "open_period_over")
        return _Probe(self, "half_open", self.generation)

    def reset(self, reason: str = "reset") -> None:
        """Close it now, by hand or because its profile is another one; calls and probes under way no longer count."""
        old = self.state
        self._close()
        if old != "closed":
            self._tell(old, "closed", reason)

    def restore(self, open_for: float, failures: int, cause: str = "") -> None:
        """Take up an open period after a restart. `open_for` seconds are left; none left makes it half open."""
        self._begin_open(open_for)
        self.failures = failures
        self._cause = cause

    def configure(self, settings: BreakerSettings) -> None:
        """Change the thresholds, live. An open period ends as if it had begun under the new settings."""
        if self._open_until is not None:
            self._open_until += settings.open_seconds - self.settings.open_seconds
        self.settings = settings

    def _failed(self, reason: str) -> None:
        old: BreakerState = "closed" if self._open_until is None else "half_open"
        self.failures += 1
        if old == "half_open" or self.failures >= self.settings.failures:
            self._cause = reason
            self._begin_open(self.settings.open_seconds)
            self._tell(old, "open", reason)

    def _probe_succeeded(self) -> None:
        self._is_probing = False
        self._successes += 1
        if self._successes >= self.settings.successes:
            self._close()
            self._tell("half_open", "closed", "probes_succeeded")

    def _probe_left(self) -> None:
        self._is_probing = False

    def _begin_open(self, seconds: float) -> None:
        self.generation += 1
        self._open_until = self._monotonic() + seconds
        self._has_probed = False
        self._is_probing = False
        self._successes = 0

    def _close(self) -> None:
        self.generation += 1
        self._open_until = None
        self._is_probing = False
        self._successes = 0
        self.failures = 0
        self._cause = ""

    def _tell(self, old: BreakerState, new: BreakerState, reason: str) -> None:
        if self._on_change is not None:
            self._on_change(
                BreakerChange(
                    name=self.name, old=old, new=new, reason=reason, failures=self.failures, open_for=self.open_for
                )
            )
