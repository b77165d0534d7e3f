"""Which profiles may serve a call, by the model's name that a program sent.

In this order: a profile's name · exactly a model that an allowed profile asks or lists · an alias of `gateway.models` ·
`profile/model` · `auto`. Those that know the model come first, by priority; the others follow with their own model,
unless failover is off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal

from tundra_nb import errors
from tundra_nb.nearest import nearest
from tundra_nb.runtime.caller import Caller
from tundra_nb.runtime.profiles import Profiles, ProfileSlot
from tundra_nb.runtime.relayed import Choice
from tundra_nb.runtime.resilience.router import vendor
from tundra_nb.settings.model import AUTO

LISTS_SECONDS = 5.0
"""How long the model lists may take, when a name is looked for in them."""
LISTS_PAUSE_SECONDS = 30.0
"""Lists that could not be had are asked for again no sooner, or each call with a wrong name would wait for them."""
MOST_ALIASES = 8

Failover = Literal["any", "same-vendor", "off"]


class Choosing:
    """Reads names of models. It remembers which lists could not be had a moment ago."""

    def __init__(self, profiles: Profiles) -> None:
        self._profiles = profiles
        self._not_before: dict[str, float] = {}

    def allowed(self, caller: Caller) -> list[ProfileSlot]:
        """The profiles that a caller may be served by, by priority."""
        order = self._profiles.router.candidates()
        names = caller.profiles
        return [
            self._profiles.slots[profile.name]
            for profile in order
            if profile.name in self._profiles.slots and (not names or profile.name in names)
        ]

    async def choose(self, name: str, caller: Caller, failover: Failover) -> list[Choice]:
        """Whom to ask, in order.

        Raises:
            Unsupported: nobody knows the model; names the nearest.
            UsageError: no profile may serve this caller.
        """
        slots = self.allowed(caller)
        if not slots:
            raise errors.UsageError(
                problem="no profile is set up that may serve this call",
                field="model",
                remedy="`%tundra providers` lists the profiles, `%tundra token list` what a token may use.",
            )
        first = await self._first(name, slots)
        chosen = {choice.profile.name for choice in first}
        choices = first + [Choice(slot.profile) for slot in slots if slot.profile.name not in chosen]
        if failover == "off":
            return choices[:1]
        if failover == "same-vendor" or self._profiles.settings.router.failover == "same-vendor":
            own = vendor(choices[0].profile)
            choices = [choice for choice in choices if vendor(choice.profile) == own]
        return choices

    async def _first(self, name: str, slots: Sequence[ProfileSlot]) -> list[Choice]:
        aliases = self._profiles.settings.gateway.models
        for _ in range(MOST_ALIASES):
            if found := self._known(name, slots):
                return found
            if name == AUTO:
                return []
            if name not in aliases and await self._read_lists(slots) and (found := self._known(name, slots)):
                return found
            if name in aliases:
                name = aliases[name]
                continue
            break
        profile, slash, model = name.partition("/")
        if slash and model:
            for slot in slots:
                if slot.profile.name == profile:
                    return [Choice(slot.profile, model)]
        known = {slot.profile.name for slot in slots} | set(aliases) | {AUTO}
        for slot in slots:
            known |= slot.provider.known_models
            known |= {slot.profile.model} - {""}
        raise errors.Unsupported(
            profile="gateway",
            kind="model",
            model=name,
            nearest=nearest(name, known),
            detail=f"there are {', '.join(sorted(known)[:20])}",
        )

    @staticmethod
    def _known(name: str, slots: Sequence[ProfileSlot]) -> list[Choice]:
        for slot in slots:
            if slot.profile.name == name:
                return [Choice(slot.profile)]
        return [
            Choice(slot.profile, name)
            for slot in slots
            if name in (slot.profile.model, slot.provider.chosen_model) or name in slot.provider.known_models
        ]

    async def _read_lists(self, slots: Sequence[ProfileSlot]) -> bool:
        """Have the lists that are not known yet; whether any came."""
        now = self._profiles.clock.monotonic()
        wanted = [
            slot
            for slot in slots
            if not slot.provider.known_models and self._not_before.get(slot.profile.name, now) <= now
        ]
        if not wanted:
            return False
        return any(await asyncio.gather(*(self.read_list(slot) for slot in wanted)))

    async def read_list(self, slot: ProfileSlot) -> bool:
        """Have the model list of one profile; whether it came."""
        try:
            async with asyncio.timeout(LISTS_SECONDS):
                await slot.provider.models()
        except (errors.TundraError, TimeoutError):
            self._not_before[slot.profile.name] = self._profiles.clock.monotonic() + LISTS_PAUSE_SECONDS
            return False
        return True
