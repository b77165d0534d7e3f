"""The Dolt server of this data directory, started anew once its disk, which was full, has room again.

A server that has met a full disk may go on saying so for good, or give up. One that was started here (`tundra dolt
start`) is started anew when there has been room for a while; one that somebody else runs is left alone, and `status`
tells what is to be done.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time

from tundra_nb.errors import StoreUnavailable, TundraError
from tundra_nb.paths import Paths
from tundra_nb.runtime.history.service import History
from tundra_nb.runtime.telemetry.problems import Problems
from tundra_nb.settings import StoreSettings

LOOK_SECONDS = 1.0
PAUSES = (5.0, 15.0, 60.0, 300.0)
"""So long there must have been room, and the server not be well, before it is started anew, by how often that was done
without avail: it is given the time to get over it by itself."""
LATELY_SECONDS = 60.0
"""So long ago a full disk is the likely reason why a server is not well."""
WELL_SECONDS = 60.0
"""A server that has been well for so long has got over it."""

_log = logging.getLogger("tundra.daemon")


class DoltUpkeep:
    """Looks after the server of one daemon with `store.engine = "dolt"`."""

    def __init__(self, where: Paths, store: StoreSettings, history: History, problems: Problems) -> None:
        self._where = where
        self._store = store
        self._history = history
        self._problems = problems
        self._was_full = False
        self._has_room_since: float | None = None
        self._well_since: float | None = None
        self._tries = 0
        self._started_at = 0.0
        """When it was last started anew, in seconds since the epoch."""

    async def run(self) -> None:
        """Look, and look again, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self._look(asyncio.get_running_loop().time())
            except Exception:  # noqa: BLE001 - the top of a task: nobody else would look after the server
                _log.exception("defect in the upkeep of the Dolt server")

    async def _look(self, now: float) -> None:
        problem = self._history.problem
        if problem is None:
            self._be_well(now)
            return
        self._well_since = None
        has_room = await asyncio.to_thread(self._has_room)
        if not has_room or self._was_spool_full():
            self._was_full, self._tries = True, 0
        if isinstance(problem, StoreUnavailable) and problem.kind == "disk_full":
            self._was_full = True
        if not self._was_full or not has_room:
            self._has_room_since = None
        elif self._has_room_since is None:
            self._has_room_since = now
        elif now - self._has_room_since >= PAUSES[min(self._tries, len(PAUSES) - 1)]:
            self._has_room_since = None
            self._tries += 1
            self._started_at = time.time()
            await self._start_anew(problem)

    def _be_well(self, now: float) -> None:
        self._problems.end("dolt")
        self._was_full, self._has_room_since = False, None
        if self._well_since is None:
            self._well_since = now
        elif now - self._well_since >= WELL_SECONDS:
            self._tries = 0

    def _was_spool_full(self) -> bool:
        """Lately, and since the last start: a server that gives up has no room to say why."""
        rows, since = self._history.troubles, max(time.time() - LATELY_SECONDS, self._started_at)
        return any(
            row.what == "spool" and (row.until is None or row.until > since) for row in (*rows.list(), *rows.over())
        )

    def _has_room(self) -> bool:
        try:
            return shutil.disk_usage(self._where.dolt).free >= self._store.reserve_mb * 1e6
        except OSError:  # no server was ever started here, or its files were deleted
            return False

    async def _start_anew(self, problem: TundraError) -> None:
        from tundra_nb.local import dolt_server  # psutil, which other daemons do without

        try:
            pid = await asyncio.to_thread(dolt_server.start_anew, self._where, self._store)
        except TundraError as error:
            self._problems.tell("dolt", f"the Dolt server could not be started anew: {error}", error.hint)
            _log.error("the Dolt server could not be started anew: %s", error)
            return
        if pid is not None:
            message = f"the Dolt server was started anew (pid {pid}): its disk has room again, and it did not go on"
            self._problems.note("dolt", f"{message} ({problem.message})")
            _log.warning("%s (%s)", message, problem.message)
