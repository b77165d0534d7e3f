"""The limiter's rules, one by one, on a virtual clock."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import pytest

from tundra_nb.errors import LimitExceeded
from tundra_nb.runtime.resilience.limiter import (
    CROWD,
    IDLE_SECONDS,
    Limit,
    Limiter,
    LimitNotice,
    LimitPath,
    Reservation,
)
from tundra_nb.testing.clock import VirtualClock
from tundra_nb.types import Resource, Tier


class Bench:
    """A limiter on a virtual clock, with all it said."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.notices: list[LimitNotice] = []
        self.limiter = Limiter(self.clock, self.notices.append)

    def path(self, *limits: Limit) -> LimitPath:
        return self.limiter.path(limits)

    def level(self, tier: Tier, key: str, resource: Resource = "requests") -> float:
        return next(
            row.level for row in self.limiter.levels() if (row.tier, row.key, row.resource) == (tier, key, resource)
        )

    def waiter(self, path: LimitPath, tokens: float = 0, max_wait: float = 1e6) -> asyncio.Task[Reservation]:
        return asyncio.ensure_future(self.limiter.reserve(path, tokens, max_wait))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def requests(rate: float, burst: float, tier: Tier = "global", key: str = "global") -> Limit:
    return Limit(tier, key, "requests", rate, burst)


def tokens(rate: float, burst: float, tier: Tier = "global", key: str = "global") -> Limit:
    return Limit(tier, key, "tokens", rate, burst)


def refusal(bench: Bench, path: LimitPath, amount: float = 0) -> LimitExceeded:
    with pytest.raises(LimitExceeded) as caught:
        bench.limiter.try_reserve(path, amount)
    return caught.value


def test_a_full_bucket_admits_its_burst_and_then_its_rate(bench: Bench) -> None:
    path = bench.path(requests(2, 3))
    for _ in range(3):
        bench.limiter.try_reserve(path)
    assert refusal(bench, path).retry_after == pytest.approx(0.5)
    bench.clock.advance(0.5)
    bench.limiter.try_reserve(path)
    assert refusal(bench, path).retry_after == pytest.approx(0.5)


def test_a_refused_caller_is_admitted_exactly_when_it_was_told(bench: Bench) -> None:
    path = bench.path(tokens(100, 1000))
    bench.limiter.try_reserve(path, 900)
    wait = refusal(bench, path, 450).retry_after
    assert wait == pytest.approx(3.5)
    assert wait is not None
    bench.clock.advance(wait - 0.001)
    assert refusal(bench, path, 450).retry_after == pytest.approx(0.001)
    bench.clock.advance(0.001)
    bench.limiter.try_reserve(path, 450)


def test_no_limits_at_all_admit_everything(bench: Bench) -> None:
    path = bench.path()
    reservation = bench.limiter.try_reserve(path, 1e12)
    assert reservation.level_requests is None
    assert reservation.level_tokens is None
    reservation.settle(3)


def test_a_refusal_by_a_later_tier_takes_nothing_from_an_earlier_one(bench: Bench) -> None:
    path = bench.path(requests(1, 10), requests(1, 1, "profile", "p"))
    bench.limiter.try_reserve(path)
    error = refusal(bench, path)
    assert (error.tier, error.key, error.resource) == ("profile", "p", "requests")
    assert bench.level("global", "global") == pytest.approx(9)


def test_a_refusal_for_tokens_takes_no_request(bench: Bench) -> None:
    path = bench.path(requests(1, 10), tokens(1, 100))
    bench.limiter.try_reserve(path, 100)
    assert refusal(bench, path, 1).resource == "tokens"
    assert bench.level("global", "global") == pytest.approx(9)


def test_a_cost_above_the_burst_is_refused_for_good(bench: Bench) -> None:
    path = bench.path(tokens(100, 1000))
    error = refusal(bench, path, 1001)
    assert error.retry_after is None
    assert (error.requested, error.limit) == (1001, 1000)
    bench.limiter.try_reserve(path, 1000)


@pytest.mark.anyio
async def test_a_waiter_whose_cost_is_above_the_burst_is_refused_at_once(bench: Bench) -> None:
    with pytest.raises(LimitExceeded) as caught:
        await bench.limiter.reserve(bench.path(tokens(100, 1000)), 1001, math.inf)
    assert caught.value.retry_after is None


def test_a_rate_of_zero_gives_its_burst_and_then_refuses_for_good(bench: Bench) -> None:
    path = bench.path(requests(0, 2))
    bench.limiter.try_reserve(path)
    bench.limiter.try_reserve(path)
    assert refusal(bench, path).retry_after is None


def test_a_burst_below_one_request_refuses_for_good(bench: Bench) -> None:
    assert refusal(bench, bench.path(requests(5, 0.5))).retry_after is None


@pytest.mark.parametrize(("rate", "burst"), [(-1, 1), (1, -1), (math.nan, 1), (1, math.nan), (math.inf, 1)])
def test_a_limit_that_is_no_limit_is_an_error(rate: float, burst: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        requests(rate, burst)


@pytest.mark.parametrize("amount", [-1, math.nan])
def test_tokens_that_cannot_be_are_an_error(bench: Bench, amount: float) -> None:
    with pytest.raises(ValueError, match="reserved"):
        bench.limiter.try_reserve(bench.path(tokens(1, 1)), amount)
    with pytest.raises(ValueError, match="used"):
        bench.limiter.try_reserve(bench.path(tokens(1, 1)), 1).settle(amount)


def test_a_reservation_knows_the_narrowest_levels_afterwards(bench: Bench) -> None:
    path = bench.path(requests(1, 10), tokens(1, 500), requests(1, 4, "user", "u"), tokens(1, 90, "profile", "p"))
    reservation = bench.limiter.try_reserve(path, 60)
    assert reservation.level_requests == pytest.approx(3)
    assert reservation.level_tokens == pytest.approx(30)
    bench.clock.advance(5)
    assert reservation.level_tokens == pytest.approx(30)


def test_a_refund_gives_back_everything_once(bench: Bench) -> None:
    path = bench.path(requests(1, 10), tokens(1, 500))
    reservation = bench.limiter.try_reserve(path, 100)
    bench.limiter.try_reserve(path, 50)
    reservation.refund()
    reservation.refund()
    reservation.settle(400)
    assert bench.level("global", "global") == pytest.approx(9)
    assert bench.level("global", "global", "tokens") == pytest.approx(450)


def test_a_settlement_gives_back_what_was_not_used_and_keeps_the_request(bench: Bench) -> None:
    path = bench.path(requests(1, 10), tokens(1, 500))
    reservation = bench.limiter.try_reserve(path, 100)
    reservation.settle(30)
    reservation.settle(0)
    reservation.refund()
    assert bench.level("global", "global") == pytest.approx(9)
    assert bench.level("global", "global", "tokens") == pytest.approx(470)
    assert not bench.notices


def test_a_settlement_above_the_reservation_goes_into_debt_and_is_told(bench: Bench) -> None:
    path = bench.path(tokens(10, 100))
    bench.limiter.try_reserve(path, 90).settle(150)
    assert bench.level("global", "global", "tokens") == pytest.approx(-50)
    assert refusal(bench, path, 10).retry_after == pytest.approx(6)
    notice = bench.notices[0]
    assert (notice.decision, notice.requested) == ("corrected", 60)
    assert notice.remaining == pytest.approx(-50)


def test_a_refund_after_the_bucket_was_full_again_admits_nothing_twice(bench: Bench) -> None:
    path = bench.path(requests(1, 10))
    first = [bench.limiter.try_reserve(path) for _ in range(10)]
    bench.clock.advance(10)
    for _ in range(10):
        bench.limiter.try_reserve(path)
    for reservation in first:
        reservation.refund()
    assert bench.level("global", "global") == pytest.approx(0)


def test_a_refund_after_the_bucket_was_nearly_full_gives_back_the_rest(bench: Bench) -> None:
    path = bench.path(tokens(1, 10))
    first = bench.limiter.try_reserve(path, 10)
    bench.clock.advance(7)  # 3 of the 10 are not refilled yet
    bench.limiter.try_reserve(path, 7)
    first.refund()
    assert bench.level("global", "global", "tokens") == pytest.approx(3)


def test_a_penalty_admits_nothing_until_its_end_and_is_told(bench: Bench) -> None:
    path = bench.path(requests(10, 10, "profile", "p"))
    bench.limiter.penalise("profile", "p", "requests", bench.clock.monotonic() + 4)
    assert refusal(bench, path).retry_after == pytest.approx(4)
    assert bench.limiter.levels()[0].penalised_for == pytest.approx(4)
    assert [n.decision for n in bench.notices] == ["penalised", "refused"]
    bench.clock.advance(4)
    bench.limiter.try_reserve(path)
    assert bench.limiter.levels()[0].penalised_for == 0


def test_a_later_penalty_never_shortens_an_earlier_one(bench: Bench) -> None:
    path = bench.path(requests(10, 10))
    now = bench.clock.monotonic()
    bench.limiter.penalise("global", "global", "requests", now + 4)
    bench.limiter.penalise("global", "global", "requests", now + 2)
    bench.limiter.penalise("global", "global", "requests", now - 1)
    assert refusal(bench, path).retry_after == pytest.approx(4)
    bench.limiter.penalise("global", "global", "requests", now + 9)
    assert refusal(bench, path).retry_after == pytest.approx(9)


def test_a_penalty_holds_for_a_bucket_that_is_made_later(bench: Bench) -> None:
    bench.limiter.penalise("profile", "p", "tokens", bench.clock.monotonic() + 4)
    assert refusal(bench, bench.path(tokens(1, 10, "profile", "p")), 1).retry_after == pytest.approx(4)


def test_a_penalty_that_is_taken_back_is_over_at_once(bench: Bench) -> None:
    path = bench.path(requests(10, 10, "profile", "p"))
    bench.limiter.pardon("profile", "p", "requests")
    bench.limiter.penalise("profile", "p", "requests", bench.clock.monotonic() + 4)
    bench.limiter.pardon("profile", "p", "requests")
    bench.limiter.try_reserve(path)
    assert bench.limiter.levels()[0].penalised_for == 0


@pytest.mark.anyio
async def test_waiters_go_on_when_a_penalty_is_taken_back(bench: Bench) -> None:
    path = bench.path(requests(1, 1, "profile", "p"))
    bench.limiter.penalise("profile", "p", "requests", bench.clock.monotonic() + 30)
    waiter = bench.waiter(path, max_wait=60)
    await bench.clock.elapse(1)
    assert not waiter.done()
    bench.limiter.pardon("profile", "p", "requests")
    await bench.clock.elapse(0)
    assert waiter.done()


def test_new_rates_hold_at_once_and_what_was_used_stays_used(bench: Bench) -> None:
    path = bench.path(requests(1, 10))
    for _ in range(8):
        bench.limiter.try_reserve(path)
    bench.limiter.configure([requests(4, 20)])
    assert bench.level("global", "global") == pytest.approx(12)
    bench.limiter.configure([requests(2, 5)])
    assert bench.level("global", "global") == pytest.approx(0)
    assert refusal(bench, path).retry_after == pytest.approx(0.5)


def test_a_debt_stays_a_debt_under_new_rates(bench: Bench) -> None:
    bench.limiter.try_reserve(bench.path(tokens(10, 100)), 100).settle(130)
    bench.limiter.configure([tokens(1, 1000)])
    assert bench.level("global", "global", "tokens") == pytest.approx(870)


def test_idle_keys_are_forgotten_and_used_ones_are_not(bench: Bench) -> None:
    everybody = requests(1, 10)
    slow = bench.path(everybody, requests(0.001, 10, "user", "slow"))
    bench.limiter.try_reserve(slow)
    for n in range(100):
        bench.limiter.try_reserve(bench.path(everybody, requests(1, 10, "user", f"u{n}"))).refund()
    bench.clock.advance(IDLE_SECONDS + 20)
    bench.path(everybody)
    assert [level.key for level in bench.limiter.levels()] == ["slow", "global"]


def test_many_keys_at_once_stay_bounded(bench: Bench) -> None:
    for n in range(5 * CROWD):
        bench.limiter.try_reserve(bench.path(requests(10, 10, "user", f"u{n}")))
        bench.clock.advance(0.1)
    assert len(bench.limiter.levels()) <= CROWD + 20


def test_an_old_path_and_a_new_one_share_a_bucket_that_was_forgotten_in_between(bench: Bench) -> None:
    old = bench.path(requests(1, 2))
    debtor = bench.limiter.try_reserve(bench.path(tokens(1, 5, "user", "u")), 5)
    bench.clock.advance(IDLE_SECONDS + 100)
    new = bench.path(requests(1, 2))
    bench.limiter.try_reserve(old)
    bench.limiter.try_reserve(new)
    assert refusal(bench, old).retry_after == pytest.approx(1)
    debtor.settle(9)  # its bucket was forgotten; the debt is not
    assert refusal(bench, bench.path(tokens(1, 5, "user", "u")), 5).retry_after == pytest.approx(4)


# --- waiting


@pytest.mark.anyio
async def test_waiters_are_released_in_order_and_on_time(bench: Bench) -> None:
    path = bench.path(requests(2, 1))
    bench.limiter.try_reserve(path)
    order: list[int] = []

    async def wait(number: int) -> None:
        reservation = await bench.limiter.reserve(path, 0, 60)
        assert reservation.waited == pytest.approx((number + 1) * 0.5)
        order.append(number)

    async with asyncio.TaskGroup() as tasks:
        for number in range(5):
            tasks.create_task(wait(number))
        await bench.clock.elapse(1.1)
        assert order == [0, 1]
        await bench.clock.elapse(1.4)
        assert order == [0, 1, 2, 3, 4]
    assert bench.limiter.waiting == 0
    assert bench.clock.waiting == 0


@pytest.mark.anyio
async def test_retry_after_counts_the_waiters_ahead(bench: Bench) -> None:
    path = bench.path(requests(2, 1))
    bench.limiter.try_reserve(path)
    waiters = [bench.waiter(path) for _ in range(6)]
    await bench.clock.elapse(0)
    assert refusal(bench, path).retry_after == pytest.approx(3.5)
    with pytest.raises(LimitExceeded) as caught:
        await bench.limiter.reserve(path, 0, 3.4)
    assert caught.value.retry_after == pytest.approx(3.5)
    last = bench.waiter(path, max_wait=3.5)
    await bench.clock.elapse(3.5)
    assert last.done()
    await asyncio.gather(*waiters, last)


@pytest.mark.anyio
async def test_a_wait_is_told_with_its_length(bench: Bench) -> None:
    path = bench.path(requests(2, 1))
    bench.limiter.try_reserve(path)
    task = asyncio.ensure_future(bench.limiter.reserve(path, 0, 9, operation_id=77))
    await bench.clock.elapse(1)
    await task
    (notice,) = bench.notices
    assert (notice.decision, notice.tier, notice.operation_id) == ("wait", "global", 77)
    assert notice.retry_after == pytest.approx(0.5)


@pytest.mark.anyio
async def test_a_profile_that_waits_does_not_hold_back_the_others(bench: Bench) -> None:
    shared = requests(100, 50)
    slow, fast = (bench.path(shared, requests(0.1, 1, "profile", name)) for name in ("slow", "fast"))
    bench.limiter.try_reserve(slow)
    waiting = [bench.waiter(slow) for _ in range(30)]
    await bench.clock.elapse(0)
    bench.limiter.try_reserve(fast)  # though 30 older ones wait for the shared bucket, too
    await bench.clock.elapse(301)
    assert all(task.done() for task in waiting)


@pytest.mark.anyio
async def test_a_large_waiter_is_not_starved_by_small_ones(bench: Bench) -> None:
    path = bench.path(tokens(10, 100))
    other = bench.path(tokens(10, 100), requests(1000, 1000, "user", "other"))
    bench.limiter.try_reserve(path, 100)
    large = bench.waiter(path, 100)
    await bench.clock.elapse(0)
    small: list[asyncio.Task[Reservation]] = []
    for _ in range(100):
        small.append(bench.waiter(other, 1))
        await bench.clock.elapse(0.1)
    await bench.clock.elapse(0.001)
    assert large.done()
    assert large.result().waited == pytest.approx(10)
    await bench.clock.elapse(11)
    assert all(task.done() for task in small)


@pytest.mark.anyio
async def test_a_newcomer_may_use_what_no_waiter_will_miss(bench: Bench) -> None:
    shared = requests(1, 10)
    blocked = bench.path(shared, requests(0.01, 1, "profile", "blocked"))
    free = bench.path(shared)
    bench.limiter.try_reserve(blocked)
    waiting = bench.waiter(blocked)  # due in 100 s, when the shared bucket is full again whatever happens now
    await bench.clock.elapse(0)
    for _ in range(9):
        bench.limiter.try_reserve(free)
    assert refusal(bench, free).retry_after == pytest.approx(1)
    await bench.clock.elapse(100)
    assert waiting.done()


@pytest.mark.anyio
async def test_a_booked_waiter_is_not_delayed_by_a_newcomer(bench: Bench) -> None:
    shared = requests(1, 2)
    soon = bench.path(shared, requests(1, 1, "profile", "soon"))
    free = bench.path(shared)
    bench.limiter.try_reserve(soon)
    waiting = bench.waiter(soon)  # at 1 s, taking the second of the shared two
    await bench.clock.elapse(0)
    bench.limiter.try_reserve(free)
    assert refusal(bench, free).retry_after == pytest.approx(2)
    await bench.clock.elapse(1)
    assert waiting.done()
    assert waiting.result().waited == pytest.approx(1)


@pytest.mark.anyio
@pytest.mark.parametrize("rounds", range(4))
async def test_cancelling_a_waiter_at_any_moment_leaves_no_trace(bench: Bench, rounds: int) -> None:
    path = bench.path(requests(1, 2), tokens(10, 20))
    bench.limiter.try_reserve(path, 20)
    task = bench.waiter(path, 10)
    if rounds:
        await asyncio.sleep(0)
    if rounds >= 2:
        bench.clock.advance(1)  # released, but its task has not run since
    if rounds == 3:
        bench.clock.advance(10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    bench.clock.advance(20)
    assert bench.level("global", "global") == pytest.approx(2)
    assert bench.level("global", "global", "tokens") == pytest.approx(20)
    bench.limiter.try_reserve(path, 20)
    assert bench.limiter.waiting == 0
    assert bench.clock.waiting == 0
    assert not bench.limiter._is_crowded


@pytest.mark.anyio
async def test_those_behind_a_cancelled_waiter_move_up(bench: Bench) -> None:
    path = bench.path(requests(1, 1))
    bench.limiter.try_reserve(path)
    first, second = bench.waiter(path), bench.waiter(path)
    await bench.clock.elapse(0.5)
    first.cancel()
    await bench.clock.elapse(0.5)
    assert second.done()
    assert second.result().waited == pytest.approx(1)


@pytest.mark.anyio
async def test_a_refund_releases_a_waiter_at_once(bench: Bench) -> None:
    path = bench.path(requests(0.01, 1))
    reservation = bench.limiter.try_reserve(path)
    waiting = bench.waiter(path)
    await bench.clock.elapse(1)
    reservation.refund()
    await bench.clock.elapse(0)
    assert waiting.done()


@pytest.mark.anyio
async def test_a_settlement_lets_waiters_move_up(bench: Bench) -> None:
    path = bench.path(tokens(1, 100))
    reservation = bench.limiter.try_reserve(path, 100)
    waiters = [bench.waiter(path, 20) for _ in range(3)]
    await bench.clock.elapse(1)
    reservation.settle(60)
    await bench.clock.elapse(0.001)
    assert [task.done() for task in waiters] == [True, True, False]
    await bench.clock.elapse(19)
    assert waiters[2].done()


@pytest.mark.anyio
async def test_a_debt_puts_waiters_off_and_never_breaks_the_limit(bench: Bench) -> None:
    path = bench.path(tokens(1, 10))
    reservation = bench.limiter.try_reserve(path, 10)
    waiting = bench.waiter(path, 5)
    await bench.clock.elapse(1)
    reservation.settle(20)
    await bench.clock.elapse(13.9)
    assert not waiting.done()
    await bench.clock.elapse(0.2)
    assert waiting.done()


@pytest.mark.anyio
async def test_a_penalty_refuses_waiters_that_cannot_wait_so_long(bench: Bench) -> None:
    path = bench.path(requests(1, 1, "profile", "p"))
    bench.limiter.try_reserve(path)
    patient, hasty = bench.waiter(path, max_wait=60), bench.waiter(path, max_wait=20)
    await bench.clock.elapse(0.5)
    bench.limiter.penalise("profile", "p", "requests", bench.clock.monotonic() + 30)
    await bench.clock.elapse(0)
    with pytest.raises(LimitExceeded) as caught:
        await hasty
    assert caught.value.retry_after == pytest.approx(31)
    await bench.clock.elapse(29.9)
    assert not patient.done()
    await bench.clock.elapse(0.1)
    assert patient.done()


@pytest.mark.anyio
async def test_new_rates_move_waiters_and_refuse_those_that_no_longer_fit(bench: Bench) -> None:
    path = bench.path(tokens(1, 100))
    bench.limiter.try_reserve(path, 100)
    small, large = bench.waiter(path, 10), bench.waiter(path, 90)
    await bench.clock.elapse(0)
    bench.limiter.configure([tokens(10, 50)])
    await bench.clock.elapse(1)
    assert small.done()
    with pytest.raises(LimitExceeded) as caught:
        await large
    assert caught.value.retry_after is None


@pytest.mark.anyio
async def test_late_timers_never_admit_more_than_the_limit(bench: Bench) -> None:
    path = bench.path(requests(10, 1))
    bench.limiter.try_reserve(path)
    waiters = [bench.waiter(path) for _ in range(5)]
    await bench.clock.elapse(0)
    bench.clock._now += 3  # the loop stood still for 3 s
    await bench.clock.elapse(0)
    assert [task.done() for task in waiters] == [True, False, False, False, False]
    await bench.clock.elapse(0.4)
    assert all(task.done() for task in waiters)


@pytest.mark.anyio
async def test_a_thousand_waiters_are_released_on_schedule(bench: Bench) -> None:
    path = bench.path(requests(2000, 20))
    start = bench.clock.monotonic()
    waiters = [bench.waiter(path) for _ in range(1000)]
    await bench.clock.elapse(0)
    assert refusal(bench, path).retry_after == pytest.approx(981 / 2000)
    bench.clock.advance(980 / 2000)
    released = [r.at - start for r in await asyncio.gather(*waiters)]
    assert released == pytest.approx([max(0, n - 19) / 2000 for n in range(1000)], abs=1e-6)


def test_states_are_readable(bench: Bench) -> None:
    path = bench.path(requests(2, 3), tokens(5, 10, "profile", "p"))
    shown: Sequence[object] = (bench.limiter, path, bench.limiter.try_reserve(path, 4), path.buckets[1])
    assert [repr(part) for part in shown] == [
        "<Limiter 2 buckets, 0 waiting>",
        "<LimitPath global/global/requests → profile/p/tokens>",
        "<Reservation 1 open, 4 tokens, waited 0.000 s>",
        "<Bucket profile/p/tokens 5/s burst 10, 0 booked>",
    ]
