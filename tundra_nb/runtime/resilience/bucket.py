"""One token bucket, and the places booked in it.

The whole state of a bucket is one number: `full_at`, the moment at which it will be full again if nothing more is
taken (the generic cell rate algorithm). All amounts in here are **seconds of refill**: a cost of 3 at 2 per second is
1.5 s. A cost fits when, after it, the bucket is full again within `span` = burst / rate. Hence in any window of length
T no more than rate × T + burst is ever taken, without a tick and without rounding.

**Giving back** is exact: the bucket becomes what it would be had the amount never been taken. That is less than the
amount when the bucket has come close to full since, because refill that a full bucket wastes cannot be had twice. What
may be given back for a reservation is the smallest backlog that any later one found (`marks` and `lows`, a stack of
suffix minima).

**Bookings** are the waiters' future places, in order of time. A newcomer may use whatever no booked place needs:
`earliest` finds the first moment at which a cost fits without moving any of them.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right

from tundra_nb.types import Resource, Tier

EPSILON = 1e-9
"""Seconds. Rounding of float sums; three orders below what a timer can tell apart."""
UNMOVED = EPSILON / 10
"""Seconds by which a booked place may differ and count as where it was."""
SLOWEST_RATE = 1e-9
"""Per second. Stands for a rate of zero: the burst, and then nothing for 30 years."""


class Bucket:
    """A token bucket. Times are monotonic seconds, amounts seconds of refill, unless a name says otherwise."""

    __slots__ = (
        "_fulls",
        "blocked_until",
        "burst",
        "fits_within",
        "fresh_since",
        "full_at",
        "is_live",
        "key",
        "largest",
        "line",
        "lows",
        "marks",
        "rate",
        "resource",
        "seconds_per_unit",
        "slack",
        "span",
        "tier",
        "tight_at",
    )

    def __init__(self, tier: Tier, key: str, resource: Resource, *, rate: float, burst: float, now: float) -> None:
        self.tier = tier
        self.key = key
        self.resource = resource
        self.full_at = now
        self.blocked_until = -math.inf
        self.is_live = True
        """False once evicted."""
        self.line: list[tuple[float, int, float]] = []
        """Booked places: when, which waiter, how much."""
        self.tight_at = -math.inf
        """While places are appended: the last one before which nothing more fits."""
        self.largest = 0.0
        """The largest cost that was booked since the line was empty …"""
        self.slack = math.inf
        """… and the least room there has been beside a booked place."""
        self._fulls: list[float] = []
        """`full_at` as it will be after each booked place."""
        self.fresh_since = 0
        """The last reservation that found the bucket full."""
        self.marks: list[int] = []
        """Reservations since then that found it less full than any later one …"""
        self.lows: list[float] = []
        """… and the backlog that each found, increasing."""
        self._set_shape(rate, burst)

    def __repr__(self) -> str:
        name = f"{self.tier}/{self.key}/{self.resource}"
        return f"<Bucket {name} {self.rate:g}/s burst {self.burst:g}, {len(self.line)} booked>"

    def _set_shape(self, rate: float, burst: float) -> None:
        self.rate = rate
        self.burst = burst
        self.seconds_per_unit = 1.0 / max(rate, SLOWEST_RATE)
        self.span = burst * self.seconds_per_unit
        self.fits_within = self.span + EPSILON

    def reshape(self, rate: float, burst: float, now: float) -> None:
        """Change rate and burst. What has been used stays used, at most the new burst; a debt stays a debt."""
        used = max(0.0, self.full_at - now) / self.seconds_per_unit
        debt = max(0.0, used - self.burst)
        stretch = self.seconds_per_unit
        self._set_shape(rate, burst)
        stretch = self.seconds_per_unit / stretch
        self.full_at = now + (min(used - debt, burst) + debt) * self.seconds_per_unit
        self.lows = [backlog * stretch for backlog in self.lows]

    def level(self, now: float) -> float:
        """Units left; negative in debt."""
        return self.burst - max(0.0, self.full_at - now) / self.seconds_per_unit

    def admits(self, cost: float) -> bool:
        """Whether a cost can ever fit."""
        return cost <= self.span * (1 + EPSILON)

    def ready_at(self, cost: float, now: float) -> float:
        """When a cost fits, whatever is booked."""
        return max(now, self.blocked_until, self.full_at + cost - self.span)

    def take(self, who: int, cost: float, now: float) -> None:
        """Take `cost`, into debt if need be."""
        backlog = self.full_at - now
        marks, lows = self.marks, self.lows
        if backlog <= 0:
            self.full_at = now + cost
            self.fresh_since = who
            marks.clear()
            lows.clear()
        else:
            self.full_at += cost
            while lows and lows[-1] >= backlog:
                marks.pop()
                lows.pop()
            marks.append(who)
            lows.append(backlog)
        if self.line:
            self._reflow(0)

    def give_back(self, who: int, amount: float) -> None:
        """Undo that reservation `who` took `amount`, as far as the bucket has not been full since."""
        if who < self.fresh_since:
            return
        marks, lows = self.marks, self.lows
        first = bisect_right(marks, who)
        if first < len(marks):
            amount = min(amount, lows[first])
            # Each later one would have found that much less. Earlier marks that are no longer lower are of no more use.
            lows[first:] = [backlog - amount for backlog in lows[first:]]
            keep = bisect_left(lows, lows[first], 0, first)
            del marks[keep:first], lows[keep:first]
        self.full_at -= amount
        if self.line:
            self._reflow(0)

    # --- bookings

    def earliest(self, cost: float, start: float) -> float:
        """The first moment from `start` on at which `cost` fits and delays no booked place."""
        at = max(start, self.blocked_until)
        line, fulls, span = self.line, self._fulls, self.span
        place = bisect_right(line, (at, math.inf, 0.0))
        while True:
            full = fulls[place - 1] if place else self.full_at
            if full + cost - span > at:
                at = full + cost - span
                if place < len(line) and line[place][0] <= at:
                    place = bisect_right(line, (at, math.inf, 0.0), place)
                    continue
            full = max(full, at) + cost
            for later in range(place, len(line)):
                booked_at, _, booked = line[later]
                full = max(full, booked_at) + booked
                if full <= fulls[later] + EPSILON:
                    return at  # the bucket is full in between: nobody after this notices
                if full - booked_at > span + EPSILON:
                    at = max(at, booked_at)
                    place = later + 1
                    break
            else:
                return at

    @property
    def is_tight(self) -> bool:
        """Whether somebody's place may depend on this bucket. Where not, giving back to it moves nobody forward."""
        return self.slack < self.largest and bool(self.line)

    def book(self, at: float, waiter: int, cost: float) -> None:
        self.largest = max(self.largest, cost)
        place = bisect_left(self.line, (at, waiter))
        self.line.insert(place, (at, waiter, cost))
        self._fulls.insert(place, math.nan)
        self._reflow(place)

    def unbook(self, at: float, waiter: int) -> None:
        place = self._drop(at, waiter)
        self._reflow(place)

    def redeem(self, at: float, waiter: int, who: int, now: float) -> None:
        """Turn the booked place of a waiter into what reservation `who` takes."""
        cost = self.line[bisect_left(self.line, (at, waiter))][2]
        place = self._drop(at, waiter)
        self.take(who, cost, now)
        self._reflow(place)

    def clear_bookings(self) -> None:
        self.line.clear()
        self._fulls.clear()
        self.tight_at = -math.inf
        self.largest, self.slack = 0.0, math.inf

    def end(self, cost: float) -> tuple[float, float]:
        """The time of the last booked place, and the first moment after all of them at which `cost` fits."""
        if self.line:
            return self.line[-1][0], max(self.blocked_until, self._fulls[-1] + cost - self.span)
        return -math.inf, max(self.blocked_until, self.full_at + cost - self.span)

    def append(self, at: float, waiter: int, cost: float) -> None:
        """Book a place after all others."""
        full = self._fulls[-1] if self._fulls else self.full_at
        full = (full if full > at else at) + cost  # noqa: FURB136 - max() costs three times that
        self.line.append((at, waiter, cost))
        self._fulls.append(full)
        self.largest = max(self.largest, cost)
        slack = self.span - (full - at)
        self.slack = min(self.slack, slack)
        if slack <= EPSILON / 2:
            self.tight_at = at

    def _drop(self, at: float, waiter: int) -> int:
        place = bisect_left(self.line, (at, waiter))
        del self.line[place], self._fulls[place]
        if not self.line:
            self.largest, self.slack = 0.0, math.inf
        return place

    def _reflow(self, start: int) -> None:
        line, fulls, span, slack = self.line, self._fulls, self.span, self.slack
        full = fulls[start - 1] if start else self.full_at
        for place in range(start, len(line)):
            at, _, cost = line[place]
            full = (full if full > at else at) + cost  # noqa: FURB136
            if -UNMOVED <= full - fulls[place] <= UNMOVED:
                break
            fulls[place] = full
            slack = min(slack, span - (full - at))
        self.slack = slack
