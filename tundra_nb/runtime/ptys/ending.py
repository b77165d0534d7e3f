"""End every process of a session: HUP and CONT, a grace, then KILL in rounds until nobody is left."""

from __future__ import annotations

import asyncio
import signal
import time

from .pty import Pty
from .reap import Orphans, living, signal_all

GRACE_SECONDS = 2.0
"""Between HUP and KILL."""
GIVE_UP_SECONDS = 10.0
"""After the first KILL: uninterruptible sleep, or another user's process."""
LOOKS = 3
"""So many empty looks in a row are proof; one is not, a process may be between two parents."""
FIRST_PAUSE_SECONDS = 0.002
LONGEST_PAUSE_SECONDS = 0.05


class Ended:
    """What was found on the way."""

    def __init__(self) -> None:
        self.seen: set[tuple[int, int]] = set()
        """(pid, start) of each process that lived when the ending began, or was born later."""
        self.survivors: list[int] = []
        """Those that could not be ended."""


async def end_session(pty: Pty, orphans: Orphans, grace: float) -> Ended:
    """Return when everyone is dead and the leader's exit was reported; the leader itself is reaped by the caller."""
    ended = Ended()
    started = time.monotonic()
    empty = last_look = 0
    pause = FIRST_PAUSE_SECONDS
    while True:
        async with orphans.turn:
            await asyncio.sleep(0)  # one session per turn of the loop: hundreds that end at once must not hold it up
            look = await orphans.snapshot()
            alive = await living(
                [
                    pty.pid,
                    *look.by_session.get(pty.pid, ()),
                    *look.by_mark.get(pty.mark, ()),
                    *(look.by_tag.get(pty.tag, ()) if pty.tag else ()),
                    *(pty.group.members() if pty.group is not None else ()),
                ]
            )
            waited = time.monotonic() - started
            if alive:
                empty = 0
                if waited >= grace:
                    if pty.group is not None:
                        pty.group.kill()
                    # STOP all first: a fork storm ends in half the time when nobody forks meanwhile.
                    await signal_all(alive, signal.SIGSTOP, signal.SIGKILL)
                else:
                    fresh = [p for p in alive if (p.pid, p.start) not in ended.seen]
                    await signal_all(fresh, signal.SIGHUP, signal.SIGCONT)
                ended.seen.update((p.pid, p.start) for p in alive)
                pause = min(pause * 1.5, LONGEST_PAUSE_SECONDS)
            elif look.number != last_look:
                empty += 1
                last_look = look.number
                pause = FIRST_PAUSE_SECONDS
        if empty >= LOOKS and pty.exited.is_set():
            return ended
        if waited > grace + GIVE_UP_SECONDS:
            ended.survivors = sorted(p.pid for p in alive)
            return ended
        await asyncio.sleep(pause)
