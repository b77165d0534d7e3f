"""The life of a terminal's connections, and what it means for the terminal: decisions only, no I/O and no clock.

    ─opened─▶ establishing ─ready─▶ active ─quiet─▶ idle
                  │                  │ ▲  ◀─stirred─┘ │
                  │                  │ └── resumed ── │ ──┐
                  │                  └─────lost───────┴─▶ lost ── grace_over ─┐
                  └──── not_ready, closed_by_peer, exited, released … ────────┴─▶ ended

A terminal has one rule, `keep`: with `viewers` it ends when the grace after its last viewer is over (never before a
first one came) or when it has been idle; with `owner` whoever asked for it decides, with `always` nobody. Each method
takes the time and returns the transitions that it makes; the caller writes them down and acts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

Keep = Literal["owner", "viewers", "always"]
"""`owner`: ends with who asked for it; `viewers`: ends after its last viewer, or idle; `always`: by itself only."""
State = Literal["establishing", "active", "idle", "lost", "ended"]
Peer = Literal["lab", "viewer"]
"""JupyterLab's own terminal, which takes long to come back; anything else."""
PRESENT: frozenset[State] = frozenset(("establishing", "active", "idle"))
READY_SECONDS = 10.0
"""Longest time from the handshake to the first message: a peer that takes longer is none."""
ALLOWED: frozenset[tuple[State | None, State]] = frozenset(
    {
        (None, "establishing"),
        ("establishing", "active"),
        ("establishing", "ended"),
        ("active", "active"),  # bytes were missed
        ("active", "idle"),
        ("active", "lost"),
        ("active", "ended"),
        ("idle", "active"),
        ("idle", "lost"),
        ("idle", "ended"),
        ("lost", "active"),
        ("lost", "ended"),
    }
)


class Rules(NamedTuple):
    """Seconds, as the settings have them now."""

    grace: float = 10.0
    lab_grace: float = 45.0
    idle: float = 300.0


class Transition(NamedTuple):
    """One step of one connection."""

    viewer: str
    peer: Peer
    old: State | None
    new: State
    reason: str
    missed: int = 0
    close_code: int | None = None


class ViewerConnection:
    """One viewer, from its first handshake to its end; a resumed one is the same."""

    __slots__ = ("at", "is_coming", "missed", "peer", "size", "socket", "state", "user", "viewer")

    def __init__(self, viewer: str, peer: Peer, user: str, now: float) -> None:
        self.viewer = viewer
        self.peer: Peer = peer
        self.user = user
        self.state: State = "establishing"
        self.at = now
        """When it came into its state."""
        self.missed = 0
        """Bytes that it did not get, since the last transition."""
        self.size: tuple[int, int] | None = None
        """Columns and rows of its window, when it has told."""
        self.is_coming = False
        """Lost, but its handshake is under way."""
        self.socket = 0
        """How many sockets it had before: what an earlier one still says counts no more."""

    def __repr__(self) -> str:
        return f"<Connection {self.viewer} {self.state}>"


class TerminalLife:
    """The connections of one terminal.

    Args:
        keep: what ends the terminal.
        rules: asked each time, because settings change.
    """

    def __init__(self, keep: Keep, rules: Callable[[], Rules]) -> None:
        self.keep: Keep = keep
        self.connections: dict[str, ViewerConnection] = {}
        """By viewer; those that have not ended."""
        self._rules = rules
        self._deadline: float | None = None
        self._grace = 0.0
        self._count = 0

    def __repr__(self) -> str:
        return f"<Life {self.keep}: {', '.join(map(repr, self.connections.values())) or 'nobody'}>"

    @property
    def present(self) -> list[ViewerConnection]:
        """Connections that are here, or on their way."""
        return [one for one in self.connections.values() if one.state in PRESENT or one.is_coming]

    @property
    def size(self) -> tuple[int, int] | None:
        """The smallest of the active viewers' windows; None when nobody has told one."""
        sizes = [one.size for one in self.connections.values() if one.size and one.state in ("active", "idle")]
        return (min(size[0] for size in sizes), min(size[1] for size in sizes)) if sizes else None

    def connect(self, now: float, peer: Peer, user: str, viewer: str = "") -> tuple[ViewerConnection, list[Transition]]:
        """A handshake begins. It takes up the lost connection of that name, else the one lost longest of that user and
        kind. A name that seems to be here still is lost: whoever comes back is often faster than the news of the loss.
        """
        moved: list[Transition] = []
        same = self.connections.get(viewer)
        if same is not None and same.user == user and same.state in ("active", "idle"):
            moved = self._move(now, same, "lost", "superseded")
        lost = [one for one in self.connections.values() if one.state == "lost" and not one.is_coming]
        lost = [one for one in lost if (one.viewer == viewer if viewer else (one.peer, one.user) == (peer, user))]
        if lost:
            found = min(lost, key=lambda one: one.at)
            found.is_coming = True
            found.at = now
            found.socket += 1
            return found, moved
        name = viewer
        while not name or name in self.connections:
            self._count += 1
            name = f"{viewer or peer}-{self._count}"
        made = self.connections[name] = ViewerConnection(name, peer, user, now)
        self._deadline = None
        return made, [Transition(name, peer, None, "establishing", "opened")]

    def establish(self, now: float, one: ViewerConnection) -> list[Transition]:
        """It has got its first message."""
        self._deadline = None
        was_lost, one.is_coming = one.state == "lost", False
        return self._move(now, one, "active", "resumed" if was_lost else "ready")

    def miss(self, now: float, one: ViewerConnection, count: int) -> list[Transition]:
        """It was too slow, and did not get so many bytes."""
        one.missed += count
        return self._move(now, one, "active", "slow") if one.state == "active" else []

    def lose(self, now: float, one: ViewerConnection, reason: str, close_code: int | None = None) -> list[Transition]:
        """Its socket went without a goodbye, or with one that says it may come back."""
        if one.is_coming:  # the second time before it was established
            one.is_coming = False
            self._leave(now, one)
            return []
        if one.state == "establishing":
            return self.leave(now, one, reason, close_code)
        moved = self._move(now, one, "lost", reason, close_code)
        self._leave(now, one)
        return moved

    def leave(self, now: float, one: ViewerConnection, reason: str, close_code: int | None = None) -> list[Transition]:
        """It said goodbye, or was told to go."""
        moved = self._move(now, one, "ended", reason, close_code)
        self._leave(now, one)
        return moved

    def tick(self, now: float, idle_seconds: float) -> tuple[list[Transition], str]:
        """Apply the rules of time. Returns also why the terminal is to end now, or an empty string.

        Args:
            now: seconds.
            idle_seconds: since the terminal's last output, input, or CPU time of its children.
        """
        rules = self._rules()
        moved: list[Transition] = []
        for one in list(self.connections.values()):
            waited = now - one.at
            if one.state == "establishing" and waited >= READY_SECONDS:
                moved += self.leave(now, one, "not_ready")
            elif one.state == "lost" and waited >= (READY_SECONDS if one.is_coming else self._grace_of(one)):
                moved += self._move(now, one, "ended", "grace_over")
            elif one.state == "active" and idle_seconds >= rules.idle:
                moved += self._move(now, one, "idle", "quiet")
            elif one.state == "idle" and idle_seconds < rules.idle:
                moved += self._move(now, one, "active", "stirred")
        if self.keep != "viewers":
            return moved, ""
        if self._deadline is not None and now >= self._deadline and not self.present:
            return moved, f"no viewer came back within {self._grace:g} s"
        return moved, f"idle for {rules.idle:g} s" if idle_seconds >= rules.idle else ""

    def end(self, now: float, reason: str) -> list[Transition]:
        """The terminal has ended: so do all its connections."""
        return [moved for one in list(self.connections.values()) for moved in self._move(now, one, "ended", reason)]

    def _grace_of(self, one: ViewerConnection) -> float:
        return self._rules().lab_grace if one.peer == "lab" else self._rules().grace

    def _leave(self, now: float, one: ViewerConnection) -> None:
        """Somebody has gone: if it was the last, the terminal's time runs."""
        if one.state == "establishing" or self.present:
            return
        grace = self._grace_of(one)
        # One with a longer grace may have gone shortly before.
        others = [other.at + self._grace_of(other) for other in self.connections.values() if other.state == "lost"]
        self._deadline = max(now + grace, *others) if others else now + grace
        self._grace = self._deadline - now

    def _move(
        self, now: float, one: ViewerConnection, new: State, reason: str, close_code: int | None = None
    ) -> list[Transition]:
        moved = Transition(one.viewer, one.peer, one.state, new, reason, one.missed, close_code)
        assert (moved.old, moved.new) in ALLOWED, moved
        one.state, one.at, one.missed = new, now, 0
        if new == "ended":
            del self.connections[one.viewer]
        return [moved]
