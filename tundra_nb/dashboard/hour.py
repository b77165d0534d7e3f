"""An hour as columns: calls, attempts, and the few things that happened beside them. Times are seconds since 1970."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

OK, FAILED, REFUSED, CANCELLED = range(4)
"""How calls and attempts end here: answered; not answered; refused by limiter or breaker before anything was sent;
ended by the caller, which is nobody's failure."""
OUTCOMES = {"ok": OK, "refused": REFUSED, "cancelled": CANCELLED}
INTERRUPTED = "interrupted"
ATTEMPT_OUTCOMES = OUTCOMES | {INTERRUPTED: CANCELLED}
"""What our own daemon's end cut off was not answered, but is no failure of the profile that was asked."""
MOST_NAMES = 255
"""Names of one kind; further ones are told as the last, `others`."""


class Numbering:
    """Numbers for names, as they come."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        self.names = list(names)
        self._place = {name: index for index, name in enumerate(self.names)}

    def of(self, name: str) -> int:
        """The number of a name, a new one for a new name."""
        place = self._place.get(name)
        if place is None:
            if len(self.names) >= MOST_NAMES:
                return self.of_others()
            place = self._place[name] = len(self.names)
            self.names.append(name)
        return place

    def of_others(self) -> int:
        """The number that all further names share."""
        if self.names[-1] != "others":
            self.names[-1] = "others"
        return len(self.names) - 1


@dataclasses.dataclass
class Columns:
    """Rows of calls or attempts, one array per column.

    `label` is the code of a call, the reason of an attempt; `latency` is in milliseconds, NaN where there is none.
    `count` is how many calls a row stands for: more than one where the rows are groups, each of calls that ended alike
    and took about as long.
    """

    at: npt.NDArray[np.float64]
    profile: npt.NDArray[np.uint8]
    outcome: npt.NDArray[np.uint8]
    label: npt.NDArray[np.uint8]
    caller: npt.NDArray[np.uint8]
    latency: npt.NDArray[np.float32]
    count: npt.NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.at)

    @classmethod
    def of(cls, at: Any, profile: Any, outcome: Any, label: Any, caller: Any, latency: Any, count: Any) -> Columns:
        """Columns of plain sequences."""
        import numpy as np

        return cls(
            np.asarray(at, "float64"),
            np.asarray(profile, "uint8"),
            np.asarray(outcome, "uint8"),
            np.asarray(label, "uint8"),
            np.asarray(caller, "uint8"),
            np.asarray(latency, "float32"),
            np.asarray(count, "uint32"),
        )

    @classmethod
    def empty(cls) -> Columns:
        return cls.of(*([] for _ in range(7)))

    def where(self, chosen: Any) -> Columns:
        """Only the rows that are chosen."""
        return Columns(*(getattr(self, field.name)[chosen] for field in dataclasses.fields(self)))

    def by_profile(self, profiles: int) -> list[Columns]:
        """The rows of each profile, by its number, in the order in which they are."""
        import numpy as np

        order = np.argsort(self.profile, kind="stable")
        sorted_ = self.where(order)
        ends = np.searchsorted(sorted_.profile, np.arange(profiles + 1))
        return [sorted_.where(slice(begin, end)) for begin, end in itertools.pairwise(ends.tolist())]

    def followed_by(self, more: Columns) -> Columns:
        """These rows and then others."""
        import numpy as np

        pairs = ((getattr(self, f.name), getattr(more, f.name)) for f in dataclasses.fields(self))
        return Columns(*(np.concatenate(pair) for pair in pairs))


@dataclasses.dataclass(frozen=True)
class Change:
    """A setting that was changed, or a commit that a person made."""

    at: float
    words: str
    author: str
    is_commit: bool = False
    takes_out: str = ""
    """The profile that nothing is asked of from then on: removed, or switched off."""


@dataclasses.dataclass(frozen=True)
class Stretch:
    """A stretch of time: a breaker that was open, a terminal, a connection. `until` is None while it goes on."""

    name: str
    since: float
    until: float | None
    word: str
    is_bad: bool = False
    reason: str = ""

    def end(self, now: float) -> float:
        return now if self.until is None else self.until


HELD = frozenset({"open", "parked"})
"""What a profile is while nothing is asked of it."""


def is_over(*, answered: bool, state: str, is_out: bool) -> bool:
    """Whether an outage of a profile is over, the one rule of dashboard and triage.

    It is when the profile was taken out of use, or has `answered` since its last failure and may be asked again: also
    by a probe, while its breaker is still half open.
    """
    return is_out or (answered and state not in HELD)


@dataclasses.dataclass(frozen=True)
class Level:
    """What was left in a bucket, as shares of the most that was ever seen in it."""

    name: str
    at: Sequence[float]
    share: Sequence[float]
    most: float = 0.0
    """What the shares are of."""


@dataclasses.dataclass
class Hour:
    """Everything that the dashboard shows of one window."""

    since: float
    until: float
    is_live: bool
    """It goes on: new rows are appended."""
    where: str
    """Which state of the history it shows, in words; empty for now."""
    profiles: Numbering
    codes: Numbering
    reasons: Numbering
    callers: Numbering
    calls: Columns
    attempts: Columns
    step: int = 0
    """Seconds per row where the rows are groups; 0 where each is one call."""
    changes: list[Change] = dataclasses.field(default_factory=list)
    knows_changes: bool = True
    """What was changed is recorded; of another program's log it is not."""
    bands: list[Stretch] = dataclasses.field(default_factory=list)
    """Breakers that were not closed, by profile."""
    levels: list[Level] = dataclasses.field(default_factory=list)
    terminals: list[Stretch] = dataclasses.field(default_factory=list)
    connections: list[Stretch] = dataclasses.field(default_factory=list)
    most_seconds: float = 0.0
    """How long the window may grow while it is live, before it moves on."""
    counted: tuple[int, int] = (0, 0)
    """Calls and attempts that there were, before they were read; by them it is known whether any came since."""
    recent: set[int] = dataclasses.field(default_factory=set)
    """Ids of the last rows that were read, by which those of the live feed are known that are there already."""
