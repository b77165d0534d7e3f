"""Limits that daemons share, on a real Valkey: what is never passed, and what happens while the server is away."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path as FilePath

import pytest
import trustme
from valkey import Valkey

from tests.conftest import ROOT
from tests.runtime.limits_shared.valkey import ValkeyServer, programs
from tundra_nb.errors import LimitExceeded
from tundra_nb.runtime.clock import SystemClock
from tundra_nb.runtime.limits_shared.limiter import Path, SharedLimiter, TeamReservation
from tundra_nb.runtime.resilience.bucket import Bucket
from tundra_nb.runtime.resilience.limiter import Limit, LimitNotice
from tundra_nb.settings import SharedLimitsSettings
from tundra_nb.types import Resource, Tier

pytestmark = [pytest.mark.anyio, pytest.mark.part("valkey")]


@pytest.fixture
def valkey() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


class Daemon:
    """The limiter of one daemon, with all it said."""

    def __init__(self, url: str, **settings: object) -> None:
        self.notices: list[LimitNotice] = []
        self.limiter = SharedLimiter(SystemClock(), {}, self.notices.append)
        self.limiter.share(SharedLimitsSettings(url=url, **settings))  # type: ignore[arg-type]

    def path(self, *limits: Limit) -> Path:
        return self.limiter.path(limits)

    async def told(self) -> None:
        """Wait until all that comes back has been told to the server."""
        while self.limiter._tasks:
            await asyncio.wait(set(self.limiter._tasks))


@asynccontextmanager
async def daemons(url: str, count: int = 1, **settings: object) -> AsyncIterator[list[Daemon]]:
    made = [Daemon(url, **settings) for _ in range(count)]
    try:
        yield made
    finally:
        for daemon in made:
            await daemon.limiter.aclose()


def requests(rate: float, burst: float, tier: Tier = "global", key: str = "global") -> Limit:
    return Limit(tier, key, "requests", rate, burst)


def tokens(rate: float, burst: float, tier: Tier = "global", key: str = "global") -> Limit:
    return Limit(tier, key, "tokens", rate, burst)


async def full(daemon: Daemon, *limits: Limit) -> Path:
    """A path whose buckets have filled: a young data set counts as empty."""
    path = daemon.path(*limits)
    assert daemon.limiter._server is not None
    await daemon.limiter._server.run("levels", buckets=[])  # the data set begins
    await asyncio.sleep(max(limit.burst / limit.rate for limit in limits) + 0.05)
    return path


def level(daemon: Daemon, resource: Resource = "requests") -> float:
    return next(row.level for row in daemon.limiter.levels() if row.resource == resource)


async def test_what_one_daemon_takes_another_does_not_have(valkey: ValkeyServer) -> None:
    async with daemons(valkey.url, 2) as (a, b):
        limit = requests(0.1, 4)
        first, second = a.path(limit), b.path(limit)
        with pytest.raises(LimitExceeded) as young:
            await a.limiter.reserve(first, 0, 0)
        assert young.value.retry_after == pytest.approx(10, abs=1)
        fast = requests(100, 4, key="fast")
        first, second = await full(a, fast), b.path(fast)
        for path, daemon in ((first, a), (second, b), (first, a), (second, b)):
            await daemon.limiter.reserve(path, 0, 0)
        # four are gone; what comes back within the time of these calls is a fraction
        assert level(b) < 4


async def test_a_refusal_says_when_and_gives_back_what_was_taken_here(valkey: ValkeyServer) -> None:
    async with daemons(valkey.url, tiers=("global",)) as (a,):
        path = a.path(requests(0.01, 5, "user", "me"), requests(0.5, 1))
        with pytest.raises(LimitExceeded) as refused:
            await a.limiter.reserve(path, 0, 0.1)
        assert refused.value.tier == "global"
        assert 0 < (refused.value.retry_after or 0) <= 2
        own = next(row for row in a.limiter.levels() if row.tier == "user")
        assert (own.scope, own.level) == ("own", 5)
        assert [notice.decision for notice in a.notices] == ["refused"]


async def test_whoever_waits_is_let_through_and_says_how_long(valkey: ValkeyServer) -> None:
    async with daemons(valkey.url) as (a,):
        path = a.path(requests(20, 1))
        started = time.monotonic()
        done = await asyncio.gather(*(a.limiter.reserve(path, 0, 30) for _ in range(8)))
        assert time.monotonic() - started > 7 / 20 - 0.05
        assert sum(reservation.waited > 0 for reservation in done) >= 7
        assert {notice.decision for notice in a.notices} == {"wait"}
        with pytest.raises(LimitExceeded) as never:
            await a.limiter.reserve(a.path(tokens(10, 100)), 101, 30)
        assert never.value.retry_after is None


async def test_settling_and_refunding_give_back_exactly(valkey: ValkeyServer) -> None:
    async with daemons(valkey.url, 2) as (a, b):
        slow = (requests(1000, 10), tokens(1000, 2000))
        path = await full(a, *slow)
        reservation = await a.limiter.reserve(path, 2000, 0)
        assert reservation.level_tokens == pytest.approx(0, abs=1)
        reservation.settle(500)
        await a.told()
        other = await b.limiter.reserve(b.path(*slow), 1400, 0)
        other.refund()
        await b.told()
        await b.limiter.reserve(b.path(*slow), 1400, 0)


async def test_a_waiter_that_leaves_holds_nothing(valkey: ValkeyServer) -> None:
    async with daemons(valkey.url, 2) as (a, b):
        limits = (tokens(100, 100),)
        path = await full(a, *limits)
        await a.limiter.reserve(path, 100, 0)
        large = asyncio.ensure_future(a.limiter.reserve(path, 100, 30))
        await asyncio.sleep(0.2)
        assert [notice.decision for notice in a.notices] == ["wait"]
        large.cancel()
        await asyncio.wait([large])
        await a.told()
        small = await b.limiter.reserve(b.path(*limits), 5, 30)
        assert small.waited < 0.5


@pytest.mark.check
async def test_the_oldest_who_waits_is_not_starved_by_small_ones(valkey: ValkeyServer) -> None:
    """Many that need little keep the bucket low; one that needs all of it is let through all the same."""
    async with daemons(valkey.url, 2) as (a, b):
        limits = (tokens(1000, 500),)
        path, small = await full(a, *limits), b.path(*limits)
        is_over = False

        async def crowd() -> None:
            while not is_over:
                await b.limiter.reserve(small, 20, 30)

        askers = [asyncio.ensure_future(crowd()) for _ in range(8)]
        await asyncio.sleep(0.3)
        large = await asyncio.wait_for(a.limiter.reserve(path, 500, 30), 25)
        is_over = True
        await asyncio.gather(*askers)
        assert large.waited < 10


async def test_a_penalty_told_to_one_daemon_holds_for_all(valkey: ValkeyServer) -> None:
    async with daemons(valkey.url, 2) as (a, b):
        limit = requests(1000, 10, "profile", "main")
        path = await full(a, limit)
        await a.limiter.reserve(path, 0, 0)
        a.limiter.penalise("profile", "main", "requests", time.monotonic() + 60)
        await a.told()
        with pytest.raises(LimitExceeded) as refused:
            await b.limiter.reserve(b.path(limit), 0, 0)
        assert refused.value.retry_after == pytest.approx(60, abs=5)
        a.limiter.pardon("profile", "main", "requests")
        await a.told()
        await b.limiter.reserve(b.path(limit), 0, 0)


@pytest.mark.check
@pytest.mark.parametrize("how", ["pause", "kill"])
async def test_while_the_server_is_away_each_keeps_to_its_share_which_begins_empty(
    valkey: ValkeyServer, how: str
) -> None:
    """Every caller has its answer or its refusal soon, the sum stays under the limit, and it is told."""
    async with daemons(valkey.url, 2, deadline_seconds=0.2) as team:
        limit = requests(100, 20)
        paths = [await full(daemon, limit) for daemon in team]
        for daemon, path in zip(team * 2, paths * 2, strict=True):  # by then each has heard of the other
            await daemon.limiter.reserve(path, 0, 5)
        if how == "pause":
            valkey.pause()
        else:
            valkey.kill()
        began, admitted, slowest = time.monotonic(), 0, 0.0
        while time.monotonic() - began < 2.5:
            for daemon, path in zip(team, paths, strict=True):
                asked = time.monotonic()
                try:
                    await daemon.limiter.reserve(path, 0, 0)
                    admitted += 1
                except LimitExceeded:
                    pass
                slowest = max(slowest, time.monotonic() - asked)
            await asyncio.sleep(0.001)
        took = time.monotonic() - began
        assert 0 < admitted <= 100 * took + 1
        assert slowest < 1
        state = team[0].limiter.state
        assert state is not None
        assert (state.scope, state.daemons) == ("share", 2)
        assert state.problem
        shares = [row for row in team[0].limiter.levels() if row.scope == "share"]
        assert [(row.rate, row.burst) for row in shares] == [(50, 10)]
        assert "away" in [notice.decision for notice in team[0].notices]

        if how == "pause":
            valkey.resume()
        else:
            valkey.start()
        deadline = time.monotonic() + 20
        while (found := team[0].limiter.state) is None or found.scope != "team":
            assert time.monotonic() < deadline
            try:
                await team[0].limiter.reserve(paths[0], 0, 5)
            except LimitExceeded:
                await asyncio.sleep(0.01)
        # what passed meanwhile counts: the server does not begin with a whole burst
        assert "back" in [notice.decision for notice in team[0].notices]


async def test_an_idle_daemon_knows_that_its_server_has_gone_and_that_it_is_back(valkey: ValkeyServer) -> None:
    async def until(scope: str, *, is_asked: bool) -> None:
        async with asyncio.timeout(5):
            while (state := a.limiter.state) is None or state.scope != scope:
                await asyncio.sleep(0.05)
                if is_asked:  # what answered lately is not asked again
                    await a.limiter.look()

    async with daemons(valkey.url, deadline_seconds=0.2) as (a,):
        await a.limiter.look()
        for stop, start in ((valkey.pause, valkey.resume), (valkey.kill, valkey.start)):
            await until("team", is_asked=False)
            stop()
            await until("share", is_asked=True)
            start()
        await until("team", is_asked=False)
        valkey.kill()
        await until("share", is_asked=True)
    assert {task.get_name() for task in asyncio.all_tasks()}.isdisjoint({"shared-limits"})


@pytest.mark.parametrize(("when_away", "passes"), [("open", True), ("closed", False)])
async def test_what_happens_while_the_server_is_away_is_a_setting(when_away: str, passes: bool) -> None:
    async with daemons("valkey://127.0.0.1:9", when_away=when_away) as (a,):
        path = a.path(requests(0.001, 1))
        for _ in range(5):
            if passes:
                (await a.limiter.reserve(path, 0, 0)).refund()
            else:
                with pytest.raises(LimitExceeded):
                    await a.limiter.reserve(path, 0, 0)


async def test_a_server_that_lost_its_state_grants_no_burst_and_takes_nothing_back(valkey: ValkeyServer) -> None:
    async with daemons(valkey.url) as (a,):
        limit = tokens(100, 100)
        path = await full(a, limit)
        before = await a.limiter.reserve(path, 100, 0)
        valkey.kill()
        valkey.start()
        deadline = time.monotonic() + 20
        while True:
            assert time.monotonic() < deadline
            found = await a.limiter.reserve(path, 1, 20)
            if isinstance(found, TeamReservation) and found._taken is not None:
                break
        low = level(a, "tokens")
        before.settle(0)  # of the lost data set: nothing is given back for it
        await a.told()
        await a.limiter.reserve(path, 1, 20)
        assert level(a, "tokens") < max(low, 0) + 100 * 0.5
        assert low < 100


@pytest.mark.check
async def test_the_script_decides_as_the_bucket_does(valkey: ValkeyServer) -> None:
    """Random takes, settlements and refunds of 60 in a row: the level on the server is that of our own bucket."""
    dice = random.Random(7)
    async with daemons(valkey.url) as (a,):
        limit = tokens(200, 400)
        path = await full(a, limit)
        ours = Bucket("global", "global", "tokens", rate=200, burst=400, now=time.monotonic())
        open_: list[tuple[int, float, TeamReservation]] = []
        for number in range(1, 120):
            amount = float(dice.randrange(1, 60))
            try:
                made = await a.limiter.reserve(path, amount, 0)
            except LimitExceeded:
                await asyncio.sleep(0.05)
            else:
                assert isinstance(made, TeamReservation)
                ours.take(number, amount / 200, time.monotonic())
                open_.append((number, amount, made))
            if open_ and dice.random() < 0.6:
                who, taken, reservation = open_.pop(dice.randrange(len(open_)))
                used = float(dice.randrange(int(taken) + 1))
                reservation.settle(used)
                await a.told()
                ours.give_back(who, (taken - used) / 200)
        await a.limiter.reserve(path, 0.0, 0)
        assert level(a, "tokens") == pytest.approx(ours.level(time.monotonic()), abs=40)


async def test_the_login_that_the_guide_gives_is_enough(valkey: ValkeyServer) -> None:
    text = (ROOT / "tundra_nb/guide/teams.md").read_text()
    line = re.search(r"ACL (SETUSER tundra [^`]+)", text)
    assert line is not None
    with Valkey(port=valkey.port) as client:
        client.execute_command("ACL", *line.group(1).replace("PASSWORD", "a-login").split())
    limiter = SharedLimiter(SystemClock(), {"PASSWORD_HERE": "a-login"})
    limiter.share(SharedLimitsSettings(url=valkey.url, user="tundra", password_env="PASSWORD_HERE"))
    try:
        path = limiter.path((requests(1000, 10), tokens(1000, 10)))
        reservation = await limiter.reserve(path, 5, 5)
        assert isinstance(reservation, TeamReservation)
        assert limiter.state is not None
        assert (limiter.state.scope, limiter.state.problem) == ("team", "")
        reservation.settle(2)
        limiter.penalise("global", "global", "requests", time.monotonic() + 1)
    finally:
        await limiter.aclose()
    assert limiter.state.scope == "team"


async def test_a_password_and_a_wrong_one(valkey: ValkeyServer) -> None:
    del valkey
    with ValkeyServer("--requirepass", "team-secret") as locked:
        settings = SharedLimitsSettings(url=locked.url, password_env="LIMITS_PASSWORD")
        good = SharedLimiter(SystemClock(), {"LIMITS_PASSWORD": "team-secret"})
        good.share(settings)
        bad = SharedLimiter(SystemClock(), {"LIMITS_PASSWORD": "wrong"})
        bad.share(settings)
        try:
            path = good.path((requests(1000, 1),))
            assert isinstance(await good.reserve(path, 0, 5), TeamReservation)
            for _ in range(3):
                await bad.reserve(bad.path((requests(1000, 10),)), 0, 5)
            state = bad.state
            assert state is not None
            assert state.scope == "share"
            assert "WRONGPASS" in state.problem or "password" in state.problem
            assert "wrong" not in state.problem.lower().replace("wrongpass", "")
        finally:
            await good.aclose()
            await bad.aclose()


@pytest.mark.parametrize("name", sorted(programs(have_tls=True)))
async def test_a_server_by_tls_is_asked_only_when_its_certificate_is_known(name: str, tmp_path: FilePath) -> None:
    """`valkeys://` with `ca_file`; without it the server counts as away, and why is told."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    files = [tmp_path / part for part in ("key.pem", "cert.pem", "ca.pem")]
    certificate.private_key_pem.write_to_path(str(files[0]))
    certificate.cert_chain_pems[0].write_to_path(str(files[1]))
    authority.cert_pem.write_to_path(str(files[2]))
    key, cert, ca = map(str, files)
    options = ("--tls-key-file", key, "--tls-cert-file", cert, "--tls-ca-cert-file", ca, "--tls-auth-clients", "no")
    with ValkeyServer(*options, name=name, has_tls=True) as server:
        async with daemons(server.url, ca_file=ca, deadline_seconds=5) as (a,):
            path = await full(a, requests(100, 5))
            assert isinstance(await a.limiter.reserve(path, 0, 5), TeamReservation)
            assert a.limiter.state is not None
            assert a.limiter.state.scope == "team"
        async with daemons(server.url, deadline_seconds=5, when_away="closed") as (b,):
            path = b.path(requests(100, 5))
            for _ in range(3):
                with pytest.raises(LimitExceeded):
                    await b.limiter.reserve(path, 0, 0)
            assert b.limiter.state is not None
            assert "CERTIFICATE_VERIFY_FAILED" in b.limiter.state.problem.upper().replace(" ", "_")
