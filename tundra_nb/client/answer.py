"""Reads the event stream of an answer; the two reply streams share it. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import msgspec

from tundra_nb.errors import IpcError, NoProfile, from_wire
from tundra_nb.types import Reply
from tundra_nb.types.pieces import Piece, Reasoning, Text, ToolCallPiece

from .keys_here import keys_here


class Event(NamedTuple):
    """One event of a stream of the daemon; `data` is JSON."""

    name: str
    data: bytes


_PIECES: dict[str, Callable[[bytes], Piece]] = {
    "text": msgspec.json.Decoder(Text).decode,
    "reasoning": msgspec.json.Decoder(Reasoning).decode,
    "tool_call": msgspec.json.Decoder(ToolCallPiece).decode,
}


class AnswerReader:
    """Takes events, gives pieces of the answer; afterwards it holds the reply.

    `notices` are the daemon's words on waits, retries and failovers, in order: mappings with `kind` and `message`.
    """

    def __init__(self) -> None:
        self.reply: Reply | None = None
        self.notices: list[dict[str, Any]] = []
        self._text: list[str] = []
        self._reasoning: list[str] = []

    @property
    def is_done(self) -> bool:
        return self.reply is not None

    def take(self, event: Event) -> Piece | None:
        """Take one event; return the piece it adds.

        Raises:
            TundraError: the operation failed; the same class as in the daemon.
        """
        match event.name:
            case "text" | "reasoning" | "tool_call":
                try:
                    piece = _PIECES[event.name](event.data)
                except msgspec.DecodeError as exc:
                    raise malformed(exc) from exc
                if isinstance(piece, Text):
                    self._text.append(piece.text)
                elif isinstance(piece, Reasoning):
                    self._reasoning.append(piece.text)
                return piece
            case "notice":
                self.notices.append(self._json(event))
            case "reply":
                try:
                    reply = msgspec.json.decode(event.data, type=Reply)
                except msgspec.DecodeError as exc:
                    raise malformed(exc) from exc
                # a long text is not sent twice: it is what the pieces make
                text, reasoning = reply.text or "".join(self._text), reply.reasoning or "".join(self._reasoning)
                self.reply = msgspec.structs.replace(reply, text=text, reasoning=reasoning)
            case "error":
                error = from_wire(self._json(event))
                if isinstance(error, NoProfile):
                    error.keys = keys_here()
                raise error
        return None  # other events are of a newer daemon

    def ended(self) -> None:
        """The stream is over.

        Raises:
            IpcError: before its reply: the daemon died.
        """
        if not self.is_done:
            raise died()

    def _json(self, event: Event) -> dict[str, Any]:
        try:
            found = msgspec.json.decode(event.data, type=dict[str, Any])
        except msgspec.DecodeError as exc:
            raise malformed(exc) from exc
        return found


def malformed(exc: Exception) -> IpcError:
    """What came is no stream of events that we know."""
    return IpcError(kind="malformed", problem=f"the daemon's event stream cannot be read: {exc}")


def died() -> IpcError:
    """The connection broke before the answer was whole."""
    return IpcError(
        kind="died",
        problem="the daemon went away in the middle of the call",
        remedy="The next call starts the daemon again; if this one had begun, `%tundra calls` shows it as interrupted.",
    )


def not_yet(what: str) -> NoReturn:
    """Refuse a look at a result before its stream has ended."""
    raise AttributeError(f"the {what} is there once the stream has been read to its end")
