"""The breaker's rules, one by one and under random sequences, on a virtual clock."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tundra_nb.errors import BreakerOpen
from tundra_nb.runtime.resilience.breaker import Breaker, BreakerChange, Permit
from tundra_nb.settings import BreakerSettings
from tundra_nb.testing.clock import VirtualClock


class Bench:
    def __init__(self, rules: BreakerSettings = BreakerSettings()) -> None:  # noqa: B008 - frozen
        self.clock = VirtualClock()
        self.changes: list[BreakerChange] = []
        self.breaker = Breaker("p", rules, self.clock.monotonic, self.changes.append)

    @property
    def state(self) -> str:
        return self.breaker.state

    def fail(self, times: int = 1, reason: str = "reset") -> None:
        for _ in range(times):
            self.breaker.admit().failure(reason)

    def refusal(self) -> BreakerOpen:
        with pytest.raises(BreakerOpen) as caught:
            self.breaker.admit()
        return caught.value


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_five_failures_in_a_row_open_it_for_thirty_seconds(bench: Bench) -> None:
    bench.fail(4)
    assert bench.state == "closed"
    bench.fail(reason="timeout_idle")
    assert bench.state == "open"
    assert bench.breaker.open_for == pytest.approx(30)
    assert bench.changes == [
        BreakerChange(name="p", old="closed", new="open", reason="timeout_idle", failures=5, open_for=30)
    ]


def test_a_success_in_between_begins_the_count_again(bench: Bench) -> None:
    bench.fail(4)
    bench.breaker.admit().success()
    assert bench.breaker.failures == 0
    bench.fail(4)
    assert bench.state == "closed"


def test_an_open_breaker_refuses_with_the_rest_of_its_time_and_the_cause(bench: Bench) -> None:
    bench.fail(5, "dns")
    bench.clock.advance(12)
    error = bench.refusal()
    assert (error.profile, error.cause) == ("p", "dns")
    assert error.retry_after == pytest.approx(18)


def test_its_state_is_a_function_of_time(bench: Bench) -> None:
    bench.fail(5)
    bench.clock.advance(29.9)
    assert bench.state == "open"
    bench.clock.advance(0.1)
    assert bench.state == "half_open"
    assert bench.breaker.open_for == 0


def test_half_open_lets_one_probe_through_at_a_time(bench: Bench) -> None:
    bench.fail(5)
    bench.clock.advance(30)
    probe = bench.breaker.admit()
    assert probe.state == "half_open"
    assert bench.breaker.is_probing
    error = bench.refusal()
    assert (error.retry_after, error.cause) == (None, "a probe is under way")
    probe.success()
    assert bench.state == "half_open"
    bench.breaker.admit().success()
    assert bench.state == "closed"


def test_two_good_probes_close_it_and_each_transition_is_told(bench: Bench) -> None:
    bench.fail(5)
    bench.clock.advance(31)
    bench.breaker.admit().success()
    bench.breaker.admit().success()
    assert bench.breaker.failures == 0
    assert [(c.old, c.new, c.reason) for c in bench.changes] == [
        ("closed", "open", "reset"),
        ("open", "half_open", "open_period_over"),
        ("half_open", "closed", "probes_succeeded"),
    ]


def test_a_bad_probe_opens_it_for_a_whole_period_again(bench: Bench) -> None:
    bench.fail(5)
    bench.clock.advance(30)
    bench.breaker.admit().success()
    bench.fail(reason="tls")
    assert bench.breaker.open_for == pytest.approx(30)
    assert bench.breaker.failures == 6
    bench.clock.advance(30)
    bench.breaker.admit().success()
    assert bench.state == "half_open", "the good probe before the bad one does not count"


def test_a_late_failure_does_not_prolong_the_open_period(bench: Bench) -> None:
    late = [bench.breaker.admit() for _ in range(3)]
    bench.fail(5)
    bench.clock.advance(20)
    late[0].failure("timeout_total")
    assert bench.breaker.open_for == pytest.approx(10)
    bench.clock.advance(10)
    late[1].failure("timeout_total")
    assert bench.state == "half_open"
    assert len(bench.changes) == 1


def test_a_late_success_does_not_close_it(bench: Bench) -> None:
    late = [bench.breaker.admit() for _ in range(3)]
    bench.fail(5)
    late[0].success()
    assert bench.state == "open"
    bench.clock.advance(30)
    late[1].success()
    late[2].success()
    assert bench.state == "half_open"


def test_a_probe_that_was_released_leaves_its_place_to_the_next(bench: Bench) -> None:
    bench.fail(5)
    bench.clock.advance(30)
    bench.breaker.admit().release()
    assert not bench.breaker.is_probing
    bench.breaker.admit().success()
    assert [c.new for c in bench.changes] == ["open", "half_open"]


def test_a_released_call_changes_nothing_when_closed(bench: Bench) -> None:
    bench.fail(4)
    bench.breaker.admit().release()
    assert bench.breaker.failures == 4


def test_the_first_result_of_a_permit_counts(bench: Bench) -> None:
    for _ in range(5):
        permit = bench.breaker.admit()
        permit.failure("reset")
        permit.success()
        permit.release()
        permit.failure("reset")
    assert bench.state == "open"
    assert bench.breaker.failures == 5


def test_a_dropped_probe_does_not_keep_its_place(bench: Bench) -> None:
    bench.fail(5)
    bench.clock.advance(30)
    dropped = [bench.breaker.admit()]
    assert bench.refusal().cause == "a probe is under way"
    dropped.clear()
    assert not bench.breaker.is_probing


@pytest.mark.anyio
async def test_a_cancelled_probe_frees_its_place_and_is_no_failure(bench: Bench) -> None:
    bench.fail(5)
    bench.clock.advance(30)

    async def call() -> None:
        with bench.breaker.admit() as permit:
            await bench.clock.sleep(5)
            permit.success()

    task = asyncio.ensure_future(call())
    await asyncio.sleep(0)
    assert bench.refusal().cause == "a probe is under way"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not bench.breaker.is_probing
    assert bench.state == "half_open"


def test_reset_closes_it_and_results_under_way_no_longer_count(bench: Bench) -> None:
    bench.fail(5)
    bench.clock.advance(30)
    probe = bench.breaker.admit()
    bench.breaker.reset()
    assert bench.state == "closed"
    assert (bench.changes[-1].old, bench.changes[-1].new, bench.changes[-1].reason) == ("half_open", "closed", "reset")
    probe.failure("reset")
    assert bench.breaker.failures == 0


def test_reset_of_a_closed_breaker_clears_its_count_without_a_word(bench: Bench) -> None:
    bench.fail(4)
    bench.breaker.reset()
    assert bench.breaker.failures == 0
    assert not bench.changes


def test_an_open_period_is_taken_up_after_a_restart(bench: Bench) -> None:
    bench.breaker.restore(12.5, 5, "tls")
    assert bench.state == "open"
    error = bench.refusal()
    assert error.retry_after == pytest.approx(12.5)
    assert error.cause == "tls"
    assert bench.breaker.failures == 5
    assert not bench.changes
    bench.clock.advance(12.5)
    assert bench.breaker.admit().state == "half_open"


def test_an_open_period_that_ended_during_the_restart_leaves_it_half_open(bench: Bench) -> None:
    bench.breaker.restore(-3, 5)
    assert bench.state == "half_open"
    assert bench.breaker.open_for == 0


def test_new_thresholds_hold_at_once(bench: Bench) -> None:
    bench.fail(2)
    bench.breaker.configure(BreakerSettings(failures=3, successes=1, open_seconds=10))
    bench.fail()
    assert bench.breaker.open_for == pytest.approx(10)
    bench.breaker.configure(BreakerSettings(failures=3, successes=1, open_seconds=40))
    assert bench.breaker.open_for == pytest.approx(40)
    bench.breaker.configure(BreakerSettings(failures=3, successes=1, open_seconds=1))
    bench.clock.advance(1)
    bench.breaker.admit().success()
    assert bench.state == "closed"


def test_states_are_readable(bench: Bench) -> None:
    permit = bench.breaker.admit()
    bench.fail(5)
    bench.clock.advance(10)
    assert repr(bench.breaker) == "<Breaker p open, 5 failures, 20.0 s left>"
    assert repr(permit) == "<Permit closed, unused>"
    permit.release()
    assert repr(permit) == "<Permit closed, told>"


class Model:
    """The breaker as its table says it, without generations: which calls still count is kept by hand."""

    def __init__(self, clock: VirtualClock, rules: BreakerSettings) -> None:
        self.clock = clock
        self.rules = rules
        self.open_until: float | None = None
        self.failures = 0
        self.successes = 0
        self.counting: set[int] = set()
        self.probe: int | None = None

    @property
    def state(self) -> str:
        if self.open_until is None:
            return "closed"
        return "open" if self.clock.monotonic() < self.open_until else "half_open"

    def admits(self, call: int) -> bool:
        if self.state == "open" or (self.state == "half_open" and self.probe is not None):
            return False
        if self.state == "half_open":
            self.probe = call
        self.counting.add(call)
        return True

    def end(self, call: int, result: str) -> None:
        if call not in self.counting:
            return
        self.counting.discard(call)
        was_probe, self.probe = self.probe == call, None if self.probe == call else self.probe
        if result == "success" and was_probe:
            self.successes += 1
            if self.successes >= self.rules.successes:
                self.close()
        elif result == "success":
            self.failures = 0
        elif result == "failure":
            self.failures += 1
            if was_probe or self.failures >= self.rules.failures:
                self.open_until = self.clock.monotonic() + self.rules.open_seconds
                self.forget()

    def close(self) -> None:
        self.open_until = None
        self.failures = 0
        self.forget()

    def forget(self) -> None:
        self.successes = 0
        self.counting.clear()
        self.probe = None


@settings(max_examples=3000, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(min_size=10, max_size=120))
def test_random_sequences_never_give_two_probes_and_never_lose_a_place(data: bytes) -> None:
    bench = Bench(BreakerSettings(failures=3, successes=2, open_seconds=10))
    breaker = bench.breaker
    model = Model(bench.clock, breaker.settings)
    under_way: dict[int, Permit] = {}
    for number, (what, which) in enumerate(zip(data[::2], data[1::2], strict=False)):
        kind = what % 10
        if kind <= 3:
            try:
                under_way[number] = breaker.admit()
            except BreakerOpen:
                assert not model.admits(number)
            else:
                assert model.admits(number)
        elif kind <= 7 and under_way:
            call = sorted(under_way)[which % len(under_way)]
            permit = under_way.pop(call)
            result = ("failure", "failure", "success", "release")[kind - 4]
            model.end(call, result)
            permit.failure("reset") if result == "failure" else getattr(permit, result)()
            permit.success()
        elif kind == 8 and which < 30:
            breaker.reset()
            model.close()
        else:
            bench.clock.advance((0.5, 3.0, 10.0)[which % 3])
        assert bench.state == model.state
        assert breaker.failures == model.failures
        assert breaker.is_probing == (model.probe is not None)
        assert sum(p.state == "half_open" and c in model.counting for c, p in under_way.items()) <= 1
    under_way.clear()
    bench.clock.advance(10)
    for _ in range(2):
        breaker.admit().success()
    assert bench.state == "closed"
    states = [(change.old, change.new) for change in bench.changes]
    assert all(before[1] == after[0] for before, after in itertools.pairwise(states) if after[0] != "half_open")
