"""The life of a call: order, rows, retries, failover, and what limiter, breaker and router know afterwards."""

from __future__ import annotations

import asyncio
import gc
import json
import tracemalloc
from typing import Any

import pytest

from tests.runtime.calls import KEY, QUICK, Calls, calls
from tundra_nb import errors
from tundra_nb.faults.dialects import error, error_event, stream
from tundra_nb.runtime.operations import LISTS_AT_ONCE
from tundra_nb.runtime.providers.contract import ModelInfo
from tundra_nb.runtime.providers.provider import Provider
from tundra_nb.runtime.reserve import DEFAULT_OUTPUT_TOKENS, estimate_tokens, used_tokens
from tundra_nb.runtime.resilience.breaker import Permit
from tundra_nb.settings import (
    BreakerSettings,
    DeadlineSettings,
    LimitsSettings,
    RecordSettings,
    RouterSettings,
    TierSettings,
)
from tundra_nb.testing.clock import VirtualClock
from tundra_nb.testing.scripted_provider import ScriptedStep
from tundra_nb.types import Ask, Attempt, AttemptOpened, Exchange, OperationOpened, Usage

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
OFF = TierSettings(enabled=False)
TOKENS = LimitsSettings(global_=TierSettings(rate=1e6, burst=1e6, tokens_per_minute=60_000.0))


def limits(**tiers: Any) -> LimitsSettings:
    return LimitsSettings(**({"global_": OFF} | tiers))


def limited(seconds: float | None = None) -> ScriptedStep:
    headers = () if seconds is None else (("retry-after", f"{seconds:g}"),)
    return ScriptedStep(status=429, headers=headers)


async def failing(call: Any) -> errors.TundraError:
    with pytest.raises(errors.TundraError) as caught:
        await call
    return caught.value


# --- one call that is answered


class Full(list[Any]):
    """Rows on a disk that is full from the first row of a kind on."""

    def __init__(self, kind: type) -> None:
        self.kind = kind

    def extend(self, events: Any) -> None:
        if any(isinstance(event, self.kind) for event in events):
            raise errors.StoreUnavailable(problem="no space left")
        super().extend(events)


@pytest.mark.parametrize("kind", [OperationOpened, Attempt])
async def test_a_row_that_cannot_be_written_is_no_failure_of_the_profile(kind: type) -> None:
    async with calls("only") as c:
        c.rows = Full(kind)
        assert isinstance(await failing(c.ask()), errors.StoreUnavailable)
        assert c.slots["only"].failure is None


async def test_an_answered_call_leaves_one_operation_and_one_attempt_that_agree_with_the_reply() -> None:
    async with calls("only") as c:
        reply = await c.ask()
        assert [type(row) for row in c.rows[:2]] == [OperationOpened, AttemptOpened]
        (attempt,) = c.attempts
        row = c.operation
    assert (reply.text, reply.profile, reply.model, reply.attempts) == (
        "Hello from the script.",
        "only",
        "scripted-1",
        1,
    )
    assert (attempt.outcome, attempt.reason, attempt.cause, attempt.status, attempt.seq) == (
        "ok", "answered", "first", 200, 1,
    )  # fmt: skip
    assert str(row.operation_id) == reply.operation_id
    assert (row.outcome, row.profile, row.model, row.attempts) == ("ok", "only", "scripted-1", 1)
    for field in ("input_tokens", "output_tokens", "cost_usd", "stop_reason"):
        assert getattr(row, field) == getattr(attempt, field), field
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (row.input_tokens, row.output_tokens) == (8, 5)
    assert attempt.request_id == reply.request_id
    assert attempt.first_byte_ms is not None
    assert not c.running


async def test_the_row_of_the_answer_is_written_before_the_caller_gets_it() -> None:
    async with calls("only") as c:
        await c.ask()
        assert [type(row).__name__ for row in c.rows] == ["OperationOpened", "AttemptOpened", "Attempt", "Operation"]


async def test_a_streamed_answer_is_given_piece_by_piece_and_whole_in_the_reply() -> None:
    async with calls("only") as c:
        reply = await c.ask(stream=True)
        assert "".join(c.texts) == reply.text == "Hello from the script."
        assert c.operation.streamed


async def test_limiter_comes_before_breaker_and_breaker_before_the_request() -> None:
    tight = limits(global_=TierSettings(rate=0.001, burst=1.0))
    async with calls("only", limits=tight, breaker=BreakerSettings(failures=1)) as c:
        permits: list[str] = []
        breaker = c.slots["only"].breaker
        admit = breaker.admit

        def noted() -> Permit:
            permits.append(f"{c.served('only')} sent")
            return admit()

        breaker.admit = noted  # type: ignore[method-assign]
        await c.ask()
        assert permits == ["0 sent"]
        assert (await failing(c.ask())).code == "RateLimitError::Exceeded"
        assert permits == ["0 sent"]  # what the limiter refuses never gets to the breaker


async def test_reserved_tokens_are_settled_with_the_real_usage() -> None:
    clock = VirtualClock()
    async with calls("only", clock=clock, limits=TOKENS) as c:
        reply = await c.ask("x" * 4000, max_tokens=500)
        (level,) = [level for level in c.limiter.levels() if level.resource == "tokens"]
        assert level.level == pytest.approx(60_000 - (reply.usage.input_tokens or 0) - (reply.usage.output_tokens or 0))
        assert c.attempts[0].bucket_tokens == pytest.approx(60_000 - 1500)


async def test_an_error_answer_costs_its_request_but_no_tokens() -> None:
    clock = VirtualClock()
    async with calls("only", clock=clock, limits=TOKENS) as c:
        c.servers["only"].script(CHAT, ScriptedStep(status=400))
        await failing(c.ask())
        levels = {level.resource: level.level for level in c.limiter.levels()}
        assert levels["tokens"] == pytest.approx(60_000)
        assert levels["requests"] == pytest.approx(1e6 - 1)


async def test_what_was_never_sent_costs_nothing() -> None:
    clock = VirtualClock()
    quick = BreakerSettings(failures=1)
    async with calls("only", clock=clock, limits=TOKENS, breaker=quick, router=RouterSettings(retries=0)) as c:
        c.servers["only"].script(CHAT, ScriptedStep(status=500))
        await failing(c.ask())
        before = c.limiter.levels()
        await failing(c.ask())  # the breaker is open
        assert c.limiter.levels() == before


@pytest.mark.parametrize(
    ("ask", "tokens"),
    [
        (Ask(messages=[{"role": "user", "content": "12345"}]), 2 + DEFAULT_OUTPUT_TOKENS),
        (Ask(messages=[{"role": "user", "content": "ééé"}], max_tokens=10), 2 + 10),
        (Ask(messages=[{"role": "assistant", "content": None}], max_tokens=1), 1),
    ],
)
def test_tokens_are_a_quarter_of_the_bytes_and_the_output_asked_for(ask: Ask, tokens: int) -> None:
    assert estimate_tokens(ask) == tokens


def test_images_and_tools_count_as_the_text_they_are_sent_as() -> None:
    parts = [{"type": "text", "text": "what is it"}]
    plain = Ask(messages=[{"role": "user", "content": parts}], max_tokens=1)
    tools = Ask(messages=plain.messages, max_tokens=1, tools=[{"type": "function", "function": {"name": "f" * 40}}])
    assert 10 < estimate_tokens(plain) < estimate_tokens(tools)


def test_usage_that_the_provider_does_not_tell_is_what_was_reserved() -> None:
    assert used_tokens(Usage(), 99) == 99
    assert used_tokens(Usage(input_tokens=3), 99) == 3


# --- retries


async def test_a_failing_provider_is_asked_again_after_a_growing_pause() -> None:
    clock = VirtualClock()
    async with calls("only", clock=clock, router=RouterSettings(backoff_seconds=1.0)) as c:
        c.servers["only"].script(CHAT, ScriptedStep(status=503, repeat=2))
        reply = await c.play(c.ask())
        assert c.story == [
            ("only", "error", "api_error", "first"),
            ("only", "error", "api_error", "retry"),
            ("only", "ok", "answered", "retry"),
        ]
        assert [row.backoff_ms for row in c.attempts] == [0, 1000, 2000]
        assert reply.attempts == c.operation.attempts == 3
        assert reply.waited_ms == pytest.approx(3000)
        assert [notice.kind for notice in c.notices] == ["retry", "retry"]
        assert c.served("only") == 3
        assert not c.errors  # the caller met none


async def test_a_retry_after_is_obeyed_to_the_letter_and_the_latest_counts() -> None:
    clock = VirtualClock()
    async with calls("only", clock=clock) as c:
        c.servers["only"].script(CHAT, limited(5), limited(2))
        began = clock.monotonic()
        await c.play(c.ask())
        assert clock.monotonic() - began == pytest.approx(7, abs=0.2)
        assert [row.retry_after_s for row in c.attempts] == [5, 2, None]
        assert [row.backoff_ms for row in c.attempts] == [0, 5000, 2000]
        assert [notice.message.count("again in") for notice in c.notices] == [1, 1]


async def test_a_429_without_a_hint_is_tried_again_after_the_backoff() -> None:
    async with calls("only") as c:
        c.servers["only"].script(CHAT, limited())
        await c.ask()
        assert c.story == [("only", "error", "rate_limited", "first"), ("only", "ok", "answered", "retry")]
        assert c.slots["only"].breaker.failures == 0


async def test_a_429_without_a_hint_is_not_tried_again_when_the_backoff_is_longer_than_may_be_waited() -> None:
    patience = RouterSettings(backoff_seconds=5, backoff_cap_seconds=5, max_wait_seconds=1)
    async with calls("only", router=patience) as c:
        c.servers["only"].script(CHAT, limited())
        error_met = await failing(c.ask())
        assert c.story == [("only", "error", "rate_limited", "first")]
        assert isinstance(error_met, errors.AllProvidersExhausted)


async def test_a_breaker_that_opens_during_a_call_does_not_replace_the_providers_words() -> None:
    for failover, kind in ((True, errors.AllProvidersExhausted), (False, errors.ApiError)):
        async with calls("only", breaker=BreakerSettings(failures=2)) as c:
            c.servers["only"].script(CHAT, ScriptedStep(status=529, text="too busy today", repeat=0))
            error_met = await failing(c.ask(failover=failover))
            assert type(error_met) is kind
            assert "too busy today" in str(error_met)
            assert "breaker" not in str(error_met)
            assert c.slots["only"].breaker.state == "open"
            assert len(c.attempts) == 2  # a third would only have been refused


async def test_a_cooling_profile_that_comes_back_after_the_deadline_is_refused_at_once() -> None:
    clock = VirtualClock()
    async with calls("only", clock=clock, router=RouterSettings(deadline_seconds=5, max_wait_seconds=20)) as c:
        c.servers["only"].script(CHAT, limited(12))
        await failing(c.ask())
        began = clock.monotonic()
        error_met = await failing(c.ask(failover=False))
        assert isinstance(error_met, errors.RateLimited)
        assert clock.monotonic() == began


async def test_a_429_penalises_the_bucket_and_cools_the_profile() -> None:
    clock = VirtualClock()
    async with calls("only", clock=clock, profiles={"only": {"rpm": 600.0}}) as c:
        c.servers["only"].script(CHAT, limited(60))
        await failing(c.ask())
        assert c.router.cooling("only") == pytest.approx(60)
        (level,) = [level for level in c.limiter.levels() if level.tier == "profile"]
        assert level.penalised_for == pytest.approx(60)
        (event,) = [event for event in c.limit_events if event.decision == "penalised"]
        assert (event.tier, event.limit_key, event.operation_id) == ("profile", "only", c.operation.operation_id)
        c.rows.clear()
        later = await failing(c.ask())
        assert c.story == [("only", "refused", "rate_limited", "first")]
        assert getattr(later, "retry_after", None) == pytest.approx(60)
        assert c.served("only") == 1
        c.profiles.unpark("only", "rechecked")
        assert (await c.ask()).waited_ms == 0
        assert c.served("only") == 2


async def test_a_cooling_profile_is_asked_after_the_others_and_waited_for_when_they_fail() -> None:
    clock = VirtualClock()
    async with calls("first", "second", clock=clock, router=RouterSettings(retries=0)) as c:
        c.router.cool("first", clock.monotonic() + 3)
        c.servers["second"].script(CHAT, ScriptedStep(status=500))
        reply = await c.play(c.ask())
        assert c.story == [("second", "error", "api_error", "first"), ("first", "ok", "answered", "failover")]
        assert c.attempts[1].backoff_ms == pytest.approx(3000)
        assert reply.waited_ms == pytest.approx(3000)
        assert [notice.kind for notice in c.notices] == ["wait", "failover"]


async def test_a_profile_that_goes_on_cooling_is_passed_over_after_one_wait() -> None:
    clock = VirtualClock()
    async with calls("only", clock=clock) as c:
        c.router.cool("only", clock.monotonic() + 3)
        task = asyncio.ensure_future(c.ask())
        await clock.elapse(1)
        c.router.cool("only", clock.monotonic() + 30)
        error_met = await failing(c.play(asyncio.wait_for(task, 5)))
        assert c.story == [("only", "refused", "rate_limited", "first")]
        assert error_met.code == "AllProvidersExhausted"


async def test_x_should_retry_false_forbids_a_retry() -> None:
    async with calls("only") as c:
        c.servers["only"].script(CHAT, ScriptedStep(status=500, headers=(("x-should-retry", "false"),)))
        await failing(c.ask())
        assert len(c.attempts) == 1


# --- failover


async def test_the_next_profile_answers_when_the_first_cannot() -> None:
    async with calls("first", "second") as c:
        c.servers["first"].script(CHAT, ScriptedStep(status=529, repeat=0))
        reply = await c.ask()
        assert [row[:2] for row in c.story] == [("first", "error")] * 3 + [("second", "ok")]
        assert c.story[-1][3] == "failover"
        assert reply.failed_over_from == ["first: api_error"]
        assert c.operation.profile == "second"
        assert c.notices[-1].kind == "failover"
        assert "529" in c.notices[-1].message


async def test_the_named_profile_is_asked_first_and_alone_without_failover() -> None:
    async with calls("first", "second", breaker=BreakerSettings(failures=100)) as c:
        c.servers["second"].script(CHAT, ScriptedStep(status=500, repeat=0))
        assert (await c.ask(profile="second")).profile == "first"
        error_met = await failing(c.ask(profile="second", failover=False))
        assert type(error_met) is errors.ApiError  # not wrapped: nobody else was to be asked
        assert c.served("first") == 1


async def test_an_unknown_profile_is_told_with_the_nearest_name_before_anything_is_sent() -> None:
    async with calls("first", "second") as c:
        error_met = await failing(c.ask(profile="secnd"))
        assert isinstance(error_met, errors.UsageError)
        assert error_met.nearest == "second"
        assert (c.attempts, c.operation.outcome, c.operation.code) == ([], "error", "UsageError")
        assert len(c.errors) == 1


@pytest.mark.parametrize("status", [400, 409, 413, 422])
async def test_a_wrong_request_is_neither_repeated_nor_taken_elsewhere(status: int) -> None:
    async with calls("first", "second") as c:
        c.servers["first"].script(CHAT, ScriptedStep(status=status))
        assert isinstance(await failing(c.ask()), errors.RequestRejected)
        assert len(c.attempts) == 1
        assert c.served("second") == 0
        assert c.slots["first"].breaker.failures == 0


async def test_with_same_vendor_the_text_goes_to_nobody_else() -> None:
    rule = RouterSettings(retries=0, failover="same-vendor")
    async with calls("first", "second", profiles={"second": {"base_url": "http://localhost:1/v1"}}, router=rule) as c:
        c.servers["first"].script(CHAT, ScriptedStep(status=500))
        await failing(c.ask())
        assert [row.profile for row in c.attempts] == ["first"]


async def test_a_model_that_was_named_is_not_asked_of_another_kind() -> None:
    other = {"second": {"kind": "anthropic", "model": "claude-x"}, "third": {"model": "own"}}
    async with calls("first", "second", "third", profiles=other, router=RouterSettings(retries=0)) as c:
        for name in ("first", "second"):
            c.servers[name].script("*", ScriptedStep(status=500))
        await c.ask(model="wanted")
        assert [row.model for row in c.attempts] == ["wanted", "claude-x", "wanted"]


async def test_the_model_is_chosen_from_the_list_when_none_is_set() -> None:
    async with calls("only", profiles={"only": {"model": ""}}) as c:
        assert (await c.ask()).model == "scripted-1"
        assert c.attempts[0].model == "scripted-1"


async def test_a_model_list_that_cannot_be_had_counts_like_any_failure() -> None:
    quick = BreakerSettings(failures=3)
    async with calls("only", profiles={"only": {"model": ""}}, breaker=quick) as c:
        c.servers["only"].script("/v1/models", ScriptedStep(status=500, repeat=0))
        await failing(c.ask())
        assert [row[2:] for row in c.story] == [("api_error", "first"), ("api_error", "retry"), ("api_error", "retry")]
        assert c.slots["only"].breaker.state == "open"


def _sized(*sizes: tuple[str, int]) -> ScriptedStep:
    data = [{"id": name, "object": "model", "context_length": size} for name, size in sizes]
    return ScriptedStep(body=json.dumps({"object": "list", "data": data}).encode())


async def test_a_prompt_that_is_too_long_goes_only_to_a_larger_context() -> None:
    async with calls("first", "small", "large", "unknown") as c:
        for name, size in (("first", 8192), ("small", 4096), ("large", 200_000)):
            c.servers[name].script("/v1/models", _sized(("scripted-1", size)))
        body = error("openai", 400, "maximum context length is 8192 tokens", code="context_length_exceeded")
        c.servers["first"].script(CHAT, ScriptedStep(status=400, body=body))
        reply = await c.ask()
        assert reply.profile == "large"
        assert c.story == [("first", "error", "unsupported_context", "first"), ("large", "ok", "answered", "failover")]
        assert c.served("small") == c.served("unknown") == 0


async def test_the_lists_of_many_profiles_are_read_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, most, read = 0, 0, 0

    async def models(_: Provider, refresh: bool = False) -> list[ModelInfo]:
        nonlocal reading, most, read
        reading += 1
        most, read = max(most, reading), read + 1
        await asyncio.sleep(0)
        reading -= 1
        return []

    monkeypatch.setattr(Provider, "models", models)
    names = [f"p{number}" for number in range(2 * LISTS_AT_ONCE + 1)]
    async with calls(*names) as c:
        body = error("openai", 400, "maximum context length is 8192 tokens", code="context_length_exceeded")
        c.servers["p0"].script(CHAT, ScriptedStep(status=400, body=body))
        await failing(c.ask())
    assert (most, read) == (LISTS_AT_ONCE, len(names))


async def test_a_prompt_that_nobody_takes_is_refused_with_the_cause() -> None:
    async with calls("first", "second") as c:
        body = error("openai", 400, "maximum context length is 8192 tokens", code="context_length_exceeded")
        c.servers["first"].script(CHAT, ScriptedStep(status=400, body=body))
        error_met = await failing(c.ask())
        assert isinstance(error_met, errors.AllProvidersExhausted)
        assert [cause["reason"] for cause in error_met.causes] == ["unsupported_context"]


# --- parked, missing keys, nobody


async def test_a_rejected_key_parks_its_profile_until_it_is_taken_back_in() -> None:
    profiles = {"first": {"api_key_env": "FIRST_KEY"}}
    async with calls("first", "second", profiles=profiles, environ={"FIRST_KEY": KEY}) as c:
        c.servers["first"].script(CHAT, ScriptedStep(status=401))
        assert (await c.ask()).profile == "second"
        assert (await c.ask()).profile == "second"
        assert c.story[0] == ("first", "error", "key_rejected", "first")
        assert c.story[2] == ("first", "refused", "key_rejected", "first")
        assert c.served("first") == 1
        (event,) = c.breaker_events
        assert (event.parked, event.reason, event.old_state) == (True, "key_rejected", event.new_state)
        assert "FIRST_KEY" in (c.attempts[0].message or "")
        assert KEY not in repr(c.rows)
        c.profiles.unpark("first", "rechecked")
        assert [(event.parked, event.reason) for event in c.breaker_events[1:]] == [(False, "rechecked")]
        assert (await c.ask()).profile == "first"


async def test_parking_twice_and_taking_in_what_was_in_writes_nothing() -> None:
    async with calls("only") as c:
        c.profiles.park("only", errors.Parked(profile="only"))
        c.profiles.park("only", errors.Parked(profile="only"))
        c.profiles.unpark("only", "rechecked")
        c.profiles.unpark("only", "rechecked")
        assert [event.parked for event in c.breaker_events] == [True, False]


async def test_a_profile_without_its_key_is_passed_over_without_being_asked() -> None:
    async with calls("first", "second", profiles={"first": {"api_key_env": "NOT_THERE"}}) as c:
        assert (await c.ask()).profile == "second"
        assert c.attempts[0].code == "ConfigError"
        assert c.attempts[0].outcome == "refused"
        assert "NOT_THERE" in (c.attempts[0].message or "")
        assert not c.servers["first"].requests
        c.keys.offer("NOT_THERE", KEY)
        assert (await c.ask()).profile == "first"  # an offered key serves at once


async def test_with_no_profile_at_all_the_error_has_three_lines_to_copy() -> None:
    async with calls() as c:
        error_met = await failing(c.ask())
        assert isinstance(error_met, errors.ConfigError)
        assert error_met.hint.count("%tundra") == 3
        assert (c.operation.outcome, c.operation.attempts) == ("error", 0)


@pytest.mark.parametrize("body", [b"no JSON" * 1_000_000, b'{"choices":[{"message":{"content":"' + b"x" * 7_000_000])
async def test_a_failed_attempt_keeps_nothing_of_what_it_read(body: bytes) -> None:
    async with calls("only", router=RouterSettings(retries=0)) as c:
        c.servers["only"].script(CHAT, ScriptedStep(body=body))
        gc.disable()
        tracemalloc.start()
        try:
            assert (await failing(c.ask(failover=False))).code == "ParseError"
            async with asyncio.timeout(5):
                while tracemalloc.get_traced_memory()[0] > len(body) / 2:  # noqa: ASYNC110 - a thread lets go of it too
                    await asyncio.sleep(0.01)
        finally:
            tracemalloc.stop()
            gc.enable()


async def test_when_all_are_disabled_nobody_can_be_asked() -> None:
    async with calls("only", profiles={"only": {"enabled": False}}) as c:
        assert "no profile can be asked" in str(await failing(c.ask()))
        assert c.operation.outcome == "error"


async def test_the_exhausted_error_names_every_profile_with_its_cause_in_the_order_tried() -> None:
    profiles = {"keyless": {"api_key_env": "NOT_THERE"}, "gone": {"base_url": "http://127.0.0.1:9/v1"}}
    names = ("busy", "keyless", "gone", "broken")
    async with calls(*names, profiles=profiles, router=RouterSettings(retries=0)) as c:
        c.servers["busy"].script(CHAT, limited(30))
        c.servers["broken"].script(CHAT, ScriptedStep(body=b"<!doctype html><p>hello"))
        error_met = await failing(c.ask())
        assert isinstance(error_met, errors.AllProvidersExhausted)
        assert [cause["reason"] for cause in error_met.causes] == [
            "rate_limited",
            "key_missing",
            "connect",
            "parse_error",
        ]
        for name in names:
            assert f"{name}: " in error_met.message
        assert error_met.retry_after == pytest.approx(30, abs=1)
        assert c.operation.outcome == "error"
        (row,) = c.errors
        assert (row.code, row.source, row.operation_id) == (
            "AllProvidersExhausted", "router", c.operation.operation_id,
        )  # fmt: skip


# --- limiter and breaker, seen through a call


async def test_a_wait_for_a_bucket_is_a_row_and_in_the_attempt() -> None:
    clock = VirtualClock()
    tight = limits(global_=TierSettings(rate=1.0, burst=1.0))
    async with calls("only", clock=clock, limits=tight) as c:
        await c.ask()
        c.rows.clear()
        reply = await c.play(c.ask())
        (event,) = c.limit_events
        assert (event.tier, event.decision, event.operation_id) == ("global", "wait", c.operation.operation_id)
        assert event.retry_after_s == pytest.approx(1, abs=0.1)
        assert c.attempts[0].limiter_wait_ms == pytest.approx((event.retry_after_s or 0) * 1000, abs=100)
        assert reply.waited_ms == pytest.approx(c.attempts[0].limiter_wait_ms)


async def test_a_refusal_by_a_bucket_that_all_share_asks_nobody_else() -> None:
    tight = limits(global_=TierSettings(rate=0.01, burst=1.0))
    async with calls("first", "second", limits=tight) as c:
        await c.ask()
        c.rows.clear()
        error_met = await failing(c.ask())
        assert isinstance(error_met, errors.LimitExceeded)
        assert error_met.retry_after == pytest.approx(100, rel=0.01)
        assert c.story == [("first", "refused", "limit_exceeded", "first")]
        assert c.operation.outcome == "refused"
        assert [event.decision for event in c.limit_events] == ["refused"]


async def test_a_refusal_by_the_bucket_of_a_profile_fails_over() -> None:
    async with calls("first", "second", profiles={"first": {"rpm": 1.0}}) as c:
        await c.ask()
        assert (await c.ask()).profile == "second"
        assert [row[:3] for row in c.story[1:]] == [
            ("first", "refused", "limit_exceeded"), ("second", "ok", "answered"),
        ]  # fmt: skip


async def test_a_prompt_above_the_burst_is_refused_for_good() -> None:
    async with calls("only", profiles={"only": {"tpm": 100.0}}) as c:
        error_met = await failing(c.ask("x" * 4000))
        assert isinstance(error_met, errors.AllProvidersExhausted)
        assert error_met.causes[0]["facts"]["retry_after"] is None
        assert c.operation.outcome == "refused"
        assert c.served("only") == 0


async def test_each_user_has_a_bucket_of_the_user_tier() -> None:
    tight = limits(user=TierSettings(rate=0.001, burst=1.0))
    async with calls("only", limits=tight) as c:
        await c.ask(user="ann")
        await c.ask(user="bob")
        error_met = await failing(c.ask(user="ann"))
        assert isinstance(error_met, errors.LimitExceeded)
        assert (error_met.tier, error_met.key) == ("user", "ann")


async def test_a_lone_profile_is_protected_like_several() -> None:
    clock = VirtualClock()
    rules = BreakerSettings(failures=3, successes=1, open_seconds=30)
    async with calls("only", clock=clock, breaker=rules, router=RouterSettings(retries=0)) as c:
        c.servers["only"].script(CHAT, ScriptedStep(status=500, repeat=3))
        for _ in range(3):
            await failing(c.ask())
        assert c.slots["only"].breaker.state == "open"
        error_met = await failing(c.ask())
        assert isinstance(error_met, errors.AllProvidersExhausted)
        assert error_met.causes[0]["code"] == "CircuitBreakerError::Open"
        assert error_met.retry_after == pytest.approx(30)
        assert c.served("only") == 3
        assert c.rows[-2].outcome == "refused"
        states = [c.attempts[-1].breaker_state]
        clock.advance(30)
        await c.ask()
        assert c.attempts[-1].cause == "probe"
        states.append(c.attempts[-1].breaker_state)
        assert states == ["open", "half_open"]
        moves = [(event.old_state, event.new_state, event.reason) for event in c.breaker_events]
        assert moves == [
            ("closed", "open", "api_error"),
            ("open", "half_open", "open_period_over"),
            ("half_open", "closed", "probes_succeeded"),
        ]
        assert c.breaker_events[0].open_until == clock.now_us()
        assert all(event.operation_id is not None for event in c.breaker_events)


async def test_half_open_lets_one_call_through_at_a_time() -> None:
    clock = VirtualClock()
    rules = BreakerSettings(failures=1, successes=1, open_seconds=5)
    async with calls("only", clock=clock, breaker=rules, router=RouterSettings(retries=0)) as c:
        c.servers["only"].script(CHAT, ScriptedStep(status=500), ScriptedStep(delay=0.2))
        await failing(c.ask())
        clock.advance(5)
        results = await asyncio.gather(*(c.ask() for _ in range(8)), return_exceptions=True)
        assert sum(not isinstance(result, BaseException) for result in results) == 1
        assert c.served("only") == 2


async def test_parse_errors_and_timeouts_count_for_the_breaker_and_are_not_retried() -> None:
    short = DeadlineSettings(idle_seconds=0.05, total_seconds=0.3)
    async with calls("only", deadlines=short) as c:
        c.servers["only"].script(CHAT, ScriptedStep(body=b"not json"), ScriptedStep(end="hang", raw=b""))
        await failing(c.ask())
        await failing(c.ask())
        assert [row[2] for row in c.story] == ["parse_error", "timeout_total"]
        assert c.slots["only"].breaker.failures == 2


# --- a deadline over all


async def test_the_deadline_over_all_ends_the_attempt_under_way_and_is_told_as_such() -> None:
    async with calls("first", "second", router=RouterSettings(deadline_seconds=0.15)) as c:
        c.servers["first"].script(CHAT, ScriptedStep(delay=30))
        error_met = await failing(c.ask())
        assert isinstance(error_met, errors.Timeout)
        assert error_met.deadline == "operation"
        assert c.story == [("first", "error", "timeout_operation", "first")]
        assert (c.operation.outcome, c.operation.code) == ("error", "Timeout")
        assert c.errors[0].reason == "timeout_operation"
        assert c.slots["first"].breaker.failures == 1
        assert c.served("second") == 0


async def test_the_deadline_over_all_also_ends_a_wait_for_a_bucket() -> None:
    tight = limits(global_=TierSettings(rate=0.1, burst=1.0))
    async with calls("only", limits=tight, router=RouterSettings(deadline_seconds=0.1)) as c:
        await c.ask()
        error_met = await failing(c.ask())
        assert getattr(error_met, "deadline", None) == "operation"
        assert c.attempts[-1].reason == "timeout_operation"
        assert c.slots["only"].breaker.failures == 0  # nothing was sent
        assert c.limiter.waiting == 0


async def test_a_retry_that_cannot_begin_before_the_deadline_is_not_waited_for() -> None:
    clock = VirtualClock()
    async with calls("only", clock=clock, router=RouterSettings(deadline_seconds=3)) as c:
        c.servers["only"].script(CHAT, limited(5))
        await failing(c.ask())
        assert len(c.attempts) == 1


# --- text is never repeated


async def test_after_the_first_piece_a_failure_ends_the_stream_with_its_error() -> None:
    async with calls("first", "second") as c:
        events = stream("openai", "scripted-1", ["one", "two"])
        pieces = (*events[:2], *error_event("openai", 503))
        c.servers["first"].script(CHAT, ScriptedStep(pieces=pieces, headers=EVENT_STREAM, gap=0.02))
        error_met = await failing(c.ask(stream=True))
        assert isinstance(error_met, errors.ApiError)
        assert c.texts == ["one"]
        assert len(c.attempts) == 1
        assert c.served("second") == 0
        assert c.slots["first"].breaker.failures == 1


async def test_an_error_before_the_first_piece_is_handled_as_its_kind() -> None:
    async with calls("first", "second") as c:
        pieces = tuple(error_event("openai", 503))
        c.servers["first"].script(CHAT, ScriptedStep(pieces=pieces, headers=EVENT_STREAM, repeat=0))
        reply = await c.ask(stream=True)
        assert (reply.profile, "".join(c.texts)) == ("second", reply.text)
        assert len(c.attempts) == 4


async def test_a_stream_that_is_cut_after_text_is_not_begun_anew() -> None:
    async with calls("first", "second") as c:
        c.servers["first"].script(CHAT, ScriptedStep(cut=500, gap=0.01))
        error_met = await failing(c.ask(stream=True))
        assert isinstance(error_met, errors.ParseError)
        assert c.texts
        assert c.served("second") == 0


EVENT_STREAM = (("content-type", "text/event-stream"),)


# --- what a caller may do wrong


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"text": ""}, "messages"),
        ({"temperature": float("nan")}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"text": "x" * 5_000_000}, "messages"),
    ],
)
async def test_bad_input_is_one_row_and_nothing_is_sent(options: dict[str, Any], field: str) -> None:
    async with calls("only") as c:
        error_met = await failing(c.ask(**options))
        assert isinstance(error_met, errors.UsageError)
        assert error_met.field == field
        assert c.operation.code == "UsageError"
        assert (c.attempts, c.served("only")) == ([], 0)


async def test_a_defect_of_ours_is_a_row_too() -> None:
    async def broken(_: object) -> None:
        raise ZeroDivisionError

    async with calls("only") as c:
        asked = Ask(messages=[{"role": "user", "content": "hi"}], stream=True)
        with pytest.raises(ZeroDivisionError):
            await c.operations.ask(asked, user="me", on_piece=broken)
        assert (c.operation.outcome, c.operation.code) == ("error", "InternalError")
        assert len(c.attempts) == 1
        assert not c.running


@pytest.mark.parametrize(("content", "kept"), [("off", [0, 0]), ("errors", [1, 0]), ("all", [1, 1])])
async def test_exchanges_are_kept_as_the_setting_says(content: Any, kept: list[int]) -> None:
    async with calls("only", record=RecordSettings(content=content), router=RouterSettings(retries=0)) as c:
        c.servers["only"].script(CHAT, ScriptedStep(status=400))
        await failing(c.ask())
        failed = len(c.of(Exchange))
        await c.ask("a question")
        assert [failed, len(c.of(Exchange)) - failed] == kept
        for exchange in c.of(Exchange):
            assert exchange.attempt_id in {row.attempt_id for row in c.attempts}


async def test_concurrent_calls_keep_their_rows_apart() -> None:
    async with calls("first", "second", router=QUICK) as c:
        c.servers["first"].script(CHAT, *(ScriptedStep(status=503) if n % 3 else ScriptedStep() for n in range(30)))
        replies = await asyncio.gather(*(c.ask(stream=bool(n % 2)) for n in range(40)))
        assert len({reply.operation_id for reply in replies}) == 40
        assert not c.running
        check_rows(c, 40)


def check_rows(c: Calls, count: int) -> None:
    """One row per operation, its attempts numbered without gaps, each mark followed by its row."""
    operations = [row for row in c.rows if type(row).__name__ == "Operation"]
    assert len(operations) == len({row.operation_id for row in operations}) == count
    for operation in operations:
        numbers = [row.seq for row in c.attempts if row.operation_id == operation.operation_id]
        assert numbers == list(range(1, operation.attempts + 1))
    opened = {row.attempt_id for row in c.of(AttemptOpened)}
    assert opened <= {row.attempt_id for row in c.attempts}


# --- what is said to whom


async def test_extra_fields_never_reach_another_vendor() -> None:
    profiles = {"second": {"kind": "anthropic"}}
    async with calls("first", "second", profiles=profiles, router=RouterSettings(retries=0)) as c:
        c.servers["first"].script(CHAT, ScriptedStep(status=500, repeat=0))
        reply = await c.ask(extra={"seed": 1})
        (first, second) = (json.loads(c.servers[name].requests[-1].body) for name in ("first", "second"))
        assert first["seed"] == 1
        assert "seed" not in second
        assert reply.remarks == ["not sent: extra.seed"]
        assert (c.operation.dropped, c.operation.outcome) == ("extra.seed", "ok")


@pytest.mark.parametrize(
    ("profile", "effort", "left_out"),
    [
        ({"kind": "anthropic", "model": "claude-sonnet-5-1"}, None, True),
        ({"kind": "anthropic", "model": "claude-opus-4-7-20260801"}, None, True),
        ({"kind": "anthropic", "model": "claude-opus-4-6"}, None, False),
        ({"kind": "anthropic", "model": "claude-3-5-sonnet-20241022"}, None, False),
        ({"kind": "anthropic", "model": "claude-3-5", "anthropic_version": "2026-10-21"}, None, True),
        ({"kind": "openai", "model": "gpt-6-terra"}, None, True),
        ({"kind": "openai", "model": "gpt-6-terra"}, "none", False),
        ({"kind": "openai", "model": "gpt-4o"}, None, False),
        ({"kind": "local", "model": "gpt-6-like"}, None, False),
    ],
)
async def test_sampling_is_left_out_where_a_model_refuses_it(
    profile: dict[str, Any], effort: str | None, left_out: bool
) -> None:
    async with calls("only", profiles={"only": profile}) as c:
        await c.ask(temperature=0.5, top_p=0.9, effort=effort)
        request = c.servers["only"].requests[-1]
        sent = json.loads(request.body)
        assert ("temperature" in sent, "top_p" in sent) == (not left_out, not left_out)
        assert c.operation.dropped == ("temperature,top_p" if left_out else None)
        if profile["kind"] == "anthropic":
            assert request.headers["anthropic-version"] == profile.get("anthropic_version", "2023-06-01")


async def test_a_schema_is_asked_for_in_each_vendors_own_words() -> None:
    schema = {"name": "answer", "schema": {"type": "object"}}
    async with calls("o", "a", profiles={"a": {"kind": "anthropic"}}) as c:
        await c.ask(json_schema=schema, profile="o")
        await c.ask(json_schema=schema, profile="a")
        chat, messages = (json.loads(c.servers[name].requests[-1].body) for name in ("o", "a"))
        assert chat["response_format"] == {"type": "json_schema", "json_schema": schema}
        assert messages["output_config"] == {"format": {"type": "json_schema", "schema": {"type": "object"}}}


@pytest.mark.parametrize("stream", [True, False])
async def test_a_kept_connection_that_was_being_closed_is_no_failed_attempt(stream: bool) -> None:
    async with calls("only") as c:
        await c.ask("first", stream=stream)
        c.servers["only"].script(CHAT, ScriptedStep(raw=b"", end="close"))
        assert (await c.ask("second", stream=stream)).attempts == 1
        assert c.served("only") == 3
        assert [row.outcome for row in c.attempts] == ["ok", "ok"]
        assert c.slots["only"].breaker.failures == 0
