"""The composition root: the only place where the parts of the runtime are put together."""

from __future__ import annotations

import asyncio
import collections
import logging
from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack
from typing import Any, Self

from tundra_nb.errors import StoreUnavailable, TundraError
from tundra_nb.paths import Paths
from tundra_nb.runtime.agent_runs import AgentRuns
from tundra_nb.runtime.archive.service import Archives
from tundra_nb.runtime.caller import Budgets, spent_in
from tundra_nb.runtime.clock import Clock, Ids, SystemClock
from tundra_nb.runtime.drills import Drills
from tundra_nb.runtime.history.query import FrameQuery
from tundra_nb.runtime.history.service import History
from tundra_nb.runtime.in_force import InForce
from tundra_nb.runtime.keys import KeyRing
from tundra_nb.runtime.limits_shared.limiter import SharedLimiter
from tundra_nb.runtime.operations import Operations
from tundra_nb.runtime.profiles import Profiles, ProfileSlot
from tundra_nb.runtime.providers import classify, prices
from tundra_nb.runtime.providers.provider import Provider
from tundra_nb.runtime.providers.transport import Transport
from tundra_nb.runtime.ptys.life import Transition
from tundra_nb.runtime.ptys.pool import PtyPool
from tundra_nb.runtime.recordings import Recordings
from tundra_nb.runtime.resilience.router import Router
from tundra_nb.runtime.rows import CallFacts, Journal
from tundra_nb.runtime.sources.service import Reads, Sources
from tundra_nb.runtime.store import history_of
from tundra_nb.runtime.telemetry import genai
from tundra_nb.runtime.telemetry.bus import EventBus
from tundra_nb.runtime.telemetry.metrics import Metrics
from tundra_nb.runtime.telemetry.redact import Redactor
from tundra_nb.runtime.terminals import Terminals
from tundra_nb.runtime.under_way import UnderWay
from tundra_nb.runtime.versioning import Versioning
from tundra_nb.settings import Loaded, ProfileSettings, Settings
from tundra_nb.types import (
    TABLE_OF,
    AgentRunOpened,
    Attempt,
    AttemptOpened,
    ConnectionEvent,
    ConnectionState,
    ErrorEvent,
    Event,
    Exchange,
    Operation,
    OperationOpened,
)

RESTORE_SECONDS = 2.0
"""How long the start waits for the breakers' last states: a store that is down must not keep the daemon down. They are
taken up when the store comes later, too."""
LATER_SECONDS = 0.5
"""How long after the start that is loaded which calls need and becoming ready does not."""

OWED = 1000
"""So many ends are kept while there is no room to write them."""

_log = logging.getLogger("tundra.daemon")

_MASKED_ALREADY = (Exchange,)
"""A recorded exchange is long, and masked where it is taken."""
_KINDS: dict[type[Any], str] = {
    **TABLE_OF,
    OperationOpened: "operation_opened",
    AgentRunOpened: "agent_run_opened",
    AttemptOpened: "attempt_opened",
}


class Runtime:
    """Provider calls and history of one daemon. Use it as an async context manager; nothing starts before.

    Args:
        loaded: the settings in force.
        paths: where files are.
        environ: the environment to look keys and proxies up in; read, never changed.
        redactor: masks secrets in everything that leaves.
        clock: the system's when left out.
        adopter: pid of the process that adopts orphans of terminals, when it is not this one.
        history: one that is open already, and that its opener closes; made from the settings when left out.
    """

    def __init__(
        self,
        loaded: Loaded,
        paths: Paths,
        environ: Mapping[str, str],
        *,
        redactor: Redactor,
        clock: Clock | None = None,
        adopter: int | None = None,
        history: History | None = None,
    ) -> None:
        self.paths = paths
        self.environ = environ
        self.redactor = redactor
        self.clock = clock or SystemClock()
        self.ids = history.ids if history else Ids(self.clock)
        self.bus = EventBus()
        self.metrics = Metrics(self._kind_of, self.clock.now_us, genai.OF_VERSION[loaded.settings.otel.names])
        self.keys = KeyRing(environ, redactor)
        self.history = history or history_of(
            loaded.settings.store, paths, environ, redactor=redactor, ids=self.ids, clock=self.clock
        )
        self._is_history_given = history is not None
        self.sources = Sources(paths.sources, redactor, environ)
        self.archive = Archives(
            paths.archive, self.history, environ, self.clock, lambda: self.loaded.settings.store.reserve_mb
        )
        self.recordings = Recordings(
            paths.recordings,
            lambda: self.loaded.settings.record,
            lambda: int(self.loaded.settings.store.reserve_mb * 1e6),
            self.clock,
        )
        self._owed: collections.deque[Event] = collections.deque(maxlen=OWED)
        """Ends that there was no room to write; they go before what is written next."""
        self.journal = Journal(self.record, self.ids, self.clock, redactor, self.recordings.keep, self._traceparent)
        self.agent_runs = AgentRuns(self.record, self.ids, self.clock, redactor)
        self.in_force = InForce(loaded, environ, self.history, self.journal)
        self.limiter = SharedLimiter(self.clock, environ, on_notice=self.journal.limited)
        self.router = Router((), loaded.settings.router, self.clock.monotonic)
        self.profiles = Profiles(
            keys=self.keys, router=self.router, limiter=self.limiter, journal=self.journal, connect=self._connect
        )
        self.budgets = Budgets(self.clock, lambda name, since_us: spent_in(self.history, name, since_us))
        self.operations = Operations(self.profiles, self.budgets)
        pool = PtyPool(
            loaded.settings.pty,
            paths.ptys,
            ids=self.ids,
            clock=self.clock,
            on_event=self.record,
            secrets=lambda: self.keys.values(self._key_variables()),
            key_variables=self._key_variables,
            environ=environ,
            adopter=adopter,
            reserve_mb=lambda: self.loaded.settings.store.reserve_mb,
        )
        self.terminals = Terminals(pool, record=self._on_connection)
        self.versioning = Versioning(self.in_force, self.history, self.journal, paths.data_dir)
        self._traces_changed = asyncio.Event()
        self._exits = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._exits.__aenter__()
        try:
            self._exits.callback(self.bus.close)
            self._exits.push_async_callback(asyncio.to_thread, self.recordings.close)
            self._exits.push_async_callback(self.sources.aclose)
            self._exits.push_async_callback(self.archive.aclose)
            if not self._is_history_given:
                await self.history.open()
                self._exits.push_async_callback(self.history.aclose)
            self.transport = Transport(environ=self.environ)
            self._exits.push_async_callback(self.transport.aclose)
            self.drills = Drills(self._without_keys(), self.profiles.reconnect)
            self._exits.push_async_callback(self.drills.aclose)
            self._exits.push_async_callback(self.limiter.aclose)
            self.profiles.configure(self.loaded.settings)
            self.in_force.parts += [
                lambda loaded: self.profiles.configure(loaded.settings),
                self._configure_ptys,
                lambda _: self._traces_changed.set(),
            ]
            self._background(self._send_traces(), "traces")
            restoring = self._background(self.profiles.restore(self.history), "restore")
            await asyncio.wait((restoring,), timeout=RESTORE_SECONDS)
            await self.terminals.open()
            self._exits.push_async_callback(self.terminals.aclose)
            await self.in_force.begin()
            self._background(self.in_force.follow(), "settings")
            self._background(self._load_later(), "later")
            self._background(self._bound_recordings(), "recordings")
        except BaseException:
            await self._exits.aclose()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._exits.aclose()

    def record(self, *events: Event) -> None:
        """Write events to the spool, before anybody is answered, and tell the bus: masked, whoever made them.

        Raises:
            StoreUnavailable: the disk is full; how calls failed is written once there is room.
        """
        masked = [event if type(event) in _MASKED_ALREADY else self.redactor.struct(event) for event in events]
        if self._owed:
            masked[:0] = [self._owed.popleft() for _ in range(len(self._owed))]
        try:
            self.history.append(*masked)
        except StoreUnavailable:
            later = list(filter(_is_owed, masked))
            self.history.troubles.lost["rows"] += max(0, len(later) - OWED)
            self._owed.extend(later)
            raise
        for event in masked:
            self.metrics.count(event)
        if self.bus.is_watched:
            for event in masked:
                self.bus.publish(_KINDS[type(event)], event)

    def reads(self, source: str | None) -> Reads:
        """Where rows are read from: the history with its archive, or the source of this name.

        Raises:
            UsageError: there is none.
        """
        return self.archive.reads if source is None else self.sources.reader(source)

    def _kind_of(self, profile: str) -> str:
        slot = self.slots.get(profile)
        return slot.profile.kind if slot else "unknown"

    @property
    def loaded(self) -> Loaded:
        """The settings in force."""
        return self.in_force.loaded

    @property
    def slots(self) -> Mapping[str, ProfileSlot]:
        """The profiles in force, by name."""
        return self.profiles.slots

    @property
    def running(self) -> Mapping[int, UnderWay]:
        """Calls under way, by id."""
        return self.operations.running

    def _key_variables(self) -> frozenset[str]:
        """Names of the variables that hold secrets, by the settings."""
        named = {slot.profile.api_key_env for slot in self.slots.values()}
        store = self.loaded.settings.store
        named |= {store.password_env, store.reader_password_env, self.loaded.settings.otel.headers_env}
        return frozenset(named - {""})

    def _on_connection(self, pty_id: str, step: Transition) -> None:
        """A viewer's connection has moved."""
        self.record(
            ConnectionEvent(
                connection_event_id=self.ids.next(),
                at=self.clock.now_us(),
                pty_id=pty_id,
                peer=step.peer,
                old_state=step.old,
                new_state=step.new,
                reason=step.reason,
                bytes_missed=step.missed,
                viewer=step.viewer,
                close_code=step.close_code,
            )
        )

    def record_lost(self, peer: str, code: str, reason: str, message: str, at_us: int) -> None:
        """A client's line to us broke at that time, and is back."""
        now, seen = self.clock.now_us(), self.redactor.text(message)

        def row(at: int, old: ConnectionState, new: ConnectionState, why: str) -> ConnectionEvent:
            return ConnectionEvent(
                connection_event_id=self.ids.next(),
                at=at,
                peer=peer,
                old_state=old,
                new_state=new,
                reason=why,
                code=code,
                message=seen,
            )

        self.record(row(min(at_us, now), "active", "lost", reason), row(now, "lost", "active", "resumed"))

    def pty_counts(self) -> dict[str, Any]:
        return {
            "open": len(self.terminals.pool.running),
            "capacity": self.loaded.settings.pty.capacity,
            "boundary": self.terminals.pool.boundary,
        }

    def _configure_ptys(self, loaded: Loaded) -> None:
        self.terminals.pool.configure(loaded.settings.pty)
        self.terminals.pool.refresh_secrets()

    async def _send_traces(self) -> None:
        """Have the worker send traces where the settings say, now and whenever they change."""
        while True:
            self._traces_changed.clear()
            otel = self.loaded.settings.otel
            given = self.environ.get(otel.headers_env, "") if otel.headers_env else ""
            headers = dict(part.split("=", 1) for part in given.split(",") if "=" in part)
            for name, value in headers.items():
                self.redactor.register(f"{otel.headers_env} {name.strip()}", value.strip())
            headers = {name.strip(): value.strip() for name, value in headers.items()}
            wanted = {"endpoint": otel.endpoint, "headers": headers, "ratio": otel.ratio} if otel.endpoint else {}
            await self.history.trace(wanted)
            await self._traces_changed.wait()

    def _traceparent(self, facts: CallFacts, operation_id: int, attempt_id: int) -> str:
        """Below the attempt's span; where no traces are sent, below the caller's own."""
        from tundra_nb.runtime.telemetry import spans  # only where a profile wants it

        otel = self.loaded.settings.otel
        if not otel.endpoint:
            return spans.passed_on(facts.trace_id, facts.parent_span_id)
        caller = facts.trace_id, facts.parent_span_id
        return spans.traceparent(self.history.writer_id, operation_id, *caller, attempt_id, otel.ratio)

    def _without_keys(self) -> dict[str, str]:
        """The environment for helpers that need no key."""
        secret = {profile.api_key_env for profile in self.loaded.settings.profile}
        secret |= {self.loaded.settings.store.password_env, self.loaded.settings.store.reader_password_env}
        return {name: value for name, value in self.environ.items() if name not in secret}

    def _connect(self, profile: ProfileSettings, chosen: Settings) -> Provider:
        """The provider of a profile, through its drill where it has one."""
        variable = profile.api_key_env
        redirected = self.drills.redirected(profile)
        return Provider(
            redirected or profile,
            self.drills.transport if redirected else self.transport,
            key=lambda: self.keys.get(variable) if variable else None,
            monotonic=self.clock.monotonic,
            deadlines=chosen.deadlines,
            answers=chosen.answers,
        )

    async def _load_later(self) -> None:
        """Have ready what words of failures mean, and the price table, before a first call needs them."""
        await self.clock.sleep(LATER_SECONDS)
        await asyncio.to_thread(classify.phrases)
        if any(profile.kind != "local" for profile in self.loaded.settings.profile):
            await asyncio.to_thread(prices.load)

    async def _bound_recordings(self) -> None:
        """Learn which recordings the incidents keep, then delete what is too old or too much."""
        try:
            await self.learn_incidents()
        except TundraError as exc:
            _log.warning("old recordings are not deleted, the incidents cannot be read yet: %s", exc)
            return
        await asyncio.to_thread(self.recordings.sweep)

    async def learn_incidents(self) -> None:
        """Have the recordings of all incidents' windows kept."""
        rows = await self.history.rows(FrameQuery(table="incident"))
        self.recordings.windows = [(row["since"], row["until"]) for row in rows]

    def _background(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Start a task that is ended, at the latest, when the runtime is."""
        task = asyncio.create_task(work, name=name)

        async def end() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self._exits.push_async_callback(end)
        return task


def _is_owed(event: Event) -> bool:
    """Whether it is written later when it cannot be now: how something failed. What was not kept was not answered."""
    return isinstance(event, ErrorEvent | Attempt) or (isinstance(event, Operation) and event.outcome != "ok")
