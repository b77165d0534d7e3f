"""What a caller's form is, and reading a request field by field so that none is lost in silence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import msgspec

from tundra_nb.errors import TundraError, Unsupported, UsageError
from tundra_nb.runtime.providers.contract import Answer
from tundra_nb.types import Ask
from tundra_nb.types.pieces import Piece

_encode = msgspec.json.Encoder().encode


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller's body asks, in no vendor's form."""

    ask: Ask
    dropped: tuple[str, ...] = ()
    """Fields that were left out because they change nothing of the answer."""
    include_usage: bool = True
    """Whether a streamed answer is to tell usage."""


class StreamWriter(Protocol):
    """Writes one streamed answer; every method returns whole frames, perhaps none."""

    def piece(self, piece: Piece) -> bytes:
        """Write a piece; the first one comes with the events that open the stream."""
        ...

    def finish(self, answer: Answer) -> bytes:
        """Write what is left, usage, and the end mark."""
        ...

    def fail(self, error: TundraError) -> bytes:
        """Write the error in the stream; the connection is to be cut after it."""
        ...


class CallerForm(Protocol):
    """One form in which programs ask."""

    vendor: str
    """Whose form it is: openai or anthropic."""

    def read(self, body: dict[str, Any], profile: str) -> Question:
        """Read a request.

        Args:
            body: the decoded JSON.
            profile: who is to be asked in another form; for errors.

        Raises:
            Unsupported: a field has no words in the other form; `detail` names it.
            UsageError: the request is wrong in itself.
        """
        ...

    def answer(self, answer: Answer, *, operation_id: str, created: int) -> bytes:
        """Write a whole answer."""
        ...

    def writer(self, *, operation_id: str, created: int, model: str, include_usage: bool) -> StreamWriter:
        """A writer for one streamed answer."""
        ...


class Fields:
    """The fields of one JSON object: each is taken, dropped, or refused in the end."""

    def __init__(self, body: Any, profile: str, where: str = "", dropped: list[str] | None = None) -> None:
        if not isinstance(body, Mapping):
            raise wrong(where or "body", "is no JSON object")
        self.profile = profile
        self.where = where
        self.dropped: list[str] = [] if dropped is None else dropped
        self._left = {name: value for name, value in body.items() if value is not None}

    def path(self, name: str) -> str:
        return f"{self.where}.{name}" if self.where else name

    def take(self, name: str, kind: type | tuple[type, ...] | None = None) -> Any:
        """Take a field; None when it is not there.

        Raises:
            UsageError: it is of another type.
        """
        value = self._left.pop(name, None)
        if value is None or kind is None:
            return value
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise wrong(self.path(name), f"is a {type(value).__name__}")
        return value

    def inside(self, name: str) -> Fields | None:
        """Take an object."""
        value = self.take(name)
        return None if value is None else Fields(value, self.profile, self.path(name), self.dropped)

    def drop(self, *names: str) -> None:
        """Leave fields out that change nothing of the answer; they are told."""
        for name in names:
            if self._left.pop(name, None) is not None:
                self.dropped.append(self.path(name))

    def same(self, name: str, *usual: Any) -> None:
        """Leave a field out that says what would be done anyhow."""
        if name in self._left and any(self._left[name] == value for value in usual):
            del self._left[name]

    def refuse(self, name: str, why: str = "it has no words in the other form") -> Unsupported:
        return Unsupported(profile=self.profile, kind="field", detail=f"{self.path(name)}: {why}")

    def done(self) -> None:
        """Nothing may be left.

        Raises:
            Unsupported: something is.
        """
        for name in self._left:
            raise self.refuse(name)


def wrong(field: str, problem: str) -> UsageError:
    return UsageError(problem=f"{field} {problem}", field=field, remedy="See the reference of the API that you call.")


def each(items: Any, fields: Fields, name: str) -> Iterable[tuple[str, Any]]:
    """The items of a list with their paths."""
    if not isinstance(items, list):
        raise wrong(fields.path(name), "is not a list")
    for index, item in enumerate(items):
        yield f"{fields.path(name)}[{index}]", item


def event(value: Any, name: str = "") -> bytes:
    """One server-sent event."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + _encode(value) + b"\n\n"


def encode(value: Any) -> bytes:
    return _encode(value)


class Order:
    """Writes an answer's parts one after the other, as forms want them whose parts may not be mixed.

    Text and reasoning are passed on as they come. The first tool call is too, and from then on whatever does not belong
    to it waits until the end, because nobody knows whether more of it will come.

    Args:
        open: writes the start of a part: its kind, its number, and the first piece.
        more: writes what a piece adds to the part that is open.
        close: writes the end of the part that is open.
    """

    def __init__(
        self,
        open: Callable[[str, Piece], bytes],  # noqa: A002 (with `close` its natural name)
        more: Callable[[Piece], bytes],
        close: Callable[[], bytes],
    ) -> None:
        self._write_open = open
        self._write_more = more
        self._write_close = close
        self._open: str | None = None
        self._waiting: dict[str, list[Piece]] = {}

    def piece(self, piece: Piece) -> bytes:
        key = key_of(piece)
        if self._open is not None and self._open.startswith("tool") and key != self._open:
            self._waiting.setdefault(key, []).append(piece)
            return b""
        return self._now(key, piece)

    def finish(self) -> bytes:
        written = []
        waiting, self._waiting = self._waiting, {}
        for key, pieces in waiting.items():
            written += [self._now(key, piece) for piece in pieces]
        written.append(self._end())
        return b"".join(written)

    def _now(self, key: str, piece: Piece) -> bytes:
        if key == self._open:
            return self._write_more(piece)
        ended = self._end()
        self._open = key
        return ended + self._write_open(key, piece) + self._write_more(piece)

    def _end(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        return self._write_close()


def key_of(piece: Piece) -> str:
    """Which part of the answer a piece belongs to."""
    index = getattr(piece, "index", None)
    return type(piece).__name__.lower() if index is None else f"tool {index}"
