"""Reading along while an answer is relayed: usage, errors, the end mark. What is read is passed on unchanged by others.

The readers of the two chat forms serve as they are; here are those of the forms that we relay and never ask in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from tundra_nb.errors import ParseError, TundraError
from tundra_nb.types import Usage
from tundra_nb.types.pieces import Piece

from . import classify, endings, events, usage
from .contract import Answer, StreamReader, Target, WireFormat
from .draft import CallDraft, Draft
from .lenient import NotJsonError, count, dumps, loads, word

_ENDS = frozenset({"response.completed", "response.incomplete"})
_TEXT = frozenset({"response.output_text.delta", "response.refusal.delta"})
_REASONING = frozenset({"response.reasoning_summary_text.delta", "response.reasoning_text.delta"})
_WHY = {"max_output_tokens": "length", "content_filter": "content_filter"}


class ResponsesReader:
    """Reads an answer in the form of Responses, streamed or whole."""

    def __init__(self, target: Target, model: str) -> None:
        self._target = target
        self._asked = model
        self.done = False
        self._begun = False
        self._draft = Draft(target.profile)
        self._calls: dict[str, CallDraft] = {}

    def feed(self, event: str, data: bytes) -> Sequence[Piece]:
        data = data.strip()
        if self.done or endings.is_mark(data) or events.is_filler(event, data):
            return ()
        try:
            told = loads(data)
        except NotJsonError as exc:
            if event == "error":
                raise self._error(classify.ErrorBody(message=data[:1000].decode("utf-8", "replace"))) from None
            raise self._unreadable(f"the answer cannot be read: {exc}") from exc
        if not isinstance(told, dict):
            raise self._unreadable("the answer is not of the form of Responses")
        kind = word(told.get("type")) or event
        if kind == "error" or event == "error" or (told.get("error") and kind not in _ENDS):
            raise self._error(classify.read(told, self._target.now()) or classify.said(told))
        self._begun = True
        response = told.get("response")
        if isinstance(response, dict):
            self._take_response(response)
            if kind == "response.failed":
                raise self._error(classify.read(response, self._target.now()) or classify.said(response))
            self.done = kind in _ENDS
            return ()
        return self._event(kind, told)

    def take_whole(self, told: Any) -> Sequence[Piece]:
        """Take an unstreamed answer."""
        if not isinstance(told, dict) or not isinstance(output := told.get("output"), list):
            fault = classify.read(told, self._target.now())
            if fault is None and isinstance(told, dict):
                fault = classify.bare(told)
            raise self._error(fault) if fault else self._unreadable("the answer is not of the form of Responses")
        self._take_response(told)
        if told.get("status") == "failed":
            raise self._error(classify.read(told, self._target.now()) or classify.said(told))
        pieces: list[Piece] = []
        for item in output:
            pieces += self._item(item) if isinstance(item, dict) else []
        self.done = True
        return pieces

    def whole(self, body: bytes) -> Answer:
        return events.answer_of(self, self._target.profile, body)

    def flush(self) -> Sequence[Piece]:
        return self._draft.flush()

    def finish(self) -> Answer:
        if not self.done:
            problem = (
                "the stream was cut: it ended without its end mark" if self._begun else "the stream held no answer"
            )
            raise ParseError(profile=self._target.profile, problem=problem, is_cut=self._begun)
        draft = self._draft
        stop = draft.stop or ("tool_calls" if draft.has_calls else "stop")
        return draft.answer(self._asked, usage.from_openai(draft.usage), stop)

    def _take_response(self, response: dict[str, Any]) -> None:
        draft = self._draft
        draft.model = word(response.get("model")) or draft.model
        draft.id = word(response.get("id")) or draft.id
        draft.count(response.get("usage"))
        why = response.get("incomplete_details")
        if isinstance(why, dict) and (reason := word(why.get("reason"))):
            draft.stop = _WHY.get(reason, reason)

    def _event(self, kind: str, told: dict[str, Any]) -> Sequence[Piece]:
        draft, delta = self._draft, told.get("delta")
        if kind in _TEXT and isinstance(delta, str):
            return draft.say(delta)
        if kind in _REASONING and isinstance(delta, str):
            return draft.think(delta)
        if kind == "response.output_item.added" and isinstance(item := told.get("item"), dict):
            if item.get("type") == "function_call":
                return self._begin(item)
        elif kind == "response.function_call_arguments.delta" and isinstance(delta, str):
            call = self._calls.get(word(told.get("item_id")))
            return draft.more(call, delta) if call is not None else ()
        return ()

    def _begin(self, item: dict[str, Any]) -> list[Piece]:
        call = self._draft.begin_call(None, word(item.get("call_id")), word(item.get("name")))
        self._calls[word(item.get("id"))] = call
        return self._draft.more(call, "", starts=bool(call.name))

    def _item(self, item: dict[str, Any]) -> list[Piece]:
        pieces: list[Piece] = []
        parts = item.get("content")
        match item.get("type"):
            case "message":
                for part in parts if isinstance(parts, list) else ():
                    text = part.get("text") or part.get("refusal") if isinstance(part, dict) else None
                    pieces += self._draft.say(text) if isinstance(text, str) else []
            case "reasoning":
                for part in item.get("summary") or ():
                    text = part.get("text") if isinstance(part, dict) else None
                    pieces += self._draft.think(text) if isinstance(text, str) else []
            case "function_call":
                pieces += self._begin(item)
                arguments = item.get("arguments")
                text = arguments if isinstance(arguments, str) else dumps(arguments)
                pieces += self._draft.more(self._calls[word(item.get("id"))], text)
        return pieces

    def _error(self, fault: classify.ErrorBody) -> TundraError:
        return classify.classify(self._target, self._asked, None, fault)

    def _unreadable(self, problem: str) -> ParseError:
        return ParseError(profile=self._target.profile, problem=problem)


class _Counted(msgspec.Struct):
    """The little of an answer that is read where its content is only passed on."""

    usage: Any = None
    model: Any = None
    error: Any = None
    input_tokens: Any = None


_decode_counted = msgspec.json.Decoder(_Counted).decode


class CountReader:
    """Reads usage alone: of embeddings, and of counted tokens. Such answers are never streamed."""

    def __init__(self, target: Target, model: str) -> None:
        self._target = target
        self._asked = model
        self.done = True

    def feed(self, event: str, data: bytes) -> Sequence[Piece]:
        del event, data
        raise ParseError(profile=self._target.profile, problem="a stream of events where one document belongs")

    def flush(self) -> Sequence[Piece]:
        return ()

    def finish(self) -> Answer:
        return Answer(text="", model=self._asked, usage=Usage())

    def whole(self, body: bytes) -> Answer:
        try:
            told = _decode_counted(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise ParseError(profile=self._target.profile, problem="the answer is not valid JSON") from exc
        if told.error:
            fault = classify.read({"error": told.error}, self._target.now())
            raise classify.classify(self._target, self._asked, None, fault or classify.ErrorBody())
        counted = usage.from_openai(told.usage)
        if told.input_tokens is not None:
            counted = Usage(input_tokens=count(told.input_tokens))
        return Answer(text="", model=word(told.model) or self._asked, usage=counted)


class Observer(Protocol):
    """Reads relayed answers of one form, as a `WireFormat` does."""

    def reader(self, model: str) -> StreamReader:
        """A reader for the events of one streamed answer."""
        ...

    def answer(self, model: str, body: bytes) -> Answer:
        """Read an unstreamed answer.

        Raises:
            TundraError: it is none, or an error.
        """
        ...


class _Other:
    """The forms that we relay and never ask in."""

    def __init__(self, reader: type[ResponsesReader | CountReader], target: Target) -> None:
        self._reader = reader
        self._target = target

    def reader(self, model: str) -> StreamReader:
        return self._reader(self._target, model)

    def answer(self, model: str, body: bytes) -> Answer:
        return self._reader(self._target, model).whole(body)


def observer(form: str, wire: WireFormat, target: Target) -> Observer:
    """Who reads along with answers of a form: the provider's own `wire` where that is its own.

    Args:
        form: chat, responses, messages, embeddings or count_tokens.
        wire: the provider's form.
        target: whom is asked.
    """
    if form in ("chat", "messages"):
        return wire
    return _Other(ResponsesReader if form == "responses" else CountReader, target)
