"""Limiter decisions, waiters on schedule, breaker overhead: beside a bucket by hand and the peers that are installed.

    python -m tests.benchmarks.bench_resilience

Ours decides over three tiers × two resources, all or nothing; the peers over one bucket. A few seconds in all.
"""

from __future__ import annotations

import asyncio
import importlib
import statistics
import time
from collections.abc import Callable
from typing import Any

from tests.benchmarks.table import Table
from tundra_nb.runtime.clock import SystemClock
from tundra_nb.runtime.resilience.breaker import Breaker
from tundra_nb.runtime.resilience.limiter import Limit, Limiter, LimitPath
from tundra_nb.settings import BreakerSettings
from tundra_nb.types import Resource, Tier

DECISIONS = 30_000
CALLS = 50_000
ROUNDS = 3
"""Candidates are interleaved; the median counts."""
WAITERS = 1000
RATE = 2000.0
BURST = 20.0
"""10 ms of the rate: a loop's timer wakes up to 1 ms late."""
HUGE = 1_000_000_000.0


class HandBucket:
    """What one writes in ten lines."""

    def __init__(self, rate: float, burst: float) -> None:
        self.rate = rate
        self.burst = self.level = burst
        self.at = time.monotonic()

    def take(self, cost: float = 1.0) -> bool:
        now = time.monotonic()
        self.level = min(self.burst, self.level + (now - self.at) * self.rate)
        self.at = now
        if self.level < cost:
            return False
        self.level -= cost
        return True


def peer(name: str) -> Any:
    """The module, or None when it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def six_buckets(rate: float, burst: float) -> tuple[Limiter, LimitPath]:
    tiers: tuple[Tier, ...] = ("global", "user", "profile")
    resources: tuple[Resource, ...] = ("requests", "tokens")
    limiter = Limiter(SystemClock())
    return limiter, limiter.path([Limit(tier, tier, resource, rate, burst) for tier in tiers for resource in resources])


def seconds(call: Callable[[], object], times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times


def medians(candidates: dict[str, Callable[[], object]], times: int) -> dict[str, float]:
    """Seconds per call of each candidate."""
    rounds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(ROUNDS):
        for name, call in candidates.items():
            rounds[name].append(seconds(call, times))
    return {name: statistics.median(found) for name, found in rounds.items()}


def decisions() -> Table:
    limiter, path = six_buckets(HUGE, HUGE)
    busy, busy_path = six_buckets(50.0, HUGE)
    candidates: dict[str, Callable[[], object]] = {
        "ours": lambda: limiter.try_reserve(path, 100.0),
        "ours, buckets never full": lambda: busy.try_reserve(busy_path, 1.0),
        "hand bucket": HandBucket(HUGE, HUGE).take,
    }
    if limits := peer("limits"):
        strategy = limits.strategies.MovingWindowRateLimiter(limits.storage.MemoryStorage())
        fixed = limits.strategies.FixedWindowRateLimiter(limits.storage.MemoryStorage())
        rule = limits.RateLimitItemPerSecond(int(HUGE))
        candidates["limits, fixed window"] = lambda: fixed.hit(rule, "k")
        candidates["limits, moving window"] = lambda: strategy.hit(rule, "k")
    if pyrate := peer("pyrate_limiter"):
        pyrate_limiter = pyrate.Limiter(pyrate.Rate(int(HUGE), 1000))
        candidates["pyrate-limiter"] = lambda: pyrate_limiter.try_acquire("k", blocking=False)
    per_second = {name: 1 / each for name, each in medians(candidates, DECISIONS).items()}
    ours = per_second.pop("ours")
    table = Table("Limiter: decisions per second (ours: 3 tiers × 2 resources)")
    table.add("the goal", 1_000_000, ours, ours / 1_000_000, "≥ 1")
    deep = per_second.pop("ours, buckets never full")
    table.add("the goal, buckets never full", 800_000, deep, deep / 800_000, "≥ 1")
    for name, theirs in per_second.items():
        table.add(name, theirs, ours, ours / theirs, "≥ 0.19" if name == "hand bucket" else "≥ 1")
    return table


async def _all(reserve: Callable[[], Any]) -> float:
    start = time.perf_counter()
    await asyncio.gather(*(reserve() for _ in range(WAITERS)))
    return time.perf_counter() - start


async def _waiters() -> dict[str, float]:
    limiter = Limiter(SystemClock())
    path = limiter.path([Limit("global", "global", "requests", RATE, BURST)])
    took = {"ours": await _all(lambda: limiter.reserve(path, 0, 60))}
    if aiolimiter := peer("aiolimiter"):
        theirs = aiolimiter.AsyncLimiter(BURST, BURST / RATE)
        took["aiolimiter"] = await _all(theirs.acquire)
    return took


def waiters() -> Table:
    took = asyncio.run(_waiters())
    ours = took.pop("ours")
    ideal = (WAITERS - BURST) / RATE
    table = Table(f"Limiter: {WAITERS} waiters at {RATE:g}/s, burst {BURST:g}: seconds until the last is released")
    table.add("the schedule", ideal, ours, ours / ideal, "≤ 1.02")
    for name, theirs in took.items():
        table.add(name, theirs, ours, ours / theirs, "≤ 1.02")
    return table


def _nothing() -> None:
    pass


def breakers() -> Table:
    breaker = Breaker("p", BreakerSettings(), time.monotonic)

    def guarded() -> None:
        permit = breaker.admit()
        _nothing()
        permit.success()

    candidates: dict[str, Callable[[], object]] = {"bare": _nothing, "ours": guarded}
    if circuitbreaker := peer("circuitbreaker"):
        candidates["circuitbreaker"] = circuitbreaker.CircuitBreaker()(_nothing)
    if purgatory := peer("purgatory"):
        candidates["purgatory"] = purgatory.SyncCircuitBreakerFactory()("p")(_nothing)
    if pybreaker := peer("pybreaker"):
        candidates["pybreaker"] = pybreaker.CircuitBreaker()(_nothing)
    took = medians(candidates, CALLS)
    bare = took.pop("bare")
    overhead = {name: (each - bare) * 1e6 for name, each in took.items()}
    ours = overhead.pop("ours")
    table = Table("Breaker: overhead of a closed call, µs")
    table.add("the goal", 0.5, ours, ours / 0.5, "≤ 1")
    for name, theirs in overhead.items():
        table.add(name, theirs, ours, ours / theirs, "≤ 1")
    return table


def main() -> None:
    for part in (decisions, waiters, breakers):
        print(part(), end="\n\n")


if __name__ == "__main__":
    main()
