"""Simulation and replay: against tables worked out by hand, against each other, and twice the same."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from tundra_nb.errors import ApiError, RateLimited
from tundra_nb.runtime.caller import Caller
from tundra_nb.runtime.rehearsal.replay import Ran, replay
from tundra_nb.runtime.rehearsal.simulate import CallEnd, simulate
from tundra_nb.runtime.rehearsal.trace import Arrival, Trace, Try, read
from tundra_nb.settings import BreakerSettings, LimitsSettings, ProfileSettings, RouterSettings, Settings, TierSettings
from tundra_nb.types import Usage

ME = Caller("me")
FAILED = ApiError(profile="main", status=500)
OFF = LimitsSettings(global_=TierSettings(enabled=False))


def profile(name: str = "main", **more: Any) -> ProfileSettings:
    return ProfileSettings(name=name, kind="local", base_url="http://127.0.0.1:1/v1", model="m", **more)


def settings(*profiles: ProfileSettings, **more: Any) -> Settings:
    return Settings(**({"router": RouterSettings(retries=0), "limits": OFF} | more), profile=profiles or (profile(),))


def arrival(number: int, at: float, *tries: Try, outcome: str = "ok", caller: Caller = ME) -> Arrival:
    return Arrival(number, at, caller, None, True, 300, tries, outcome, None)


def answered(seconds: float = 0.1, name: str = "main") -> Try:
    return Try(name, seconds, None, Usage(input_tokens=100, output_tokens=20))


def failed(seconds: float = 0.1, name: str = "main") -> Try:
    return Try(name, seconds, ApiError(profile=name, status=500), Usage())


def trace(*calls: Arrival) -> Trace:
    return Trace(list(calls), 1_750_000_000_000_000, {})


THIRTY = trace(*(arrival(n, float(n), failed() if 5 <= n <= 14 else answered()) for n in range(30)))
"""A call each second, 0.1 s long each; those from 5 to 14 fail."""
BY_HAND = {
    # failures that open it: what becomes of the thirty; it is open for 10 s, one good probe closes it
    3: "ok " * 5 + "error " * 3 + "refused " * 10 + "ok " * 12,  # open from 7.1 to 17.1
    5: "ok " * 5 + "error " * 5 + "refused " * 10 + "ok " * 10,  # open from 9.1 to 19.1
    8: "ok " * 5 + "error " * 8 + "refused " * 10 + "ok " * 7,  # open from 12.1 to 22.1
    11: "ok " * 5 + "error " * 10 + "ok " * 15,  # never
}


@pytest.mark.parametrize(("failures", "expected"), BY_HAND.items())
@pytest.mark.anyio
async def test_thirty_arrivals_end_as_worked_out_by_hand(failures: int, expected: str) -> None:
    chosen = settings(breaker=BreakerSettings(failures=failures, successes=1, open_seconds=10))
    assert [call.outcome for call in simulate(THIRTY, chosen)] == expected.split()
    ran = await replay(THIRTY, chosen, {})
    assert [row.outcome for row in ran.operations] == expected.split()


def test_waits_in_line_are_those_worked_out_by_hand() -> None:
    calls = trace(*(arrival(n, float(n), answered()) for n in range(10)))
    tier = TierSettings(rate=0.5, burst=1)  # one each 2 s
    run = simulate(calls, settings(limits=LimitsSettings(global_=tier), router=RouterSettings(max_wait_seconds=3)))
    # places are free at 0, 2, 4, 6 …: who would wait longer than 3 s is refused
    expected = [(0.0, "ok"), (1.0, "ok"), (2.0, "ok"), (3.0, "ok"), (0.0, "refused"), (3.0, "ok"), (0.0, "refused")]
    expected += [(3.0, "ok"), (0.0, "refused"), (3.0, "ok")]
    assert [(round(call.waited, 9), call.outcome) for call in run] == expected


def busy(seed: int, count: int = 300) -> tuple[Trace, Settings]:
    """A hard hour: two profiles, three users, failures in runs, rate limits, waits in line, retries, failover."""
    r = random.Random(seed)
    at, calls = 0.0, []
    for n in range(count):
        at += r.expovariate(8)
        tries = []
        is_bad = (n // 25) % 3 == 1
        for name in ("main", "spare"):
            for _ in range(3):
                draw = r.random()
                took = r.uniform(0.05, 1.5)
                if name == "main" and is_bad and draw < 0.8:
                    error = RateLimited(profile=name, retry_after=r.choice((None, 1.5, 40.0))) if draw < 0.1 else None
                    tries.append(Try(name, took, error or ApiError(profile=name, status=503), Usage()))
                else:
                    usage = Usage(input_tokens=r.randrange(50, 400), output_tokens=r.randrange(10, 200))
                    tries.append(Try(name, took, None, usage))
        calls.append(arrival(n, at, *tries, caller=Caller(f"user{r.randrange(3)}")))
    limits = LimitsSettings(
        global_=TierSettings(rate=7, burst=5, tokens_per_minute=200_000), user=TierSettings(rate=4, burst=4)
    )
    chosen = settings(
        profile("main", priority=0),
        profile("spare", priority=1, rpm=120),
        limits=limits,
        router=RouterSettings(retries=1, max_wait_seconds=3),
        breaker=BreakerSettings(failures=3, open_seconds=4),
    )
    return trace(*calls), chosen


def seen(ran: Ran) -> list[tuple[Any, ...]]:
    return [
        (row.outcome, row.profile, row.attempts, round(row.waited_ms, 3), round(row.latency_ms or 0, 3))
        for row in ran.operations
    ]


def simulated(call: CallEnd) -> tuple[Any, ...]:
    return (call.outcome, call.profile, call.attempts, round(call.waited * 1000, 3), round(call.seconds * 1000, 3))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.anyio
async def test_a_simulation_agrees_call_by_call_with_a_live_run_of_the_same_arrivals(seed: int) -> None:
    """The live run is the daemon's own `Operations`, with their limiter, breakers, router, on a virtual clock."""
    calls, chosen = busy(seed)
    ran = await replay(calls, chosen, {})
    run = simulate(calls, chosen)
    assert [simulated(call) for call in run] == seen(ran)
    moves = [
        (row.profile, row.old_state, row.new_state) for row in ran.breaker_events if row.old_state != row.new_state
    ]
    assert [move[1:] for move in run.moves] == moves
    assert {row.outcome for row in ran.operations} >= {"ok", "refused"}
    assert any(row.waited_ms for row in ran.operations)
    assert moves


@pytest.mark.parametrize("deadline", [0.001, 0.05, 0.4, 1.0])
@pytest.mark.anyio
async def test_a_call_that_takes_longer_than_the_deadline_fails_in_a_simulation_as_in_truth(deadline: float) -> None:
    calls, chosen = busy(3)
    router = msgspec.structs.replace(chosen.router, deadline_seconds=deadline)
    chosen = msgspec.structs.replace(chosen, router=router, limits=OFF)
    ran = await replay(calls, chosen, {})
    run = simulate(calls, chosen)
    assert [simulated(call)[:3] for call in run] == [row[:3] for row in seen(ran)]
    codes = {row.code for row in ran.operations}
    assert "Timeout" in codes
    if deadline < 0.05:
        assert not any(call.outcome == "ok" for call in run)


@pytest.mark.anyio
async def test_a_replay_gives_the_same_sequence_twice() -> None:
    calls, chosen = busy(7, 120)
    one, two = [await replay(calls, chosen, {}) for _ in range(2)]
    assert [msgspec.structs.astuple(row) for row in one.operations] == [
        msgspec.structs.astuple(row) for row in two.operations
    ]
    assert one.attempts == two.attempts
    assert one.breaker_events == two.breaker_events


def test_what_was_never_seen_is_never_a_success() -> None:
    calls = trace(arrival(0, 0.0, failed()), arrival(1, 1.0, answered()), arrival(2, 2.0))
    chosen = settings(profile("main", priority=0), profile("spare", priority=1))
    for assume in ("failed", "answered"):
        run = simulate(calls, chosen, assume)
        assert [call.outcome for call in run] == ["unknown", "ok", "unknown"], assume
    assert run.asked_unseen == 2


UNASKED = [
    # what of a failed call was not sent, and whether it ends in a rehearsal as it did
    ("UsageError", [], True),
    ("ConfigError", [], True),
    ("AllProvidersExhausted", ["unsupported_field"], True),
    ("AllProvidersExhausted", ["key_missing"], True),
    ("AllProvidersExhausted", ["key_missing", "breaker_open"], False),
    ("AllProvidersExhausted", ["rate_limited"], False),
    ("AllProvidersExhausted", ["key_rejected"], True),  # parked before
]


@pytest.mark.parametrize(("code", "reasons", "expected"), UNASKED)
@pytest.mark.anyio
async def test_a_call_that_asked_nobody_ends_as_it_did_and_opens_no_breaker(
    code: str, reasons: list[str], expected: bool
) -> None:
    operations = [{"operation_id": n, "at": n * 1_000_000, "outcome": "error", "code": code} for n in range(4)]
    operations.append({"operation_id": 4, "at": 4_000_000, "outcome": "ok"})
    refusals = [
        {"attempt_id": 10 * n + seq, "operation_id": n, "seq": seq, "profile": "main", "outcome": "refused"}
        | {"reason": reason}
        for n in range(4)
        for seq, reason in enumerate(reasons)
    ]
    done = {"attempt_id": 99, "operation_id": 4, "seq": 1, "profile": "main", "outcome": "ok", "latency_ms": 100.0}
    calls = read(operations, [*refusals, done], "main")
    assert [call.asked_nobody for call in calls.calls] == [expected] * 4 + [False]
    chosen = settings(breaker=BreakerSettings(failures=3))
    run, ran = simulate(calls, chosen), await replay(calls, chosen, {})
    assert bool(run.moves) == bool(ran.breaker_events) == bool(run.asked_unseen) == bool(ran.unknown) == (not expected)
    if expected:
        assert [simulated(call) for call in run] == seen(ran)
        assert [(row.outcome, row.code, row.attempts) for row in ran.operations[:4]] == [("error", code, 0)] * 4
        assert ran.operations[4].outcome == "ok"


def test_a_call_that_met_a_profile_parked_in_the_same_trace_is_decided_anew() -> None:
    operations = [{"operation_id": n, "at": n, "outcome": "error", "code": "KeyRejected"} for n in range(2)]
    attempts = [
        {"attempt_id": n, "operation_id": n, "seq": 1, "profile": "main", "outcome": outcome, "reason": "key_rejected"}
        for n, outcome in enumerate(("error", "refused"))
    ]
    run = simulate(read(operations, attempts, "main"), settings())
    assert [(call.outcome, call.attempts) for call in run] == [("error", 1)] * 2
    assert run.asked_unseen == 0


def test_rows_of_a_history_become_a_trace() -> None:
    operations = [
        {
            "operation_id": 1,
            "at": 5_000_000,
            "outcome": "ok",
            "user_name": "ci",
            "caller": "gateway",
            "asked": "a,b",
            "input_tokens": 10,
        },
        {"operation_id": 2, "at": 4_000_000, "outcome": "error", "code": "ApiError", "asked": "b", "user_name": "me"},
    ]
    attempts = [
        {"attempt_id": 12, "operation_id": 1, "seq": 2, "profile": "b", "outcome": "ok", "latency_ms": 500.0},
        {"attempt_id": 11, "operation_id": 1, "seq": 1, "profile": "a", "outcome": "error", "reason": "rate_limited"}
        | {"code": "RateLimited", "retry_after_s": 3.0, "status": 429, "latency_ms": 10.0},
        {"attempt_id": 13, "operation_id": 2, "seq": 1, "profile": "b", "outcome": "refused", "reason": "breaker_open"},
    ]
    made = read(operations, attempts, "a")
    first, second = made.calls
    assert (first.operation_id, first.at, first.profile, first.tries) == (2, 0.0, "b", ())
    assert (second.at, second.profile, second.caller) == (1.0, None, Caller("ci", "token/ci"))
    assert [one.profile for one in second.tries] == ["a", "b"]
    limited = second.tries[0].error
    assert isinstance(limited, RateLimited)
    assert limited.retry_after == 3.0
    assert second.tries[1].seconds == 0.5
