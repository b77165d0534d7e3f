"""Time words."""

from __future__ import annotations

import contextlib
import datetime as dt
import time
import zoneinfo
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tundra_nb.client import api, times
from tundra_nb.errors import UsageError

EARLY, LATE = (dt.datetime(year, 1, 1) for year in (1971, 2200))  # noqa: DTZ001 - hypothesis adds the zone
NOW = dt.datetime(2026, 11, 24, 15, 30, tzinfo=dt.UTC)


@pytest.fixture(params=["UTC", "America/New_York", "Asia/Kolkata"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


@given(
    number=st.integers(0, 1_000),
    unit=st.sampled_from(
        [("s", 1), ("m", 60), ("min", 60), ("h", 3600), ("d", 86400), ("w", 604800), ("y", 31_536_000)]
    ),
)
def test_a_number_and_a_unit_is_that_long_ago(number: int, unit: tuple[str, int]) -> None:
    ago = NOW - dt.timedelta(seconds=number * unit[1])
    assert times.resolve(f"{number}{unit[0]}", now=NOW) == ago
    assert times.resolve(NOW - ago, now=NOW) == ago


@given(when=st.datetimes(EARLY, LATE, timezones=st.just(dt.UTC)))
def test_iso_times_and_datetimes_say_the_same_to_the_microsecond(when: dt.datetime) -> None:
    expected = (when - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)
    assert times.to_us(when.isoformat(), now=NOW) == times.to_us(when, now=NOW) == expected


@given(word=st.text(max_size=12))
def test_any_text_is_a_time_or_a_usage_error(word: str) -> None:
    with contextlib.suppress(UsageError):
        found = times.to_us(word, now=NOW)
        assert found == "all" or isinstance(found, int)


@given(hour=st.integers(0, 23), minute=st.integers(0, 59))
def test_a_clock_time_is_the_latest_one_that_has_passed(hour: int, minute: int) -> None:
    found = times.resolve(f"{hour}:{minute:02}", now=NOW)
    assert dt.timedelta(0) <= NOW - found < dt.timedelta(days=1, hours=1)
    assert (found.astimezone().hour, found.astimezone().minute) == (hour, minute)


def test_days_begin_at_local_midnight(zone: str) -> None:
    today = times.resolve("today", now=NOW).astimezone()
    assert (today.hour, today.minute, today.date()) == (0, 0, NOW.astimezone().date())
    yesterday = times.resolve("yesterday", now=NOW).astimezone()
    assert (yesterday.hour, yesterday.date()) == (0, today.date() - dt.timedelta(days=1))


def test_a_time_without_a_zone_is_local(zone: str) -> None:
    assert times.resolve("2026-11-24T14:00", now=NOW).astimezone().strftime("%H:%M") == "14:00"


@pytest.mark.parametrize(("word", "near"), [("yesterdy", "yesterday"), ("tody", "today"), ("al", "all")])
def test_a_misspelt_word_names_the_nearest(word: str, near: str) -> None:
    with pytest.raises(UsageError) as caught:
        times.resolve(word, now=NOW)
    assert caught.value.nearest == near


@pytest.mark.parametrize("word", ["", "h", "25:00", "1x", "2026-13-01", "-1h", "1 h", "99999999999999w"])
def test_what_is_no_time_is_refused(word: str) -> None:
    with pytest.raises(UsageError):
        times.resolve(word, now=NOW)


@pytest.mark.parametrize("thing", [5, 1.5, b"1h", ["1h"], dt.time(14)])
def test_a_value_that_is_no_time_is_refused(thing: Any) -> None:
    with pytest.raises(UsageError):
        times.to_us(thing)


@pytest.mark.parametrize("at", ["", " "])
def test_an_empty_state_is_refused_and_does_not_pass_for_the_present(at: str) -> None:
    with pytest.raises(UsageError, match="empty"):
        api.calls(at=at)
    with pytest.raises(UsageError, match="empty"):
        api.sql("select 1", at=at)


def test_the_zone_has_the_name_by_which_another_process_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert times.zone_name() == "Asia/Tokyo"
    monkeypatch.setenv("TZ", ":/usr/share/zoneinfo/UTC")
    assert times.zone_name() == ""
    monkeypatch.delenv("TZ")
    if name := times.zone_name():
        assert zoneinfo.ZoneInfo(name).key == name
