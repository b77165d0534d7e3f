"""Start the daemon, watch it, restart it after a crash, and end it with the server that started it.

    ABSENT ── request or server start ──▶ STARTING ── ready ──▶ RUNNING
      ▲ ▲                                  │    ▲                 │ │
      │ └──────── cannot start ────────────┘    │ back-off over   │ │
      └──────────── exit on purpose ────────────┼─────────────────┘ │
                                              WAITING ◀── crash ────┘
                                                │ restarts used up
                                                ▼
                                              FAILED ── somebody else starts it ──▶ STARTING

A crash is told from an exit on purpose (idle, `tundra daemon stop`) by the connection file: a daemon that ends on
purpose takes it away, so one that still names the dead process means that the end was not planned. The daemon is not
always our child (a kernel may have started it), so there is no exit status to look at.
"""

from __future__ import annotations

import asyncio
import atexit
import dataclasses
import enum
import http
import json
import logging
import os
import random
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from tornado.iostream import IOStream

from tundra_nb.errors import IpcError, TundraError
from tundra_nb.local import running
from tundra_nb.paths import Paths
from tundra_nb.protocol import daemon as routes

RESTARTS = 5
"""So often a crashed daemon is started again …"""
BACKOFF_FIRST = 1.0
BACKOFF_CAP = 30.0
"""… after 1, 2, 4, 8, 16 s, each within ±25 %."""
STEADY_AFTER = 60.0
"""A daemon that served so many seconds has recovered: the next crash is the first again."""
START_TIMEOUT = 30.0
"""Longest that a request waits for the daemon to come up."""
START_PAUSE = 2.0
"""A failed start is not tried again for so many seconds, however many requests ask."""
STOP_TIMEOUT = 3.0
POLL = 1.0
"""How often a daemon is looked at where the system offers no descriptor for a process."""
DIAL_TIMEOUT = 2.0
DIAL_PAUSE = 0.01


class FoundDaemon(Protocol):
    """What we need to know of a running daemon."""

    @property
    def pid(self) -> int: ...
    @property
    def socket(self) -> str | None: ...


class State(enum.Enum):
    """What the supervisor is at; the picture is above."""

    ABSENT = "absent"
    """No daemon; the next request starts one."""
    STARTING = "starting"
    RUNNING = "running"
    """Watched; whoever started it."""
    WAITING = "waiting"
    """It crashed and will be restarted after the back-off."""
    FAILED = "failed"
    """The restarts are used up."""
    STOPPED = "stopped"
    """The server is ending."""


@dataclasses.dataclass
class Restarts:
    """How long to wait before the next restart; pure."""

    random: Callable[[], float] = random.random
    first: float = BACKOFF_FIRST
    made: int = 0

    def crashed(self, uptime: float) -> float | None:
        """The delay before the next start, None when no more are made. `uptime`: how long the daemon served."""
        if uptime >= STEADY_AFTER:
            self.made = 0
        if self.made >= RESTARTS:
            return None
        delay = self.first * float(2**self.made) * (0.75 + self.random() / 2)
        self.made += 1
        return min(BACKOFF_CAP, max(self.first, delay))

    def reset(self) -> None:
        self.made = 0


class Supervisor:
    """Keeps one daemon reachable for one Jupyter server.

    `ensure(paths, start, started_by)` finds or starts the daemon; it blocks, and runs in the loop's executor. `start`
    begins the watch, `stop` ends it; between them a task of ours lives.
    """

    def __init__(
        self,
        paths: Paths,
        ensure: Callable[[Paths, bool, str], FoundDaemon],
        log: logging.Logger | logging.LoggerAdapter[Any],
        restarts: Restarts | None = None,
    ) -> None:
        self._paths = paths
        self._ensure = ensure
        self._log = log
        self._restarts = restarts or Restarts()
        self._pid = os.getpid()
        self.name = f"jupyter-server:{self._pid}"
        """What the connection file of a daemon that we started says in `started_by`."""
        self.socket = str(paths.socket)
        self.state = State.ABSENT
        self._changed = asyncio.Event()
        self._kick = asyncio.Event()
        self._error: TundraError | None = None
        self._failed_at = -START_PAUSE
        self._starts = 0
        self._resume_at = 0.0
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Supervisor [{self.state.value}] restarts={self._restarts.made} {self.socket}>"

    # --- for the server ---

    def start(self, now: bool = True) -> None:
        """Begin the watch; with `now` the daemon is started at once, else by the first request."""
        atexit.register(self._end_ours_at_exit)
        if now:
            self._kick.set()
        self._task = asyncio.get_running_loop().create_task(self._keep(), name="tundra supervisor")

    async def stop(self, end: bool = True) -> None:
        """End the watch, and the daemon when we started it and nobody else needs it (it is asked, and may refuse).

        Kernels of this server are still alive while extensions stop, and count as attached. So a refusal is not the
        last word: the daemon is asked again when this process exits, after its kernels.
        """
        is_starting = self.state is State.STARTING
        self._become(State.STOPPED)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if not end or (not is_starting and await asyncio.get_running_loop().run_in_executor(None, self._end_ours)):
            atexit.unregister(self._end_ours_at_exit)

    async def is_there(self) -> bool:
        """Wait until a daemon is said to run; whether it answers. Starts none."""
        while self.state is not State.RUNNING:
            await self._changed.wait()
        return self._answers()

    # --- for requests ---

    def noticed(self) -> None:
        """A request has reached a daemon: if we did not know of one, somebody else has started it; watch it."""
        if self.state in (State.ABSENT, State.WAITING, State.FAILED):
            self._kick.set()

    async def wake(self) -> None:
        """Wait until a daemon serves, starting it if it is not there.

        Raises:
            TundraError: it cannot start, was stopped on purpose, or is in the back-off after a crash.
        """
        starts = self._starts
        try:
            async with asyncio.timeout(START_TIMEOUT):
                while True:
                    if self.state is State.RUNNING and self._answers():
                        return
                    if self.state is State.ABSENT:
                        if self._error and (self._starts > starts or time.monotonic() < self._failed_at + START_PAUSE):
                            raise self._error
                        self._kick.set()
                    elif self.state in (State.WAITING, State.FAILED, State.STOPPED):
                        raise self._refusal()
                    await self._changed.wait()
        except TimeoutError as exc:
            raise IpcError(kind="absent", problem=f"the daemon is not ready after {START_TIMEOUT:g} s") from exc

    def absence(self) -> TundraError:
        """Why no daemon answers, for who only looks and wants none started."""
        if self.state in (State.WAITING, State.FAILED, State.STOPPED):
            return self._refusal()
        if self._paths.held.exists():
            return self._paths.held_error("held")  # "stopped" is the server's own end
        return self._error or IpcError(
            kind="absent", problem="the daemon is not running", remedy="The first call or command starts it."
        )

    def _refusal(self) -> TundraError:
        if self.state is State.WAITING:
            rest = max(0.0, self._resume_at - time.monotonic())
            return IpcError(
                kind="died",
                problem=f"the daemon has crashed; it is started again in {rest:.1f} s",
                remedy="`tundra logs -n 50` shows why it ended.",
                retry_after=rest,
            )
        if self.state is State.FAILED:
            return IpcError(
                kind="died",
                problem=f"the daemon crashed again after {RESTARTS} restarts; it is not started any more",
                remedy="`tundra logs -n 50` shows why it ended; `tundra daemon start` tries again.",
            )
        return IpcError(kind="stopped", problem="the Jupyter server is stopping")

    # --- the watch ---

    def _become(self, state: State) -> None:
        self.state = state
        self._changed.set()
        self._changed = asyncio.Event()

    async def _keep(self) -> None:
        while True:
            await self._kick.wait()
            if (found := await self._launch()) is None:
                continue
            since = time.monotonic()
            await self._until_gone(found.pid)
            if not self._crashed(found.pid):
                self._log.info("tundra: the daemon has ended; the next request starts it")
                self._restarts.reset()
                self._become(State.ABSENT)
            else:
                await self._back_off(time.monotonic() - since)

    async def _launch(self) -> FoundDaemon | None:
        """Find or start the daemon; None when that failed, the reason kept for those who ask."""
        self._kick.clear()
        self._become(State.STARTING)
        try:
            found = await asyncio.get_running_loop().run_in_executor(None, self._ensure, self._paths, True, self.name)
        except Exception as exc:  # noqa: BLE001 - top of the supervisor: nothing may break the server
            unexpected = not isinstance(exc, TundraError)
            error = exc if isinstance(exc, TundraError) else IpcError(kind="absent", problem=f"cannot start: {exc!r}")
            on_purpose = isinstance(error, IpcError) and error.kind == "stopped"
            level = logging.INFO if on_purpose else logging.WARNING
            self._log.log(level, "tundra: no daemon: %s %s", error.message, error.hint, exc_info=unexpected)
            self._error = error
            self._failed_at = time.monotonic()
            self._starts += 1
            if self._restarts.made and not on_purpose:
                await self._back_off(0)
            else:
                self._restarts.reset()
                self._become(State.ABSENT)
            return None
        self._error = None
        self._starts += 1
        self.socket = found.socket or self.socket
        self._log.info("tundra: the daemon runs (pid %d)", found.pid)
        self._become(State.RUNNING)
        return found

    async def _back_off(self, uptime: float) -> None:
        """Wait for the next restart, or for somebody else's start; leaves the kick set."""
        delay = self._restarts.crashed(uptime)
        if delay is None:
            self._log.error("tundra: the daemon crashed again after %d restarts; not restarted any more", RESTARTS)
            self._become(State.FAILED)
            await self._kick.wait()
            self._restarts.reset()
            return
        self._log.warning("tundra: the daemon has crashed; restart %d in %.1f s", self._restarts.made, delay)
        self._resume_at = time.monotonic() + delay
        self._become(State.WAITING)
        try:
            async with asyncio.timeout(delay):
                await self._kick.wait()
        except TimeoutError:
            self._kick.set()

    async def _until_gone(self, pid: int) -> None:
        try:
            descriptor = os.pidfd_open(pid)
        except (AttributeError, PermissionError):
            while self._answers():  # noqa: ASYNC110 - another process's end is no event here
                await asyncio.sleep(POLL)
            return
        except OSError:
            return
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        try:
            loop.add_reader(descriptor, gone.set)
            if self._answers():  # else the number may belong to another process by now
                await gone.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)

    def _answers(self) -> bool:
        try:
            _connected(self.socket).close()
        except BlockingIOError:
            return True  # its queue is full
        except OSError:
            return False
        return True

    def _crashed(self, pid: int) -> bool:
        return _read(self._paths.connection_file).get("pid") == pid

    # --- the end ---

    def _end_ours(self) -> bool:
        """Ask the daemon to end if we started it; True unless it refuses.

        Under a hub this server is the user's session: whoever started the daemon, and what the user left running in it,
        ends with it.
        """
        is_session = bool(os.environ.get("JUPYTERHUB_USER"))
        if not is_session and _read(self._paths.connection_file).get("started_by") != self.name:
            return True
        to = running.Connection(socket=self.socket)
        try:
            status, _ = running.request(to, routes.STOP, routes.StopBody(session=is_session), timeout=STOP_TIMEOUT)
        except (OSError, TundraError):
            return True
        return status != http.HTTPStatus.CONFLICT

    def _end_ours_at_exit(self) -> None:
        if os.getpid() == self._pid:
            self._end_ours()


class _DaemonStream(IOStream):
    """A daemon that answers early and hangs up must still be heard: what is written after that goes nowhere.

    tornado's own would close the stream at the first failed write, with the answer still unread in the kernel.
    """

    def write_to_fd(self, data: memoryview) -> int:
        length = len(data)
        try:
            return super().write_to_fd(data)
        except (BrokenPipeError, ConnectionResetError):
            return length


async def dial(path: str) -> IOStream:
    """Connect to the daemon's socket.

    Raises:
        OSError: nobody listens there.
    """
    deadline = time.monotonic() + DIAL_TIMEOUT
    while True:
        try:
            return _DaemonStream(_connected(path))
        except BlockingIOError:
            # The listener's queue is full: on a Unix socket that fails at once instead of being waited for.
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(DIAL_PAUSE)


def _connected(path: str) -> socket.socket:
    if not hasattr(socket, "AF_UNIX"):
        raise OSError("this platform has no Unix sockets")
    if os.stat(path).st_uid != os.geteuid():
        raise PermissionError(f"{path} belongs to somebody else")
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


def _read(connection_file: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(connection_file.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
