"""What the pool tells others: an event for each step of a session's life, and the record of the open ones on disk."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tundra_nb.errors import PtyError
from tundra_nb.runtime.clock import Clock, Ids
from tundra_nb.types import PtyState, SessionEvent

from . import cgroups, record
from .pty import Pty

ROUNDS = 5
"""What is being ended may start something new meanwhile."""

_log = logging.getLogger("tundra.ptys")


class Ledger:
    """Events and record of one pool."""

    def __init__(
        self, path: Path, instance: str, ids: Ids, clock: Clock, on_event: Callable[[SessionEvent], None]
    ) -> None:
        self._path = path
        self._file = record.RecordFile(path, instance)
        self._ids = ids
        self._clock = clock
        self._on_event = on_event

    def begin(self, groups: str = "") -> None:
        """Begin a record of our own in place of an earlier daemon's; `groups`: our control group."""
        self._file.groups = groups
        with self._on_disk():
            self._file.begin()

    def opened(self, pty: Pty) -> None:
        """A session has begun: into the record, and its event."""
        session = record.RecordedSession(
            pid=pty.pid,
            start=pty.leader.start,
            command=pty.command,
            at_us=pty.at_us,
            cwd=pty.cwd,
            user=pty.user or "",
            tag=pty.tag,
        )
        with self._on_disk():
            self._file.opened(pty.id, session)
        self.emit(pty, "started")

    def closed(self, pty: Pty) -> None:
        """Nothing is left of a session: out of the record."""
        with self._on_disk():
            self._file.closed(pty.id)

    def close(self) -> None:
        """Close the record."""
        self._file.close()

    @contextmanager
    def _on_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            # A full disk must not end sessions; without the record only a double kill -9 leaves strays.
            _log.exception("the record of open PTYs cannot be written")

    async def end_strays(self) -> None:
        """End what the record of an earlier daemon names, and give each of its sessions an end event."""
        left = record.read(self._path)
        if left is None:
            return
        had: set[str] = set()
        for _ in range(ROUNDS):
            found = await asyncio.to_thread(record.strays, left)
            if not found:
                break
            had |= {stray.pty_id for stray in found}
            await asyncio.to_thread(record.end, found)
        if left.groups and record.is_of_the_dead(left):
            await asyncio.to_thread(cgroups.end_all, Path(left.groups))
        for pty_id, session in left.sessions.items():
            if pty_id in had:
                event, message = "orphan_ended", "left by a daemon that died; ended at the next start"
            else:
                event, message = "lost", "ended with the daemon that died"
            _log.warning("PTY %s (%s): %s", pty_id, session.command, message)
            self._emit_plain(
                pty_id,
                session.command,
                state="lost",
                event=event,
                message=message,
                cwd=session.cwd,
                user=session.user,
            )

    def emit(self, pty: Pty, event: str, message: str = "") -> None:
        """A step in the life of a session, with what is known of it now."""
        self._on_event(
            SessionEvent(
                pty_id=pty.id,
                at=self._clock.now_us(),
                command=pty.command,
                state=pty.state,
                pid=pty.pid,
                exit_code=pty.exit_code,
                exit_signal=pty.exit_signal,
                bytes_out=pty.end,
                seconds=round(pty.seconds, 6),
                event_id=self._ids.next(),
                event=event,
                message=message or None,
                cwd=pty.cwd,
                user_name=pty.user,
            )
        )

    def emit_refused(self, pty_id: str, command: str, cwd: str, user: str | None, error: PtyError) -> None:
        """A session that did not come to be."""
        self._emit_plain(pty_id, command, state="refused", event="refused", message=error.message, cwd=cwd, user=user)

    def _emit_plain(
        self, pty_id: str, command: str, *, state: PtyState, event: str, message: str, cwd: str, user: str | None
    ) -> None:
        self._on_event(
            SessionEvent(
                pty_id=pty_id,
                at=self._clock.now_us(),
                command=command,
                state=state,
                event_id=self._ids.next(),
                event=event,
                message=message,
                cwd=cwd or None,
                user_name=user or None,
            )
        )
