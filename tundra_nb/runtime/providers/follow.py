"""Who reads along while an answer is passed on: for usage, errors and the end mark, whatever the form."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from tundra_nb.errors import ParseError
from tundra_nb.types import Usage

from . import usage
from .contract import Answer, StreamReader, WireFormat


class Follower(StreamReader, Protocol):
    """Reads one answer of a form, streamed or whole."""

    def whole(self, body: bytes) -> Answer:
        """Read an unstreamed answer.

        Raises:
            TundraError: it is an error in spite of the status 200, or cannot be read.
        """
        ...


def follower(form: str, wire: WireFormat, model: str) -> Follower:
    """Who follows the answers of a form. The provider behind `wire` speaks it."""
    if form in ("chat", "messages"):
        return _Chat(wire, model)
    return _Counted(wire, model)


class _Chat:
    """The two forms that the provider's own adapter reads."""

    def __init__(self, wire: WireFormat, model: str) -> None:
        self._wire = wire
        self._model = model
        reader = wire.reader(model)
        self._reader = reader
        self.feed = reader.feed
        self.flush = reader.flush
        self.finish = reader.finish

    @property
    def done(self) -> bool:
        return self._reader.done

    def whole(self, body: bytes) -> Answer:
        return self._wire.answer(self._model, body)


class _Counted:
    """Answers that hold no text: embeddings, token counts. They are never streamed."""

    def __init__(self, wire: WireFormat, model: str) -> None:
        self._wire = wire
        self._model = model

    done = False

    def feed(self, event: str, data: bytes) -> tuple[()]:  # noqa: ARG002 - nothing is read from it
        return ()

    def flush(self) -> tuple[()]:
        return ()

    def finish(self) -> Answer:
        raise ParseError(profile="", problem="a stream came where a document was asked for")

    def whole(self, body: bytes) -> Answer:
        try:
            told: Any = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise self._wire.error(self._model, 502, None, b"") from exc
        if not isinstance(told, dict) or told.get("error"):
            raise self._wire.error(self._model, 200, None, body)
        counted = usage.from_openai(told.get("usage"))
        if isinstance(told.get("input_tokens"), int):
            counted = Usage()  # a count is no use of tokens
        model = told.get("model")
        return Answer(text="", model=model if isinstance(model, str) else self._model, usage=counted)
