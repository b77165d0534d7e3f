"""What others find the daemon by, looked after while it lives: socket, connection file, lock file, data directory.

Cleaners of temporary folders delete sockets, a logout takes the runtime folder away, and people delete data directories
under a running daemon. What can be mended is mended within a second; what cannot is a problem that `status` shows.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
from collections.abc import Awaitable, Callable

from tundra_nb import paths
from tundra_nb.daemon import connection
from tundra_nb.daemon.listen import Door
from tundra_nb.daemon.lock import Lock
from tundra_nb.errors import TundraError
from tundra_nb.paths import Paths
from tundra_nb.protocol.record import DaemonRecord
from tundra_nb.runtime.telemetry.problems import Problems

LOOK_SECONDS = 0.5
"""Clients wait longer than this for a daemon that lives and does not listen."""

_log = logging.getLogger("tundra.daemon")


class Upkeep:
    """Looks after the places of one daemon that is ready. `serve` is given each new listening socket."""

    def __init__(
        self,
        paths: Paths,
        record: DaemonRecord,
        *,
        lock: Lock,
        door: Door,
        problems: Problems,
        serve: Callable[[socket.socket], Awaitable[None]],
    ) -> None:
        self._paths = paths
        self._record = record
        self._lock = lock
        self._door = door
        self._problems = problems
        self._serve = serve

    async def run(self) -> None:
        """Close what an earlier version left open to others; then look, and look again, until cancelled."""
        for folder in (
            self._paths.data_dir,
            self._paths.spool,
            self._paths.logs,
            self._paths.ptys,
            self._paths.backups,
        ):
            for file in await asyncio.to_thread(paths.close_to_others, folder):
                _log.info("closed to other users: %s", file)
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Look once; mend what can be mended."""
        if not self._door.is_there:
            await self._bind()
        if not self._paths.connection_file.exists():
            self._announce()
        self._look_at_data()

    async def _bind(self) -> None:
        try:
            listener = self._door.renew()
        except TundraError as error:
            if self._problems.tell("socket", str(error), error.hint):
                _log.error("the socket is gone and cannot be bound anew: %s", error)
            return
        await self._serve(listener)
        self._problems.end("socket")
        _log.warning("the socket was deleted, and is bound anew at %s", self._paths.socket)

    def _announce(self) -> None:
        try:
            connection.write(self._paths.connection_file, self._record)
        except TundraError as error:
            if self._problems.tell("connection_file", str(error), error.hint):
                _log.warning("%s", error)
        else:
            self._problems.end("connection_file")

    def _look_at_data(self) -> None:
        if self._lock.is_there:
            self._problems.end("data_dir")
            self._look_at_mode()
            return
        try:
            os.stat(self._paths.lock)
        except PermissionError:
            message = f"the data directory {self._paths.data_dir} may no longer be looked into: permission denied"
            if self._problems.tell("data_dir", message, f"`chmod u+rwx {self._paths.data_dir}`; it must be yours."):
                _log.critical("%s", message)
            return
        except OSError:
            pass  # it is not there
        what = "the lock file of" if self._paths.data_dir.is_dir() else ""
        message = f"{what} the data directory {self._paths.data_dir} was deleted while the daemon ran".strip()
        if self._problems.tell(
            "data_dir",
            message,
            "No call can be recorded there. `tundra daemon restart` begins anew with an empty one; or put it back from"
            " a backup, then restart.",
        ):
            _log.critical("%s", message)

    def _look_at_mode(self) -> None:
        try:
            mode = stat.S_IMODE(os.stat(self._paths.data_dir).st_mode)
        except OSError:
            return
        if mode & 0o077:
            self._problems.tell(
                "data_dir_open",
                f"others may look into {self._paths.data_dir} (mode {mode:04o}); files in it are closed to them",
                f"`chmod 700 {self._paths.data_dir}` closes it; `tundra doctor --fix` does that, after asking.",
            )
        else:
            self._problems.end("data_dir_open")
