"""Who asks: a user, or a program with a gateway token; what it may take, and what its day may cost.

**Budget.** A counter of its own per token and UTC day: what calls have cost, and what those under way may cost at most.
A call reserves before anything is sent and settles with its real cost. After a restart the counter is rebuilt from the
history before the first call is admitted, so a restart never gives a budget twice.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable

import msgspec

from tundra_nb.errors import BudgetSpent
from tundra_nb.runtime.clock import Clock
from tundra_nb.runtime.history.query import Condition, FrameQuery
from tundra_nb.runtime.history.service import History

DAY_US = 86_400_000_000
TOKEN_KEY = "token/"  # noqa: S105 - the prefix of a limiter key
"""Begins the limiter key of a gateway token: no user's bucket is a token's."""


class Caller(msgspec.Struct, frozen=True):
    """Whose call it is."""

    name: str
    """The row's `user_name`."""
    key: str = ""
    """Key of its bucket in the tier of users; its name when left out."""
    rpm: float | None = None
    tpm: float | None = None
    """These two replace the limits of the tier of users."""
    usd_per_day: float | None = None
    profiles: tuple[str, ...] = ()
    """Those that it may be served by; () is all."""

    @property
    def limit_key(self) -> str:
        return self.key or self.name


class Money:
    """What one attempt has reserved. Settle it exactly once; later settlements do nothing."""

    __slots__ = ("_day", "_purse", "reserved")

    def __init__(self, purse: _Purse, reserved: float) -> None:
        self._purse: _Purse | None = purse
        self._day = purse.day
        self.reserved = reserved

    def settle(self, cost: float) -> None:
        """Replace what was reserved by what it cost, in USD."""
        purse, self._purse = self._purse, None
        if purse is not None and purse.day == self._day:
            purse.reserved -= self.reserved
            purse.settled += cost


@dataclasses.dataclass
class _Purse:
    """One token's day."""

    day: int
    settled: float = 0.0
    reserved: float = 0.0


class Budgets:
    """The counters of all tokens. `spent_since(name, since_us)` tells what the history holds, in USD."""

    def __init__(self, clock: Clock, spent_since: Callable[[str, int], Awaitable[float]]) -> None:
        self._clock = clock
        self._spent_since = spent_since
        self._purses: dict[str, _Purse] = {}
        self._lock = asyncio.Lock()

    async def ready(self, caller: Caller) -> None:
        """Have the counter of a caller's day, rebuilt from the history where need be.

        A clock that is set back before midnight begins no new day: it would give both days' budgets anew.

        Raises:
            StoreError: the history cannot be read, so nobody can say what is left.
        """
        if caller.usd_per_day is not None:
            await self._purse(caller.name)

    async def _purse(self, name: str) -> _Purse:
        day = self._clock.now_us() // DAY_US
        if (purse := self._purses.get(name)) is not None and purse.day >= day:
            return purse
        async with self._lock:
            purse = self._purses.get(name)
            if purse is None or purse.day < day:
                settled = 0.0 if purse is not None else await self._spent_since(name, day * DAY_US)
                purse = self._purses[name] = _Purse(day, settled)
        return purse

    def reserve(self, caller: Caller, profile: str, needed: float | None) -> Money | None:
        """Reserve the most that an attempt can cost; None when the caller has no budget.

        Raises:
            BudgetSpent: it is not covered, or nobody knows what it costs.
        """
        if caller.usd_per_day is None:
            return None
        purse = self._purses[caller.name]
        taken = purse.settled + purse.reserved
        if needed is None or taken + needed > caller.usd_per_day:
            now = self._clock.now_us()
            raise BudgetSpent(
                name=caller.name,
                profile=profile,
                budget=caller.usd_per_day,
                spent=taken,
                needed=needed,
                retry_after=None if needed is None else ((now // DAY_US + 1) * DAY_US - now) / 1e6,
            )
        purse.reserved += needed
        return Money(purse, needed)

    def left(self, caller: Caller) -> float:
        """What a caller with a budget may still reserve today, in USD. It is `ready`."""
        purse = self._purses[caller.name]
        return max((caller.usd_per_day or 0.0) - purse.settled - purse.reserved, 0.0)

    async def spent(self, name: str) -> tuple[float, float]:
        """Settled and reserved USD of the present day, by the history where nobody has asked yet.

        Raises:
            StoreError: the history cannot be read.
        """
        purse = await self._purse(name)
        return purse.settled, purse.reserved


async def spent_in(history: History, name: str, since_us: int) -> float:
    """What the history holds of a token's cost since then, in USD."""
    conditions = [Condition("user_name", "eq", name), Condition("caller", "eq", "gateway")]
    rows = await history.rows(FrameQuery(table="operation", since_us=since_us, where=conditions))
    return float(sum(row["cost_usd"] or 0.0 for row in rows))
