"""Eight daemons under random load on one Valkey: no bucket is ever over rate × time + burst, checked from outside."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest
from valkey import Valkey

from tests.runtime.limits_shared.valkey import ValkeyServer

pytestmark = [pytest.mark.part("valkey"), pytest.mark.timeout(240)]

DAEMONS = 8
LATE_SECONDS = 0.25
"""By how much later the answers of a busy machine may be seen than the server decided."""
LIMITS = {  # bucket: rate, burst
    "global/all/requests": (25.0, 40.0),
    "global/all/tokens": (3000.0, 6000.0),
    "profile/0/tokens": (1500.0, 4000.0),
    "profile/1/tokens": (1200.0, 2500.0),
}
ONE = """
import asyncio, json, random, sys, time
from tundra_nb.errors import LimitExceeded
from tundra_nb.runtime.clock import SystemClock
from tundra_nb.runtime.limits_shared.limiter import SharedLimiter
from tundra_nb.runtime.resilience.limiter import Limit
from tundra_nb.settings import SharedLimitsSettings
url, seed, seconds, limits = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), json.loads(sys.argv[4])
dice = random.Random(seed)
made = {name: Limit(*name.split("/"), *shape) for name, shape in limits.items()}
async def main():
    limiter = SharedLimiter(SystemClock(), {})
    limiter.share(SharedLimitsSettings(url=url, deadline_seconds=5.0))  # a busy machine is no outage
    used, answers = [], []
    until = time.monotonic() + seconds
    async def asker():
        while time.monotonic() < until:
            profile = dice.choice("01")
            names = ["global/all/requests", "global/all/tokens", f"profile/{profile}/tokens"]
            tokens = dice.randrange(1, 400)
            try:
                reservation = await limiter.reserve(limiter.path([made[name] for name in names]), tokens, 2.0)
            except LimitExceeded:
                await asyncio.sleep(0.05)
                continue
            granted = time.monotonic()
            await asyncio.sleep(dice.random() * 0.2)
            fate = dice.random()
            if fate < 0.24:
                reservation.refund()
                continue
            real = dice.randrange(tokens + 1) if fate < 0.79 else tokens
            reservation.settle(real)
            used.append((granted, names, real))
    await asyncio.gather(*(asker() for _ in range(4)))
    await limiter.aclose()
    print(json.dumps({"used": used, "scope": limiter.state.scope, "daemons": limiter.state.daemons}))
asyncio.run(main())
"""


def run(server: ValkeyServer, seconds: float, during: Sequence[float] = ()) -> list[dict[str, object]]:
    """All of them side by side; each told what it let through."""
    commands = [
        [sys.executable, "-c", ONE, server.url, str(seed), str(seconds), json.dumps(LIMITS)] for seed in range(DAEMONS)
    ]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    for pause in during:
        time.sleep(pause)
    found = []
    for process in processes:
        told, _ = process.communicate(timeout=seconds + 120)
        assert process.returncode == 0
        found.append(json.loads(told))
    return found


def worst(events: Sequence[tuple[float, float]], rate: float) -> float:
    """The most that any window held beyond rate × its length."""
    level, before, most = 0.0, 0.0, 0.0
    for at, amount in sorted(events):
        level = max(0.0, level - rate * (at - before)) + amount
        before, most = at, max(most, level)
    return most


@pytest.mark.parametrize(
    "seconds",
    [pytest.param(6.0, marks=pytest.mark.check), pytest.param(60.0, marks=pytest.mark.soak)],
)
def test_no_bucket_is_ever_over_its_limit(seconds: float) -> None:
    with ValkeyServer() as server:
        with Valkey(port=server.port) as client:
            client.set("tundra:1:{default}:since", "1")  # a data set that is old: the buckets are full
        found = run(server, seconds)
    assert {(told["scope"], told["daemons"]) for told in found} == {("team", DAEMONS)}
    used = [entry for told in found for entry in told["used"]]  # type: ignore[attr-defined]
    assert len(used) > 10 * seconds
    for name, (rate, burst) in LIMITS.items():
        mine = [
            (granted, 1.0 if name.endswith("requests") else float(tokens))
            for granted, names, tokens in used
            if name in names
        ]
        over = worst(mine, rate)
        assert 0 < over <= burst + rate * LATE_SECONDS, (name, over, burst)
