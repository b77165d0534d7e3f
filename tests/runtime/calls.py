"""Calls through the real parts (limiter, breaker, router, providers, transport) to scripted providers in this loop.

Only the history is left out: rows are kept in a list.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, TypeVar

import msgspec

from tundra_nb.runtime.caller import Budgets
from tundra_nb.runtime.clock import Clock, Ids, SystemClock
from tundra_nb.runtime.keys import KeyRing
from tundra_nb.runtime.limits_shared.limiter import SharedLimiter
from tundra_nb.runtime.operations import Notice, Operations
from tundra_nb.runtime.profiles import Profiles
from tundra_nb.runtime.providers.provider import Provider
from tundra_nb.runtime.providers.transport import Transport
from tundra_nb.runtime.resilience.router import Router
from tundra_nb.runtime.rows import Journal
from tundra_nb.runtime.telemetry.redact import Redactor
from tundra_nb.settings import ProfileSettings, RouterSettings, Settings
from tundra_nb.testing.clock import VirtualClock
from tundra_nb.testing.scripted_provider import ScriptedProvider
from tundra_nb.types import Ask, Attempt, BreakerEvent, ErrorEvent, LimitEvent, Operation, Reply
from tundra_nb.types.pieces import Piece, Text

T = TypeVar("T")
KEY = "sk-canary-0123456789abcdef"
QUICK = RouterSettings(backoff_seconds=0.01, backoff_cap_seconds=0.02)


class Calls:
    """The parts of one runtime, and what they wrote."""

    def __init__(
        self,
        servers: dict[str, ScriptedProvider],
        transport: Transport,
        profiles: Sequence[ProfileSettings],
        clock: Clock,
        environ: dict[str, str],
        settings: Settings,
    ) -> None:
        self.servers = servers
        self.clock = clock
        self.rows: list[Any] = []
        self.texts: list[str] = []
        self.pieces: list[Piece] = []
        self.notices: list[Notice] = []
        redactor = Redactor()
        journal = Journal(lambda *events: self.rows.extend(events), Ids(clock), clock, redactor)
        self.limiter = SharedLimiter(clock, {}, on_notice=journal.limited)
        self.router = Router(profiles, settings.router, clock.monotonic, lambda: 0.0)
        self.keys = KeyRing(environ, redactor)

        def connect(profile: ProfileSettings, chosen: Settings) -> Provider:
            return Provider(
                profile,
                transport,
                key=lambda: self.keys.get(profile.api_key_env) if profile.api_key_env else None,
                monotonic=clock.monotonic,
                deadlines=chosen.deadlines,
            )

        self.profiles = Profiles(
            keys=self.keys, router=self.router, limiter=self.limiter, journal=journal, connect=connect
        )
        self.profiles.configure(msgspec.structs.replace(settings, profile=tuple(profiles)))
        self.slots = self.profiles.slots
        self.spent: dict[str, float] = {}
        """What the history would tell of each token's day."""

        async def spent_since(name: str, since_us: int) -> float:
            return self.spent.get(name, 0.0)

        self.operations = Operations(self.profiles, Budgets(clock, spent_since))
        self.running = self.operations.running

    async def on_piece(self, piece: Piece) -> None:
        self.pieces.append(piece)
        if isinstance(piece, Text):
            self.texts.append(piece.text)

    async def on_notice(self, notice: Notice) -> None:
        self.notices.append(notice)

    def ask(self, text: str = "hi", user: str = "me", **options: Any) -> Coroutine[Any, Any, Reply]:
        asked = Ask(messages=[{"role": "user", "content": text}], **options)
        return self.operations.ask(asked, user=user, on_piece=self.on_piece, on_notice=self.on_notice)

    async def play(self, call: Coroutine[Any, Any, T]) -> T:
        """Run a call on the virtual clock: whenever somebody sleeps on it, time moves on."""
        clock = self.clock
        assert isinstance(clock, VirtualClock)
        task = asyncio.ensure_future(call)
        async with asyncio.timeout(20):
            while not task.done():
                await asyncio.wait((task,), timeout=0.002)
                if clock.waiting and not task.done():
                    await clock.elapse(0.05)
        return task.result()

    def of(self, kind: type[T]) -> list[T]:
        return [row for row in self.rows if isinstance(row, kind)]

    @property
    def operation(self) -> Operation:
        """The one operation row."""
        (row,) = self.of(Operation)
        return row

    @property
    def attempts(self) -> list[Attempt]:
        return self.of(Attempt)

    @property
    def story(self) -> list[tuple[str, str, str | None, str | None]]:
        """Each attempt: profile, outcome, reason, why it was made."""
        return [(row.profile, row.outcome, row.reason, row.cause) for row in self.attempts]

    @property
    def limit_events(self) -> list[LimitEvent]:
        return self.of(LimitEvent)

    @property
    def breaker_events(self) -> list[BreakerEvent]:
        return self.of(BreakerEvent)

    @property
    def errors(self) -> list[ErrorEvent]:
        return self.of(ErrorEvent)

    def served(self, name: str) -> int:
        """Questions that reached a provider; model lists do not count."""
        return sum(request.method == "POST" for request in self.servers[name].requests)


@contextlib.asynccontextmanager
async def calls(
    *names: str,
    clock: Clock | None = None,
    environ: dict[str, str] | None = None,
    profiles: dict[str, dict[str, Any]] | None = None,
    **settings: Any,
) -> AsyncIterator[Calls]:
    """Parts with one scripted provider per name, in this order of priority; `profiles` overrides their settings."""
    async with contextlib.AsyncExitStack() as stack:
        transport = await stack.enter_async_context(Transport(environ={}))
        servers: dict[str, ScriptedProvider] = {}
        made = []
        for priority, name in enumerate(names):
            server = servers[name] = await stack.enter_async_context(ScriptedProvider())
            values: dict[str, Any] = {
                "kind": "local",
                "base_url": server.base_url,
                "model": "scripted-1",
                "priority": priority,
            }
            made.append(ProfileSettings(name=name, **(values | (profiles or {}).get(name, {}))))
        settings.setdefault("router", QUICK)
        yield Calls(servers, transport, made, clock or SystemClock(), environ or {}, Settings(**settings))
