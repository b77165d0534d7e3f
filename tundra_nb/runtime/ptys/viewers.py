"""Who looks at the terminals: applies the rules of `life` on the clock, and writes each of their steps down."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from tundra_nb.errors import HandleNotFound, UsageError

from .life import Peer, Transition, ViewerConnection
from .pty import Pty
from .spawn import Size

if TYPE_CHECKING:
    from .pool import PtyPool

LOOK_SECONDS = 1.0
"""Longest pause between two applications of the rules; shorter where the settings are."""
SHORTEST_SECONDS = 0.02

_log = logging.getLogger("tundra.ptys")


class Viewers:
    """The connections of all terminals of one pool, between `open` and `aclose`.

    Args:
        pool: whose.
        record: told each transition, with the terminal's id.
    """

    def __init__(self, pool: PtyPool, record: Callable[[str, Transition], None]) -> None:
        self._pool = pool
        self._clock = pool.clock
        self._record = record
        self._watch: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        pool.on_exit = self._exited

    def open(self) -> None:
        """Begin to apply the rules."""
        self._watch = asyncio.create_task(self._apply(), name="ptys.viewers")

    async def aclose(self) -> None:
        """Stop applying them. Connections end with their terminals."""
        tasks = [*self._ending, *([self._watch] if self._watch is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def connect(self, pty: Pty, peer: Peer, user: str, viewer: str = "") -> ViewerConnection:
        """A handshake begins; see `Life.connect`."""
        one, moved = pty.life.connect(self._clock.monotonic(), peer, user, viewer)
        self._tell(pty, moved)
        return one

    def established(self, pty: Pty, one: ViewerConnection) -> None:
        """It has got its first message."""
        if one.viewer in pty.life.connections:
            self._tell(pty, pty.life.establish(self._clock.monotonic(), one))
            self._fit(pty)

    def missed(self, pty: Pty, one: ViewerConnection, count: int) -> None:
        """It did not get so many bytes."""
        if one.viewer in pty.life.connections:
            self._tell(pty, pty.life.miss(self._clock.monotonic(), one, count))

    def is_superseded(self, one: ViewerConnection, socket: int) -> bool:
        """Whether it has another socket by now."""
        return one.socket != socket

    def gone(
        self, pty: Pty, one: ViewerConnection, socket: int, reason: str, close_code: int | None, *, is_goodbye: bool
    ) -> None:
        """Its socket is closed. Nothing happens when its terminal has ended before, or it has another one by now."""
        if one.viewer not in pty.life.connections or self.is_superseded(one, socket):
            return
        step = pty.life.leave if is_goodbye else pty.life.lose
        self._tell(pty, step(self._clock.monotonic(), one, reason, close_code))
        self._fit(pty)

    def resize(self, pty: Pty, one: ViewerConnection, size: Size) -> None:
        """A viewer's window has this size; the terminal gets the smallest of the active ones."""
        with contextlib.suppress(UsageError):  # a window that is being laid out tells sizes that no terminal has
            size.check()
            one.size = (size.columns, size.rows)
            self._fit(pty)

    def _fit(self, pty: Pty) -> None:
        wanted = pty.life.size
        if wanted is not None and not pty.exited.is_set():
            with contextlib.suppress(HandleNotFound, UsageError):
                self._pool.resize(pty.id, Size(*wanted))

    def _exited(self, pty: Pty) -> None:
        reason = "exited" if pty.state == "exited" else "released"
        self._tell(pty, pty.life.end(self._clock.monotonic(), reason))

    async def _apply(self) -> None:
        while True:
            rules = self._pool.rules()
            shortest = min(rules.grace / 8, rules.lab_grace / 8, rules.idle / 4, LOOK_SECONDS)
            await self._clock.sleep(max(shortest, SHORTEST_SECONDS))
            for pty in self._pool.running:
                if pty.life.keep != "viewers" and not pty.life.connections:
                    continue
                if pty.idle_seconds >= rules.idle:
                    await self._pool.look_at_work(pty)
                if pty.exited.is_set():
                    continue
                moved, why = pty.life.tick(self._clock.monotonic(), pty.idle_seconds)
                self._tell(pty, moved)
                if why:
                    self._end_soon(pty, why)

    def _end_soon(self, pty: Pty, why: str) -> None:
        if pty.is_ending:
            return
        _log.info("PTY %s (%s) is ended: %s", pty.id, pty.command, why)
        pty.is_ending = True
        task = asyncio.create_task(self._end(pty, why), name=f"ptys.end.{pty.id}")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _end(self, pty: Pty, why: str) -> None:
        with contextlib.suppress(HandleNotFound):
            await self._pool.release(pty.id, why)

    def _tell(self, pty: Pty, moved: list[Transition]) -> None:
        for step in moved:
            self._record(pty.id, step)
