"""Recorded arrivals through today's limiter, breakers and router, under settings that were not in force.

Each call is a generator that follows `runtime.operations` step by step; a heap of moments stands in for the event loop
and the network, so a call costs microseconds. What a provider does is what it was seen to do **in this very call**: the
n-th request to a profile ends as the n-th recorded one did, after the same time. A request that was never sent in truth
has no known end: the whole trace is run twice, once with all such requests failing and once with all of them answered,
and what lies between is the band. Such a call is *unknown*, never a success.
"""

from __future__ import annotations

import heapq
import itertools
from array import array
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any, Literal, NamedTuple

from tundra_nb.errors import (
    ApiError,
    BreakerOpen,
    BudgetSpent,
    Cancelled,
    LimitExceeded,
    RateLimited,
    Timeout,
    TundraError,
)
from tundra_nb.runtime.caller import Caller
from tundra_nb.runtime.reserve import limits_for, used_tokens
from tundra_nb.runtime.resilience.breaker import Breaker, BreakerChange
from tundra_nb.runtime.resilience.limiter import Limiter, LimitPath, Reservation
from tundra_nb.runtime.resilience.router import FailOver, Retry, Router
from tundra_nb.settings import ProfileSettings, Settings
from tundra_nb.types import Usage

from .trace import Arrival, Trace

JITTER = 0.5
"""Instead of a random number in the pauses before retries: the same trace gives the same result."""
PROGRESS_CALLS = 20_000
"""How often it is told how far a simulation is."""
OUTCOMES = ("ok", "error", "refused", "cancelled", "unknown")
"""How a call can end; `unknown`: a request on which it hangs was never sent in truth."""

Assume = Literal["failed", "answered"]
Progress = Callable[[int], None]

_REFUSALS = (LimitExceeded, BreakerOpen, BudgetSpent)
_NOTHING = Usage()


class CallEnd(NamedTuple):
    """How one call went."""

    operation_id: int
    outcome: str
    profile: str | None
    attempts: int
    waited: float
    """Seconds."""
    seconds: float
    """Time from its arrival to its end."""


class SimulatedPass:
    """One pass over a trace: what became of each call, in the order of the trace."""

    def __init__(self, trace: Trace, names: Sequence[str]) -> None:
        count = len(trace.calls)
        self.trace = trace
        self.names = names
        self.outcomes = bytearray(count)
        self.profiles = array("h", bytes(2 * count))
        self.attempts = array("H", bytes(2 * count))
        self.waited = array("d", bytes(8 * count))
        self.seconds = array("d", bytes(8 * count))
        self.moves: list[tuple[float, str, str, str]] = []
        """Moves of breakers: when, which, from, to."""
        self.asked_unseen = 0
        """Requests that were never sent in truth."""

    def count(self, outcome: str) -> int:
        return self.outcomes.count(OUTCOMES.index(outcome))

    def __iter__(self) -> Any:
        for index, call in enumerate(self.trace.calls):
            place = self.profiles[index]
            yield CallEnd(
                call.operation_id,
                OUTCOMES[self.outcomes[index]],
                self.names[place] if place >= 0 else None,
                self.attempts[index],
                self.waited[index],
                self.seconds[index],
            )


class _Timer:
    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class _Moments:
    """Time, and what is to come: the clock of limiter, breakers and router."""

    def __init__(self) -> None:
        self.now = 0.0
        self.heap: list[tuple[float, int, Any, Any]] = []
        self.ready: deque[tuple[Any, Any]] = deque()
        """Who goes on at this very moment: before anything else that falls due now, as woken tasks do in a loop."""
        self.number = itertools.count()

    def monotonic(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> _Timer:
        timer = _Timer(callback)
        heapq.heappush(self.heap, (self.now + max(0.0, delay), next(self.number), timer, None))
        return timer

    def wake(self, delay: float, who: Any, what: Any) -> None:
        heapq.heappush(self.heap, (self.now + delay, next(self.number), who, what))

    # the rest of a clock, which these parts do not use

    def now_us(self) -> int:
        return round(self.now * 1e6)

    async def sleep(self, delay: float) -> None:
        raise NotImplementedError

    def timeout(self, delay: float) -> Any:
        raise NotImplementedError


class _Seat:
    """Where the limiter puts the reservation of a call that waits in line."""

    __slots__ = ("is_done", "moments", "who")

    def __init__(self, moments: _Moments, who: Any) -> None:
        self.moments = moments
        self.who = who
        self.is_done = False

    def done(self) -> bool:
        return self.is_done

    def set_result(self, result: Reservation, /) -> None:
        self.is_done = True
        self.moments.ready.append((self.who, result))

    def set_exception(self, exception: LimitExceeded, /) -> None:
        self.is_done = True
        self.moments.ready.append((self.who, exception))


class _Slot:
    __slots__ = ("breaker", "index", "name", "paths", "profile")

    def __init__(self, index: int, profile: ProfileSettings, breaker: Breaker) -> None:
        self.index = index
        self.name = profile.name
        self.profile = profile
        self.breaker = breaker
        self.paths: dict[Caller, LimitPath] = {}


def simulate(
    trace: Trace, settings: Settings, assume: Assume = "failed", progress: Progress | None = None
) -> SimulatedPass:
    """Run a trace once.

    Args:
        trace: the recorded calls.
        settings: in force throughout.
        assume: how requests end that were never sent in truth.
        progress: told now and then how many calls have arrived.
    """
    return _Simulation(trace, settings, assume).run(progress)


class _Simulation:
    def __init__(self, trace: Trace, settings: Settings, assume: Assume) -> None:
        self.trace = trace
        self.settings = settings
        self.is_answered = assume == "answered"
        self.moments = _Moments()
        self.limiter = Limiter(self.moments)
        self.router = Router(settings.profile, settings.router, self.moments.monotonic, lambda: JITTER)
        self.result = SimulatedPass(trace, [profile.name for profile in settings.profile])
        self.slots = {
            profile.name: _Slot(
                index, profile, Breaker(profile.name, settings.breaker, self.moments.monotonic, self._moved)
            )
            for index, profile in enumerate(settings.profile)
        }
        self.orders: dict[tuple[str | None, bool], list[_Slot]] = {}

    def _moved(self, change: BreakerChange) -> None:
        self.result.moves.append((self.moments.now, change.name, change.old, change.new))

    def run(self, progress: Progress | None) -> SimulatedPass:
        moments, heap, calls = self.moments, self.moments.heap, self.trace.calls
        pop, wake = heapq.heappop, moments.wake
        index, count = 0, len(calls)
        next_at = calls[0].at if calls else 0.0
        who: Any
        what: Any
        ready = moments.ready
        while index < count or heap or ready:
            if ready:
                who, what = ready.popleft()
            elif index < count and (not heap or next_at <= heap[0][0]):
                moments.now = next_at
                who = self._call(index, calls[index])
                who.send(None)  # it is told who it is first
                what = who
                index += 1
                if index < count:
                    next_at = calls[index].at
                if progress is not None and not index % PROGRESS_CALLS:
                    progress(index)
            else:
                moments.now, _, who, what = pop(heap)
                if type(who) is _Timer:
                    callback, who.callback = who.callback, None
                    if callback is not None:
                        callback()
                    continue
            try:
                delay = who.throw(what) if isinstance(what, Exception) else who.send(what)
            except StopIteration:
                continue
            if delay is not None:
                wake(delay, who, None)
        return self.result

    def _order(self, call: Arrival) -> list[_Slot]:
        """Whom to ask, in order. A profile that the settings no longer have is not asked."""
        key = (call.profile, call.failover)
        order = self.orders.get(key)
        if order is None:
            named = call.profile if call.profile in self.slots and self.slots[call.profile].profile.enabled else None
            found = self.router.candidates(named, failover=call.failover)
            order = self.orders[key] = [self.slots[profile.name] for profile in found]
        return order

    def _call(self, index: int, call: Arrival) -> Generator[Any, Any, None]:
        """One call, as `runtime.operations.Operation` carries it out. Yields seconds to pass, None to wait in line."""
        this = yield
        moments, limiter, router, result = self.moments, self.limiter, self.router, self.result
        if call.asked_nobody:
            result.outcomes[index], result.profiles[index] = OUTCOMES.index(call.outcome), -1
            return
        chosen = self.settings.router
        began = moments.now
        ends_at = began + chosen.deadline_seconds
        attempts = 0
        waited = 0.0
        is_unknown = False
        outcome, answered_by = "error", -1
        failures: dict[str, TundraError] = {}
        cooling: set[str] = set()
        queue = list(self._order(call))
        tokens = call.tokens
        is_over = False
        while queue and not is_over:
            slot = queue.pop(0)
            refusal = router.unavailable(slot.name)
            if refusal is not None:
                if isinstance(refusal, RateLimited):
                    rest = refusal.retry_after
                    if rest is not None and rest <= chosen.max_wait_seconds and rest < ends_at - moments.now:
                        if slot.name not in cooling:
                            cooling.add(slot.name)
                            queue.append(slot)
                            continue
                        slept = moments.now
                        yield rest
                        waited += moments.now - slept
                        refusal = router.unavailable(slot.name)
                if refusal is not None:
                    attempts += 1
                    failures[slot.name] = refusal
                    continue
            path = slot.paths.get(call.caller)
            if path is None:
                path = slot.paths[call.caller] = limiter.path(limits_for(self.settings, slot.profile, call.caller))
            breaker = slot.breaker
            retries = 0
            while True:
                attempts += 1
                error: TundraError | None = None
                reservation: Any = None
                is_final = is_late = False
                try:
                    if breaker.state == "open":
                        breaker.admit()
                    reservation = limiter.enter(path, tokens, chosen.max_wait_seconds, _Seat(moments, this))
                    if type(reservation) is not Reservation:
                        reservation = yield None
                    waited += reservation.waited
                    permit = breaker.admit()
                except (LimitExceeded, BreakerOpen) as exc:
                    error = exc
                    if type(reservation) is Reservation:
                        reservation.refund()
                else:
                    seconds, error, usage, is_final, is_seen = self._ask(call, slot.name, retries)
                    if not is_seen:
                        is_unknown = True
                        result.asked_unseen += 1
                    is_late = seconds > ends_at - moments.now
                    if is_late:  # the deadline of the whole call breaks it off, whatever it would have ended in
                        seconds, is_final = max(ends_at - moments.now, 0.0), False
                        error = Timeout(deadline="operation", seconds=chosen.deadline_seconds)
                    if seconds:
                        yield seconds
                    if error is None:
                        permit.success()
                        reservation.settle(used_tokens(usage, tokens))
                        outcome, answered_by, is_over = "ok", slot.index, True
                        break
                    if type(error) is Cancelled:
                        permit.release()
                        reservation.settle(tokens)
                        outcome, is_over = "cancelled", True
                        break
                    if error.trips_breaker:
                        permit.failure(error.reason)
                    else:
                        permit.release()
                    reservation.settle(tokens if is_final else 0)
                    if error.parks:
                        router.park(slot.name, error)
                    elif isinstance(error, RateLimited) and error.retry_after:
                        router.note(slot.name, error)
                        limiter.penalise("profile", slot.name, "requests", moments.now + error.retry_after)
                if retries and isinstance(error, BreakerOpen):
                    is_over = not call.failover
                    break
                failures[slot.name] = error
                if is_late:
                    is_over = True
                    break
                decision = router.decide(error, retries, delivered=is_final, time_left=ends_at - moments.now)
                if isinstance(decision, Retry):
                    if breaker.state == "open":
                        is_over = not (error.fails_over and call.failover)
                        break
                    retries += 1
                    slept = moments.now
                    yield decision.delay
                    waited += moments.now - slept
                    continue
                if isinstance(decision, FailOver) and call.failover:
                    if decision.larger_context:
                        queue = []  # nobody is known to take more
                else:
                    is_over = True
                break
        if outcome == "error":
            causes = [next(reversed(failures.values()))] if is_over and failures else list(failures.values())
            if causes and all(isinstance(cause, _REFUSALS) for cause in causes):
                outcome = "refused"
        if is_unknown and outcome != "cancelled":
            outcome = "unknown"
        result.outcomes[index] = OUTCOMES.index(outcome)
        result.profiles[index] = answered_by
        result.attempts[index] = attempts
        result.waited[index] = waited
        result.seconds[index] = moments.now - began

    def _ask(self, call: Arrival, profile: str, number: int) -> tuple[float, TundraError | None, Usage, bool, bool]:
        """What becomes of a call's next request to a profile; the last says whether that was seen."""
        for one in call.tries:
            if one.profile == profile:
                if not number:
                    return one.seconds, one.error, one.usage, one.is_final, True
                number -= 1
        seconds = self.trace.usual(profile, self.is_answered)
        if self.is_answered:
            return seconds, None, _NOTHING, False, False
        return seconds, ApiError(profile=profile, status=503, detail="never seen"), _NOTHING, False, False
