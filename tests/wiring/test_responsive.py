"""Load on the daemon stays out of the way of notebooks, and reads of the history out of the way of calls.

A small version of `tests/benchmarks/bench_responsive.py`, which measures the same; its limits are so wide that only
a stall passes them.
"""

from __future__ import annotations

import statistics

import pytest

from tests.benchmarks import bench_responsive

pytestmark = [pytest.mark.part("doltlite"), pytest.mark.timeout(90)]


def test_a_cell_beside_calls_through_the_daemon_takes_no_longer_than_beside_direct_ones() -> None:
    direct, through = bench_responsive.notebooks(rate=100.0, seconds=1.0, rounds=2)
    assert statistics.median(through) <= 3 * statistics.median(direct)


def test_the_loop_goes_on_while_a_large_frame_is_read() -> None:
    _, busy, _ = bench_responsive.reads(rows=50_000, times=4)
    assert busy.count > 5, "timers fired meanwhile"
    assert busy.own_p99_ms <= 10.0, "no callback holds the loop for long, whatever else the machine does"
