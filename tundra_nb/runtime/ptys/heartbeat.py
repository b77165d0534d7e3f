"""When to ping the other end of a connection, and when it counts as gone: decisions only, no I/O and no clock."""

from __future__ import annotations

from typing import Literal


class Heartbeat:
    """A ping every `ping` seconds; without its pong within `pong` seconds the peer is dead.

    A peer that has not read what was sent before the ping cannot have seen it: it gets `ping` seconds more. While we
    ourselves do not read, its pong cannot be heard, so it does not count as gone.

    Args:
        ping: seconds from one pong (or the beginning) to the next ping.
        pong: seconds that an answer may take.
        now: the beginning.
    """

    def __init__(self, ping: float, pong: float, now: float) -> None:
        self._ping = ping
        self._pong = pong
        self._due = now + ping
        self._is_waiting = False
        self._pinged = now

    def __repr__(self) -> str:
        return f"<Heartbeat {'waits for a pong' if self._is_waiting else 'rests'} until {self._due:g}>"

    @property
    def next_at(self) -> float:
        """When to ask `due` again."""
        return self._due

    def due(self, now: float, *, is_full: bool = False, is_deaf: bool = False) -> Literal["ping", "dead", "nothing"]:
        """What is to be done now; a ping is taken as sent.

        Args:
            now: seconds.
            is_full: the peer does not read what is sent.
            is_deaf: we do not read what the peer sends.
        """
        if now < self._due:
            return "nothing"
        if self._is_waiting:
            if is_deaf:
                self._pinged = now
                self._due = now + self._pong
                return "nothing"
            last = self._pinged + self._ping + self._pong
            if is_full and now < last:
                self._due = min(now + self._pong, last)
                return "nothing"
            return "dead"
        self._is_waiting = True
        self._pinged = now
        self._due = now + self._pong
        return "ping"

    def heard(self, now: float) -> None:
        """The pong has come."""
        if self._is_waiting:
            self._is_waiting = False
            self._due = now + self._ping
