"""The chat-completions form: OpenAI itself, local servers (llama.cpp, vLLM, Ollama), and whoever else speaks it.

`Ask` is already in this form, so messages and tools pass through. Chunks are read as plain JSON values, not by a
schema: what servers call compatible differs in every field, and a complete answer is a success however it is spelled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

from tundra_nb._version import __version__
from tundra_nb.errors import ParseError, ProviderError, TundraError
from tundra_nb.surrogates import whole
from tundra_nb.types import Ask
from tundra_nb.types.pieces import Piece

from . import classify, endings, events, listing, usage
from .contract import Answer, ModelInfo, Target
from .draft import Draft
from .lenient import UNREADABLE, NotJsonError, arguments_of, dumps, loads, word

USER_AGENT = f"tundra-nb/{__version__}"
_NEW_LIMIT_HOST = "https://api.openai.com"
"""Where it must be `max_completion_tokens`: reasoning models there refuse `max_tokens`, which other servers know."""

FAILED = "Error: "
"""Marks the result of a tool that failed, where the form has no field for it."""
_NO_MESSAGE = "the answer is not of the chat-completions form: it holds no message"
_NO_CALL = "the answer is not of the chat-completions form: a tool call cannot be read"

_TEXT_PARTS = ("text", "output_text", "refusal")
_ARGUMENTS = ("arguments", "parameters", "input")
"""What servers call the arguments of a call, the usual first."""

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
        """The request as a dict; what is not given is left out.

        `stream` is always said: some servers stream by default.
        """
        fields: dict[str, Any] = {"model": model, "messages": _messages(ask.messages), "stream": ask.stream}
        if ask.max_tokens is not None:
            fields[self._limit_field] = ask.max_tokens
        if ask.temperature is not None:
            fields["temperature"] = ask.temperature
        if ask.top_p is not None:
            fields["top_p"] = ask.top_p
        if ask.tools:
            fields["tools"] = ask.tools
            if ask.tool_choice is not None:
                fields["tool_choice"] = ask.tool_choice
            if ask.parallel_tool_calls is not None:
                fields["parallel_tool_calls"] = ask.parallel_tool_calls
        if ask.json_mode:
            fields["response_format"] = {"type": "json_object"}
        if ask.json_schema:
            fields["response_format"] = {"type": "json_schema", "json_schema": ask.json_schema}
        if ask.effort:
            fields["reasoning_effort"] = ask.effort
        if ask.stop:
            fields["stop"] = ask.stop
        if ask.stream:
            fields["stream_options"] = {"include_usage": True}
        if ask.extra:
            fields.update(ask.extra)
        return fields

    def answer(self, model: str, body: bytes) -> Answer:
        try:
            plain = _decode_plain_answer(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return events.answer_of(self.reader(model), self.target.profile, body)
        choice = plain.choices[0]
        return Answer(
            text=whole(choice.message.content),
            model=word(plain.model) or model,
            usage=usage.from_openai(plain.usage),
            stop_reason=choice.finish_reason,
            request_id=word(plain.id) or None,
            cost_usd=usage.cost_told(plain.usage),
        )

    def reader(self, model: str) -> OpenAIReader:
        return OpenAIReader(self, model)

    def error(self, model: str, status: int, retry_after: float | None, body: bytes) -> ProviderError:
        fault = self.fault_in(body)
        return classify.answer_error(self.target, model, status, retry_after=retry_after, body=body, fault=fault)

    def models(self, body: bytes) -> list[ModelInfo]:
        return listing.read(self.target.profile, body, listing.from_openai)

    def fault_in(self, body: bytes) -> classify.ErrorBody | None:
        """The fault in the body of an error status; None when it is no JSON."""
        return classify.read_body(body, self.target.now())

    def fault_of(self, value: Any) -> classify.ErrorBody | None:
        """The fault in a decoded body that came under status 200."""
        return classify.read(value, self.target.now())


class _Delta(msgspec.Struct, forbid_unknown_fields=True):
    content: str = ""
    role: str = ""
    refusal: None = None


class _Choice(msgspec.Struct, forbid_unknown_fields=True):
    delta: _Delta
    index: int = 0
    logprobs: None = None
    finish_reason: None = None


class _Plain(msgspec.Struct, forbid_unknown_fields=True):
    """A chunk in mid-stream that adds text and says nothing else: nearly every one, read at a quarter of the cost.

    Whatever has another member is no plain chunk, and is read with care.
    """

    choices: Annotated[list[_Choice], msgspec.Meta(min_length=1, max_length=1)]
    id: str = ""
    object: str = ""
    created: int = 0
    model: str = ""
    system_fingerprint: str | None = None
    service_tier: str | None = None
    obfuscation: str = ""
    usage: None = None


class _Message(msgspec.Struct, forbid_unknown_fields=True):
    content: str
    role: str = ""
    refusal: None = None
    annotations: Annotated[list[Any], msgspec.Meta(max_length=0)] = []


class _Said(msgspec.Struct, forbid_unknown_fields=True):
    message: _Message
    finish_reason: Literal["stop", "length"]
    index: Literal[0] = 0
    logprobs: None = None


class _PlainAnswer(msgspec.Struct, forbid_unknown_fields=True):
    """A whole answer of one choice that is text and nothing else: most are, read at a quarter of the cost.

    Whatever has another member is no plain answer, and is read with care.
    """

    choices: Annotated[list[_Said], msgspec.Meta(min_length=1, max_length=1)]
    usage: dict[str, Any]
    id: str = ""
    object: str = ""
    created: int = 0
    model: str = ""
    system_fingerprint: str | None = None
    service_tier: str | None = None


_decode_plain = msgspec.json.Decoder(_Plain).decode
_decode_plain_answer = msgspec.json.Decoder(_PlainAnswer).decode
MOST_ODD = 3
"""So many chunks in a row that are not plain: this provider's never are."""


class OpenAIReader:
    """Reads an answer of this form, streamed or whole."""

    def __init__(self, wire: OpenAIFormat, model: str) -> None:
        self._wire = wire
        self._asked = model
        self.done = False
        self._draft = Draft(wire.target.profile)
        self._refusal: list[str] = []
        self._seen = False
        """A choice has come, if only with its reason to stop."""
        self._spoke = False
        """A message, or a part of one, has come."""
        self._odd = 0
        """Chunks in a row that were not plain."""
        self._is_old = False
        """The call comes as `function_call`, the form before `tool_calls`."""

    def feed(self, event: str, data: bytes) -> Sequence[Piece]:
        if self.done:
            return ()
        if self._odd < MOST_ODD and self._draft.id and self._draft.model and event == "message":
            try:
                plain = _decode_plain(data)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                self._odd += 1
            else:
                self._odd = 0
                self._seen = self._spoke = True
                text = plain.choices[0].delta.content
                return self._draft.say(text) if text else ()
        data = data.strip()
        if endings.is_mark(data):
            self.done = True
            return ()
        if events.is_filler(event, data) or (self._draft.stop and event != "error" and endings.is_trifle(data)):
            return ()
        try:
            told = loads(data)
        except NotJsonError as exc:
            if several := events.documents(data):
                return [piece for one in several for piece in self.feed(event, one)]
            if event == "error":
                raise self._error(classify.ErrorBody(message=data[:1000].decode("utf-8", "replace"))) from None
            raise self._unreadable(f"the answer cannot be read: {exc}") from exc
        if event == "error":  # named so, whatever its form
            raise self._error(self._wire.fault_of(told) or classify.said(told))
        return self.chunk(told)

    def take_whole(self, told: Any) -> Sequence[Piece]:
        """Take an unstreamed answer."""
        pieces = self.chunk(told)
        if not self._spoke:
            raise self._unreadable(_NO_MESSAGE)
        self.done = True
        return pieces

    def chunk(self, told: Any) -> Sequence[Piece]:
        """Take a decoded chunk, or a whole answer."""
        if not isinstance(told, dict):
            fault = self._wire.fault_of(told)
            raise self._error(fault) if fault is not None else self._unreadable(_NO_MESSAGE)
        draft = self._draft
        choices = told.get("choices")
        if choices is not None and not isinstance(choices, list | dict):
            raise self._unreadable(_NO_MESSAGE)
        if (not choices or told.get("error") or "base_resp" in told) and (fault := self._fault(told)) is not None:
            raise self._error(fault)
        if not draft.model and (model := told.get("model")):
            draft.model = word(model)
        if not draft.id and (told_id := told.get("id")):
            draft.id = word(told_id)
        usage.count_chunk(draft, told)
        choice = _first(choices)
        if choice is None:
            return ()
        if choice.get("error") and (fault := self._wire.fault_of(choice)) is not None:
            raise self._error(fault)
        usage.count_choice(draft, choice)
        self._seen = True
        if (stop := choice.get("finish_reason")) and (stop := word(stop)):
            if endings.is_broken_off(stop):
                message = f"the provider broke the answer off (finish_reason {stop!r})"
                raise self._error(classify.ErrorBody(message=message))
            draft.stop = endings.stop_reason(stop)
        return self._message(choice)

    def flush(self) -> Sequence[Piece]:
        return self._draft.flush()

    def finish(self) -> Answer:
        draft = self._draft
        if not self._seen:
            raise self._unreadable("the stream held no answer")
        if not self.done and not draft.stop:
            raise ParseError(
                profile=self._wire.target.profile,
                problem="the stream was cut: it ended without its end mark",
                is_cut=True,
            )
        return draft.answer(
            self._asked, usage.from_openai(draft.usage), draft.stop or None, usage.cost_told(draft.usage)
        )

    def _message(self, choice: dict[str, Any]) -> list[Piece]:
        delta, message = choice.get("delta"), choice.get("message")
        for told in (delta, message):
            if told and not isinstance(told, dict):
                raise self._unreadable(_NO_MESSAGE)
        pieces: list[Piece] = []
        if isinstance(delta, dict):
            self._spoke = True
            pieces += self._add(delta)
        if isinstance(message, dict):
            self._spoke = True
            pieces += self._whole(message)
        elif not isinstance(delta, dict) and isinstance(choice.get("text"), str):  # the form of completions
            self._spoke = True
            pieces += self._draft.say(choice["text"])
        return pieces

    def _whole(self, message: dict[str, Any]) -> list[Piece]:
        """A message that is there in full, of which nothing, or a part, or all has come in pieces before."""
        draft = self._draft
        if draft.has_text:
            text, so_far = text_of(message.get("content")), draft.text
            rest = text[len(so_far) :] if text.startswith(so_far) else ""
            message = {**message, "content": rest, "refusal": None}
        if draft.has_reasoning:
            message = {**message, "reasoning_content": None, "reasoning": None, "thinking": None}
        if draft.has_calls:
            message = {**message, "tool_calls": None, "function_call": None}
        return self._add(message, is_whole=True)

    def _add(self, delta: dict[str, Any], *, is_whole: bool = False) -> list[Piece]:
        draft = self._draft
        pieces: list[Piece] = []
        reasoning = delta.get("reasoning_content") or delta.get("reasoning") or delta.get("thinking")
        if reasoning and isinstance(reasoning, str | list):
            pieces += draft.think(text_of(reasoning))
        content = delta.get("content")
        if isinstance(content, list):  # Mistral
            shown = [part["thinking"] for part in content if isinstance(part, dict) and part.get("thinking")]
            pieces += draft.think("".join(map(text_of, shown)))
        if content and content is not True:
            if not isinstance(content, str | list | dict):
                raise self._unreadable(_NO_MESSAGE)
            pieces += draft.say(content if isinstance(content, str) else text_of(content))
        refusal = delta.get("refusal")
        if refusal and isinstance(refusal, str):
            pieces += draft.say(refusal)
        if calls := delta.get("tool_calls"):
            if not isinstance(calls, list | dict):
                raise self._unreadable(_NO_CALL)
            pieces += self._calls(calls, is_whole=is_whole)
        old = delta.get("function_call")
        if isinstance(old, dict) and not calls and (self._is_old or not draft.has_calls):  # else it is said twice
            self._is_old = True
            pieces += self._calls([{"index": 0, "function": old}])
        return pieces

    def _calls(self, told: Any, *, is_whole: bool = False) -> list[Piece]:
        pieces: list[Piece] = []
        numbers: set[int | None] = set()
        for call in _calls_in(told):
            function = call.get("function", call.get("custom", call))
            if not isinstance(function, dict):
                if function:
                    raise self._unreadable(_NO_CALL)
                function = call
            index = number(call.get("index"))
            name = word(function.get("name"))
            arguments = next((told for name in _ARGUMENTS if (told := function.get(name)) is not None), None)
            if arguments == {}:  # nothing as yet: pieces may follow
                arguments = None
            if not isinstance(arguments, str):
                arguments = "" if arguments is None or isinstance(arguments, bool) else dumps(arguments)
            given_id = word(call.get("id")).strip()
            apart = is_whole or index in numbers
            numbers.add(index)
            pieces += self._draft.call(index, given_id, name, arguments, apart=apart)
        return pieces

    def _fault(self, told: dict[str, Any]) -> classify.ErrorBody | None:
        """The fault in a chunk; an `error` with nothing in it beside a choice is none."""
        fault = self._wire.fault_of(told)
        if fault is None and not told.get("choices"):
            fault = classify.bare(told)
        return fault

    def _error(self, fault: classify.ErrorBody) -> TundraError:
        return classify.classify(self._wire.target, self._asked, None, fault)

    def _unreadable(self, problem: str) -> ParseError:
        return ParseError(profile=self._wire.target.profile, problem=problem)


def _messages(given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages as every server of this form reads them; the same list where nothing had to be changed.

    That a tool failed is said in the text of its result. Arguments that the model itself wrote, and that are no JSON,
    are wrapped: servers decode them.
    """
    if not any("is_error" in message or message.get("tool_calls") for message in given):
        return given
    return [_message(message) for message in given]


def _message(given: dict[str, Any]) -> dict[str, Any]:
    if "is_error" in given:
        plain = {name: value for name, value in given.items() if name != "is_error"}
        if given["is_error"]:
            content = text_of(given.get("content"))
            plain["content"] = content if content.startswith(FAILED) else FAILED + content
        return plain
    if calls := given.get("tool_calls"):
        return {**given, "tool_calls": [_readable(call) for call in calls]}
    return given


def _readable(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    told = function.get("arguments") or ""
    arguments = arguments_of(told)
    if told and UNREADABLE not in arguments:
        return call
    return {**call, "function": {**function, "arguments": dumps(arguments)}}


def text_of(content: Any) -> str:
    """The text in a message's content; parts of other kinds are read over."""
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        return ""
    return "".join(_part_text(part) for part in content)


def _part_text(part: Any) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict) or (word(part.get("type")) or "text").lower() not in _TEXT_PARTS:
        return ""
    text = part.get("text") or part.get("refusal")
    if isinstance(text, dict):
        text = text.get("value")
    return text if isinstance(text, str) else ""


def _first(choices: Any) -> dict[str, Any] | None:
    """The choice that was asked for: number 0, or the first where none has a number. Others are not mixed in."""
    if isinstance(choices, dict):
        choices = [choices] if "delta" in choices or "message" in choices else list(choices.values())
    if not isinstance(choices, list):
        return None
    for choice in choices:
        if isinstance(choice, dict) and not number(choice.get("index")):
            return choice
    if len(choices) == 1 and isinstance(choices[0], dict) and "message" in choices[0]:
        return choices[0]  # a whole answer has no other, however it is numbered
    return None


def _calls_in(told: Any) -> list[dict[str, Any]]:
    if isinstance(told, dict):
        told = [told] if "function" in told or "name" in told else list(told.values())
    return [call for call in told if isinstance(call, dict)] if isinstance(told, list) else []


def number(value: Any) -> int | None:
    """A place in a list, also one written as text."""
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 10:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        return None
    return int(value)
