"""How long a retry waits."""

from __future__ import annotations

import pytest

from tundra_nb.runtime.resilience.retry import Backoff
from tundra_nb.settings import RouterSettings


def backoff(jitter: float = 0.0) -> Backoff:
    return Backoff(RouterSettings(), lambda: jitter)


def test_pauses_double_up_to_the_cap() -> None:
    assert [backoff().delay(n) for n in range(1, 8)] == [0.5, 1, 2, 4, 8, 8, 8]
    assert backoff().delay(10_000) == 8


@pytest.mark.parametrize(("jitter", "delay"), [(0.0, 2.0), (0.5, 1.75), (1.0, 1.5)])
def test_jitter_shortens_a_pause_by_up_to_a_quarter(jitter: float, delay: float) -> None:
    assert backoff(jitter).delay(3) == pytest.approx(delay)


@pytest.mark.parametrize("asked", [0.001, 0.25, 7, 20])
def test_what_the_provider_asks_for_is_kept_to_the_letter(asked: float) -> None:
    assert backoff(1.0).delay(3, asked) == asked


def test_longer_than_max_wait_is_not_waited_for() -> None:
    assert backoff().delay(1, 20.001) is None


@pytest.mark.parametrize("asked", [None, 0, -5])
def test_a_retry_after_that_says_nothing_leaves_the_usual_pause(asked: float | None) -> None:
    assert backoff().delay(1, asked) == 0.5
