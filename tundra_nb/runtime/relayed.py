"""A program's own body as a request: relayed where the provider speaks its form, else translated.

Whom it may be served by has been decided by whoever made it (`Choice`): the gateway reads the model's name. Here stands
what must not cross: a signature, encrypted reasoning or the id of an earlier response means something to the vendor
that made it only, so other vendors' profiles are passed by, and say why.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Sequence

import msgspec

from tundra_nb.errors import TundraError, Unsupported
from tundra_nb.runtime.profiles import ProfileSlot
from tundra_nb.runtime.providers.contract import Answer
from tundra_nb.runtime.providers.relay import Given, Refusal, relay, speaks
from tundra_nb.runtime.requests import Facts
from tundra_nb.runtime.reserve import BYTES_PER_TOKEN, DEFAULT_OUTPUT_TOKENS
from tundra_nb.runtime.resilience.router import Router, vendor
from tundra_nb.runtime.rows import Entry
from tundra_nb.settings import ProfileSettings
from tundra_nb.types.pieces import Piece

WITHOUT_OUTPUT = frozenset({"embeddings", "count_tokens"})


class Choice(msgspec.Struct, frozen=True):
    """A profile that may serve a call, and the model to ask there; None: the profile's own."""

    profile: ProfileSettings
    model: str | None = None


class Relayed:
    """One call of a program.

    Args:
        given: what it sent.
        facts: what the rows say of it.
        choices: whom to ask, in order.
        failover: False: only the first.
        stays: the fields in it that mean something to one vendor only; () when there are none.
    """

    def __init__(
        self,
        given: Given,
        facts: Facts,
        choices: Sequence[Choice],
        *,
        failover: bool,
        max_tokens: int | None = None,
        stays: Sequence[str] = (),
    ) -> None:
        self.given = given
        self.facts = facts
        self.failover = failover
        self.way: str | None = None
        self.dropped: tuple[str, ...] = ()
        self.refusals: list[Refusal] = []
        """Error answers as their providers wrote them, the last one last."""
        self.entry: Entry | None = None
        """The attempt under way, or the last one."""
        self._choices = choices
        self._stays = tuple(stays)
        self.output_tokens = 0 if given.form in WITHOUT_OUTPUT else max_tokens or DEFAULT_OUTPUT_TOKENS

    @property
    def tokens(self) -> int:
        return math.ceil(len(self.given.body) / BYTES_PER_TOKEN) + self.output_tokens

    def check(self) -> None:
        """Nothing: the body is the provider's to judge."""

    def candidates(self, router: Router) -> list[ProfileSettings]:  # noqa: ARG002 - they have been chosen
        return [choice.profile for choice in self._choices]

    def model(self, profile: ProfileSettings) -> str | None:
        named = next((choice.model for choice in self._choices if choice.profile.name == profile.name), None)
        return named or profile.model or None

    def unable(self, slot: ProfileSlot) -> TundraError | None:
        profile = slot.profile
        if self._stays and vendor(profile) != vendor(self._choices[0].profile):
            detail = f"{self._stays[0]}: it means something to the vendor that made it only"
            return Unsupported(profile=profile.name, kind="field", detail=detail)
        if not speaks(slot.provider, self.given.form):
            detail = f"it does not speak the form of {self.given.form}"
            return Unsupported(profile=profile.name, kind="form", detail=detail)
        return None

    def remarks(self, answer: Answer) -> list[str]:  # noqa: ARG002 - a program reads its answer itself
        return []

    def attempt(
        self, slot: ProfileSlot, model: str, entry: Entry, record: bool
    ) -> AsyncGenerator[Piece | Answer, None]:
        self.entry = entry
        self.way = "relayed"
        return relay(slot.provider, self.given, model, entry.seen, self.refusals, record=record)
