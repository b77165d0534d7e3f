"""Half an hour of calls: no process grows, and nothing holds up the daemon's loop. `make soak`, on a quiet machine.

A shorter look: `SOAK_SECONDS=120 make soak ARGS=tests/wiring/test_steady.py`.
"""

from __future__ import annotations

import os
import statistics
import time

import psutil
import pytest

from tests.benchmarks.bench_responsive import SETTINGS, lag, load
from tests.benchmarks.homes import Lag, home, lagging_daemon
from tundra_nb.testing.scripted_provider import scripted_process

SECONDS = float(os.environ.get("SOAK_SECONDS", "1800"))
RATE = 110.0
"""Calls a second."""
WARM_SHARE = 1 / 3
"""Of the time, before memory counts: caches and pools fill."""
LOOK_SECONDS = 5.0
MOST_GROWTH = 0.05
MOST_LAG_MS = 5.0
WORKER = "tundra_nb.runtime.history.worker"

pytestmark = [pytest.mark.soak, pytest.mark.part("doltlite"), pytest.mark.timeout(2 * SECONDS + 300)]


def test_half_an_hour_of_calls_leaves_memory_flat_and_the_loop_free() -> None:
    lags: list[Lag] = []
    sizes: dict[str, list[int]] = {}
    with (
        scripted_process() as provider,
        home(SETTINGS.format(base_url=provider.base_url)) as env,
        lagging_daemon(env) as client,
    ):
        daemon = psutil.Process(client.status()["pid"])
        (worker,) = (child for child in daemon.children() if WORKER in child.cmdline())
        family = {"daemon": daemon, "store worker": worker}
        with load(env, RATE, "daemon"):
            time.sleep(SECONDS * WARM_SHARE)
            lag(client, env)
            end = time.monotonic() + SECONDS * (1 - WARM_SHARE)
            while time.monotonic() < end:
                time.sleep(min(LOOK_SECONDS, SECONDS / 20))
                lags.append(lag(client, env))
                for name, process in family.items():
                    sizes.setdefault(name, []).append(process.memory_info().rss)
    for name, seen in sizes.items():
        part = max(len(seen) // 5, 1)
        first, last = statistics.median(seen[:part]), statistics.median(seen[-part:])
        assert last <= first * (1 + MOST_GROWTH), f"{name} grew from {first / 1e6:.1f} to {last / 1e6:.1f} MB"
    p99 = statistics.median(each.p99_ms for each in lags)
    assert p99 <= MOST_LAG_MS, f"a timer of the daemon's loop was {p99:.1f} ms late (p99)"
