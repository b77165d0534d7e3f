"""OpenAI's chat completions as a caller's form. `Ask` is in this form, so most is passed through by name."""

from __future__ import annotations

from typing import Any

from tundra_nb.errors import TundraError
from tundra_nb.runtime.providers.contract import Answer
from tundra_nb.types import Ask, Usage
from tundra_nb.types.pieces import Piece, Reasoning, Text, ToolCallPiece

from . import failure
from .form import Fields, Question, each, encode, event, wrong

DROPPED = ("user", "metadata", "store", "prompt_cache_key", "prompt_cache_retention", "safety_identifier")
FINISH_REASONS = frozenset({"stop", "length", "tool_calls", "content_filter"})


class ChatForm:
    """`POST /v1/chat/completions`."""

    vendor = "openai"

    def read(self, body: dict[str, Any], profile: str) -> Question:
        fields = Fields(body, profile)
        options = fields.inside("stream_options")
        include_usage = False
        if options is not None:
            include_usage = bool(options.take("include_usage", bool))
            options.drop("include_obfuscation")
            options.done()
        fields.same("n", 1)
        fields.same("logprobs", False)
        fields.same("presence_penalty", 0)
        fields.same("frequency_penalty", 0)
        fields.same("logit_bias", {})
        fields.same("service_tier", "auto", "default")
        fields.same("modalities", ["text"])
        fields.drop(*DROPPED)
        tools = [_tool(where, tool, fields) for where, tool in each(fields.take("tools") or [], fields, "tools")]
        choice, parallel = _tool_choice(fields), fields.take("parallel_tool_calls", bool)
        json_mode, schema = response_format(fields)
        ask = Ask(
            model=fields.take("model", str),
            messages=[
                _message(where, told, fields) for where, told in each(fields.take("messages"), fields, "messages")
            ],
            max_tokens=_either(fields, "max_completion_tokens", "max_tokens"),
            temperature=fields.take("temperature", (int, float)),
            top_p=fields.take("top_p", (int, float)),
            stop=stops(fields),
            tools=tools or None,
            tool_choice=choice if tools else None,
            parallel_tool_calls=parallel if tools else None,
            json_mode=json_mode,
            json_schema=schema,
            effort=fields.take("reasoning_effort", str),
            stream=bool(fields.take("stream", bool)),
            caller="gateway",
        )
        fields.done()
        return Question(ask=ask, dropped=tuple(fields.dropped), include_usage=include_usage)

    def answer(self, answer: Answer, *, operation_id: str, created: int) -> bytes:
        message: dict[str, Any] = {"role": "assistant", "content": answer.text or None, "refusal": None}
        if not answer.text and not answer.tool_calls:
            message["content"] = ""
        if answer.reasoning:
            message["reasoning_content"] = answer.reasoning
        if answer.tool_calls:
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in answer.tool_calls
            ]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason(answer)}
        return encode(
            {
                "id": f"chatcmpl-{operation_id}",
                "object": "chat.completion",
                "created": created,
                "model": answer.model,
                "choices": [choice],
                "usage": usage(answer.usage),
            }
        )

    def writer(self, *, operation_id: str, created: int, model: str, include_usage: bool) -> ChatWriter:
        return ChatWriter(operation_id, created, model, include_usage=include_usage)


class ChatWriter:
    """Writes one streamed answer."""

    def __init__(self, operation_id: str, created: int, model: str, *, include_usage: bool) -> None:
        self._operation_id = operation_id
        self._include_usage = include_usage
        self._base = {
            "id": f"chatcmpl-{operation_id}",
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
        }
        self._begun = False

    def piece(self, piece: Piece) -> bytes:
        start = self._start()
        match piece:
            case Text(text):
                return start + self._chunk({"content": text})
            case Reasoning(text):
                return start + self._chunk({"reasoning_content": text})
            case ToolCallPiece():
                call: dict[str, Any] = {"index": piece.index, "function": {"arguments": piece.arguments}}
                if piece.name:
                    function = {"name": piece.name, "arguments": piece.arguments}
                    call = {"index": piece.index, "id": piece.id, "type": "function", "function": function}
                return start + self._chunk({"tool_calls": [call]})
        return start

    def finish(self, answer: Answer) -> bytes:
        frames = [self._start(), self._chunk({}, finish_reason(answer))]
        if self._include_usage:
            frames.append(event({**self._base, "choices": [], "usage": usage(answer.usage)}))
        return b"".join([*frames, b"data: [DONE]\n\n"])

    def fail(self, error: TundraError) -> bytes:
        return event(failure.fault("openai", error, operation_id=self._operation_id))

    def _start(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        return self._chunk({"role": "assistant", "content": ""})

    def _chunk(self, delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        told = {**self._base, "choices": [choice]}
        return event({**told, "usage": None} if self._include_usage else told)


def finish_reason(answer: Answer) -> str:
    """The reason to stop, in this form's own words."""
    if answer.stop_reason in FINISH_REASONS:
        return answer.stop_reason or "stop"
    return "tool_calls" if answer.tool_calls else "stop"


def usage(told: Usage) -> dict[str, Any]:
    given, written = told.input_tokens or 0, told.output_tokens or 0
    return {
        "prompt_tokens": given,
        "completion_tokens": written,
        "total_tokens": given + written,
        "prompt_tokens_details": {"cached_tokens": told.cached_tokens or 0},
        "completion_tokens_details": {"reasoning_tokens": told.reasoning_tokens or 0},
    }


def response_format(fields: Fields) -> tuple[bool, dict[str, Any] | None]:
    """JSON mode and schema, from `response_format`."""
    told = fields.inside("response_format")
    if told is None:
        return False, None
    kind = told.take("type", str)
    if kind == "json_schema":
        schema = told.take("json_schema", dict)
        if schema is None:
            raise wrong(told.path("json_schema"), "is missing")
        told.done()
        return False, schema
    if kind not in ("text", "json_object"):
        raise told.refuse("type", f"{kind!r}")
    told.done()
    return kind == "json_object", None


def stops(fields: Fields) -> list[str] | None:
    told = fields.take("stop", (str, list))
    return [told] if isinstance(told, str) else told or None


def _either(fields: Fields, first: str, second: str) -> int | None:
    one, other = fields.take(first, int), fields.take(second, int)
    return one if one is not None else other  # type: ignore[no-any-return]


def _tool(where: str, told: Any, parent: Fields) -> dict[str, Any]:
    fields = Fields(told, parent.profile, where, parent.dropped)
    kind = fields.take("type", str)
    if kind != "function":
        raise fields.refuse("type", f"a tool of the type {kind!r}")
    function = fields.inside("function")
    if function is None:
        raise wrong(fields.path("function"), "is missing")
    made: dict[str, Any] = {"name": function.take("name", str)}
    for name, form in (("description", str), ("parameters", dict), ("strict", bool)):
        if (value := function.take(name, form)) is not None:
            made[name] = value
    function.done()
    fields.drop("cache_control")
    fields.done()
    return {"type": "function", "function": made}


def _tool_choice(fields: Fields) -> Any:
    told = fields.take("tool_choice", (str, dict))
    if told is None or isinstance(told, str):
        return told
    if told.get("type") != "function":
        raise fields.refuse("tool_choice", f"the type {told.get('type')!r}")
    return told


def _message(where: str, told: Any, parent: Fields) -> dict[str, Any]:
    fields = Fields(told, parent.profile, where, parent.dropped)
    role = fields.take("role", str)
    if role not in ("system", "developer", "user", "assistant", "tool"):
        raise wrong(fields.path("role"), f"is {role!r}")
    message: dict[str, Any] = {"role": role}
    content = fields.take("content", (str, list))
    if isinstance(content, list):
        content = [_part(path, part, fields) for path, part in each(content, fields, "content")]
    fields.drop("name", "cache_control")
    if role == "assistant":
        fields.drop("reasoning_content", "reasoning")
        fields.same("annotations", [])
        refusal = fields.take("refusal", str)
        content = content if content is not None else refusal
        calls = fields.take("tool_calls")
        if calls:
            message["tool_calls"] = [_call(path, call, fields) for path, call in each(calls, fields, "tool_calls")]
    if role == "tool":
        message["tool_call_id"] = fields.take("tool_call_id", str)
        content = "" if content is None else content
    if content is not None or role != "assistant":
        message["content"] = content
    elif "tool_calls" not in message:
        message["content"] = ""
    fields.done()
    return message


def _call(where: str, told: Any, parent: Fields) -> dict[str, Any]:
    fields = Fields(told, parent.profile, where, parent.dropped)
    if (kind := fields.take("type", str)) not in ("function", None):
        raise fields.refuse("type", f"a call of the type {kind!r}")
    fields.take("index")
    function = fields.inside("function")
    if function is None:
        raise wrong(fields.path("function"), "is missing")
    name, arguments = function.take("name", str), function.take("arguments", str)
    function.done()
    given_id = fields.take("id", str)
    fields.done()
    return {"id": given_id, "type": "function", "function": {"name": name, "arguments": arguments or ""}}


def _part(where: str, told: Any, parent: Fields) -> dict[str, Any]:
    fields = Fields(told, parent.profile, where, parent.dropped)
    kind = fields.take("type", str)
    fields.drop("cache_control")
    if kind in ("text", "refusal"):
        part: dict[str, Any] = {"type": "text", "text": fields.take(kind, str) or ""}
    elif kind == "image_url":
        image = fields.inside("image_url")
        if image is None:
            raise wrong(fields.path("image_url"), "is missing")
        part = {"type": "image_url", "image_url": {"url": image.take("url", str)}}
        image.same("detail", "auto")
        image.done()
    elif kind == "file":
        file = fields.inside("file")
        if file is None:
            raise wrong(fields.path("file"), "is missing")
        data = file.take("file_data", str)
        if not data or not data.startswith("data:application/pdf;base64,"):
            raise fields.refuse("file", "only a PDF given as a data URL can be passed on")
        part = {"type": "file", "file": {"filename": file.take("filename", str) or "file.pdf", "file_data": data}}
        file.done()
    else:
        raise fields.refuse("type", f"a part of the type {kind!r}")
    fields.done()
    return part
