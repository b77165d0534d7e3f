"""A program's own body as a request: relayed where the provider speaks its form, else translated.

Whom it may be served by has been decided by whoever made it (`Choice`): the gateway reads the model's name. Here stands
what must not cross: a signature, encrypted reasoning or the id of an earlier response means something to the vendor
that made it only, so other vendors' profiles are passed by, and say why; and so is a profile of the other form that has
no words for a field.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from tundra_nb.errors import ApiError, ParseError, TundraError, Unsupported
from tundra_nb.runtime.apart import apart
from tundra_nb.runtime.profiles import ProfileSlot
from tundra_nb.runtime.providers import bodies
from tundra_nb.runtime.providers.callers import FORMS, Question
from tundra_nb.runtime.providers.check import BIG_BYTES, AskSize
from tundra_nb.runtime.providers.contract import Answer, Deliver
from tundra_nb.runtime.providers.provider import pieces_of
from tundra_nb.runtime.providers.relay import END, CallerBody, Refusal, relay, speaks
from tundra_nb.runtime.reserve import BYTES_PER_TOKEN, DEFAULT_OUTPUT_TOKENS, FRAME_TOKENS, MOST_TOKENS_PER_BYTE
from tundra_nb.runtime.resilience.router import Router, vendor
from tundra_nb.runtime.rows import CallFacts, Entry
from tundra_nb.settings import ProfileSettings
from tundra_nb.types.pieces import Piece, Raw

WITHOUT_OUTPUT = frozenset({"embeddings", "count_tokens"})
NO_SUCH_PATH = frozenset({404, 405, 501})
REWRITTEN = frozenset({"chat", "messages"})
"""Forms in which an answer may be written anew. A response is known to its maker by the id that stands in it."""
LIMIT_OF = {"responses": "max_output_tokens"}
"""The field that bounds an answer, where it is not `max_tokens`."""
_BY_ADDRESS = re.compile(rb'"(?:url|image_url|file_url|file_id|server_url)"\s*:\s*"(?!data:)')


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
        max_tokens: most output tokens, where the body says so.
        stays: the fields in it that mean something to one vendor only; () when there are none.
    """

    def __init__(
        self,
        given: CallerBody,
        facts: CallFacts,
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
        self.operation_id = ""
        """Set once the operation is open: a translated answer is named after it."""
        self._choices = choices
        self._stays = tuple(stays)
        self._read: Question | TundraError | None = None
        self._max_tokens = 0 if given.form in WITHOUT_OUTPUT else max_tokens
        self.limited: int | None = None
        """Output tokens at most that were put in for a budget, because the caller set no limit."""

    @property
    def tokens(self) -> int:
        written = DEFAULT_OUTPUT_TOKENS if self._max_tokens is None else self._max_tokens
        return math.ceil(len(self.given.body) / BYTES_PER_TOKEN) + written

    def most_tokens(self, context: int) -> tuple[int, int | None]:
        written = self._max_tokens
        if written is not None and self.given.form == "chat":
            written *= max(bodies.value(self.given.members, "n", int) or 1, 1)
        own = MOST_TOKENS_PER_BYTE * len(self.given.body) + FRAME_TOKENS
        return (context if reads_more(self.given) else min(own, context)), written

    def limit_output(self, tokens: int) -> None:
        self.limited = tokens

    def check(self) -> None:
        """Nothing: the body is the provider's to judge."""

    def candidates(self, router: Router) -> list[ProfileSettings]:  # noqa: ARG002 - they have been chosen
        return [choice.profile for choice in self._choices]

    def model(self, profile: ProfileSettings) -> str | None:
        named = next((choice.model for choice in self._choices if choice.profile.name == profile.name), None)
        return named or profile.model or None

    async def unable(self, slot: ProfileSlot) -> TundraError | None:
        profile = slot.profile
        if self._stays and vendor(profile) != vendor(self._choices[0].profile):
            return self._bound(profile.name)
        if self._is_relayed(slot):
            return None
        question = await self._question(profile.name)
        return question if isinstance(question, TundraError) else None

    def remarks(self, answer: Answer) -> list[str]:  # noqa: ARG002 - a program reads its answer itself
        return []

    async def attempt(self, slot: ProfileSlot, model: str, entry: Entry, deliver: Deliver, *, record: bool) -> Answer:
        self.entry = entry
        if self._is_relayed(slot):
            self.way, self.dropped = "relayed", ()
            try:
                given = self._limited(slot.profile)
                written = self._written(entry) if given.form in REWRITTEN else None
                return await relay(
                    slot.provider, given, model, entry.seen, self.refusals, deliver, record=record, written=written
                )
            except (ApiError, ParseError, Unsupported) as error:
                # many a local server speaks chat completions only, and says so by knowing no other path
                if self.given.form in REWRITTEN or entry.seen.status not in NO_SUCH_PATH:
                    raise
                if self.given.form in WITHOUT_OUTPUT and isinstance(error, Unsupported):
                    raise  # the path is there, the model is not
        question = await self._question(slot.profile.name)
        if isinstance(question, TundraError):
            raise question
        self.way, self.dropped = "translated", question.dropped
        answer = await self._translated(question, slot, model, entry, deliver, record=record)
        if speaks(slot.provider, self.given.form):
            slot.provider.lacks.add(self.given.form)  # it knows the model, but not the path: asked this way from now on
        return answer

    async def _translated(
        self, question: Question, slot: ProfileSlot, model: str, entry: Entry, deliver: Deliver, *, record: bool
    ) -> Answer:
        form, ask = FORMS[self.given.form], question.ask
        if self.limited is not None:
            ask = msgspec.structs.replace(ask, max_tokens=self.limited)
        created = entry.at // 1_000_000
        writer = form.writer(
            operation_id=self.operation_id, created=created, model=model, include_usage=question.include_usage
        )

        async def written(piece: Piece) -> None:
            if ask.stream and (data := writer.piece(piece)):
                await deliver(Raw(data))

        size = AskSize(len(self.given.body), _images(ask.messages))
        answer = await slot.provider.attempt(ask, model, entry.seen, written, record=record, size=size)
        if ask.stream:
            rest = await apart(answer.length, lambda: writer.finish(answer))
        else:
            operation_id = self.operation_id
            rest = await apart(answer.length, lambda: form.answer(answer, operation_id=operation_id, created=created))
        await deliver(Raw(rest, END))
        return answer

    def _written(self, entry: Entry) -> Callable[[Answer], bytes]:
        form, created = FORMS[self.given.form], entry.at // 1_000_000
        if not self.given.is_streamed:
            return lambda answer: form.answer(answer, operation_id=self.operation_id, created=created)

        def stream(answer: Answer) -> bytes:
            writer = form.writer(
                operation_id=self.operation_id,
                created=created,
                model=answer.model,
                include_usage=self.given.shows_usage,
            )
            return b"".join([*(writer.piece(piece) for piece in pieces_of(answer)), writer.finish(answer)])

        return stream

    def _limited(self, profile: ProfileSettings) -> CallerBody:
        """What is passed on, with our limit of the answer where there is one."""
        if self.limited is None:
            return self.given
        name = LIMIT_OF.get(self.given.form, "max_tokens")
        if self.given.form == "chat" and profile.kind == "openai":
            name = "max_completion_tokens"  # the vendor's newer models refuse the other
        choices = max(bodies.value(self.given.members, "n", int) or 1, 1) if self.given.form == "chat" else 1
        most = max(self.limited // choices, 1)
        return msgspec.structs.replace(self.given, added={name: msgspec.json.encode(most)})

    def _is_relayed(self, slot: ProfileSlot) -> bool:
        return speaks(slot.provider, self.given.form) and self.given.form not in slot.provider.lacks

    async def _question(self, profile: str) -> Question | TundraError:
        """What the body asks in no vendor's form, or why that cannot be said; a big body is read in a thread."""
        if self._read is None:
            is_big = len(self.given.body) >= BIG_BYTES
            self._read = await asyncio.to_thread(self._said, profile) if is_big else self._said(profile)
        if isinstance(self._read, Unsupported):
            return Unsupported(**{**self._read.facts, "profile": profile})
        return self._read

    def _said(self, profile: str) -> Question | TundraError:
        form = FORMS.get(self.given.form)
        if form is None:
            detail = f"it does not speak the form of {self.given.form}, and there is no translation of that"
            return Unsupported(profile=profile, kind="form", detail=detail)
        if self._stays:
            return self._bound(profile)
        try:
            return form.read(bodies.decoded(self.given.members), profile)
        except TundraError as error:
            return error
        except (msgspec.DecodeError, RecursionError) as exc:
            return Unsupported(profile=profile, kind="field", detail=f"the body cannot be translated: {exc}")

    def _bound(self, profile: str) -> Unsupported:
        detail = f"{', '.join(self._stays)}: it means something to the vendor that made it only"
        return Unsupported(profile=profile, kind="field", detail=detail)


def reads_more(given: CallerBody) -> bool:
    """Whether a model reads more for this body than stands in it: what it names, or what the vendor's tools bring."""
    if any(bodies.value(given.members, name, Any) for name in ("previous_response_id", "conversation", "prompt")):
        return True
    tools = bodies.value(given.members, "tools", list[Any]) or []
    kinds = {tool.get("type") for tool in tools if isinstance(tool, dict)}
    return bool(kinds - {None, "function", "custom"}) or _BY_ADDRESS.search(given.body) is not None


def _images(messages: Iterable[dict[str, Any]]) -> int:
    parts = (message.get("content") for message in messages)
    return sum(part.get("type") == "image_url" for content in parts if isinstance(content, list) for part in content)
