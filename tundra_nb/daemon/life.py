"""Who uses the daemon, and when it may end.

Attached = an open `/api/events` stream: kernels and notebooks hold one, the bridge holds none. The daemon ends by
itself when nobody has been attached, and nothing but watching has been asked of it, for `daemon.idle_exit_seconds`, and
no PTY lives. It is told to stop in two ways: by a person (`hold`), who is obeyed and after whom only an explicit start
brings it back; and by a program that no longer needs it, as a Jupyter server that ends, which is refused while others
do.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

from tundra_nb.daemon import connection
from tundra_nb.errors import IpcError
from tundra_nb.paths import Paths
from tundra_nb.protocol import daemon, events, metrics, status
from tundra_nb.protocol.record import DaemonRecord
from tundra_nb.runtime.telemetry.log import Logs
from tundra_nb.runtime.telemetry.problems import Problems

NOT_USE = frozenset({status.STATUS.path, metrics.PAGE.path, events.FEED.path, daemon.STOP.path})
"""Paths whose requests are not use: a supervisor or scraper must not keep a daemon alive that nobody needs. An event
stream counts by `Life.attached` instead."""
GATEWAY = "gateway"
"""What an open listener of the gateway is attached as."""
BUSY_POLL_SECONDS = 5.0
"""How often an otherwise idle daemon looks whether its last PTY has ended."""

_log = logging.getLogger("tundra.daemon")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclasses.dataclass(frozen=True)
class StopFindings:
    """What a stop request found, and will end."""

    attached: dict[str, int]
    ptys: int
    requests: int


class Life:
    """The daemon's life as its routes see it.

    `info` says who the daemon is; `ready` is set when it answers, `stopping` once it is to end, `hurry` when calls in
    flight are not waited for.
    """

    def __init__(
        self,
        info: DaemonRecord,
        paths: Paths,
        monotonic: Callable[[], float],
        problems: Problems | None = None,
        logs: Logs | None = None,
    ) -> None:
        self.logs = logs
        self.info = info
        self.problems = problems or Problems()
        """What is wrong with the daemon itself just now."""
        self.ready = asyncio.Event()
        self.stopping = asyncio.Event()
        self.hurry = asyncio.Event()
        self.reason = ""
        self.is_asked = True
        """Whether somebody wanted the stop."""
        self.living_ptys: Callable[[], int] = lambda: 0
        """Set by the one who opens the runtime, as is the next."""
        self.end_streams: Callable[[], None] = lambda: None
        """Ends the answers that have no end of their own; called when the stop begins."""
        self._paths = paths
        self._monotonic = monotonic
        self._started = self._last_used = monotonic()
        self._attached: collections.Counter[str] = collections.Counter()
        self._requests = 0

    def __repr__(self) -> str:
        used = f"{self.attached_count} attached, {self._requests} requests, {self.living_ptys()} PTYs"
        return f"<Life {'stopping' if self.stopping.is_set() else 'running'}: {used}>"

    @property
    def uptime(self) -> float:
        """Seconds since the start."""
        return self._monotonic() - self._started

    @property
    def attached_count(self) -> int:
        return self._attached.total()

    @property
    def attached_by(self) -> dict[str, int]:
        """Number of open event streams by what holds them (kernel, cli, …)."""
        return {who: count for who, count in self._attached.items() if count}

    @contextlib.contextmanager
    def attached(self, who: str) -> Iterator[None]:
        """Count a client as attached while the block runs; one that names nobody only looks on."""
        if not who:
            yield
            return
        self._attached[who] += 1
        try:
            yield
        finally:
            self._attached[who] -= 1
            self._last_used = self._monotonic()

    @contextlib.contextmanager
    def request(self, path: str) -> Iterator[None]:
        """Count a request as use while the block runs, unless it only watches."""
        if path in NOT_USE:
            yield
            return
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1
            self._last_used = self._monotonic()

    def stop(self, reason: str, *, force: bool = False, is_asked: bool = True) -> None:
        """Begin to stop, whoever is there; again with `force`, hurry. Returns at once."""
        if force:
            self.hurry.set()
        if not self.stopping.is_set():
            self.reason = reason
            self.is_asked = is_asked
            self.stopping.set()
            self.end_streams()

    def request_stop(self, *, force: bool = False, hold: bool = False, session: bool = False) -> StopFindings:
        """Begin to stop because a client asks; returns at once, with what will be ended.

        Args:
            force: do not wait for calls in flight.
            hold: a person said so: only an explicit start brings the daemon back.
            session: the user has left: terminals and the gateway keep it no longer.

        Raises:
            IpcError: neither `force` nor `hold`, and somebody is attached, waits for an answer, or has a PTY.
        """
        found = StopFindings(attached=self.attached_by, ptys=self.living_ptys(), requests=self._requests)
        left = found.ptys or found.attached.get(GATEWAY)
        others = sum(count for who, count in found.attached.items() if who != GATEWAY) + found.requests
        if not (force or hold) and (others or (left and not session)):
            raise IpcError(
                kind="busy",
                problem=f"the daemon (pid {self.info.pid}) is in use: {_told(found)}",
                remedy="`tundra daemon stop` stops it all the same.",
            )
        if hold and not connection.hold(self._paths.held, "tundra daemon stop"):
            _log.warning("the mark that it was stopped on purpose cannot be left in %s", self._paths.data_dir)
        self.stop("a client asked", force=force)
        return found

    async def idle(self, after: float, sleep: Callable[[float], Awaitable[None]]) -> None:
        """Return once the daemon has been of no use to anybody for `after` seconds."""
        while True:
            rest = self._last_used + after - self._monotonic()
            if self._attached.total() or self._requests:
                rest = after
            elif rest <= 0:
                if not self.living_ptys():
                    return
                rest = min(after, BUSY_POLL_SECONDS)
            await sleep(rest)


def counting_use(app: ASGIApp, life: Life) -> ASGIApp:
    """The app, with each of its requests and WebSockets counted as use of the daemon."""

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        with life.request(scope.get("path", "")):
            await app(scope, receive, send)

    return counted


def _told(found: StopFindings) -> str:
    parts = [f"{count} {who}" for who, count in sorted(found.attached.items())]
    parts += [f"{count} {what}" for what, count in (("PTYs", found.ptys), ("requests", found.requests)) if count]
    return ", ".join(parts)
