"""The profiles in force: the way to each provider, what protects it, and whether it may be asked.

A profile has a **slot** for as long as it is in the settings. A change of settings rebuilds only what changed: the
slots of other profiles keep their provider with its model list and connections, their breaker and their buckets. A new
address or key closes the breaker of the old one. A profile is **parked** when its key or quota is at fault, until its
settings change, its key is offered, or it is rechecked; the history keeps why, and `restore` reads it back after a
restart.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import msgspec

from tundra_nb import errors
from tundra_nb.nearest import nearest
from tundra_nb.runtime.caller import Caller
from tundra_nb.runtime.clock import Clock
from tundra_nb.runtime.history.query import Condition, FrameQuery
from tundra_nb.runtime.history.service import History
from tundra_nb.runtime.keys import KeyRing
from tundra_nb.runtime.limits_shared.limiter import Path, SharedLimiter
from tundra_nb.runtime.providers.contract import Seen
from tundra_nb.runtime.providers.provider import Provider
from tundra_nb.runtime.reserve import limits_for
from tundra_nb.runtime.resilience.breaker import Breaker
from tundra_nb.runtime.resilience.router import Router
from tundra_nb.runtime.rows import Journal
from tundra_nb.settings import ProfileSettings, Settings

USERS_KEPT = 1000
"""Limiter paths kept per profile."""
RESTORE_PAUSE_SECONDS = 0.5
RESTORE_PAUSE_CAP_SECONDS = 30.0
RESTORE_ROWS = 50
"""Rows read back per profile. A parked profile is not called, so its breaker's moves do not bury why it is parked."""
NOT_THE_WAY = frozenset({"model", "priority", "rpm", "tpm", "traceparent", "enabled"})
"""Settings of a profile that change nothing of how its provider is reached."""

NOBODY = Caller("")

State = Literal["ready", "cooling", "parked", "breaker_open", "disabled"]
Connect = Callable[[ProfileSettings, Settings], Provider]
"""Makes the provider of a profile; injected, so that tests and replays choose what is behind it."""

_log = logging.getLogger("tundra.router")


class ProfileSlot:
    """What the runtime keeps per profile: its provider, its breaker, and its limiter path by caller."""

    def __init__(self, profile: ProfileSettings, provider: Provider, breaker: Breaker) -> None:
        self.profile = profile
        self.provider = provider
        self.breaker = breaker
        self.paths: dict[Caller, Path] = {}
        self.seen: Seen | None = None
        """What the last attempt that reached the provider saw."""
        self.seen_at: float = 0.0
        self.answered_at: float | None = None
        """When it answered last, by the monotonic clock; None while this daemon has no answer of it."""
        self.failed_at: float | None = None
        self.failure: errors.TundraError | None = None
        """Why its last attempt failed; None when that was answered."""

    def note(self, now: float, error: errors.TundraError | None) -> None:
        """How an attempt ended at this moment; None: it was answered."""
        if error is None:
            self.answered_at, self.failure = now, None
        else:
            self.failed_at, self.failure = now, error


class Profiles:
    """All profiles, live. `configure` puts settings in force, for the first time too.

    `slots` is replaced, never changed, so that a call under way keeps the profiles that it began with.
    """

    def __init__(
        self,
        *,
        keys: KeyRing,
        router: Router,
        limiter: SharedLimiter,
        journal: Journal,
        connect: Connect,
    ) -> None:
        self.keys = keys
        self.router = router
        self.limiter = limiter
        self.journal = journal
        self.settings = Settings()
        self.slots: Mapping[str, ProfileSlot] = {}
        self._connect = connect

    def __repr__(self) -> str:
        return f"<Profiles {', '.join(f'{name} {self.state(name)}' for name in self.slots) or 'none'}>"

    @property
    def clock(self) -> Clock:
        return self.journal.clock

    # --- settings

    def configure(self, chosen: Settings) -> None:
        """Put settings in force. Only what changed is rebuilt; breakers keep their state."""
        before, self.settings = self.settings, chosen
        self.limiter.share(chosen.limits.shared)
        self.keys.expect(profile.api_key_env for profile in chosen.profile if profile.api_key_env)
        slots: dict[str, ProfileSlot] = {}
        for profile in chosen.profile:
            known = self.slots.get(profile.name)
            slots[profile.name] = self._made(profile) if known is None else self._adapted(known, profile, before)
        for name, slot in self.slots.items():
            if name not in slots:
                self._let_go(slot)
        self.slots = slots
        self.router.configure(chosen.profile, chosen.router)
        self.limiter.configure(limit for profile in chosen.profile for limit in limits_for(chosen, profile, NOBODY))

    def _made(self, profile: ProfileSettings) -> ProfileSlot:
        breaker = Breaker(
            profile.name, self.settings.breaker, self.clock.monotonic, on_change=self.journal.breaker_moved
        )
        return ProfileSlot(profile, self._connect(profile, self.settings), breaker)

    def _let_go(self, slot: ProfileSlot) -> None:
        """A profile is no longer in the settings: its breaker is not open, nor is it parked, for ever after."""
        slot.breaker.reset("removed")
        if self.router.parked(slot.profile.name) is not None:
            self.unpark(slot.profile.name, "removed")

    def _adapted(self, known: ProfileSlot, profile: ProfileSettings, before: Settings) -> ProfileSlot:
        chosen = self.settings
        known.breaker.configure(chosen.breaker)
        is_limited_anew = limits_for(before, known.profile, NOBODY) != limits_for(chosen, profile, NOBODY)
        if is_limited_anew or before.limits.shared != chosen.limits.shared:
            known.paths.clear()
        if known.profile == profile:
            known.provider.configure(profile, chosen.deadlines, chosen.answers)
            return known
        provider = known.provider
        if way(profile) == way(known.profile):
            provider.configure(profile, chosen.deadlines, chosen.answers)
        else:
            provider = self._connect(profile, chosen)
            known.breaker.reset("settings_changed")  # what failed there says nothing of where calls go now
        slot = ProfileSlot(profile, provider, known.breaker)
        if self.router.parked(profile.name) is not None:
            self.unpark(profile.name, "settings_changed")
        return slot

    def reconnect(self, name: str) -> None:
        """The address of a profile has moved though its settings have not: the next call goes there."""
        if (slot := self.slots.get(name)) is not None:
            slot.provider = self._connect(slot.profile, self.settings)

    # --- one profile

    def slot(self, name: str) -> ProfileSlot:
        """The slot of a profile.

        Raises:
            UsageError: there is none of this name.
        """
        if name not in self.slots:
            raise errors.UsageError(
                problem=f"no profile {name!r}",
                field="profile",
                nearest=nearest(name, self.slots),
                remedy="`%tundra providers` lists them.",
            )
        return self.slots[name]

    def state(self, name: str) -> State:
        """In one word whether a profile would be asked now."""
        slot = self.slots[name]
        unavailable = self.unavailable(name)
        if not slot.profile.enabled:
            return "disabled"
        if isinstance(unavailable, errors.RateLimited):
            return "cooling"
        if unavailable is not None:
            return "parked"
        return "breaker_open" if slot.breaker.state == "open" else "ready"

    def unavailable(self, name: str) -> errors.TundraError | None:
        """Why a profile would be passed over now: its key is missing, it is parked, or it cools."""
        return self.refusal(self.slots[name].profile)

    def refusal(self, profile: ProfileSettings) -> errors.TundraError | None:
        """The same, of a profile as a call knows it."""
        variable = profile.api_key_env
        if variable and self.keys.get(variable) is None:
            return errors.KeyMissing(profile=profile.name, variable=variable)
        return self.router.unavailable(profile.name)

    def path(self, slot: ProfileSlot, caller: Caller) -> Path:
        """The limiter path of a caller on a profile."""
        path = slot.paths.get(caller)
        if path is None:
            if len(slot.paths) >= USERS_KEPT:
                slot.paths.clear()
            path = slot.paths[caller] = self.limiter.path(limits_for(self.settings, slot.profile, caller))
        return path

    # --- parked

    def park(self, name: str, error: errors.TundraError) -> None:
        """Take a profile out until its settings change or it is rechecked; the history keeps the reason."""
        if self.router.parked(name) is not None or name not in self.slots:
            return
        self.router.park(name, error)
        slot = self.slots[name]
        self.journal.parked(
            name,
            slot.breaker.state,
            slot.breaker.failures,
            reason=error.reason,
            error=error,
            settings=fingerprint(slot.profile),
        )

    def unpark(self, name: str, reason: str) -> None:
        """Take a profile back in, parked or cooling."""
        was_parked = self.router.parked(name) is not None
        self.router.unpark(name)
        self.limiter.pardon("profile", name, "requests")
        if was_parked:
            slot = self.slots[name]
            self.journal.parked(name, slot.breaker.state, slot.breaker.failures, reason=reason, error=None)

    async def recheck(self, name: str) -> dict[str, Any]:
        """Ask a profile's provider for its models, and take the profile back in when it answers.

        Raises:
            TundraError: what is still wrong; the profile stays, or becomes, parked when that is what the error means.
        """
        slot = self.slot(name)
        if slot.profile.api_key_env and self.keys.get(slot.profile.api_key_env) is None:
            raise errors.KeyMissing(profile=name, variable=slot.profile.api_key_env)
        try:
            models = await slot.provider.models(refresh=True)
        except errors.TundraError as error:
            if error.parks:
                self.park(name, error)
            raise
        self.unpark(name, "rechecked")
        return {"profile": name, "available": True, "models": len(models)}

    async def test(self, name: str) -> dict[str, Any]:
        """Ask a profile's provider for its models, and tell what came of it and how long it took; nothing changes.

        Returns:
            `profile`, `ok`, `latency_ms`, and `models` (their number) or `code`, `message` and `hint`.
        """
        slot = self.slot(name)
        began = self.clock.monotonic()
        told: dict[str, Any]
        try:
            if slot.profile.api_key_env and self.keys.get(slot.profile.api_key_env) is None:
                raise errors.KeyMissing(profile=name, variable=slot.profile.api_key_env)
            models = await slot.provider.models(refresh=True)
            told = {"models": len(models)}
        except errors.TundraError as error:
            told = {"code": error.code, "message": str(error), "hint": error.hint}
        took = (self.clock.monotonic() - began) * 1000
        return {"profile": name, "ok": "models" in told, "latency_ms": round(took, 3), **told}

    # --- keys

    def key_users(self) -> dict[str, list[str]]:
        """Names of profiles by the variable of their key."""
        users: dict[str, list[str]] = {}
        for slot in self.slots.values():
            if slot.profile.api_key_env:
                users.setdefault(slot.profile.api_key_env, []).append(slot.profile.name)
        return users

    def offer(self, values: Mapping[str, str]) -> None:
        """Take keys into memory, and profiles whose key is a new one back in.

        Raises:
            UsageError: no profile names one of the variables; none is taken then.
        """
        users = self.key_users()
        for variable in values:
            if variable not in users:
                raise errors.UsageError(
                    problem=f"no profile names the variable {variable}",
                    field=variable,
                    nearest=nearest(variable, users),
                )
        for variable, value in values.items():
            if self.keys.offer(variable, value):
                for name in users[variable]:
                    self.unpark(name, "key offered")

    # --- what is told

    async def models(self, names: Iterable[str]) -> list[dict[str, Any]]:
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

    def limit_rows(self, user: str) -> list[dict[str, Any]]:
        """Our buckets, those of `user` in any case, and beside them what each provider last told of its own."""
        for slot in self.slots.values():  # a bucket that nobody has used yet is there all the same
            self.path(slot, Caller(user))
        rows: list[dict[str, Any]] = [
            {
                "owner": "tundra",
                "scope": level.scope,
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

    # --- after a restart

    async def restore(self, history: History) -> None:
        """Read back open deadlines and parked profiles from the history of before."""
        began = self.clock.now_us()
        for name, slot in list(self.slots.items()):
            query = FrameQuery(
                table="breaker_event",
                until_us=began,
                where=[Condition("profile", "eq", name), *history.own],
                newest_first=True,
                limit=RESTORE_ROWS,
            )
            self.take_up(slot, await self._read_patiently(history, query))

    async def _read_patiently(self, history: History, query: FrameQuery) -> list[dict[str, Any]]:
        """Rows of the history, however long it takes until the store can give them."""
        pause = RESTORE_PAUSE_SECONDS
        while True:
            try:
                return await history.rows(query)
            except errors.TundraError as error:
                _log.warning("breakers start closed, their last states cannot be read yet: %s", error)
            await self.clock.sleep(pause)
            pause = min(2 * pause, RESTORE_PAUSE_CAP_SECONDS)

    def take_up(self, slot: ProfileSlot, rows: list[dict[str, Any]]) -> None:
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


def fingerprint(profile: ProfileSettings) -> str:
    """Changes whenever a setting of the profile does: a profile that was parked under others is not parked now."""
    return hashlib.sha256(msgspec.json.encode(profile, order="sorted")).hexdigest()[:16]


def way(profile: ProfileSettings) -> dict[str, Any]:
    """The settings of a profile that say how its provider is reached."""
    return {name: value for name, value in msgspec.structs.asdict(profile).items() if name not in NOT_THE_WAY}
