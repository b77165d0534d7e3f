"""What happened to one PTY, in order: its own steps and those of its viewers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from tundra_nb.errors import HandleNotFound

if TYPE_CHECKING:
    import pandas as pd

_WORDS = {
    "opened": "came",
    "ready": "is shown the output",
    "resumed": "is back, and goes on where it was",
    "quiet": "is idle: nothing has moved",
    "stirred": "sees something move again",
    "slow": "did not read fast enough",
    "closed_by_peer": "said goodbye",
    "went_away": "went away (a page that is closed or loaded anew)",
    "lost": "was lost without a goodbye",
    "ping_timeout": "no longer answered pings",
    "grace_over": "did not come back in time",
    "not_ready": "never got ready",
    "exited": "saw the program end",
    "released": "saw the terminal being ended",
    "stopping": "was sent away: the daemon stopped",
}
"""A viewer's step in words, by its reason."""


class StoryStep(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened. `at`: microseconds since the epoch."""

    at: int
    who: str
    """A viewer, or the program."""
    what: str
    state: str
    bytes_missed: int = 0


class PtyStory(msgspec.Struct, frozen=True, kw_only=True):
    """The story of a PTY."""

    pty_id: str
    command: str
    state: str
    ending: str
    """How and why it ended; empty while it runs."""
    bytes_missed: int
    """By all its viewers."""
    steps: tuple[StoryStep, ...]

    @classmethod
    def of(cls, pty_id: str, own: pd.DataFrame, viewers: pd.DataFrame) -> PtyStory:
        """Put together from rows of `pty-history` and `connections`.

        Raises:
            HandleNotFound: the history knows no such PTY.
        """
        if own.empty:
            raise HandleNotFound(pty_id=pty_id)
        steps = [
            StoryStep(at=_us(row.at), who="program", what=_step(row), state=str(row.state)) for row in own.itertuples()
        ]
        steps += [
            StoryStep(
                at=_us(row.at),
                who=_text(row.viewer) or str(row.peer),
                what=_WORDS.get(str(row.reason), str(row.reason)),
                state=str(row.new_state),
                bytes_missed=_count(row.bytes_missed),
            )
            for row in viewers.itertuples()
        ]
        last = own.iloc[-1]
        told = [_exit(last), _text(last["message"])]
        return cls(
            pty_id=pty_id,
            command=_text(last["command"]),
            state=str(last["state"]),
            ending=", ".join(filter(None, told)) if str(last["state"]) != "running" else "",
            bytes_missed=sum(step.bytes_missed for step in steps),
            steps=tuple(sorted(steps, key=lambda step: step.at)),
        )


def _step(row: Any) -> str:
    return " · ".join(filter(None, [str(row.event), _exit(row._asdict()), _text(row.message)]))


def _exit(row: Any) -> str:
    if signal := _text(row["exit_signal"]):
        return f"ended by {signal}"
    code = str(row["exit_code"])
    return f"exit code {code}" if code.isdigit() else ""  # None, NaN and NA are none


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _us(at: Any) -> int:
    return int(at.value) // 1000


def _count(value: Any) -> int:
    return int(value)
