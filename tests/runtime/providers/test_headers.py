from __future__ import annotations

import datetime as dt
import email.utils
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tundra_nb.runtime.providers import headers
from tundra_nb.runtime.providers.contract import BucketSeen

NOW = 1_795_000_000.0  # in November 2026


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30", 30.0),
        ("1.5", 1.5),
        ("0", 0.0),
        ("-3", 0.0),
        (" 7 ", 7.0),
        ("12ms", 0.012),
        ("6m0s", 360.0),
        ("1h2m3.5s", 3723.5),
        ("250us", 0.00025),
        ("250µs", 0.00025),
        ("1d", 86400.0),
        (str(NOW + 20), 20.0),
        (str(int(NOW + 20) * 1000), 20.0),
        (str(NOW - 20), 0.0),
        (email.utils.formatdate(NOW + 90, usegmt=True), 90.0),
        (dt.datetime.fromtimestamp(NOW + 45, dt.UTC).isoformat(), 45.0),
        (dt.datetime.fromtimestamp(NOW + 45, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), 45.0),
        ("99999999", headers.MAX_SECONDS),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("1e999", None),
        ("١٢", None),
        ("5 minutes", 300.0),
        ("5 s", 5.0),
        ("5sec", 5.0),
        ("5, 7", 5.0),
        ('"5"', 5.0),
        ("5;x", 5.0),
        ("9" * 100, None),
    ],
)
def test_a_time_is_understood_in_every_form(text: str, expected: float | None) -> None:
    found = headers.seconds(text, NOW)
    assert found == (None if expected is None else pytest.approx(expected, abs=1.0 if "," in text else 1e-3))


@settings(deadline=None)
@given(st.floats(0, headers.MAX_SECONDS))
def test_one_pause_written_in_any_form_reads_as_the_same_pause(pause: float) -> None:
    at = NOW + pause
    forms = [
        f"{pause:.6f}",
        f"{pause * 1000:.6f}ms",
        f"{at:.6f}",
        f"{at * 1000:.3f}",
        dt.datetime.fromtimestamp(at, dt.UTC).isoformat(),
    ]
    for form in forms:
        found = headers.seconds(form, NOW)
        assert found is not None
        assert math.isclose(found, pause, abs_tol=0.01)
    assert abs((headers.seconds(email.utils.formatdate(at, usegmt=True), NOW) or 0) - pause) <= 1


NAMES = st.sampled_from(
    [
        "retry-after",
        "retry-after-ms",
        "x-should-retry",
        "anthropic-ratelimit-tokens-reset",
        "anthropic-ratelimit-unified-reset",
        "anthropic-ratelimit-unified-status",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-reset",
        "x-ratelimit-",
        "ratelimit-limit",
        "content-type",
    ]
)


@settings(deadline=None)
@given(st.dictionaries(NAMES, st.one_of(st.text(max_size=80), st.floats().map(str), st.integers().map(str))))
def test_nothing_a_server_sends_makes_it_raise_or_leave_the_bounds(sent: dict[str, str]) -> None:
    buckets, retry_after, should_retry, kept = headers.read(sent, NOW)
    assert retry_after is None or 0 <= retry_after <= headers.MAX_SECONDS
    assert should_retry in (True, False, None)
    assert kept == {name: value for name, value in sent.items() if name != "content-type"}
    for bucket in buckets:
        assert bucket.reset_after is None or 0 <= bucket.reset_after <= headers.MAX_SECONDS
        assert all(v is None or (v >= 0 and math.isfinite(v)) for v in (bucket.limit, bucket.remaining))


def test_anthropics_buckets_are_read_and_the_reset_of_an_empty_one_is_the_last_retry_hint() -> None:
    sent = {
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-requests-reset": dt.datetime.fromtimestamp(NOW + 60, dt.UTC).strftime(
            "%Y-%m-%dT%H:%M:%SZ"
        ),
        "anthropic-ratelimit-input-tokens-limit": "100000",
        "anthropic-priority-output-tokens-remaining": "7",
        "request-id": "req_1",
    }
    buckets, retry_after, should_retry, kept = headers.read(sent, NOW)
    assert buckets == (
        BucketSeen(resource="requests", limit=50, remaining=0, reset_after=60.0),
        BucketSeen(resource="input_tokens", limit=100_000),
        BucketSeen(resource="priority_output_tokens", remaining=7),
    )
    assert (retry_after, should_retry) == (60.0, None)
    assert "request-id" not in kept
    assert headers.read(sent | {"retry-after": "5"}, NOW)[1] == 5.0
    assert headers.read(sent | {"anthropic-ratelimit-requests-remaining": "1"}, NOW)[1] is None


def test_openais_buckets_have_go_durations() -> None:
    sent = {
        "x-ratelimit-limit-requests": "500",
        "x-ratelimit-remaining-requests": "499",
        "x-ratelimit-reset-requests": "120ms",
        "x-ratelimit-limit-tokens": "-1",
        "x-ratelimit-reset-tokens": "6m0s",
    }
    buckets, *_ = headers.read(sent, NOW)
    assert buckets == (
        BucketSeen(resource="requests", limit=500, remaining=499, reset_after=0.12),
        BucketSeen(resource="tokens", reset_after=360.0),
    )


def test_the_window_of_openrouter_is_a_retry_hint_once_it_is_used_up() -> None:
    sent = {"x-ratelimit-limit": "20", "x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int((NOW + 33) * 1000))}
    buckets, retry_after, *_ = headers.read(sent, NOW)
    assert buckets == (BucketSeen(resource="requests", limit=20, remaining=0, reset_after=33.0),)
    assert retry_after == 33.0
    assert headers.read(sent | {"x-ratelimit-remaining": "1"}, NOW)[1] is None


def test_a_rejected_subscription_says_until_when() -> None:
    sent = {"anthropic-ratelimit-unified-status": "rejected", "anthropic-ratelimit-unified-reset": str(int(NOW) + 500)}
    assert headers.read(sent, NOW)[1] == 500.0
    assert headers.read(sent | {"anthropic-ratelimit-unified-status": "allowed"}, NOW)[1] is None


def test_milliseconds_outrank_seconds_and_should_retry_is_read() -> None:
    _, retry_after, should_retry, kept = headers.read(
        {"retry-after": "2", "retry-after-ms": "1500", "x-should-retry": "false"}, NOW
    )
    assert (retry_after, should_retry) == (1.5, False)
    assert kept == {"retry-after": "2", "retry-after-ms": "1500", "x-should-retry": "false"}
