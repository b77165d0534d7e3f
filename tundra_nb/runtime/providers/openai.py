"""The chat-completions form: OpenAI itself, local servers (llama.cpp, vLLM, Ollama), and whoever else speaks it.

`Ask` is already in this form, so messages and tools pass through. Reasoning that a server sends beside the text
(`reasoning_content`) is not part of the answer's text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from tundra_nb._version import __version__
from tundra_nb.errors import ParseError, ProviderError
from tundra_nb.types import Ask, ToolCall

from . import classify, listing, usage
from .contract import Answer, ModelInfo, Target

USER_AGENT = f"tundra-nb/{__version__}"
_NEW_LIMIT_HOST = "https://api.openai.com"
"""Where it must be `max_completion_tokens`: reasoning models there refuse `max_tokens`, which other servers know."""


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _Tool(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Message(msgspec.Struct):
    content: str | list[Any] | None = None
    refusal: str | None = None
    tool_calls: list[_Tool] | None = None


class _Choice(msgspec.Struct):
    delta: _Message | None = None
    message: _Message | None = None
    finish_reason: str | None = None
    error: Any = None


class Body(msgspec.Struct):
    """A whole answer, or one chunk of a streamed one. Every field may be missing: servers differ."""

    id: str | None = None
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None


_decode = msgspec.json.Decoder(Body).decode
_encode = msgspec.json.Encoder().encode


class OpenAIFormat:
    """The chat-completions form for one target."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.url = f"{target.base_url}/chat/completions"
        self.models_url = f"{target.base_url}/models"
        self.check_url = self.models_url
        self._limit_field = (
            "max_completion_tokens" if target.base_url.startswith(_NEW_LIMIT_HOST + "/") else "max_tokens"
        )

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        common = (("content-type", "application/json"), ("accept", "*/*"), ("user-agent", USER_AGENT))
        return (*common, ("authorization", f"Bearer {self.target.key}")) if self.target.key else common

    def body(self, ask: Ask, model: str) -> bytes:
        return _encode(self.fields(ask, model))

    def fields(self, ask: Ask, model: str) -> dict[str, Any]:
        """The request as a dict; what is not given is left out."""
        fields: dict[str, Any] = {"model": model, "messages": ask.messages}
        if ask.max_tokens is not None:
            fields[self._limit_field] = ask.max_tokens
        if ask.temperature is not None:
            fields["temperature"] = ask.temperature
        if ask.tools:
            fields["tools"] = ask.tools
            if ask.tool_choice is not None:
                fields["tool_choice"] = ask.tool_choice
        if ask.json_mode:
            fields["response_format"] = {"type": "json_object"}
        if ask.stop:
            fields["stop"] = ask.stop
        if ask.stream:
            fields["stream"] = True
            fields["stream_options"] = {"include_usage": True}
        if ask.extra:
            fields.update(ask.extra)
        return fields

    def answer(self, model: str, body: bytes) -> Answer:
        told = self.decode(model, body)
        choice = told.choices[0] if told.choices else None
        message = choice.message if choice else None
        if choice is None or message is None:
            raise ParseError(profile=self.target.profile, problem="the answer holds no message")
        return Answer(
            text=text_of(message.content) or message.refusal or "",
            model=told.model or model,
            usage=usage.from_openai(told.usage),
            stop_reason=choice.finish_reason,
            tool_calls=tuple(
                ToolCall(
                    id=call.id or "",
                    name=call.function.name or "",
                    arguments=call.function.arguments or "{}",
                )
                for call in message.tool_calls or ()
                if call.function
            ),
            request_id=told.id,
            cost_usd=usage.cost_told(told.usage),
        )

    def reader(self, model: str) -> Reader:
        return Reader(self, model)

    def error(self, model: str, status: int, retry_after: float | None, body: bytes) -> ProviderError:
        fault = self.fault_in(body)
        return classify.answer_error(self.target, model, status, retry_after=retry_after, body=body, fault=fault)

    def models(self, body: bytes) -> list[ModelInfo]:
        return listing.read(self.target.profile, body, listing.from_openai)

    def fault_in(self, body: bytes) -> classify.Fault | None:
        """The fault in the body of an error status; None when it is no JSON."""
        return classify.read_body(body)

    def fault_of(self, value: Any) -> classify.Fault | None:
        """The fault in a decoded body that came under status 200."""
        return classify.read(value)

    def decode(self, model: str, data: bytes) -> Body:
        """Decode one body or chunk.

        Raises:
            ParseError: not JSON, or of another form.
            TundraError: it holds an error in spite of the status 200.
        """
        try:
            told = _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            self._raise_fault(model, data)
            raise ParseError(profile=self.target.profile, problem=_problem(exc)) from exc
        if told.error is not None or (told.choices and told.choices[0].error is not None) or told.choices is None:
            self._raise_fault(model, data)
        return told

    def _raise_fault(self, model: str, data: bytes) -> None:
        try:
            value = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        fault = self.fault_of(value)
        if fault is None and isinstance(value, dict):
            choices = value.get("choices")
            if isinstance(choices, list) and choices and isinstance(choices[0], dict):
                fault = self.fault_of(choices[0])
        if fault is not None:
            raise classify.classify(self.target, model, None, fault)


class Reader:
    """Reads a streamed answer of this form."""

    def __init__(self, wire: OpenAIFormat, model: str) -> None:
        self._wire = wire
        self._asked = model
        self.done = False
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._calls: list[list[str]] = []
        self._index: dict[int | str, int] = {}
        self._model: str | None = None
        self._id: str | None = None
        self._usage: Any = None
        self._stop: str | None = None
        self._seen = False

    def feed(self, event: str, data: bytes) -> Sequence[str]:
        if data == b"[DONE]":
            self.done = True
            return ()
        told = self._wire.decode(self._asked, data)
        if event == "error":  # named so, but of no error form that is known
            fault = classify.Fault(message=data[:1000].decode("utf-8", "replace"))
            raise classify.classify(self._wire.target, self._asked, None, fault)
        if self._model is None and told.model:
            self._model = told.model
        if self._id is None and told.id:
            self._id = told.id
        if told.usage is not None:
            self._usage = told.usage
        if not told.choices:
            return ()
        self._seen = True
        choice = told.choices[0]
        if choice.finish_reason is not None:
            self._stop = choice.finish_reason
        delta = choice.delta or choice.message
        if delta is None:
            return ()
        for call in delta.tool_calls or ():
            self._tool(call)
        if delta.refusal:
            self._refusal.append(delta.refusal)
            return (delta.refusal,)
        if not delta.content:
            return ()
        text = delta.content if isinstance(delta.content, str) else text_of(delta.content)
        self._text.append(text)
        return (text,) if text else ()

    def finish(self) -> Answer:
        profile = self._wire.target.profile
        if not self._seen:
            raise ParseError(profile=profile, problem="the stream held no answer")
        if not self.done and self._stop is None:
            raise ParseError(profile=profile, problem="the stream was cut: it ended without its end mark")
        return Answer(
            text="".join(self._text) or "".join(self._refusal),
            model=self._model or self._asked,
            usage=usage.from_openai(self._usage),
            stop_reason=self._stop,
            tool_calls=tuple(
                ToolCall(id=call[0], name=call[1], arguments="".join(call[2:]) or "{}") for call in self._calls
            ),
            request_id=self._id,
            cost_usd=usage.cost_told(self._usage),
        )

    def _tool(self, told: _Tool) -> None:
        """Add a piece of a tool call. Pieces belong together by index, or by id where a server sends no index."""
        key: int | str | None = told.index if told.index is not None else told.id
        if key is None:
            place = len(self._calls) - 1
        elif key in self._index:
            place = self._index[key]
        else:
            place = self._index[key] = len(self._calls)
            self._calls.append(["", ""])
        if place < 0:
            raise ParseError(profile=self._wire.target.profile, problem="a piece of a tool call belongs to none")
        call = self._calls[place]
        if told.id and not call[0]:
            call[0] = told.id
        if told.function is not None:
            if told.function.name and not call[1]:
                call[1] = told.function.name
            if told.function.arguments:
                call.append(told.function.arguments)


def text_of(content: str | list[Any] | None) -> str:
    """The text in a message's content; parts of other kinds are read over."""
    if content is None or isinstance(content, str):
        return content or ""
    parts = (part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text")
    return "".join(part for part in parts if isinstance(part, str))


def _problem(exc: Exception) -> str:
    if isinstance(exc, msgspec.ValidationError):
        return f"the answer is not of the chat-completions form ({exc})"
    if isinstance(exc, UnicodeDecodeError) or "UTF-8" in str(exc):
        return "the answer is not valid UTF-8"
    return "the answer is not valid JSON"
