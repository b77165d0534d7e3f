"""The limiter: token buckets over tiers (global → user → profile) and resources, taken all or nothing.

A request costs 1 of `requests` and its estimate of `tokens`, in every tier at once. It is admitted now, waits for a
booked place, or is refused with the exact time after which it would be admitted.

**Waiting.** A waiter is given a place: the first moment at which it fits into every bucket of its path without moving
anyone who waits already. So nobody starves, the wait is known on arrival, and somebody who waits for one profile holds
back others only as far as they would delay it; requests of one path never overtake each other. When capacity comes back
(refund, settlement, a waiter that left) the oldest waiter moves forward at once, and all places are booked anew, in
order of arrival, where that can change anything: when there are several lines, or when somebody would be refused. When
it goes away (debt, penalty, new rates), all are; a waiter whose new place is beyond its `max_wait` is refused then.
Nothing is taken before a waiter is released, and at that moment the buckets are asked again, so a late timer or a debt
cannot break a limit.

One event loop, no locks, no tasks: waiters wait on futures that one timer of the clock releases.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import operator
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import msgspec

from tundra_nb.errors import LimitExceeded
from tundra_nb.runtime.clock import Clock, Timer
from tundra_nb.types import Decision, Resource, Tier

from .bucket import EPSILON, Bucket

IDLE_SECONDS = 300.0
"""A bucket that has been full for so long is forgotten: it holds no information."""
SWEEP_SECONDS = 60.0
CROWD = 1024
"""With so many more buckets than after the last sweep, the full ones are forgotten at once."""
REBOOK_PAUSE = 1e-3
"""Seconds per waiter between two bookings anew: one costs about 5 µs per waiter, so they take half a percent of it …"""
REBOOK_SECONDS = 1.0
"""… but never longer than this: so far the places of those who are not the oldest may be behind."""
NEVER_SECONDS = 1e8
"""A wait of three years is a refusal for good: the rate is zero."""

Key = tuple[Tier, str, Resource]


class Limit(msgspec.Struct, frozen=True):
    """One bucket as configured. `rate` in units per second, `burst` in units."""

    tier: Tier
    key: str
    resource: Resource
    rate: float
    burst: float

    def __post_init__(self) -> None:
        if not (self.rate >= 0 and self.burst >= 0 and math.isfinite(self.rate) and math.isfinite(self.burst)):
            raise ValueError(f"rate {self.rate} and burst {self.burst} must be finite and not negative")


class BucketLevel(msgspec.Struct, frozen=True, kw_only=True):
    """A bucket as it stands now. `level` is negative in debt."""

    tier: Tier
    key: str
    resource: Resource
    level: float
    burst: float
    rate: float
    waiting: int
    penalised_for: float
    """Seconds for which the provider wants nothing."""
    scope: str = "own"
    """Whose limit it is: of this daemon, or one that daemons share (`limits_shared`)."""


class Narrowest(msgspec.Struct, frozen=True, kw_only=True):
    """The bucket with the least left, just after something was taken. `full_after` in seconds."""

    level: float
    burst: float
    full_after: float


class LimitNotice(msgspec.Struct, frozen=True, kw_only=True):
    """A wait, refusal, penalty or correction; plain admissions give none."""

    tier: Tier
    key: str
    resource: Resource
    decision: Decision
    requested: float
    remaining: float
    retry_after: float | None
    operation_id: int | None


class LimitPath:
    """The buckets that one kind of request goes through; made by `Limiter.path` and used for many requests."""

    __slots__ = ("buckets", "generation", "key", "limits", "requests", "tokens")

    def __init__(self, limits: tuple[Limit, ...]) -> None:
        self.limits = limits
        self.key: tuple[Key, ...] = tuple((limit.tier, limit.key, limit.resource) for limit in limits)
        self.generation = -1
        self.requests: tuple[Bucket, ...] = ()
        self.tokens: tuple[Bucket, ...] = ()
        self.buckets: tuple[Bucket, ...] = ()
        """Requests first, then tokens."""

    def __repr__(self) -> str:
        return f"<LimitPath {' → '.join('/'.join(part) for part in self.key)}>"


class Reservation:
    """What a request has taken. Settle it with the real usage, or refund it when nothing was sent; first wins.

    One that is neither settled nor refunded keeps what it took: nothing more can come of it.
    """

    __slots__ = (
        "_fulls",
        "_limiter",
        "_narrow",
        "_operation_id",
        "_path_buckets",
        "_requests",
        "at",
        "number",
        "tokens",
        "waited",
    )

    def __init__(
        self,
        limiter: Limiter | None,
        buckets: tuple[Bucket, ...],
        requests: int,
        tokens: float,
        fulls: list[float],
        number: int,
        at: float,
        waited: float,
        operation_id: int | None,
    ) -> None:
        self._limiter = limiter
        self._path_buckets = buckets
        self._requests = requests
        self._fulls = fulls
        self._operation_id = operation_id
        self._narrow: tuple[Narrowest | None, Narrowest | None] | None = None
        self.tokens = tokens
        self.number = number
        self.at = at
        """Monotonic seconds."""
        self.waited = waited
        """Seconds."""

    def __repr__(self) -> str:
        state = "open" if self._limiter else "closed"
        return f"<Reservation {self.number} {state}, {self.tokens:g} tokens, waited {self.waited:.3f} s>"

    @property
    def level_requests(self) -> float | None:
        """Level of the narrowest bucket of requests afterwards; None when requests are not limited."""
        narrowest = self.narrowest_requests
        return narrowest.level if narrowest else None

    @property
    def level_tokens(self) -> float | None:
        """Level of the narrowest bucket of tokens afterwards; None when tokens are not limited."""
        narrowest = self.narrowest_tokens
        return narrowest.level if narrowest else None

    @property
    def narrowest_requests(self) -> Narrowest | None:
        """The narrowest bucket of requests afterwards; None when requests are not limited."""
        return self._narrowest()[0]

    @property
    def narrowest_tokens(self) -> Narrowest | None:
        """The narrowest bucket of tokens afterwards; None when tokens are not limited."""
        return self._narrowest()[1]

    def _narrowest(self) -> tuple[Narrowest | None, Narrowest | None]:
        # Computed when first asked, not when reserved: the limiter's decision is counted in microseconds.
        if self._narrow is None:
            self._narrow = self._lowest(0, self._requests), self._lowest(self._requests, len(self._path_buckets))
        return self._narrow

    def _lowest(self, start: int, end: int) -> Narrowest | None:
        found, lowest = -1, math.inf
        for number in range(start, end):
            bucket = self._path_buckets[number]
            level = bucket.burst - (self._fulls[number] - self.at) / bucket.seconds_per_unit
            if level < lowest:
                found, lowest = number, level
        if found < 0:
            return None
        return Narrowest(level=lowest, burst=self._path_buckets[found].burst, full_after=self._fulls[found] - self.at)

    def settle(self, tokens: float) -> None:
        """Replace the estimate by the real usage; the buckets of tokens may go into debt.

        Raises:
            ValueError: `tokens` is negative or not a number.
        """
        if not tokens >= 0:
            raise ValueError(f"{tokens} tokens cannot have been used")
        limiter, self._limiter = self._limiter, None
        if limiter is not None:
            limiter._correct(self.number, self._path_buckets[self._requests :], self.tokens, tokens, self._operation_id)  # noqa: SLF001

    def refund(self) -> None:
        """Give everything back: nothing was sent."""
        limiter, self._limiter = self._limiter, None
        if limiter is not None:
            limiter._give_back(self.number, self._path_buckets, self._requests, self.tokens)  # noqa: SLF001


class Promise(Protocol):
    """Where a waiter's reservation is put: an `asyncio.Future`, or what a simulation puts in its place."""

    def done(self) -> bool: ...
    def set_result(self, result: Reservation, /) -> None: ...
    def set_exception(self, exception: LimitExceeded, /) -> None: ...


class Waiter:
    """Somebody in line; made by `Limiter.enter`."""

    __slots__ = (
        "at",
        "bottleneck",
        "future",
        "is_booked",
        "max_wait",
        "number",
        "operation_id",
        "parts",
        "path",
        "since",
        "tokens",
    )

    def __init__(
        self,
        path: LimitPath,
        tokens: float,
        future: Promise,
        *,
        number: int,
        since: float,
        max_wait: float,
        operation_id: int | None,
    ) -> None:
        self.path = path
        self.tokens = tokens
        self.number = number
        self.since = since
        self.max_wait = max_wait
        self.operation_id = operation_id
        self.future = future
        self.parts = _parts(path, tokens)
        self.at = since
        self.bottleneck: Bucket = path.buckets[0]
        self.is_booked = False

    def __lt__(self, other: Waiter) -> bool:
        return (self.at, self.number) < (other.at, other.number)


class Limiter:
    """All buckets of a runtime.

    Args:
        clock: where time and the one timer come from.
        on_notice: told of each wait, refusal, penalty and correction; must not raise.
    """

    def __init__(self, clock: Clock, on_notice: Callable[[LimitNotice], None] | None = None) -> None:
        self._clock = clock
        self._monotonic = clock.monotonic
        self._on_notice = on_notice
        self._buckets: dict[Key, Bucket] = {}
        self._generation = 0
        """Raised when buckets were evicted: paths then look theirs up again."""
        self._number = 0
        self._penalties: dict[Key, float] = {}
        """Until when, also for buckets that do not exist at the moment."""
        self._queues: dict[tuple[Key, ...], deque[Waiter]] = {}
        """Waiters by path, in order; no empty queues."""
        self._is_crowded = False
        """Somebody waits or is penalised: the short way is closed."""
        self._timer: Timer | None = None
        self._timer_at = math.inf
        self._is_stale = False
        """The booked places could be better, or hold no longer."""
        self._is_pressed = False
        """Capacity went away: somebody may have to be refused."""
        self._has_new_rates = False
        """Since the last booking anew."""
        self._rebook_at = 0.0
        self._swept_at = self._monotonic()
        self._swept_count = 0

    def __repr__(self) -> str:
        return f"<Limiter {len(self._buckets)} buckets, {self.waiting} waiting>"

    @property
    def waiting(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    # --- configuration

    def path(self, limits: Sequence[Limit]) -> LimitPath:
        """A handle for requests that go through these limits, in the order of tiers; none at all admits everything."""
        now = self._monotonic()
        if now - self._swept_at >= SWEEP_SECONDS:
            self._sweep(now, IDLE_SECONDS)
            self._swept_count = min(self._swept_count, len(self._buckets))
        if len(self._buckets) >= self._swept_count + CROWD:
            self._sweep(now, 0.0)
            self._swept_count = len(self._buckets)
        path = LimitPath(tuple(limits))
        self.configure(limits)
        self._look_up(path, now)
        return path

    def configure(self, limits: Iterable[Limit]) -> None:
        """Give buckets new rates and bursts, live. What has been used stays used; new buckets come with their path."""
        now = self._monotonic()
        changed = False
        for limit in limits:
            bucket = self._buckets.get((limit.tier, limit.key, limit.resource))
            if bucket is not None and (bucket.rate, bucket.burst) != (limit.rate, limit.burst):
                bucket.reshape(limit.rate, limit.burst, now)
                changed = self._has_new_rates = True
        if changed:
            self._capacity_changed(now, at_once=True)

    def _look_up(self, path: LimitPath, now: float) -> None:
        by_resource: dict[str, list[Bucket]] = {"requests": [], "tokens": []}
        for key, limit in zip(path.key, path.limits, strict=True):
            bucket = self._buckets.get(key)
            if bucket is None:
                bucket = self._buckets[key] = Bucket(*key, rate=limit.rate, burst=limit.burst, now=now)
                bucket.blocked_until = self._penalties.get(key, -math.inf)
            by_resource[limit.resource].append(bucket)
        path.requests = tuple(by_resource["requests"])
        path.tokens = tuple(by_resource["tokens"])
        path.buckets = path.requests + path.tokens
        path.generation = self._generation

    def _sweep(self, now: float, idle: float) -> None:
        gone = [key for key, b in self._buckets.items() if b.full_at + idle <= now and not b.line]
        for key in gone:
            self._buckets.pop(key).is_live = False
        self._generation += bool(gone)
        self._swept_at = now

    # --- reserving

    def try_reserve(self, path: LimitPath, tokens: float = 0.0, operation_id: int | None = None) -> Reservation:
        """Reserve now or not at all.

        Raises:
            LimitExceeded: it does not fit now; `retry_after` is when it would, counting those who wait already.
            ValueError: `tokens` is negative or not a number.
        """
        reservation = self._reserve_now(path, tokens, operation_id)
        if reservation is not None:
            return reservation
        at, bottleneck, parts = self._place(path, tokens, operation_id)
        now = self._monotonic()
        if at <= now + EPSILON:
            return self._admit(path, tokens, parts, operation_id)
        raise self._refusal(bottleneck, tokens, at - now, operation_id)

    async def reserve(
        self, path: LimitPath, tokens: float, max_wait: float, operation_id: int | None = None
    ) -> Reservation:
        """Reserve, waiting in line for at most `max_wait` seconds. Cancelling leaves no trace.

        Raises:
            LimitExceeded: at once, when the wait would be longer; later, when a penalty or debt made it longer.
            ValueError: `tokens` is negative or not a number.
        """
        reservation = self._reserve_now(path, tokens, operation_id)
        if reservation is not None:
            return reservation
        future: asyncio.Future[Reservation] = asyncio.get_running_loop().create_future()
        entered = self.enter(path, tokens, max_wait, future, operation_id)
        if isinstance(entered, Reservation):
            return entered
        try:
            return await future
        except asyncio.CancelledError:
            self._leave(entered, future)
            raise

    def enter(
        self, path: LimitPath, tokens: float, max_wait: float, future: Promise, operation_id: int | None = None
    ) -> Reservation | Waiter:
        """Reserve now, or get in line: then `future` is given the reservation, or the refusal. Never waits itself.

        Raises:
            LimitExceeded: the wait would be longer than `max_wait`.
            ValueError: `tokens` is negative or not a number.
        """
        reservation = self._reserve_now(path, tokens, operation_id)
        if reservation is not None:
            return reservation
        at, bottleneck, parts = self._place(path, tokens, operation_id)
        now = self._monotonic()
        if at - now > max_wait and self._is_stale and now >= self._rebook_at:
            self._rebook(now)  # the places are later than need be: nobody is refused for that
            at, bottleneck, parts = self._place(path, tokens, operation_id)
        if at <= now + EPSILON:
            return self._admit(path, tokens, parts, operation_id)
        if at - now > max_wait or at - now >= NEVER_SECONDS:
            raise self._refusal(bottleneck, tokens, at - now, operation_id)
        self._number += 1
        waiter = Waiter(
            path, tokens, future, number=self._number, since=now, max_wait=max_wait, operation_id=operation_id
        )
        self._enqueue(waiter, at, bottleneck)
        self._notify(bottleneck, "wait", _units(bottleneck, tokens), at - now, operation_id)
        if at < self._timer_at:
            self._arm(at, now)
        return waiter

    def _reserve_now(self, path: LimitPath, tokens: float, operation_id: int | None) -> Reservation | None:
        """The short way, for when nobody waits. Written out flat: this is on the path of every call.

        A path without buckets (every tier off) always goes this way: nobody can wait on it, and nothing can refuse.
        """
        if not tokens >= 0:
            raise ValueError(f"{tokens} tokens cannot be reserved")
        if self._is_crowded and path.limits:
            return None
        now = self._monotonic()
        if path.generation != self._generation:
            self._look_up(path, now)
        fulls = []
        for bucket in path.requests:
            full = bucket.full_at
            full = (full if full > now else now) + bucket.seconds_per_unit  # noqa: FURB136 - max() costs three times that
            if full - now > bucket.fits_within:
                return None
            fulls.append(full)
        for bucket in path.tokens:
            full = bucket.full_at
            full = (full if full > now else now) + tokens * bucket.seconds_per_unit  # noqa: FURB136
            if full - now > bucket.fits_within:
                return None
            fulls.append(full)
        number = self._number = self._number + 1
        for bucket, full in zip(path.buckets, fulls):  # noqa: B905 - strict costs, and both were built together
            backlog = bucket.full_at - now  # `Bucket.take`, written out
            bucket.full_at = full
            lows = bucket.lows
            if backlog <= 0.0:
                bucket.fresh_since = number
                if lows:
                    bucket.marks.clear()
                    lows.clear()
            else:
                while lows and lows[-1] >= backlog:
                    bucket.marks.pop()
                    lows.pop()
                bucket.marks.append(number)
                lows.append(backlog)
        return Reservation(self, path.buckets, len(path.requests), tokens, fulls, number, now, 0.0, operation_id)

    def _place(
        self, path: LimitPath, tokens: float, operation_id: int | None
    ) -> tuple[float, Bucket, list[tuple[Bucket, float]]]:
        """Find the first moment for a newcomer, who it waits for, and what it costs."""
        now = self._monotonic()
        if path.generation != self._generation:
            self._look_up(path, now)
        self._forget_penalties(now)
        self._release(now)
        parts = _parts(path, tokens)
        for bucket, cost in parts:
            if not bucket.admits(cost):
                raise self._refusal(bucket, tokens, None, operation_id)
        queue = self._queues.get(path.key)
        return *_first_fit(parts, now, queue[-1] if queue else None, path), parts

    def _admit(
        self,
        path: LimitPath,
        tokens: float,
        parts: Sequence[tuple[Bucket, float]],
        operation_id: int | None,
        waiter: Waiter | None = None,
    ) -> Reservation:
        now = self._monotonic()
        # A new number also for a waiter: they must tell in which order things were taken.
        number = self._number = self._number + 1
        for bucket, cost in parts:
            if waiter is None:
                bucket.take(number, cost, now)
            else:
                bucket.redeem(waiter.at, waiter.number, number, now)
        waited = now - waiter.since if waiter else 0.0
        fulls = [max(bucket.full_at, now) for bucket in path.buckets]
        return Reservation(self, path.buckets, len(path.requests), tokens, fulls, number, now, waited, operation_id)

    # --- waiters

    def _enqueue(self, waiter: Waiter, at: float, bottleneck: Bucket) -> None:
        waiter.at = at
        waiter.bottleneck = bottleneck
        waiter.is_booked = True
        for bucket, cost in waiter.parts:
            bucket.book(at, waiter.number, cost)
        self._queues.setdefault(waiter.path.key, deque()).append(waiter)
        self._is_crowded = True

    def _dequeue(self, waiter: Waiter) -> None:
        queue = self._queues[waiter.path.key]
        queue.remove(waiter)
        if not queue:
            del self._queues[waiter.path.key]
            self._is_crowded = bool(self._queues or self._penalties)
        waiter.is_booked = False

    def _leave(self, waiter: Waiter, future: asyncio.Future[Reservation]) -> None:
        """A waiter was cancelled: in line, or after it was released but before it could run."""
        if waiter.is_booked:
            self._drop(waiter)
            self._capacity_changed(self._monotonic())
        elif not future.cancelled() and future.exception() is None:
            future.result().refund()

    def _drop(self, waiter: Waiter) -> None:
        for bucket, _ in waiter.parts:
            bucket.unbook(waiter.at, waiter.number)
        self._dequeue(waiter)

    def _release(self, now: float) -> None:
        """Admit every waiter whose moment has come, the earliest first; set the timer for the next."""
        if self._is_stale:
            if now >= self._rebook_at and self._rebooks_soon:
                self._rebook(now)
            else:
                self._hasten(now)
        heads = [queue[0] for queue in self._queues.values()]
        heapq.heapify(heads)
        held: set[Bucket] = set()
        wake_at = math.inf
        while heads:
            waiter = heapq.heappop(heads)
            if waiter.future.done():  # cancelled, and its task has not run yet
                self._drop(waiter)
                self._is_stale = True
            elif waiter.at > now + EPSILON:
                wake_at = min(wake_at, waiter.at)
                break
            else:
                # After late timers and debts a booked place may not hold. Who is short keeps others off those buckets.
                ready = {bucket: bucket.ready_at(cost, now) for bucket, cost in waiter.parts}
                short = {bucket for bucket, at in ready.items() if at > now + EPSILON}
                if short or not held.isdisjoint(ready):
                    held |= short
                    wake_at = min(wake_at, max(ready.values()) if short else math.inf)
                    continue
                self._let_go(waiter)
            queue = self._queues.get(waiter.path.key)
            if queue:
                heapq.heappush(heads, queue[0])
                if self._is_stale and self._hasten(now):
                    heapq.heapify(heads)
        if self._is_stale and self._queues and self._rebooks_soon:
            wake_at = min(wake_at, max(self._rebook_at, now))
        self._arm(wake_at, now)

    def _let_go(self, waiter: Waiter) -> None:
        reservation = self._admit(waiter.path, waiter.tokens, waiter.parts, waiter.operation_id, waiter)
        self._dequeue(waiter)
        waiter.future.set_result(reservation)

    def _rebook(self, now: float) -> None:
        """Give all waiters new places, in the order in which they came."""
        waiters = sorted((w for queue in self._queues.values() for w in queue), key=lambda w: w.number)
        for bucket in {bucket for waiter in waiters for bucket, _ in waiter.parts}:
            bucket.clear_bookings()
        self._queues.clear()
        has_new_rates, self._has_new_rates = self._has_new_rates, False
        self._is_stale = self._is_pressed = False
        self._rebook_at = now + min(len(waiters) * REBOOK_PAUSE, REBOOK_SECONDS)
        for waiter in waiters:
            waiter.is_booked = False
            if waiter.future.done():
                continue
            if has_new_rates:
                waiter.parts = _parts(waiter.path, waiter.tokens)
                never = next((bucket for bucket, cost in waiter.parts if not bucket.admits(cost)), None)
                if never is not None:
                    waiter.future.set_exception(self._refusal(never, waiter.tokens, None, waiter.operation_id))
                    continue
            queue = self._queues.get(waiter.path.key)
            ahead = queue[-1] if queue else None
            at, bottleneck, is_last = _last_fit(waiter.parts, now, ahead, waiter.path)
            if not is_last:
                at, bottleneck = _first_fit(waiter.parts, now, ahead, waiter.path)
            if at - waiter.since > waiter.max_wait + EPSILON:
                waiter.future.set_exception(self._refusal(bottleneck, waiter.tokens, at - now, waiter.operation_id))
                continue
            if not is_last:
                self._enqueue(waiter, at, bottleneck)
                continue
            waiter.at, waiter.bottleneck, waiter.is_booked = at, bottleneck, True
            for bucket, cost in waiter.parts:
                bucket.append(at, waiter.number, cost)
            if queue is None:
                self._queues[waiter.path.key] = deque((waiter,))
            else:
                queue.append(waiter)
        self._is_crowded = bool(self._queues or self._penalties)

    @property
    def _rebooks_soon(self) -> bool:
        """Whether new places would change who goes when; with one line the oldest alone says that."""
        return self._is_pressed or len(self._queues) > 1

    def _hasten(self, now: float) -> bool:
        """Move the oldest waiter forward to where a booking anew would put it; whether it moved."""
        if not self._queues:
            return False
        waiter = min((queue[0] for queue in self._queues.values()), key=_number)
        at = now
        for bucket, cost in waiter.parts:
            at = max(at, bucket.ready_at(cost, now))
        if at >= waiter.at - EPSILON:
            return False
        for bucket, cost in waiter.parts:
            bucket.unbook(waiter.at, waiter.number)
            bucket.book(at, waiter.number, cost)
        waiter.at = at
        return True

    def _capacity_changed(self, now: float, *, at_once: bool = False, is_less: bool = False) -> None:
        """Move the oldest forward; book all anew where that is called for, or a little later when it was just done."""
        if not self._queues:
            self._arm(math.inf, now)
            return
        self._is_stale = True
        self._is_pressed |= is_less or at_once
        if at_once:
            self._rebook_at = now
        self._release(now)

    def _arm(self, at: float, now: float) -> None:
        if self._timer is not None:
            if at == self._timer_at:
                return
            self._timer.cancel()
            self._timer = None
        self._timer_at = at
        if at < math.inf:
            self._timer = self._clock.call_later(at - now, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._timer_at = math.inf
        now = self._monotonic()
        self._forget_penalties(now)
        self._release(now)

    # --- what comes back

    def _give_back(self, number: int, buckets: Sequence[Bucket], requests: int, tokens: float) -> None:
        for place, bucket in enumerate(buckets):
            bucket.give_back(number, bucket.seconds_per_unit * (1.0 if place < requests else tokens))
        if self._is_crowded and any(bucket.is_tight for bucket in buckets):
            self._capacity_changed(self._monotonic())

    def _correct(
        self, number: int, buckets: Sequence[Bucket], reserved: float, used: float, operation_id: int | None
    ) -> None:
        if used == reserved or not buckets:
            return
        now = self._monotonic()
        is_less = used > reserved
        if not is_less:
            for bucket in buckets:
                bucket.give_back(number, (reserved - used) * bucket.seconds_per_unit)
        else:
            self._number += 1
            current = [self._living(bucket) for bucket in buckets]
            for bucket in current:
                bucket.take(self._number, (used - reserved) * bucket.seconds_per_unit, now)
            narrowest = min(current, key=lambda bucket: bucket.level(now))
            self._notify(narrowest, "corrected", used - reserved, None, operation_id)
        if self._is_crowded and any(bucket.is_tight for bucket in buckets):
            self._capacity_changed(now, is_less=is_less)

    def _living(self, bucket: Bucket) -> Bucket:
        """The bucket that stands for an evicted one now."""
        if bucket.is_live:
            return bucket
        key = (bucket.tier, bucket.key, bucket.resource)
        living = self._buckets.setdefault(key, bucket)
        living.is_live = True
        return living

    def penalise(self, tier: Tier, key: str, resource: Resource, until: float) -> None:
        """Admit nothing through a bucket before `until` (monotonic seconds): the provider said so. Never shortens.

        It holds also for a bucket that does not exist at the moment; where a tier is off, nothing goes through it.
        """
        now = self._monotonic()
        name: Key = (tier, key, resource)
        if until <= max(now, self._penalties.get(name, -math.inf)):
            return
        self._penalties[name] = until
        self._is_crowded = True
        bucket = self._buckets.get(name)
        if bucket is None:
            return
        bucket.blocked_until = until
        self._notify(bucket, "penalised", 0.0, until - now, None)
        if bucket.line:
            self._capacity_changed(now, at_once=True)

    def pardon(self, tier: Tier, key: str, resource: Resource) -> None:
        """Take a penalty back: somebody knows better."""
        name: Key = (tier, key, resource)
        if self._penalties.pop(name, None) is None:
            return
        if (bucket := self._buckets.get(name)) is not None:
            bucket.blocked_until = -math.inf
        self._is_crowded = bool(self._queues or self._penalties)
        self._capacity_changed(self._monotonic(), at_once=True)

    def _forget_penalties(self, now: float) -> None:
        if self._penalties:
            for key in [key for key, until in self._penalties.items() if until <= now]:
                del self._penalties[key]
            self._is_crowded = bool(self._queues or self._penalties)

    # --- what is told

    def levels(self) -> tuple[BucketLevel, ...]:
        """Every bucket in use, in the order in which they came."""
        now = self._monotonic()
        return tuple(
            BucketLevel(
                tier=tier,
                key=key,
                resource=resource,
                level=bucket.level(now),
                burst=bucket.burst,
                rate=bucket.rate,
                waiting=len(bucket.line),
                penalised_for=max(0.0, bucket.blocked_until - now),
            )
            for (tier, key, resource), bucket in self._buckets.items()
        )

    def _refusal(self, bucket: Bucket, tokens: float, wait: float | None, operation_id: int | None) -> LimitExceeded:
        if wait is not None and wait >= NEVER_SECONDS:
            wait = None
        requested = _units(bucket, tokens)
        self._notify(bucket, "refused", requested, wait, operation_id)
        return LimitExceeded(
            tier=bucket.tier,
            key=bucket.key,
            resource=bucket.resource,
            requested=requested,
            retry_after=wait,
            limit=bucket.burst,
        )

    def _notify(
        self,
        bucket: Bucket,
        decision: Decision,
        requested: float,
        retry_after: float | None,
        operation_id: int | None,
    ) -> None:
        if self._on_notice is not None:
            notice = LimitNotice(
                tier=bucket.tier,
                key=bucket.key,
                resource=bucket.resource,
                decision=decision,
                requested=requested,
                remaining=bucket.level(self._monotonic()),
                retry_after=retry_after,
                operation_id=operation_id,
            )
            self._on_notice(notice)


_number = operator.attrgetter("number")


def _parts(path: LimitPath, tokens: float) -> list[tuple[Bucket, float]]:
    parts = [(bucket, bucket.seconds_per_unit) for bucket in path.requests]
    if tokens:
        parts += [(bucket, tokens * bucket.seconds_per_unit) for bucket in path.tokens]
    return parts


def _units(bucket: Bucket, tokens: float) -> float:
    return 1.0 if bucket.resource == "requests" else tokens


def _first_fit(
    parts: Sequence[tuple[Bucket, float]], now: float, ahead: Waiter | None, path: LimitPath
) -> tuple[float, Bucket]:
    """The first moment at which all parts fit, not before whoever is ahead on the same path; and the last obstacle."""
    at, bottleneck = (max(now, ahead.at), ahead.bottleneck) if ahead else (now, path.buckets[0])
    is_settled = False
    while not is_settled:
        is_settled = True
        for bucket, cost in parts:
            fits_at = bucket.earliest(cost, at)
            if fits_at > at:
                at, bottleneck, is_settled = fits_at, bucket, False
    return at, bottleneck


def _last_fit(
    parts: Sequence[tuple[Bucket, float]], now: float, ahead: Waiter | None, path: LimitPath
) -> tuple[float, Bucket, bool]:
    """The same where that is after everybody in all these buckets, which the last of the three says.

    Only while places are booked anew in order, so that `tight_at` holds. It is what costs when many wait.
    """
    at, bottleneck = (max(now, ahead.at), ahead.bottleneck) if ahead else (now, path.buckets[0])
    for bucket, _ in parts:
        if bucket.tight_at > at:
            at, bottleneck = bucket.tight_at, bucket
    lowest = at
    for bucket, cost in parts:
        last, fits_at = bucket.end(cost)
        if last > lowest:
            return at, bottleneck, False
        if fits_at > at:
            at, bottleneck = fits_at, bucket
    return at, bottleneck, True
