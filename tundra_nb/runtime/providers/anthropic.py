"""Anthropic's Messages form, streamed or not.

`Ask` is in the OpenAI form; `translate` turns its messages and tools into this one. Thinking that the model shows is
not part of the answer's text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from tundra_nb.errors import ParseError, ProviderError, Unsupported, UsageError
from tundra_nb.types import Ask, ToolCall

from . import classify, listing, translate, usage
from .contract import Answer, ModelInfo, Target
from .openai import USER_AGENT

API_VERSION = "2023-06-01"
"""The `anthropic-version` that this module speaks; the vendor keeps it stable."""
DEFAULT_MAX_TOKENS = 4096
"""The form demands a limit. Every model accepts this one; it is charged to the output bucket in advance, so no more."""
MAX_TEMPERATURE = 1.0
MODELS_PAGE = 1000
"""Largest page of the model list; there are a few dozen models."""

STOP_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
"""In the words of the OpenAI form, which `Answer` uses; any other (`pause_turn`) stays as it is."""


class _Block(msgspec.Struct):
    type: str = ""
    text: str | None = None
    id: str | None = None
    name: str | None = None
    input: Any = None


class _Message(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    content: list[_Block] | None = None
    stop_reason: str | None = None
    usage: Any = None
    type: str = ""
    error: Any = None


class _Delta(msgspec.Struct):
    type: str = ""
    text: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None


class _Event(msgspec.Struct):
    type: str = ""
    message: _Message | None = None
    index: int | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: Any = None
    error: Any = None


_decode_message = msgspec.json.Decoder(_Message).decode
_decode_event = msgspec.json.Decoder(_Event).decode
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
            ("anthropic-version", API_VERSION),
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
        if ask.tools:
            fields["tools"] = translate.tools(ask.tools)
            if ask.tool_choice is not None:
                fields["tool_choice"] = translate.tool_choice(ask.tool_choice)
        if ask.stop:
            fields["stop_sequences"] = ask.stop
        if ask.stream:
            fields["stream"] = True
        if ask.extra:
            fields.update(ask.extra)
        return _encode(fields)

    def answer(self, model: str, body: bytes) -> Answer:
        try:
            told = _decode_message(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            self.raise_fault(model, body)
            raise ParseError(profile=self.target.profile, problem=_problem(exc)) from exc
        if told.content is None:
            self.raise_fault(model, body)
            raise ParseError(profile=self.target.profile, problem="the answer holds no message")
        return Answer(
            text="".join(block.text or "" for block in told.content if block.type == "text"),
            model=told.model or model,
            usage=usage.from_anthropic(told.usage),
            stop_reason=stop_reason(told.stop_reason),
            tool_calls=tuple(
                ToolCall(id=block.id or "", name=block.name or "", arguments=_encode(block.input or {}).decode())
                for block in told.content
                if block.type == "tool_use"
            ),
            request_id=told.id,
        )

    def reader(self, model: str) -> Reader:
        return Reader(self, model)

    def error(self, model: str, status: int, retry_after: float | None, body: bytes) -> ProviderError:
        return classify.answer_error(
            self.target, model, status, retry_after=retry_after, body=body, fault=classify.read_body(body)
        )

    def models(self, body: bytes) -> list[ModelInfo]:
        return listing.read(self.target.profile, body, listing.from_anthropic)

    def raise_fault(self, model: str, data: bytes) -> None:
        """Raise the error that a body or event is, if it is one."""
        try:
            fault = classify.read(msgspec.json.decode(data))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        if fault is not None:
            raise classify.classify(self.target, model, None, fault)


class Reader:
    """Reads a streamed answer of this form. Events of unknown types are read over, as the vendor asks."""

    def __init__(self, wire: AnthropicFormat, model: str) -> None:
        self._wire = wire
        self._asked = model
        self.done = False
        self._text: list[str] = []
        self._tools: dict[int, tuple[_Block, list[str]]] = {}
        self._model: str | None = None
        self._id: str | None = None
        self._usage: dict[str, Any] = {}
        self._stop: str | None = None

    def feed(self, event: str, data: bytes) -> Sequence[str]:
        if event == "ping":
            return ()
        try:
            told = _decode_event(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            self._wire.raise_fault(self._asked, data)
            raise ParseError(profile=self._wire.target.profile, problem=_problem(exc)) from exc
        kind = told.type or event
        if kind == "content_block_delta":
            return self._delta(told)
        if kind == "error" or told.error is not None:
            self._wire.raise_fault(self._asked, data)
            raise ParseError(profile=self._wire.target.profile, problem="an error event without an error")
        if kind == "message_start" and told.message is not None:
            self._model = told.message.model
            self._id = told.message.id
            self._count(told.message.usage)
        elif kind == "content_block_start" and told.content_block is not None:
            block = told.content_block
            if block.type == "tool_use":
                self._tools[told.index or 0] = block, []
            elif block.type == "text" and block.text:
                self._text.append(block.text)
                return (block.text,)
        elif kind == "message_delta":
            if told.delta is not None and told.delta.stop_reason is not None:
                self._stop = told.delta.stop_reason
            self._count(told.usage)
        elif kind == "message_stop":
            self.done = True
        return ()

    def finish(self) -> Answer:
        profile = self._wire.target.profile
        if not self.done:
            begun = self._id is not None or self._model is not None
            problem = "the stream was cut: it ended without message_stop" if begun else "the stream held no answer"
            raise ParseError(profile=profile, problem=problem)
        return Answer(
            text="".join(self._text),
            model=self._model or self._asked,
            usage=usage.from_anthropic(self._usage),
            stop_reason=stop_reason(self._stop),
            tool_calls=tuple(
                ToolCall(
                    id=block.id or "",
                    name=block.name or "",
                    arguments="".join(pieces) or _encode(block.input or {}).decode(),
                )
                for _, (block, pieces) in sorted(self._tools.items())
            ),
            request_id=self._id,
        )

    def _delta(self, told: _Event) -> Sequence[str]:
        delta = told.delta
        if delta is None:
            return ()
        if delta.type == "text_delta":
            if not delta.text:
                return ()
            self._text.append(delta.text)
            return (delta.text,)
        if delta.type == "input_json_delta" and delta.partial_json:
            tool = self._tools.get(told.index or 0)
            if tool is None:
                raise ParseError(profile=self._wire.target.profile, problem="a piece of a tool call belongs to none")
            tool[1].append(delta.partial_json)
        return ()

    def _count(self, told: Any) -> None:
        """Counts are cumulative: a later one replaces an earlier one."""
        if isinstance(told, dict):
            self._usage.update({name: value for name, value in told.items() if value is not None})


def stop_reason(told: str | None) -> str | None:
    """A stop reason in the words of the OpenAI form."""
    return STOP_REASONS.get(told, told) if told else None


def _problem(exc: Exception) -> str:
    if isinstance(exc, msgspec.ValidationError):
        return f"the answer is not of the Messages form ({exc})"
    if isinstance(exc, UnicodeDecodeError) or "UTF-8" in str(exc):
        return "the answer is not valid UTF-8"
    return "the answer is not valid JSON"
