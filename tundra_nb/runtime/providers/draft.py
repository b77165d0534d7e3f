"""What has been read of an answer so far, whatever its form.

Everything is kept in lists and joined once, so that an answer of any length costs time in proportion to it.
"""

from __future__ import annotations

import hashlib
from typing import Any

from tundra_nb.errors import ParseError
from tundra_nb.surrogates import Halves
from tundra_nb.types import ToolCall, Usage
from tundra_nb.types.pieces import Piece, Reasoning, Text, ToolCallPiece

from .contract import Answer
from .lenient import NotJsonError, amount, loads

_NOTHING = "{}"


class CallDraft:
    """One tool call under way."""

    __slots__ = ("arguments", "given_id", "halves", "id", "index", "is_held", "name", "place", "shares_id")

    def __init__(self, place: int, index: int | None) -> None:
        self.place = place
        self.index = index
        """The provider's own number."""
        self.given_id = ""
        self.id = ""
        self.name = ""
        self.shares_id = False
        """An earlier call has its id already: it gets one of its own."""
        self.is_held = False
        """It began with an empty object, which means nothing if the arguments follow."""
        self.arguments: list[str] = []
        self.halves = Halves()


class Draft:
    """An answer under way. Each method that adds something returns the pieces to pass on."""

    def __init__(self, profile: str) -> None:
        self._profile = profile
        self.model = ""
        self.id = ""
        self.stop = ""
        self.usage: dict[str, Any] = {}
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._text_halves = Halves()
        self._reasoning_halves = Halves()
        self._calls: list[CallDraft] = []
        self._by_index: dict[int, CallDraft] = {}
        self._by_id: dict[str, CallDraft] = {}
        """The latest call of each id."""

    @property
    def text(self) -> str:
        return "".join(self._text)

    @property
    def has_text(self) -> bool:
        return bool(self._text)

    @property
    def has_reasoning(self) -> bool:
        return bool(self._reasoning)

    @property
    def has_calls(self) -> bool:
        return bool(self._calls)

    def say(self, text: str) -> list[Piece]:
        """Add text."""
        text = self._text_halves.join(text)
        if not text:
            return []
        self._text.append(text)
        return [Text(text)]

    def think(self, text: str) -> list[Piece]:
        """Add reasoning."""
        text = self._reasoning_halves.join(text)
        if not text:
            return []
        self._reasoning.append(text)
        return [Reasoning(text)]

    def begin_call(self, index: int | None, given_id: str, name: str) -> CallDraft:
        """A new tool call, in a form that says where one begins."""
        call = CallDraft(len(self._calls), index)
        call.given_id, call.name = given_id, name
        call.shares_id = given_id in self._by_id
        self._calls.append(call)
        if given_id:
            self._by_id[given_id] = call
        if index is not None:
            self._by_index[index] = call
        return call

    def call(self, index: int | None, given_id: str, name: str, arguments: str, *, apart: bool = False) -> list[Piece]:
        """Add a piece of a tool call, in a form that leaves open where one begins.

        Servers number and name the pieces of a call in many ways. A new call begins where a different, non-empty id
        comes with a name, or a name alone that fits no call; an empty id is none; the number alone decides only what
        is left open.

        Args:
            index: the server's number of the call; None when it gives none.
            given_id: empty when it gives none.
            name: of the function; empty in later pieces.
            arguments: a part of their JSON text.
            apart: another piece in the same chunk has this number already: they are two calls.

        Raises:
            ParseError: the piece belongs to no call.
        """
        call = self._place(index, given_id, name, apart=apart)
        if call is not None and name and call.name and _is_object(arguments) and _is_object("".join(call.arguments)):
            if "".join(call.arguments) == arguments or (given_id and arguments.strip() == _NOTHING):  # said again
                return []
            call = None
        if call is None:
            if not (given_id or name or index is not None):
                if not arguments:
                    return []
                raise ParseError(profile=self._profile, problem="a piece of a tool call belongs to none")
            call = self.begin_call(index, given_id, name)
            return self.more(call, arguments, starts=bool(name))
        if index is not None:
            self._by_index[index] = call
            if call.index is None:
                call.index = index
        if given_id and not call.given_id:
            call.given_id = given_id
            self._by_id[given_id] = call
        starts = bool(name) and not call.name
        call.name = call.name or name
        return self.more(call, arguments, starts=starts)

    def _place(self, index: int | None, given_id: str, name: str, *, apart: bool) -> CallDraft | None:
        """The call that a piece goes on with; None when it begins a new one."""
        at_index = self._by_index.get(index) if index is not None else None
        last = self._calls[-1] if self._calls else None
        if name and apart:
            return None
        if given_id:
            known = self._by_id.get(given_id)
            if known is not None:
                same_place = index is None or known.index is None or known.index == index
                return known if not name or (name == known.name and same_place) or not known.name else None
            if name:
                pending = at_index if index is not None else last
                return pending if pending is not None and not pending.name and not pending.given_id else None
            if index is not None:
                return at_index or self._unnumbered(index)
            return last
        if name:
            if index is not None:
                return at_index if at_index is not None and at_index.name in ("", name) else None
            return last if last is not None and not last.name else None
        if index is not None:
            return at_index or self._unnumbered(index)
        return last

    def _unnumbered(self, index: int) -> CallDraft | None:
        """The call that a number met for the first time means: one that began without a number."""
        if 0 <= index < len(self._calls) and self._calls[index].index is None:
            return self._calls[index]
        last = self._calls[-1] if self._calls else None
        return last if last is not None and last.index is None else None

    def more(self, call: CallDraft, arguments: str, *, starts: bool = False) -> list[Piece]:
        """Add to the arguments of a call; `starts` when its id and name have just become known."""
        arguments = call.halves.join(arguments)
        if not call.arguments and arguments.strip() == _NOTHING:
            call.is_held, arguments = True, ""
        if arguments:
            call.arguments.append(arguments)
        if starts:
            call.id = call.given_id if call.given_id and not call.shares_id else self._made_up(call)
            return [ToolCallPiece(call.place, call.id, call.name, "".join(call.arguments))]
        if not arguments or not call.name:  # nameless as yet: its pieces are given together with its name
            return []
        return [ToolCallPiece(call.place, arguments=arguments)]

    def _made_up(self, call: CallDraft) -> str:
        """An id for a call that came without one: its result must name it."""
        told = f"{self.id}/{call.place}/{call.name}"
        return "call_" + hashlib.blake2b(told.encode(), digest_size=9).hexdigest()

    def count(self, told: Any) -> None:
        """Take counts. Later ones replace earlier ones, but nothing and zero replace no count."""
        if isinstance(told, dict):
            _merge(self.usage, told)

    def flush(self) -> list[Piece]:
        """The answer is over: what was held back."""
        text, reasoning = self._text_halves.rest(), self._reasoning_halves.rest()
        pieces = (self.think(reasoning) if reasoning else []) + (self.say(text) if text else [])
        for call in self._calls:
            if call.is_held and not call.arguments and call.name:
                call.arguments.append(_NOTHING)
                pieces.append(ToolCallPiece(call.place, arguments=_NOTHING))
        return pieces

    def answer(self, asked: str, usage: Usage, stop: str | None, cost_usd: float | None = None) -> Answer:
        """The whole answer.

        Raises:
            ParseError: a tool call has no name.
        """
        self.flush()
        calls = []
        for call in self._calls:
            rest = call.halves.rest()
            arguments = "".join(call.arguments) + rest
            if not call.name:
                if not arguments and not call.given_id:
                    continue
                raise ParseError(profile=self._profile, problem="a tool call names no function")
            calls.append(ToolCall(id=call.id, name=call.name, arguments=arguments if arguments.strip() else "{}"))
        return Answer(
            text=self.text,
            reasoning="".join(self._reasoning),
            model=self.model or asked,
            usage=usage,
            stop_reason=stop,
            tool_calls=tuple(calls),
            request_id=self.id or None,
            cost_usd=cost_usd,
        )


def _is_object(arguments: str) -> bool:
    """Whether a call's arguments are there in full."""
    if not (arguments.startswith("{") and arguments.rstrip().endswith("}")):
        return False
    try:
        return isinstance(loads(arguments.encode()), dict)
    except NotJsonError:
        return False


def _merge(old: dict[str, Any], new: dict[str, Any]) -> None:
    for name, value in new.items():
        kept = old.get(name)
        if isinstance(value, dict):
            if not isinstance(kept, dict):
                kept = old[name] = {}
            _merge(kept, value)
        elif value is not None and (kept is None or amount(value) or not amount(kept)):
            old[name] = value
