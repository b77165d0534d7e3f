"""The router's rules: order, parked and cooling profiles, and the outcome table."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tundra_nb import errors
from tundra_nb.errors import TundraError
from tundra_nb.runtime.resilience.router import (
    Decision,
    FailOver,
    Retry,
    Router,
    StopRouting,
    exhausted,
    remaining,
    vendor,
)
from tundra_nb.settings import ProfileSettings, RouterSettings
from tundra_nb.testing.clock import VirtualClock
from tundra_nb.types import ProviderKind


def profile(name: str, kind: ProviderKind = "openai", **values: Any) -> ProfileSettings:
    return ProfileSettings(name=name, kind=kind, **values)


PROFILES = (
    profile("spare", "anthropic", priority=20),
    profile("main", "openai", priority=0),
    profile("second", "openai", priority=10),
    profile("off", "openai", priority=5, enabled=False),
    profile("home", "local", priority=10, base_url="http://127.0.0.1:8080/v1"),
)


class Bench:
    def __init__(self, rules: RouterSettings = RouterSettings()) -> None:  # noqa: B008 - frozen
        self.clock = VirtualClock()
        self.router = Router(PROFILES, rules, self.clock.monotonic, lambda: 0.0)

    def names(self, name: str | None = None, *, failover: bool = True) -> list[str]:
        return [candidate.name for candidate in self.router.candidates(name, failover=failover)]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_candidates_come_by_priority_then_in_the_order_of_the_settings_without_disabled_ones(bench: Bench) -> None:
    assert bench.names() == ["main", "second", "home", "spare"]


def test_the_named_profile_is_asked_first_and_the_others_after_it(bench: Bench) -> None:
    assert bench.names("home") == ["home", "main", "second", "spare"]


def test_without_failover_nobody_else_is_asked(bench: Bench) -> None:
    assert bench.names("home", failover=False) == ["home"]
    assert bench.names(failover=False) == ["main"]


def test_an_unknown_profile_names_the_nearest(bench: Bench) -> None:
    with pytest.raises(errors.UsageError) as caught:
        bench.names("spaer")
    assert caught.value.nearest == "spare"
    assert "spaer" in caught.value.message


def test_a_disabled_profile_that_is_named_is_an_error_that_says_so(bench: Bench) -> None:
    with pytest.raises(errors.UsageError, match="disabled"):
        bench.names("off")


def test_no_profiles_are_no_candidates() -> None:
    assert Router((), RouterSettings(), lambda: 0.0).candidates() == []


def test_same_vendor_keeps_the_text_with_the_vendor_of_the_first() -> None:
    bench = Bench(RouterSettings(failover="same-vendor"))
    assert bench.names() == ["main", "second"]
    assert bench.names("spare") == ["spare"]
    assert bench.names("home") == ["home"]


@pytest.mark.parametrize(
    ("one", "name"),
    [
        (profile("p", "openai"), "openai"),
        (profile("p", "openai", base_url="https://api.openai.com/v1"), "openai"),
        (profile("p", "openai", base_url="https://gateway.example/v1"), "gateway.example"),
        (profile("p", "local", base_url="http://LOCALHOST:8080/v1"), "localhost"),
    ],
)
def test_a_vendor_is_who_gets_the_text(one: ProfileSettings, name: str) -> None:
    assert vendor(one) == name


def test_a_parked_profile_tells_its_error_until_it_is_unparked(bench: Bench) -> None:
    error = errors.QuotaSpent(profile="main", status=402)
    bench.router.park("main", error)
    assert bench.router.unavailable("main") is error
    assert bench.router.parked("main") is error
    assert bench.router.unavailable("second") is None
    assert "main" in bench.names(), "its cause belongs to the answer when all fail"
    assert bench.router.unpark("main")
    assert not bench.router.unpark("main")
    assert bench.router.unavailable("main") is None


def test_a_cooling_profile_tells_the_rest_of_its_time(bench: Bench) -> None:
    bench.router.cool("main", bench.clock.monotonic() + 10)
    bench.clock.advance(4)
    error = bench.router.unavailable("main")
    assert isinstance(error, errors.RateLimited)
    assert error.retry_after == pytest.approx(6)
    bench.clock.advance(6)
    assert bench.router.unavailable("main") is None


def test_the_latest_word_of_the_provider_decides_how_long_it_cools(bench: Bench) -> None:
    for seconds in (5, 60, 12):
        bench.router.note("main", errors.RateLimited(profile="main", retry_after=seconds))
        assert bench.router.cooling("main") == pytest.approx(seconds)


def test_errors_that_park_park_and_others_do_not(bench: Bench) -> None:
    for error in ERRORS:
        bench.router.unpark("main")
        bench.router.note("main", error)
        assert (bench.router.parked("main") is error) == error.parks


def test_a_change_of_settings_unparks_only_what_changed(bench: Bench) -> None:
    for name in ("main", "second", "spare"):
        bench.router.park(name, errors.KeyRejected(profile=name, status=401))
    bench.router.cool("home", bench.clock.monotonic() + 10)
    changed = [profile("main", api_key_env="OTHER"), *(p for p in PROFILES if p.name not in {"main", "spare"})]
    bench.router.configure(changed, RouterSettings())
    assert bench.router.unavailable("main") is None
    assert bench.router.unavailable("second") is not None
    assert bench.router.unavailable("home") is not None
    assert bench.names() == ["main", "second", "home"]


P = "main"
HTTP = errors.HttpError(profile=P, host="h", kind="reset")
HANDSHAKE = errors.HttpError(profile=P, host="h", kind="tls", cause="unexpected EOF while reading")
CERTIFICATE = errors.HttpError(profile=P, host="h", kind="tls", cause="certificate verify failed: expired")
IDLE = errors.Timeout(profile=P, deadline="idle", seconds=30)
LATE = errors.Timeout(profile=P, deadline="operation", seconds=900)
PARSE = errors.ParseError(profile=P, problem="HTML")
BUSY = errors.ApiError(profile=P, status=529)
BUSY_7 = errors.ApiError(profile=P, status=503, retry_after=7)
BUSY_99 = errors.ApiError(profile=P, status=503, retry_after=99)
LIMITED = errors.RateLimited(profile=P)
LIMITED_7 = errors.RateLimited(profile=P, retry_after=7)
LIMITED_20 = errors.RateLimited(profile=P, retry_after=20)
LIMITED_21 = errors.RateLimited(profile=P, retry_after=21)
QUOTA = errors.QuotaSpent(profile=P, status=402)
KEY = errors.KeyRejected(profile=P, status=401, variable="K")
NO_KEY = errors.KeyMissing(profile=P, variable="K")
NO_MODEL = errors.Unsupported(profile=P, kind="model", model="m")
TOO_LONG = errors.Unsupported(profile=P, kind="context", model="m")
WRONG = {status: errors.RequestRejected(profile=P, status=status) for status in (400, 409, 413, 422)}
MODERATED = errors.Moderated(profile=P, status=403)
OPEN = errors.BreakerOpen(profile=P, retry_after=3)
NARROW = errors.LimitExceeded(tier="profile", key=P, resource="requests", requested=1, retry_after=3)
SHARED = errors.LimitExceeded(tier="global", key="global", resource="requests", requested=1, retry_after=3)
MINE = errors.LimitExceeded(tier="user", key="me", resource="requests", requested=1, retry_after=None)
ERRORS: list[TundraError] = [
    *(HTTP, IDLE, LATE, PARSE, BUSY, BUSY_7, BUSY_99, LIMITED, LIMITED_7, LIMITED_20, LIMITED_21, QUOTA, KEY, NO_KEY),
    *(NO_MODEL, TOO_LONG, *WRONG.values(), MODERATED, OPEN, NARROW, SHARED, MINE),
]


@pytest.mark.parametrize(
    ("error", "first", "when_retried_out"),
    [
        (HTTP, Retry(0.5), FailOver()),
        (HANDSHAKE, Retry(0.5), FailOver()),
        (CERTIFICATE, Retry(0.5), FailOver()),
        (IDLE, FailOver(), FailOver()),
        (LATE, StopRouting(), StopRouting()),
        (PARSE, FailOver(), FailOver()),
        (BUSY, Retry(0.5), FailOver()),
        (BUSY_7, Retry(7), FailOver()),
        (BUSY_99, FailOver(), FailOver()),
        (LIMITED, Retry(0.5), FailOver()),
        (LIMITED_7, Retry(7), FailOver()),
        (LIMITED_20, Retry(20), FailOver()),
        (LIMITED_21, FailOver(), FailOver()),
        (QUOTA, FailOver(), FailOver()),
        (KEY, FailOver(), FailOver()),
        (NO_KEY, FailOver(), FailOver()),
        (NO_MODEL, FailOver(), FailOver()),
        (TOO_LONG, FailOver(larger_context=True), FailOver(larger_context=True)),
        *((error, StopRouting(), StopRouting()) for error in WRONG.values()),
        (MODERATED, StopRouting(), StopRouting()),
        (OPEN, FailOver(), FailOver()),
        (NARROW, FailOver(), FailOver()),
        (SHARED, StopRouting(), StopRouting()),
        (MINE, StopRouting(), StopRouting()),
        (errors.Cancelled(), StopRouting(), StopRouting()),
        (errors.InternalError(), StopRouting(), StopRouting()),
    ],
    ids=lambda value: str(value)[:60],
)
def test_each_row_of_the_outcome_table(
    bench: Bench, error: TundraError, first: Decision, when_retried_out: Decision
) -> None:
    assert bench.router.decide(error, 0) == first
    assert bench.router.decide(error, 2) == when_retried_out


def test_pauses_grow_with_the_retries_made(bench: Bench) -> None:
    assert [bench.router.decide(HTTP, made) for made in range(3)] == [Retry(0.5), Retry(1.0), FailOver()]


def test_the_provider_can_forbid_a_retry_and_allow_one_without_a_retry_after(bench: Bench) -> None:
    assert bench.router.decide(BUSY, 0, should_retry=False) == FailOver()
    assert bench.router.decide(LIMITED_7, 0, should_retry=False) == FailOver()
    assert bench.router.decide(LIMITED, 0, should_retry=True) == Retry(0.5)


def test_a_wrong_request_is_not_retried_whatever_the_provider_says(bench: Bench) -> None:
    for error in WRONG.values():
        assert bench.router.decide(error, 0, should_retry=True) == StopRouting()


def test_after_delivered_text_nothing_is_asked_again(bench: Bench) -> None:
    for error in ERRORS:
        assert bench.router.decide(error, 0, delivered=True, should_retry=True) == StopRouting()


def test_a_retry_that_cannot_begin_before_the_deadline_is_not_made(bench: Bench) -> None:
    assert bench.router.decide(LIMITED_7, 0, time_left=7.1) == Retry(7)
    assert bench.router.decide(LIMITED_7, 0, time_left=7.0) == FailOver()


def test_no_retries_are_made_when_none_are_wanted() -> None:
    router = Bench(RouterSettings(retries=0)).router
    assert router.decide(HTTP, 0) == FailOver()


def test_a_prompt_that_was_too_long_goes_only_to_models_known_to_take_more(bench: Bench) -> None:
    sizes: dict[str, int | None] = {"main": 8_000, "second": 4_000, "home": None, "spare": 200_000}
    candidates = bench.router.candidates()
    by_name = {candidate.name: candidate for candidate in candidates}

    def left(failed: str, decision: FailOver) -> list[str]:
        return [p.name for p in remaining(candidates, by_name[failed], decision, lambda p: sizes[p.name])]

    assert left("main", FailOver()) == ["second", "home", "spare"]
    assert left("main", FailOver(larger_context=True)) == ["spare"]
    assert left("home", FailOver(larger_context=True)) == ["spare"]
    assert left("spare", FailOver(larger_context=True)) == []


def test_the_exhausted_error_names_every_cause_and_the_earliest_moment_that_may_help() -> None:
    error = exhausted([LIMITED_7, OPEN, KEY, HTTP])
    assert [cause["type"] for cause in error.causes] == ["RateLimited", "BreakerOpen", "KeyRejected", "HttpError"]
    assert error.retry_after == 3
    assert all(cause.message in error.message for cause in (LIMITED_7, OPEN, KEY, HTTP))
    assert exhausted([KEY, HTTP]).retry_after is None


@settings(max_examples=1000, deadline=None)
@given(
    st.lists(st.sampled_from(ERRORS), max_size=12),
    st.sampled_from([None, True, False]),
    st.sampled_from([None, 0.0, 1.0, 100.0]),
)
def test_every_sequence_of_errors_ends_after_at_most_the_retries(
    told: list[TundraError], should_retry: bool | None, time_left: float | None
) -> None:
    router = Bench().router
    retries = 0
    for error in told:
        decision = router.decide(error, retries, should_retry=should_retry, time_left=time_left)
        if not isinstance(decision, Retry):
            break
        retries += 1
        assert isinstance(error, errors.ProviderError)
        assert error.retryable
        assert 0 < decision.delay <= 20
        assert time_left is None or decision.delay < time_left
    assert retries <= 2
