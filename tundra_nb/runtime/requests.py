"""What an operation carries out: one interface over an `Ask` and whatever else is asked.

Limiter, breaker, router, budget and rows know a request by this interface only, so that every way in is protected and
written down by the same code. A request says whom it may be served by and what it is reckoned to need, and makes one
attempt at one profile; everything between attempts is the operation's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from tundra_nb.errors import TundraError
from tundra_nb.runtime.profiles import ProfileSlot
from tundra_nb.runtime.providers.check import AskSize, check_ask
from tundra_nb.runtime.providers.contract import Answer, Deliver, Seen
from tundra_nb.runtime.providers.remarks import remarks
from tundra_nb.runtime.reserve import BYTES_PER_TOKEN, MOST_TOKENS_PER_BYTE, estimate_tokens
from tundra_nb.runtime.resilience.router import Router, vendor
from tundra_nb.runtime.rows import CallFacts, Entry, Reported
from tundra_nb.settings import ProfileSettings
from tundra_nb.types import Ask


class Request(Reported, Protocol):
    """One thing to be carried out."""

    @property
    def failover(self) -> bool:
        """False: the first candidate's failure is the answer."""
        ...

    @property
    def tokens(self) -> int:
        """Tokens to reserve, input and output."""
        ...

    def most_tokens(self, context: int) -> tuple[int, int | None]:
        """Most tokens that an attempt can be billed for, read and written; None: nobody bounds what is written.

        Args:
            context: size of the model's context in tokens, which bounds what is read.
        """
        ...

    def limit_output(self, tokens: int) -> None:
        """Let the answers of later attempts have so many tokens at most, where the caller sets no bound."""
        ...

    def check(self) -> None:
        """Refuse what is wrong in itself, before anybody is asked.

        Raises:
            UsageError: what, and in which field.
        """
        ...

    def candidates(self, router: Router) -> list[ProfileSettings]:
        """Whom to ask, in order.

        Raises:
            UsageError: a profile was named that there is not.
        """
        ...

    def model(self, profile: ProfileSettings) -> str | None:
        """The model to ask of a candidate; None when it is to be chosen from the provider's list."""
        ...

    async def unable(self, slot: ProfileSlot) -> TundraError | None:
        """Why a candidate cannot carry this out, whatever state it is in; None when it can."""
        ...

    async def attempt(self, slot: ProfileSlot, model: str, entry: Entry, deliver: Deliver, *, record: bool) -> Answer:
        """Ask once: deliver the pieces of the answer as they arrive, and give the whole. It fills `entry.seen`.

        Raises:
            TundraError: what went wrong, as the outcome table has it.
        """
        ...


def _form(profile: ProfileSettings) -> tuple[str, str]:
    """Whose form a profile is asked in, and who gets the text."""
    return profile.kind, vendor(profile)


class Asked:
    """An `Ask` of our own client."""

    way: str | None = None

    def __init__(self, ask: Ask, trace: tuple[str | None, str | None] = (None, None)) -> None:
        self._ask = ask
        self._kept_back: tuple[str, ...] = ()
        self._seen = Seen()
        self._size: AskSize | None = None
        self._first: ProfileSettings | None = None
        self.facts = CallFacts(
            requested_model=ask.model,
            caller=ask.caller,
            streamed=ask.stream,
            run_id=int(ask.run_id) if ask.run_id and ask.run_id.isdecimal() else None,
            record=ask.record,
            trace_id=trace[0],
            parent_span_id=trace[1],
        )
        self.failover = ask.failover

    @property
    def tokens(self) -> int:
        return estimate_tokens(self._ask)

    def most_tokens(self, context: int) -> tuple[int, int | None]:
        return min(MOST_TOKENS_PER_BYTE * BYTES_PER_TOKEN * self.tokens, context), self._ask.max_tokens

    def limit_output(self, tokens: int) -> None:
        self._ask = msgspec.structs.replace(self._ask, max_tokens=tokens)

    def check(self) -> None:
        self._size = check_ask(self._ask)

    def candidates(self, router: Router) -> list[ProfileSettings]:
        found = router.candidates(self._ask.profile, failover=self._ask.failover)
        self._first = found[0] if found else None
        return found

    def model(self, profile: ProfileSettings) -> str | None:
        """The model to ask of a profile.

        A model that the caller named is asked of the first candidate and of others of the same kind; another vendor
        would not know it, so there the profile's own model is.
        """
        if self._ask.model and (self._first is None or profile.kind == self._first.kind):
            return self._ask.model
        return profile.model or None

    async def unable(self, slot: ProfileSlot) -> TundraError | None:  # noqa: ARG002 - an attempt tells
        return None

    @property
    def dropped(self) -> Sequence[str]:
        return (*self._kept_back, *self._seen.dropped)

    def remarks(self, answer: Answer) -> list[str]:
        told = remarks(self._ask, answer)
        return [*told, f"not sent: {', '.join(self.dropped)}"] if self.dropped else told

    async def attempt(self, slot: ProfileSlot, model: str, entry: Entry, deliver: Deliver, *, record: bool) -> Answer:
        ask, self._seen = self._ask, entry.seen
        self._kept_back = ()
        if ask.extra and self._first is not None and _form(slot.profile) != _form(self._first):
            # fields of one vendor's own body: another would refuse them, and they are no business of its
            self._kept_back = tuple(f"extra.{name}" for name in ask.extra)
            ask = msgspec.structs.replace(ask, extra=None)
        return await slot.provider.attempt(ask, model, entry.seen, deliver, record=record, size=self._size)
