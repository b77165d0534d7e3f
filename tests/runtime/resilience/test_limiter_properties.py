"""The limiter under random sequences: the totals of every window, exact refunds, waiters in order, nothing lost."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections import defaultdict
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tundra_nb.errors import LimitExceeded
from tundra_nb.runtime.resilience.limiter import Limit, Limiter, LimitPath, Reservation
from tundra_nb.testing.clock import VirtualClock

GLOBAL = (Limit("global", "global", "requests", 4, 8), Limit("global", "global", "tokens", 30, 100))
LIMITS = [
    (*GLOBAL, Limit("user", "u1", "requests", 2, 3), Limit("profile", "p1", "tokens", 10, 60)),
    (*GLOBAL, Limit("user", "u1", "requests", 2, 3), Limit("profile", "p2", "requests", 1, 2)),
    (*GLOBAL, Limit("user", "u2", "tokens", 20, 50), Limit("profile", "p1", "tokens", 10, 60)),
    GLOBAL,
    (),  # every tier off
]
BY_NAME = {(limit.tier, limit.key, limit.resource): limit for limits in LIMITS for limit in limits}
TOKENS = (0, 1, 5, 10, 20, 35, 50, 60)
STEPS = (0.0, 0.01, 0.1, 0.25, 0.7, 1.5, 4.0, 12.0)
PAIRS = st.binary(min_size=16, max_size=120)
"""Read two bytes at a time: what to do, and with what. Far faster to draw than a list of operations."""


def operations(data: bytes) -> Iterator[tuple[int, int]]:
    return zip(data[::2], data[1::2], strict=False)


class Ledger:
    """What was really taken from each bucket, and when."""

    def __init__(self) -> None:
        self.reservations: dict[int, tuple[LimitPath, float, float, float]] = {}
        """By number: path, when, requests, tokens."""

    def admit(self, path: LimitPath, reservation: Reservation) -> None:
        self.reservations[reservation.number] = (path, reservation.at, 1.0, reservation.tokens)

    def refund(self, reservation: Reservation) -> None:
        del self.reservations[reservation.number]

    def settle(self, reservation: Reservation, tokens: float) -> None:
        path, at, _, _ = self.reservations[reservation.number]
        self.reservations[reservation.number] = (path, at, 1.0, tokens)

    def takings(self) -> dict[Limit, list[tuple[float, float]]]:
        """(when, how much) of each bucket, in order."""
        found: dict[Limit, list[tuple[float, float]]] = defaultdict(list)
        for _, (path, at, requests, tokens) in sorted(
            self.reservations.items(), key=lambda item: (item[1][1], item[0])
        ):
            for limit in path.limits:
                found[limit].append((at, requests if limit.resource == "requests" else tokens))
        return found

    def check_every_window(self) -> None:
        for limit, takings in self.takings().items():
            # All windows [t_i, t_j] in one pass: with P the running total, P_j - P_(i-1) <= rate * (t_j - t_i) + burst
            # for all i <= j is P_j - rate * t_j <= burst + the least of P_(i-1) - rate * t_i.
            lowest, total = math.inf, 0.0
            for at, amount in takings:
                lowest = min(lowest, total - limit.rate * at)
                total += amount
                assert total - limit.rate * at <= limit.burst + lowest + 1e-5, (limit, takings)

    def levels(self, now: float) -> dict[Limit, float]:
        """The level of each bucket as if what was given back had never been taken."""
        levels = {}
        for limit, takings in self.takings().items():
            level, last = limit.burst, -math.inf
            for at, amount in takings:
                level = min(limit.burst, level + (at - last) * limit.rate) - amount
                last = at
            levels[limit] = min(limit.burst, level + (now - last) * limit.rate)
        return levels


@settings(max_examples=4000, deadline=None, suppress_health_check=list(HealthCheck))
@given(PAIRS)
def test_no_window_ever_holds_more_than_rate_times_time_plus_burst(data: bytes) -> None:
    clock = VirtualClock()
    limiter = Limiter(clock)
    paths = [limiter.path(limits) for limits in LIMITS]
    ledger = Ledger()
    held: list[Reservation] = []
    penalties: dict[str, float] = {}
    for what, which in operations(data):
        kind = what % 8
        if kind <= 3:
            path, tokens = paths[which % 5], TOKENS[(which >> 2) % 8]
            try:
                reservation = limiter.try_reserve(path, tokens)
            except LimitExceeded as refused:
                assert refused.retry_after is None or refused.retry_after > 0  # noqa: PT017 - checked on each refusal
            else:
                held.append(reservation)
                ledger.admit(path, reservation)
                names = {limit.key for limit in path.limits if limit.resource == "requests" or tokens}
                assert all(penalties.get(name, 0) <= clock.monotonic() for name in names)
        elif kind == 4 and held:
            reservation = held.pop(which % len(held))
            reservation.refund()
            ledger.refund(reservation)
        elif kind == 5 and held:
            reservation = held.pop(which % len(held))
            used = reservation.tokens * (which % 11) / 10
            reservation.settle(used)
            ledger.settle(reservation, used)
        elif kind == 6 and which < 40:
            until = clock.monotonic() + STEPS[which % 8]
            limiter.penalise("profile", "p1", "tokens", until)
            penalties["p1"] = max(until, penalties.get("p1", 0))
        else:
            clock.advance(STEPS[which % 8])
    ledger.check_every_window()
    expected = ledger.levels(clock.monotonic())
    for row in limiter.levels():
        limit = BY_NAME[row.tier, row.key, row.resource]
        assert row.level == pytest.approx(expected.get(limit, limit.burst), abs=1e-5)


TIERS = (
    (Limit("global", "global", "requests", 4, 8), Limit("global", "global", "tokens", 30, 100)),
    (Limit("user", "u1", "requests", 2, 3), Limit("user", "u1", "tokens", 20, 50)),
    (Limit("profile", "p1", "requests", 1, 2), Limit("profile", "p1", "tokens", 10, 60)),
)


def path_of(chosen: int) -> tuple[Limit, ...]:
    """The limits whose bit is set: any combination of tiers and resources, none of them included."""
    return tuple(limit for place, limit in enumerate(itertools.chain(*TIERS)) if chosen >> place & 1)


@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.integers(0, 63), min_size=1, max_size=4), PAIRS)
def test_any_choice_of_tiers_admits_or_refuses_and_a_path_without_buckets_always_admits(
    chosen: list[int], data: bytes
) -> None:
    clock = VirtualClock()
    limiter = Limiter(clock)
    paths = [limiter.path(path_of(bits)) for bits in (*chosen, 0)]
    held: list[Reservation] = []
    for what, which in operations(data):
        kind = what % 8
        path, tokens = paths[which % len(paths)], TOKENS[(which >> 3) % 8]
        if kind <= 4:
            try:
                held.append(limiter.try_reserve(path, tokens))
            except LimitExceeded:
                assert path.limits, "nothing limits it, and it was refused"
        elif kind == 5:
            tier, key = (("global", "global"), ("user", "u1"), ("profile", "p1"))[which % 3]
            limiter.penalise(tier, key, ("requests", "tokens")[which % 2], clock.monotonic() + STEPS[which % 8])  # type: ignore[arg-type]
        elif kind == 6 and held:
            reservation = held.pop()
            reservation.refund() if which % 2 else reservation.settle(which)
        else:
            clock.advance(STEPS[which % 8])
        free = limiter.try_reserve(paths[-1], tokens)
        assert (free.level_requests, free.level_tokens, free.waited) == (None, None, 0.0)
    assert limiter.waiting == 0


class Crowd:
    """Random callers that wait, are cancelled, refund and settle."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.limiter = Limiter(self.clock)
        self.paths = [self.limiter.path(limits) for limits in LIMITS]
        self.ledger = Ledger()
        self.released: list[tuple[LimitPath, int, float]] = []
        self.waits: list[tuple[asyncio.Task[None], LimitPath]] = []
        self.held: list[Reservation] = []
        self.arrivals = itertools.count()

    async def _call(self, path: LimitPath, tokens: float, max_wait: float) -> None:
        arrival = next(self.arrivals)
        try:
            reservation = await self.limiter.reserve(path, tokens, max_wait)
        except LimitExceeded:
            return
        assert reservation.waited <= max_wait + 1e-6
        self.ledger.admit(path, reservation)
        self.released.append((path, arrival, reservation.at))
        self.held.append(reservation)

    async def run(self, data: bytes) -> None:
        for what, which in operations(data):
            kind = what % 8
            if kind <= 3:
                path, tokens, max_wait = (
                    self.paths[which % 5],
                    TOKENS[(which >> 2) % 8],
                    (1e6, 5.0, 0.5, 0.0)[what >> 6],
                )
                self.waits.append((asyncio.ensure_future(self._call(path, tokens, max_wait)), path))
            elif kind == 4 and self.waits:
                self.waits[which % len(self.waits)][0].cancel()
            elif kind == 5 and self.held:
                reservation = self.held.pop(which % len(self.held))
                if which % 2:
                    reservation.refund()
                    self.ledger.refund(reservation)
                else:
                    used = reservation.tokens * (which % 11) / 10
                    reservation.settle(used)
                    self.ledger.settle(reservation, used)
            elif kind == 6 and which < 60:
                self.clock.advance(STEPS[which % 8])  # the loop does not get to run in between
            elif kind == 6 and which < 90:
                self.limiter.penalise("profile", "p1", "tokens", self.clock.monotonic() + STEPS[which % 8])
            else:
                await self._elapse(STEPS[which % 8])
            self.check_places()
        await self._elapse(1000)

    async def _elapse(self, seconds: float) -> None:
        # Few turns of the loop per moment are enough here, and keep thousands of sequences quick.
        self.clock.advance(0)
        for _ in range(3):
            await asyncio.sleep(0)
        self.clock.advance(seconds)
        for _ in range(3):
            await asyncio.sleep(0)

    def places(self) -> dict[int, float]:
        return {waiter.number: waiter.at for queue in self.limiter._queues.values() for waiter in queue}

    def check_places(self) -> None:
        """Where nobody's place is said to be behind, booking all anew moves nobody."""
        limiter = self.limiter
        if limiter._is_stale or any(w.future.done() for queue in limiter._queues.values() for w in queue):
            return
        before, rebook_at = self.places(), limiter._rebook_at
        limiter._rebook(self.clock.monotonic())
        limiter._rebook_at = rebook_at
        assert self.places() == pytest.approx(before, abs=1e-6)

    def check(self) -> None:
        assert all(task.done() for task, _ in self.waits), "somebody waits for ever"
        assert self.limiter.waiting == 0
        assert self.clock.waiting == 0, "a timer was left behind"
        assert not any(bucket.line for path in self.paths for bucket in path.buckets)
        for task, _ in self.waits:
            assert task.cancelled() or task.exception() is None
        self.ledger.check_every_window()
        for row in self.limiter.levels():
            assert row.level == pytest.approx(row.burst), "a reservation was lost"
        for path in self.paths:
            order = [at for released, _, at in sorted(self.released, key=lambda r: r[1]) if released is path]
            assert order == sorted(order), "somebody was overtaken on the same path"


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """One for all examples: making thousands would take longer than the examples."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@settings(max_examples=2500, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=PAIRS)
def test_waiters_keep_the_limits_keep_their_order_and_are_never_lost(
    loop: asyncio.AbstractEventLoop, data: bytes
) -> None:
    crowd = Crowd()
    loop.run_until_complete(crowd.run(data))
    crowd.check()
