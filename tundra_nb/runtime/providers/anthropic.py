"""Anthropic's Messages form, streamed or not.

`Ask` is in the OpenAI form; `translate` turns its messages and tools into this one. Thinking that the model shows is
given apart from the answer's text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from tundra_nb.errors import ParseError, ProviderError, TundraError, Unsupported, UsageError
from tundra_nb.types import Ask
from tundra_nb.types.pieces import Piece

from . import classify, endings, events, listing, translate, usage
from .contract import Answer, ModelInfo, Target
from .draft import CallDraft, Draft
from .lenient import NotJsonError, dumps, loads, word
from .openai import USER_AGENT, number

DEFAULT_MAX_TOKENS = 4096
"""The form demands a limit. Every model accepts this one; it is charged to the output bucket in advance, so no more."""
MAX_TEMPERATURE = 1.0
MODELS_PAGE = 1000
"""Largest page of the model list; there are a few dozen models."""

_EVENTS = frozenset(
    {
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
        "error",
    }
)
_DELTAS = {"text": "text_delta", "thinking": "thinking_delta", "partial_json": "input_json_delta"}
_UNNUMBERED = -1

_NO_MESSAGE = "the answer is not of the Messages form: it holds no message"

_encode = msgspec.json.Encoder().encode


class AnthropicFormat:
    """The Messages form for one target."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.url = f"{target.base_url}/v1/messages"
        self.models_url = f"{target.base_url}/v1/models?limit={MODELS_PAGE}"
        self.check_url = self.models_url

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        common = (
            ("content-type", "application/json"),
            ("accept", "*/*"),
            ("user-agent", USER_AGENT),
            ("anthropic-version", self.target.anthropic_version),
        )
        return (*common, ("x-api-key", self.target.key)) if self.target.key else common

    def body(self, ask: Ask, model: str) -> bytes:
        if ask.json_mode:
            detail = "the Messages form has none; ask for JSON in the prompt, or give a tool"
            raise Unsupported(profile=self.target.profile, kind="json", model=model, detail=detail)
        if ask.temperature is not None and ask.temperature > MAX_TEMPERATURE:
            problem = f"temperature is {ask.temperature:g}, and {self.target.profile} takes at most {MAX_TEMPERATURE:g}"
            raise UsageError(problem=problem, field="temperature", remedy=f"Between 0 and {MAX_TEMPERATURE:g}.")
        system, messages = translate.messages(ask.messages)
        fields: dict[str, Any] = {
            "model": model,
            "max_tokens": ask.max_tokens if ask.max_tokens is not None else DEFAULT_MAX_TOKENS,
            "messages": messages,
        }
        if system:
            fields["system"] = system
        if ask.temperature is not None:
            fields["temperature"] = ask.temperature
        if ask.top_p is not None:
            fields["top_p"] = ask.top_p
        if ask.tools:
            fields["tools"] = translate.tools(ask.tools)
            choice = None if ask.tool_choice is None else translate.tool_choice(ask.tool_choice)
            if ask.parallel_tool_calls is not None and (choice or {}).get("type") != "none":
                choice = {**(choice or {"type": "auto"}), "disable_parallel_tool_use": not ask.parallel_tool_calls}
            if choice is not None:
                fields["tool_choice"] = choice
        if output := translate.output(ask):
            fields["output_config"] = output
        if ask.stop:
            fields["stop_sequences"] = ask.stop
        fields["stream"] = ask.stream
        if ask.extra:
            fields.update(ask.extra)
        return _encode(fields)

    def answer(self, model: str, body: bytes) -> Answer:
        return events.answer_of(self.reader(model), self.target.profile, body)

    def reader(self, model: str) -> AnthropicReader:
        return AnthropicReader(self, model)

    def error(self, model: str, status: int, retry_after: float | None, body: bytes) -> ProviderError:
        fault = classify.read_body(body, self.target.now())
        return classify.answer_error(self.target, model, status, retry_after=retry_after, body=body, fault=fault)

    def models(self, body: bytes) -> list[ModelInfo]:
        return listing.read(self.target.profile, body, listing.from_anthropic)

    def fault_of(self, value: Any) -> classify.ErrorBody | None:
        """The fault in a decoded body that came under status 200."""
        return classify.read(value, self.target.now())


class AnthropicReader:
    """Reads an answer of this form, streamed or whole. Events and blocks of other types are read over."""

    def __init__(self, wire: AnthropicFormat, model: str) -> None:
        self._wire = wire
        self._asked = model
        self.done = False
        self._draft = Draft(wire.target.profile)
        self._open: dict[int, CallDraft | None] = {}
        """The tool call that a block's number means; None for a block of another kind."""
        self._given: dict[int, tuple[CallDraft, str]] = {}
        """Inputs that came with the start of their block, by the place of the call."""
        self._last: int | None = None
        self._begun = False

    def feed(self, event: str, data: bytes) -> Sequence[Piece]:
        if self.done:
            return ()
        data = data.strip()
        if endings.is_mark(data):  # a gateway between put it there; the answer is whole if its own end has been told
            self.done = bool(self._draft.stop)
            return ()
        if events.is_filler(event, data) or (self._draft.stop and event != "error" and endings.is_trifle(data)):
            return ()
        try:
            told = loads(data)
        except NotJsonError as exc:
            if several := events.documents(data):
                return [piece for one in several for piece in self.feed(event, one)]
            if event and event not in _EVENTS and event != "message":
                return ()
            if event == "error":
                raise self._error(classify.ErrorBody(message=data[:1000].decode("utf-8", "replace"))) from None
            raise self._unreadable(f"the answer cannot be read: {exc}") from exc
        if not isinstance(told, dict):
            fault = self._wire.fault_of(told)
            raise self._error(fault) if fault is not None else self._unreadable(_NO_MESSAGE)
        kind = told.get("type")
        if not isinstance(kind, str) or kind not in _EVENTS:
            kind = event if event in _EVENTS else kind if isinstance(kind, str) and kind else _kind_by_fields(told)
        if kind == "content_block_delta" and not told.get("error"):
            return self._delta(number(told.get("index")), told.get("delta"))
        if kind == "error" or event == "error":
            raise self._error(self._wire.fault_of(told) or classify.said(told))
        if told.get("error") or "base_resp" in told or (not told.get("type") and event in ("", "message")):
            fault = self._wire.fault_of(told) or (None if told.get("type") else classify.bare(told))
            if fault is not None:
                raise self._error(fault)
        return self._event(kind, told)

    def _event(self, kind: str, told: dict[str, Any]) -> Sequence[Piece]:
        draft = self._draft
        match kind:
            case "message_start":
                self._begun = True
                if not isinstance(message := told.get("message"), dict | None):
                    raise self._unreadable(_NO_MESSAGE)
                if message:
                    draft.model, draft.id = word(message.get("model")), word(message.get("id"))
                    draft.count(message.get("usage"))
            case "content_block_start":
                return self._start(number(told.get("index")), told.get("content_block"))
            case "content_block_stop":
                self._open.pop(number(told.get("index")) or 0, None)
                return self._settle()
            case "message_delta":
                self._begun = True
                delta = told.get("delta")
                if isinstance(delta, dict):
                    self._stops(word(delta.get("stop_reason")))
                if isinstance(delta, dict):
                    draft.count(delta.get("usage"))
                draft.count(told.get("usage"))
            case "message_stop":
                self._begun = True
                self.done = True
                draft.count(told.get("usage"))
                return self._settle()
            case "message" if "content" in told:  # a whole message in the place of its events
                return self.take_whole(told)
        return ()

    def take_whole(self, told: Any) -> Sequence[Piece]:
        """Take an unstreamed answer."""
        fault = self._wire.fault_of(told)
        if fault is None and isinstance(told, dict) and not told.get("content"):
            fault = classify.bare(told)
        if fault is not None:
            raise self._error(fault)
        content = told.get("content") if isinstance(told, dict) else None
        if content is None:
            raise self._unreadable(_NO_MESSAGE)
        draft = self._draft
        self._begun = True
        draft.model = draft.model or word(told.get("model"))
        draft.id = draft.id or word(told.get("id"))
        self._stops(word(told.get("stop_reason")))
        draft.count(told.get("usage"))
        pieces: list[Piece] = []
        for block in [content] if isinstance(content, str | dict) else content if isinstance(content, list) else ():
            if block is None:
                continue
            pieces += draft.say(block) if isinstance(block, str) else self._start(None, block) + self._settle()
        self.done = True
        return pieces

    def flush(self) -> Sequence[Piece]:
        return self._draft.flush()

    def finish(self) -> Answer:
        draft = self._draft
        self._settle()
        if not self.done:
            if self._begun:
                raise ParseError(
                    profile=self._wire.target.profile,
                    problem="the stream was cut: it ended without message_stop",
                    is_cut=True,
                )
            raise self._unreadable("the stream held no answer")
        return draft.answer(self._asked, usage.from_anthropic(draft.usage), draft.stop or None)

    def _start(self, index: int | None, block: Any) -> list[Piece]:
        """A block begins; unstreamed it is whole."""
        self._begun = True
        draft = self._draft
        if not isinstance(block, dict):
            raise self._unreadable(_NO_MESSAGE)
        kind = block.get("type")
        if not isinstance(kind, str) or not kind:  # then what it holds tells
            kind = "tool_use" if "name" in block else "thinking" if "thinking" in block else "text"
        self._last = _UNNUMBERED if index is None else index
        self._open[self._last] = None
        if kind == "tool_use":
            call = draft.begin_call(None, word(block.get("id")), word(block.get("name")))
            self._open[self._last] = call
            given = block.get("input")
            if given and given is not True:
                self._given[call.place] = call, given if isinstance(given, str) else dumps(given)
            return draft.more(call, "", starts=bool(call.name))
        if kind == "thinking" and isinstance(thinking := block.get("thinking"), str):
            return draft.think(thinking)
        if kind == "text" and (text := block.get("text")):
            return draft.say(self._text(text))
        return []

    def _settle(self) -> list[Piece]:
        """The inputs that blocks started with, where no pieces of them followed."""
        given, self._given = self._given, {}
        return [piece for call, text in given.values() for piece in self._draft.more(call, text)]

    def _delta(self, index: int | None, delta: Any) -> Sequence[Piece]:
        self._begun = True
        if not isinstance(delta, dict):
            raise self._unreadable(_NO_MESSAGE)
        kind = delta.get("type")
        if not isinstance(kind, str) or not kind:
            kind = next((kind for name, kind in _DELTAS.items() if delta.get(name)), None)
        draft = self._draft
        if kind == "text_delta" and (text := delta.get("text")):
            return draft.say(self._text(text))
        if kind == "thinking_delta" and (thinking := delta.get("thinking")):
            return draft.think(self._text(thinking))
        part = delta.get("partial_json")
        if kind == "input_json_delta" and part:
            place = self._last if index is None or index not in self._open else index
            if place is None:
                raise self._unreadable("a piece of a tool call belongs to none")
            call = self._open.get(place)
            if call is not None:
                self._given.pop(call.place, None)
                return draft.more(call, part if isinstance(part, str) else dumps(part))
        return ()

    def _stops(self, told: str) -> None:
        if endings.is_broken_off(told):
            raise self._error(classify.ErrorBody(message=f"the provider broke the answer off (stop_reason {told!r})"))
        self._draft.stop = endings.stop_reason(told) or self._draft.stop

    def _text(self, told: Any) -> str:
        if not isinstance(told, str):
            raise self._unreadable(_NO_MESSAGE)
        return told

    def _error(self, fault: classify.ErrorBody) -> TundraError:
        return classify.classify(self._wire.target, self._asked, None, fault)

    def _unreadable(self, problem: str) -> ParseError:
        return ParseError(profile=self._wire.target.profile, problem=problem)


def _kind_by_fields(told: dict[str, Any]) -> str:
    """What an event is that neither its name nor its type tells."""
    if "content_block" in told:
        return "content_block_start"
    if isinstance(told.get("message"), dict):
        return "message_start"
    delta = told.get("delta")
    if isinstance(delta, dict):
        return "message_delta" if "stop_reason" in delta else "content_block_delta"
    return ""
