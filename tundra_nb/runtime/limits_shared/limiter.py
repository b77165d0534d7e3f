"""The limiter of a daemon that may share limits: tiers of its own as ever, shared ones decided on the server.

| the server | a shared tier is limited by |
|---|---|
| answers | the script: what all daemons of the budget have taken |
| is away, `when_away = "share"` | this daemon's part of rate and burst among the daemons heard of; it begins empty |
| is away, `"closed"` | nothing passes |
| is away, `"open"` | nothing limits |

The line of those who wait stays here: of each path only the first asks the server, again after the time that it told.
What was let through meanwhile is told to the server once it is back. It is asked each second whether it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import secrets
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from tundra_nb.errors import LimitExceeded
from tundra_nb.runtime.clock import Clock
from tundra_nb.runtime.resilience.breaker import BreakerChange
from tundra_nb.runtime.resilience.bucket import SLOWEST_RATE, Bucket
from tundra_nb.runtime.resilience.limiter import (
    NEVER_SECONDS,
    BucketLevel,
    Key,
    Limit,
    Limiter,
    LimitNotice,
    LimitPath,
    Narrowest,
    Reservation,
)
from tundra_nb.settings import SharedLimitsSettings
from tundra_nb.types import Decision, Resource, Tier

from .server import AFTER_FAILURES, AWAY_SECONDS, AwayError, BucketPart, BudgetServer

SHORTEST_PAUSE = 0.002
"""Seconds between two askings, whatever the server tells."""
KNOWN_BUCKETS = 1024
"""Levels that are remembered, to be shown."""
CLOSE_SECONDS = 2.0
"""How long what is still to be told to the server may take at the end."""
OnNotice = Callable[[LimitNotice], None]


class SharedState(msgspec.Struct, frozen=True, kw_only=True):
    """How the shared tiers are limited at the moment."""

    url: str
    budget: str
    scope: str
    """team: by the server; share, closed, open: it is away."""
    since: float
    """Seconds for which that holds."""
    daemons: int
    """That were heard of in the last minute."""
    problem: str
    """What went wrong, while it is away."""


class TeamPath:
    """The limits that one kind of request goes through: those of this daemon, and those of the team."""

    __slots__ = ("key", "limits", "own", "shared")

    def __init__(self, own: LimitPath, shared: Sequence[Limit]) -> None:
        self.own = own
        self.shared = tuple(sorted(shared, key=lambda limit: limit.resource == "tokens"))  # requests first
        self.key: tuple[Key, ...] = tuple((limit.tier, limit.key, limit.resource) for limit in self.shared)
        self.limits = own.limits + self.shared


Path = LimitPath | TeamPath


class _Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What the server granted: to be settled under this number, as long as its data set is the same."""

    number: int
    of: str
    backlogs: tuple[float, ...]


class TeamReservation:
    """What a request has taken of its own and of the team's buckets; see `Reservation`."""

    __slots__ = ("_limiter", "_own", "_path", "_share", "_taken", "at", "tokens", "waited")

    def __init__(
        self,
        limiter: SharedLimiter,
        path: TeamPath,
        own: Reservation,
        tokens: float,
        waited: float,
        *,
        taken: _Taken | None = None,
        share: Reservation | None = None,
    ) -> None:
        self._limiter: SharedLimiter | None = limiter
        self._path = path
        self._own = own
        self._taken = taken
        self._share = share
        self.tokens = tokens
        self.waited = waited
        self.at = own.at

    def __repr__(self) -> str:
        scope = "team" if self._taken else "share" if self._share else "open"
        return f"<TeamReservation {scope}, {self.tokens:g} tokens, waited {self.waited:.3f} s>"

    @property
    def level_requests(self) -> float | None:
        """Level of the narrowest bucket of requests afterwards; None when requests are not limited."""
        narrowest = self.narrowest_requests
        return narrowest.level if narrowest else None

    @property
    def level_tokens(self) -> float | None:
        """Level of the narrowest bucket of tokens afterwards; None when tokens are not limited."""
        narrowest = self.narrowest_tokens
        return narrowest.level if narrowest else None

    @property
    def narrowest_requests(self) -> Narrowest | None:
        """The narrowest bucket of requests afterwards; None when requests are not limited."""
        return self._narrowest("requests", self._own.narrowest_requests)

    @property
    def narrowest_tokens(self) -> Narrowest | None:
        """The narrowest bucket of tokens afterwards; None when tokens are not limited."""
        return self._narrowest("tokens", self._own.narrowest_tokens)

    def _narrowest(self, resource: Resource, own: Narrowest | None) -> Narrowest | None:
        found = [own] if own else []
        if self._taken is not None:
            found += [
                Narrowest(level=limit.burst - backlog * limit.rate, burst=limit.burst, full_after=backlog)
                for limit, backlog in zip(self._path.shared, self._taken.backlogs, strict=True)
                if limit.resource == resource
            ]
        elif self._share is not None:
            part = self._share.narrowest_requests if resource == "requests" else self._share.narrowest_tokens
            found += [part] if part else []
        return min(found, key=lambda narrowest: narrowest.level, default=None)

    def settle(self, tokens: float) -> None:
        """Replace the estimate by the real usage; the buckets of tokens may go into debt.

        Raises:
            ValueError: `tokens` is negative or not a number.
        """
        self._own.settle(tokens)
        self._close({"tokens": tokens - self.tokens}, lambda share: share.settle(tokens))

    def refund(self) -> None:
        """Give everything back: nothing was sent."""
        self._own.refund()
        self._close({"requests": -1.0, "tokens": -self.tokens}, Reservation.refund)

    def _close(self, units: Mapping[str, float], of_share: Callable[[Reservation], None]) -> None:
        limiter, self._limiter = self._limiter, None
        if limiter is None:
            return
        if self._share is not None:
            of_share(self._share)
        elif self._taken is not None:
            limiter.settle(self._path, self._taken, units)


class SharedLimiter:
    """`Limiter`, and over it the tiers that a team shares. Without `[limits.shared]` it is the limiter alone.

    Args:
        clock: time, and timers.
        environ: where the password is looked up.
        on_notice: told of each wait, refusal, penalty and correction, and when the server goes away or is back.
    """

    def __init__(self, clock: Clock, environ: Mapping[str, str], on_notice: OnNotice | None = None) -> None:
        self._clock = clock
        self._environ = environ
        self._on_notice = on_notice
        self._own = Limiter(clock, on_notice=on_notice)
        self._settings = SharedLimitsSettings()
        self._server: BudgetServer | None = None
        self._share: Limiter | None = None
        """While the server is away: the part of this daemon."""
        self._share_paths: dict[tuple[Key, ...], LimitPath] = {}
        self._emptied: set[Bucket] = set()
        self._spent: dict[Key, tuple[Limit, float]] = {}
        """Units let through while it was away."""
        self._since = clock.monotonic()
        self._daemons = 0
        self._daemon = secrets.token_hex(8)
        self._tickets = itertools.count(1)
        self._lines: dict[tuple[Key, ...], asyncio.Lock] = {}
        self._levels: dict[Key, tuple[Limit, float, float, float]] = {}
        """The last word of the server by bucket: backlog, blocked for, and when it was told."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._return: asyncio.Task[None] | None = None
        """Waits for a server that is away."""

    def __repr__(self) -> str:
        return f"<SharedLimiter over {self._own!r}, {self._server!r}>"

    @property
    def waiting(self) -> int:
        """Who waits in a line of this daemon."""
        return self._own.waiting + (self._share.waiting if self._share else 0)

    # --- configuration

    def share(self, settings: SharedLimitsSettings) -> None:
        """Put the section in force; a changed server is a new one."""
        if settings == self._settings:
            return
        before, self._server = self._server, None
        if self._return is not None:
            self._return.cancel()
            self._return = None
        self._settings = settings
        self._lines.clear()
        self._levels.clear()
        self._spent.clear()
        self._share = None
        self._since = self._clock.monotonic()
        if before is not None:
            self._later(before.aclose())
        if settings.url:
            monotonic = self._clock.monotonic
            self._server = BudgetServer(settings, self._environ, self._daemon, monotonic, self._server_moved)

    async def aclose(self) -> None:
        """Tell the server what is still to be told, and close the connections."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)
        if self._return is not None:
            self._return.cancel()
            await asyncio.wait((self._return,))
        if self._server is not None:
            await self._server.aclose()

    def configure(self, limits: Iterable[Limit]) -> None:
        """Give buckets new rates and bursts, live."""
        self._own.configure(limit for limit in limits if not self._is_shared(limit.tier))

    def path(self, limits: Sequence[Limit]) -> Path:
        """A handle for requests that go through these limits."""
        shared = [limit for limit in limits if self._is_shared(limit.tier)]
        if not shared:
            return self._own.path(limits)
        return TeamPath(self._own.path([limit for limit in limits if limit not in shared]), shared)

    def _is_shared(self, tier: Tier) -> bool:
        return self._server is not None and tier in self._settings.tiers

    # --- reserving

    async def reserve(
        self, path: Path, tokens: float, max_wait: float, operation_id: int | None = None
    ) -> Reservation | TeamReservation:
        """Reserve, waiting for at most `max_wait` seconds. Cancelling leaves no trace here.

        Raises:
            LimitExceeded: the wait would be longer, or the server is away and nothing passes then.
            ValueError: `tokens` is negative or not a number.
        """
        if isinstance(path, LimitPath):
            return await self._own.reserve(path, tokens, max_wait, operation_id)
        began = self._clock.monotonic()
        own = await self._own.reserve(path.own, tokens, max_wait, operation_id)
        try:
            return await self._of_team(path, own, tokens, began, began + max_wait, operation_id)
        except BaseException:
            own.refund()
            raise

    async def _of_team(
        self, path: TeamPath, own: Reservation, tokens: float, began: float, until: float, operation_id: int | None
    ) -> TeamReservation:
        line = self._lines.setdefault(path.key, asyncio.Lock())
        try:
            async with asyncio.timeout(max(0.0, until - self._clock.monotonic()) if line.locked() else None):
                await line.acquire()
        except TimeoutError:
            raise self._refusal(path.shared[0], tokens, None, operation_id) from None
        try:
            return await self._ask(path, own, tokens, began, until, operation_id)
        finally:
            line.release()

    async def _ask(
        self, path: TeamPath, own: Reservation, tokens: float, began: float, until: float, operation_id: int | None
    ) -> TeamReservation:
        """As the first of its line: ask the server, again after the time it tells, until it grants or time is up."""
        ticket = f"{self._daemon}.{next(self._tickets)}"
        since, has_told, is_held = "", False, False
        parts = [_part(limit, _units(limit, tokens)) for limit in path.shared]
        try:
            while True:
                now = self._clock.monotonic()
                server = self._server
                if server is None:
                    return TeamReservation(self, path, own, tokens, now - began)
                patience = f"{max(0.0, until - now):.6f}"
                try:
                    await self._tell_spent(server)
                    reply = await server.run("reserve", ticket, since, patience, buckets=parts)
                except AwayError:
                    return await self._while_away(path, own, tokens, began, until, operation_id)
                verdict, number, wait, since = str(reply[0]), int(reply[1]), float(reply[2]), str(reply[3])
                self._daemons = int(reply[5])
                if self._share is not None:  # it was away for so short a time that nobody had given it up
                    self._share = None
                    self._share_paths.clear()
                backlogs = self._remember(path, reply[6:])
                if verdict == "taken":
                    is_held = False
                    taken = _Taken(number=number, of=str(reply[4]), backlogs=backlogs)
                    return TeamReservation(self, path, own, tokens, self._clock.monotonic() - began, taken=taken)
                bottleneck = path.shared[number - 1]
                is_held = verdict == "refused"
                self._check(bottleneck, tokens, None if verdict == "never" else wait, until, operation_id)
                if not has_told:
                    has_told = True
                    self._notify(bottleneck, "wait", _units(bottleneck, tokens), wait, operation_id)
                await self._clock.sleep(max(wait, SHORTEST_PAUSE))
        except BaseException:
            if is_held and self._server is not None:
                self._later(self._tell(self._server, "leave", ticket, buckets=[_part(li, 0.0) for li in path.shared]))
            raise

    def _check(
        self, bottleneck: Limit, tokens: float, wait: float | None, until: float, operation_id: int | None
    ) -> None:
        if wait is None or wait >= NEVER_SECONDS or self._clock.monotonic() + wait > until:
            raise self._refusal(bottleneck, tokens, wait, operation_id)

    # --- while the server is away

    async def _while_away(
        self, path: TeamPath, own: Reservation, tokens: float, began: float, until: float, operation_id: int | None
    ) -> TeamReservation:
        now = self._clock.monotonic()
        if self._settings.when_away == "open":
            return TeamReservation(self, path, own, tokens, now - began)
        if self._settings.when_away == "closed":
            raise self._refusal(path.shared[0], tokens, self._settings.deadline_seconds, operation_id)
        if self._share is None:
            self._share = Limiter(self._clock, on_notice=self._on_notice)
            self._share_paths.clear()
            self._emptied.clear()
        known = self._share_paths.get(path.key)
        if known is None:
            known = self._share_paths[path.key] = self._share.path(self._parts_of(path.shared))
            for bucket in known.buckets:  # what the server has granted before is not known here: each begins empty
                if bucket not in self._emptied:
                    self._emptied.add(bucket)
                    bucket.full_at = now + bucket.span
        share = await self._share.reserve(known, tokens, max(0.0, until - now), operation_id)
        for key, limit in zip(path.key, path.shared, strict=True):
            spent = self._spent.get(key, (limit, 0.0))[1]
            self._spent[key] = (limit, spent + _units(limit, tokens))
        return TeamReservation(self, path, own, tokens, self._clock.monotonic() - began, share=share)

    def _parts_of(self, limits: Sequence[Limit]) -> list[Limit]:
        """The limits of this daemon among as many as were heard of; a request at once always fits."""
        among = self._daemons or self._settings.daemons
        return [
            Limit(
                limit.tier,
                limit.key,
                limit.resource,
                limit.rate / among,
                max(limit.burst / among, 1.0 if limit.resource == "requests" else 0.0),
            )
            for limit in limits
        ]

    async def look(self) -> None:
        """Ask the server, unless it has answered lately: `state` is then what is so, also where nobody calls."""
        for _ in range(AFTER_FAILURES):
            server = self._server
            if server is None or server.is_away or self._clock.monotonic() - server.answered_at < AWAY_SECONDS:
                return
            with contextlib.suppress(AwayError):
                await self._tell_what_was_spent(server)

    async def _await_return(self, server: BudgetServer) -> None:
        """Ask each second, by a verb that writes as a call's does, until the server answers."""
        while server.breaker.state != "closed":
            await self._clock.sleep(server.breaker.open_for or AWAY_SECONDS)
            with contextlib.suppress(AwayError):
                await self._tell_what_was_spent(server)

    async def _tell_spent(self, server: BudgetServer) -> None:
        if self._spent:
            await self._tell_what_was_spent(server)

    async def _tell_what_was_spent(self, server: BudgetServer) -> None:
        """Back again: the buckets there have filled meanwhile, as if nobody had asked for anything.

        Raises:
            AwayError: it is not.
        """
        spent, self._spent = self._spent, {}
        try:
            await server.run("spent", buckets=[_part(limit, units) for limit, units in spent.values()])
        except AwayError:
            self._spent = {**spent, **self._spent}
            raise

    def _server_moved(self, change: BreakerChange) -> None:
        is_away = change.new == "open"
        if change.new == "half_open" or (change.old == "half_open" and is_away):
            return
        self._since = self._clock.monotonic()
        if is_away and self._server is not None and (self._return is None or self._return.done()):
            self._return = asyncio.get_running_loop().create_task(
                self._await_return(self._server), name="shared-limits"
            )
        if not is_away:
            self._share = None
            self._share_paths.clear()
        for limit, *_ in list(self._levels.values())[:1]:
            self._notify(limit, "away" if is_away else "back", 0.0, None, None)

    # --- what comes back

    def settle(self, path: TeamPath, taken: _Taken, units: Mapping[str, float]) -> None:
        """Tell the server what was used beyond what was taken, in units by resource. It is never told twice: a command
        that got no answer may have been carried out.
        """
        limits = [limit for limit in path.shared if units.get(limit.resource)]
        if not limits or self._server is None:
            return
        parts = [_part(limit, units[limit.resource]) for limit in limits]
        self._later(self._tell(self._server, "settle", str(taken.number), taken.of, buckets=parts))

    def penalise(self, tier: Tier, key: str, resource: Resource, until: float) -> None:
        """Admit nothing through a bucket before `until` (monotonic seconds), here and for the whole team."""
        self._own.penalise(tier, key, resource, until)
        if self._share is not None:
            self._share.penalise(tier, key, resource, until)
        self._block(tier, key, resource, until - self._clock.monotonic())

    def pardon(self, tier: Tier, key: str, resource: Resource) -> None:
        """Take a penalty back: somebody knows better."""
        self._own.pardon(tier, key, resource)
        if self._share is not None:
            self._share.pardon(tier, key, resource)
        self._block(tier, key, resource, 0.0)

    def _block(self, tier: Tier, key: str, resource: Resource, seconds: float) -> None:
        known = self._levels.get((tier, key, resource))
        if known is None or self._server is None:  # nothing of it was ever asked for: there is no such bucket
            return
        limit, backlog, _, told_at = known
        self._levels[(tier, key, resource)] = (limit, backlog, seconds, told_at)
        part = BucketPart(_name(limit), *_shape(limit), seconds)
        self._later(self._tell(self._server, "penalise", buckets=[part]))

    async def _tell(self, server: BudgetServer, verb: str, *words: str, buckets: Sequence[BucketPart]) -> None:
        try:
            await server.run(verb, *words, buckets=buckets)
        except AwayError:  # what it was not told stays as it is: used, which is safe
            return

    def _later(self, what: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(what)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- what is told

    @property
    def state(self) -> SharedState | None:
        """How the shared tiers are limited now; None where nothing is shared."""
        if self._server is None:
            return None
        is_away = self._server.is_away
        return SharedState(
            url=self._settings.url,
            budget=self._settings.budget,
            scope=self._settings.when_away if is_away else "team",
            since=self._clock.monotonic() - self._since,
            daemons=self._daemons or self._settings.daemons,
            problem=self._server.problem if is_away else "",
        )

    def levels(self) -> tuple[BucketLevel, ...]:
        """Every bucket in use. A shared one is as its server told last, refilled since."""
        now = self._clock.monotonic()
        own, state = self._own.levels(), self.state
        if state is None:
            return own
        if state.scope == "share" and self._share is not None:
            return own + tuple(msgspec.structs.replace(level, scope="share") for level in self._share.levels())
        return own + tuple(
            BucketLevel(
                tier=limit.tier,
                key=limit.key,
                resource=limit.resource,
                level=limit.burst - max(0.0, backlog - (now - told_at)) * limit.rate,
                burst=limit.burst,
                rate=limit.rate,
                waiting=0,
                penalised_for=max(0.0, blocked - (now - told_at)),
                scope=state.scope,
            )
            for limit, backlog, blocked, told_at in self._levels.values()
        )

    def _remember(self, path: TeamPath, told: Sequence[Any]) -> tuple[float, ...]:
        now = self._clock.monotonic()
        numbers = [float(number) for number in told]
        if len(self._levels) > KNOWN_BUCKETS:
            self._levels.clear()
        for place, (key, limit) in enumerate(zip(path.key, path.shared, strict=True)):
            self._levels[key] = (limit, numbers[2 * place], numbers[2 * place + 1], now)
        return tuple(numbers[::2])

    def _refusal(self, limit: Limit, tokens: float, wait: float | None, operation_id: int | None) -> LimitExceeded:
        requested = _units(limit, tokens)
        if wait is not None and wait >= NEVER_SECONDS:
            wait = None
        self._notify(limit, "refused", requested, wait, operation_id)
        return LimitExceeded(
            tier=limit.tier,
            key=limit.key,
            resource=limit.resource,
            requested=requested,
            retry_after=wait,
            limit=limit.burst,
        )

    def _notify(
        self, limit: Limit, decision: Decision, requested: float, wait: float | None, operation_id: int | None
    ) -> None:
        if self._on_notice is None:
            return
        backlog = self._levels.get((limit.tier, limit.key, limit.resource), (limit, math.nan, 0.0, 0.0))[1]
        self._on_notice(
            LimitNotice(
                tier=limit.tier,
                key=limit.key,
                resource=limit.resource,
                decision=decision,
                requested=requested,
                remaining=0.0 if math.isnan(backlog) else limit.burst - backlog * limit.rate,
                retry_after=wait,
                operation_id=operation_id,
            )
        )


def _units(limit: Limit, tokens: float) -> float:
    return 1.0 if limit.resource == "requests" else tokens


def _shape(limit: Limit) -> tuple[float, float]:
    per_unit = 1.0 / max(limit.rate, SLOWEST_RATE)
    return per_unit, limit.burst * per_unit


def _name(limit: Limit) -> str:
    return f"{limit.tier}/{limit.key}/{limit.resource}"


def _part(limit: Limit, units: float) -> BucketPart:
    per_unit, span = _shape(limit)
    return BucketPart(_name(limit), per_unit, span, units * per_unit)
