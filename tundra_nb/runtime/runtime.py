"""The composition root: the only place where the parts of the runtime are put together."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import json
import logging
from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

from tundra_nb import errors, settings
from tundra_nb.paths import Paths
from tundra_nb.runtime import in_force
from tundra_nb.runtime.clock import Clock, Ids, SystemClock
from tundra_nb.runtime.drills import Drills
from tundra_nb.runtime.history.query import Condition, FrameQuery
from tundra_nb.runtime.history.service import History
from tundra_nb.runtime.keys import KeyRing
from tundra_nb.runtime.operations import Operations, Parts, ProfileSlot, fingerprint
from tundra_nb.runtime.providers import prices
from tundra_nb.runtime.providers.provider import Provider
from tundra_nb.runtime.providers.transport import Transport
from tundra_nb.runtime.ptys.pool import PtyPool
from tundra_nb.runtime.reserve import limits_for
from tundra_nb.runtime.resilience.breaker import Breaker, BreakerChange
from tundra_nb.runtime.resilience.limiter import Limiter, LimitNotice
from tundra_nb.runtime.resilience.router import Router
from tundra_nb.runtime.rows import Journal
from tundra_nb.runtime.store import history_of
from tundra_nb.runtime.telemetry.bus import EventBus
from tundra_nb.runtime.telemetry.redact import Redactor
from tundra_nb.runtime.terminals import Terminals
from tundra_nb.runtime.versioning import Versioning, signature
from tundra_nb.settings import DeadlineSettings, Loaded, ProfileSettings
from tundra_nb.types import TABLE_OF, AttemptOpened, ErrorEvent, Event, OperationOpened

RESTORE_SECONDS = 2.0
"""How long the start waits for the breakers' last states: a store that is down must not keep the daemon down. They are
taken up when the store comes later, too."""
RESTORE_PAUSE_SECONDS = 0.5
RESTORE_PAUSE_CAP_SECONDS = 30.0
RESTORE_ROWS = 50
"""Rows read back per profile. A parked profile is not called, so its breaker's moves do not bury why it is parked."""

PRICES_AFTER_SECONDS = 0.5
"""How long after the start the price table is read, so that it does not compete with becoming ready."""
LOCAL_SERVERS = {8000: "vLLM", 8080: "llama.cpp", 11434: "Ollama"}
"""What usually listens on these ports of 127.0.0.1."""
SETTINGS_POLL_SECONDS = 1.0
"""How often the settings file is looked at; an edit by hand is in force about so soon."""
PROBE_DEADLINES = DeadlineSettings(connect_seconds=0.3, idle_seconds=0.5, total_seconds=0.5)

_log = logging.getLogger("tundra.router")
_KINDS: dict[type[Any], str] = {
    **TABLE_OF,
    OperationOpened: "operation_opened",
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
        self.loaded = loaded
        self.paths = paths
        self.environ = environ
        self.redactor = redactor
        self.clock = clock or SystemClock()
        self.ids = history.ids if history else Ids(self.clock)
        self.bus = EventBus()
        self.keys = KeyRing(environ, redactor)
        self.limiter = Limiter(self.clock, on_notice=self._on_limit_notice)
        self.history = history or history_of(
            loaded.settings.store, paths, environ, redactor=redactor, ids=self.ids, clock=self.clock
        )
        self._is_history_given = history is not None
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
        )
        self.terminals = Terminals(pool)
        self.running: set[int] = set()
        """Calls under way, by id."""
        self.slots: dict[str, ProfileSlot] = {}
        self.operations: Operations
        self.versioning = Versioning(self)
        self.router = Router((), loaded.settings.router, self.clock.monotonic)
        self._exits = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._exits.__aenter__()
        try:
            self._exits.callback(self.bus.close)
            if not self._is_history_given:
                await self.history.open()
                self._exits.push_async_callback(self.history.aclose)
            self.transport = Transport(ca_file=self.environ.get("SSL_CERT_FILE"), environ=self.environ)
            self._exits.push_async_callback(self.transport.aclose)
            self.drills = Drills(self._without_keys(), self._on_drill)
            self._exits.push_async_callback(self.drills.aclose)
            self._build(self.loaded)
            restoring = self._background(self._restore(), "restore")
            await asyncio.wait((restoring,), timeout=RESTORE_SECONDS)
            await self.terminals.open()
            self._exits.push_async_callback(self.terminals.aclose)
            self._background(self._follow_settings(), "settings")
            self._background(self._load_prices(), "prices")
        except BaseException:
            await self._exits.aclose()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._exits.aclose()

    def record(self, *events: Event) -> None:
        """Write events to the spool, before anybody is answered, and tell the bus."""
        self.history.append(*events)
        for event in events:
            self.bus.publish(_KINDS[type(event)], event)

    def record_error(self, source: str, error: errors.TundraError, **facts: Any) -> None:
        """Write down an error that a background part met, or that reached a caller outside an operation."""
        self.record(
            ErrorEvent(
                error_id=self.ids.next(),
                at=self.clock.now_us(),
                source=source,
                code=error.code,
                severity=error.severity,
                retryable=error.retryable,
                message=self.redactor.text(str(error)),
                reason=error.reason,
                **facts,
            )
        )

    async def write_down(self, author: str, reason: str, message: str) -> str | None:
        """Commit the settings and profiles in force, if they differ from what the history holds."""
        rows = in_force.rows_of(self.loaded, self.clock.now_us(), author, reason)
        differing = await in_force.changed(self.history, rows)
        if not differing:
            return None
        self.record(*differing)
        return str(await self.history.call("commit", message=message, author=signature(author)))

    def _key_variables(self) -> frozenset[str]:
        """Names of the variables that hold secrets, by the settings."""
        named = {slot.profile.api_key_env for slot in self.slots.values()}
        return frozenset(named | {self.loaded.settings.store.password_env}) - {""}

    def pty_counts(self) -> dict[str, int]:
        return {"open": len(self.terminals.pool.list()), "capacity": self.loaded.settings.pty.capacity}

    def apply(self, loaded: Loaded) -> None:
        """Put changed settings in force. Calls under way keep the ones they began with; breakers keep their state.

        `store`, `log` and `daemon` need a restart; everything else is live.
        """
        self.loaded = loaded
        self._build(loaded)
        self.terminals.pool.configure(loaded.settings.pty)
        self.terminals.pool.refresh_secrets()

    def _build(self, loaded: Loaded) -> None:
        chosen = loaded.settings
        self.keys.expect(profile.api_key_env for profile in chosen.profile if profile.api_key_env)
        slots: dict[str, ProfileSlot] = {}
        for profile in chosen.profile:
            known = self.slots.get(profile.name)
            breaker = known.breaker if known else self._breaker(profile)
            breaker.configure(chosen.breaker)
            slot = slots[profile.name] = ProfileSlot(profile, self._provider(profile), breaker)
            if known is not None and known.profile == profile:
                slot.seen, slot.seen_at = known.seen, known.seen_at
            elif self.router.parked(profile.name) is not None:
                self.operations.unpark(profile.name, "settings_changed")
        self.slots = slots
        self.router.configure(chosen.profile, chosen.router)
        self.limiter.configure(limit for profile in chosen.profile for limit in limits_for(chosen, profile, ""))
        self.operations = Operations(
            Parts(
                settings=chosen,
                slots=slots,
                router=self.router,
                limiter=self.limiter,
                keys=self.keys,
                journal=Journal(self.record, self.ids, self.clock, self.redactor, chosen.record.content),
                running=self.running,
            )
        )

    def _without_keys(self) -> dict[str, str]:
        """The environment for helpers that need no key."""
        secret = {profile.api_key_env for profile in self.loaded.settings.profile}
        secret.add(self.loaded.settings.store.password_env)
        return {name: value for name, value in self.environ.items() if name not in secret}

    def _on_drill(self, name: str) -> None:
        """A drill has moved the address of a profile: the next call goes there."""
        if (slot := self.slots.get(name)) is not None:
            slot.provider = self._provider(slot.profile)

    def _breaker(self, profile: ProfileSettings) -> Breaker:
        return Breaker(
            profile.name,
            self.loaded.settings.breaker,
            self.clock.monotonic,
            on_change=self._on_breaker_change,
        )

    def _provider(self, profile: ProfileSettings) -> Provider:
        variable = profile.api_key_env
        redirected = self.drills.redirected(profile)
        return Provider(
            redirected or profile,
            self.drills.transport if redirected else self.transport,
            key=lambda: self.keys.get(variable) if variable else None,
            monotonic=self.clock.monotonic,
            deadlines=self.loaded.settings.deadlines,
        )

    def _on_limit_notice(self, notice: LimitNotice) -> None:
        self.operations.on_limit_notice(notice)

    def _on_breaker_change(self, change: BreakerChange) -> None:
        self.operations.on_breaker_change(change)

    async def _load_prices(self) -> None:
        """Have the price table ready before the first priced call needs it; the start itself does not wait for it."""
        await self.clock.sleep(PRICES_AFTER_SECONDS)
        if any(profile.kind != "local" for profile in self.loaded.settings.profile):
            await asyncio.to_thread(prices.load)

    async def _follow_settings(self) -> None:
        """Write down what is in force at the start; then put the file in force whenever somebody edits it."""
        user = getpass.getuser()
        # when the store is away, the next change writes it all down
        with contextlib.suppress(errors.TundraError):
            async with self.versioning.lock:
                await self.write_down(user, "start", message="settings at start")
        seen = _modified(self.loaded.file)
        while True:
            await self.clock.sleep(SETTINGS_POLL_SECONDS)
            if (now := _modified(self.loaded.file)) == seen:
                continue
            seen = now
            try:
                async with self.versioning.lock:
                    self.apply(settings.load(self.loaded.file, self.environ))
                    _log.info("settings of %s are in force", self.loaded.file)
                    await self.write_down(user, "edited", message=f"{self.loaded.file.name} edited")
            except errors.TundraError as error:
                _log.error("settings stay as they were: %s", error)
                self.record_error("daemon", error)

    def _background(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Start a task that is ended, at the latest, when the runtime is."""
        task = asyncio.create_task(work, name=name)

        async def end() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self._exits.push_async_callback(end)
        return task

    def unavailable(self, name: str) -> errors.TundraError | None:
        """Why a profile would be passed over now: its key is missing, it is parked, or it cools."""
        return self.operations.refusal(self.slots[name].profile)

    async def recheck(self, name: str) -> dict[str, Any]:
        """Ask a profile's provider for its models, and take the profile back in when it answers.

        Raises:
            TundraError: what is still wrong; the profile stays, or becomes, parked when that is what the error means.
        """
        slot = self.slots[name]
        if slot.profile.api_key_env and self.keys.get(slot.profile.api_key_env) is None:
            raise errors.KeyMissing(profile=name, variable=slot.profile.api_key_env)
        try:
            models = await slot.provider.models(refresh=True)
        except errors.TundraError as error:
            if error.parks:
                self.operations.park(name, error)
            raise
        self.operations.unpark(name, "rechecked")
        return {"profile": name, "available": True, "models": len(models)}

    async def models(self, names: list[str]) -> list[dict[str, Any]]:
        """The models of these profiles, asked all at once; a profile that fails has one row that says so."""
        listed = await asyncio.gather(*(self._models_of(name) for name in names))
        return [row for rows in listed for row in rows]

    async def _models_of(self, name: str) -> list[dict[str, Any]]:
        slot = self.slots[name]
        checked_at = self.clock.now_us()
        try:
            if (missing := self.unavailable(name)) is not None and isinstance(missing, errors.KeyMissing):
                raise missing
            found = await slot.provider.models()
        except errors.TundraError as error:
            return [
                {"profile": name, "model": None, "available": False, "checked_at": checked_at, "problem": str(error)}
            ]
        return [
            {
                "profile": name,
                "model": model.model,
                "available": True,
                "context_tokens": model.context_tokens,
                "input_usd_per_mtok": model.input_usd,
                "output_usd_per_mtok": model.output_usd,
                "checked_at": checked_at,
                "problem": None,
            }
            for model in found
        ]

    def limit_rows(self) -> list[dict[str, Any]]:
        """Our buckets, and beside them what each provider last told of its own."""
        for slot in self.slots.values():  # a bucket that nobody has used yet is there all the same
            self.operations.path(slot, getpass.getuser())
        rows: list[dict[str, Any]] = [
            {
                "owner": "tundra",
                "tier": level.tier,
                "limit_key": level.key,
                "resource": level.resource,
                "limit": level.burst,
                "remaining": level.level,
                "per_second": level.rate,
                "waiting": level.waiting,
                "penalised_for_s": level.penalised_for,
            }
            for level in self.limiter.levels()
        ]
        now = self.clock.monotonic()
        for name, slot in self.slots.items():
            for bucket in slot.seen.buckets if slot.seen else ():
                age = now - slot.seen_at
                rows.append(
                    {
                        "owner": "provider",
                        "tier": "profile",
                        "limit_key": name,
                        "resource": bucket.resource,
                        "limit": bucket.limit,
                        "remaining": bucket.remaining,
                        "reset_after_s": None if bucket.reset_after is None else max(0.0, bucket.reset_after - age),
                        "told_s_ago": age,
                    }
                )
        return rows

    async def suggestions(self) -> list[dict[str, str]]:
        """Local model servers that answer on their usual ports. They are suggested, never used unasked."""
        known = {slot.profile.base_url for slot in self.slots.values()}
        found = await asyncio.gather(*(self._local_server(port, what) for port, what in LOCAL_SERVERS.items()))
        return [server for server in found if server is not None and server["base_url"] not in known]

    async def _local_server(self, port: int, what: str) -> dict[str, str] | None:
        base_url = f"http://127.0.0.1:{port}/v1"
        profile = ProfileSettings(name="probe", kind="local", base_url=base_url)
        probe = Provider(
            profile, self.transport, key=lambda: None, monotonic=self.clock.monotonic, deadlines=PROBE_DEADLINES
        )
        try:
            await probe.models()
        except errors.TundraError:
            return None
        return {"what": what, "base_url": base_url}

    async def _restore(self) -> None:
        """Read back open deadlines and parked profiles from the history of before."""
        began = self.clock.now_us()
        for name, slot in list(self.slots.items()):
            query = FrameQuery(
                table="breaker_event",
                until_us=began,
                where=[Condition("profile", "eq", name)],
                newest_first=True,
                limit=RESTORE_ROWS,
            )
            self._take_up(slot, await self._read_patiently(query))

    async def _read_patiently(self, query: FrameQuery) -> list[dict[str, Any]]:
        """Rows of the history, however long it takes until the store can give them."""
        pause = RESTORE_PAUSE_SECONDS
        while True:
            try:
                return await self.history.rows(query)
            except errors.TundraError as error:
                _log.warning("breakers start closed, their last states cannot be read yet: %s", error)
            await self.clock.sleep(pause)
            pause = min(2 * pause, RESTORE_PAUSE_CAP_SECONDS)

    def _take_up(self, slot: ProfileSlot, rows: list[dict[str, Any]]) -> None:
        """Go on from the last rows of a profile, newest first, as if there had been no restart.

        What has happened since the start, when the store came late, counts more.
        """
        name = slot.profile.name
        parking = next((row for row in rows if row["old_state"] == row["new_state"]), None)
        if parking is not None and parking["parked"] and parking["message"] and self.router.parked(name) is None:
            try:
                told = json.loads(parking["message"])
            except ValueError:  # masking a secret in it has cost its form
                self.router.park(name, errors.Parked(profile=name, cause=parking["reason"]))
            else:
                if told.get("settings") == fingerprint(slot.profile):
                    self.router.park(name, errors.from_wire(told))
        move = next((row for row in rows if row["old_state"] != row["new_state"]), None)
        if move is not None and move["new_state"] != "closed" and slot.breaker.is_untouched:
            left = ((move["open_until"] or 0) - self.clock.now_us()) / 1e6
            slot.breaker.restore(max(0.0, left), move["failures"], move["reason"])


def _modified(file: Path) -> tuple[int, int] | None:
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino
