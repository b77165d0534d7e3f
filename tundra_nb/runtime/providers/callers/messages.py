"""Anthropic's Messages as a caller's form."""

from __future__ import annotations

from typing import Any

from tundra_nb.errors import TundraError
from tundra_nb.runtime.providers.contract import Answer
from tundra_nb.runtime.providers.lenient import arguments_of
from tundra_nb.types import Ask, Usage
from tundra_nb.types.pieces import Piece, Reasoning, Text, ToolCallPiece

from . import failure
from .form import Fields, Order, Question, each, encode, event, wrong

STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


class MessagesForm:
    """`POST /v1/messages`."""

    vendor = "anthropic"

    def read(self, body: dict[str, Any], profile: str) -> Question:
        fields = Fields(body, profile)
        fields.drop("metadata", "cache_control", "service_tier")
        fields.same("context_management", {})
        fields.same("mcp_servers", [])
        tools = [_tool(where, told, fields) for where, told in each(fields.take("tools") or [], fields, "tools")]
        choice, parallel = _tool_choice(fields)
        schema, effort = _output(fields)
        _thinking(fields)
        messages = _system(fields)
        for where, told in each(fields.take("messages"), fields, "messages"):
            messages += _turn(where, told, fields)
        if messages and messages[-1]["role"] == "assistant":
            raise fields.refuse("messages", "the last turn is the assistant's (a prefilled answer)")
        ask = Ask(
            model=fields.take("model", str),
            messages=messages,
            max_tokens=fields.take("max_tokens", int),
            temperature=fields.take("temperature", (int, float)),
            top_p=fields.take("top_p", (int, float)),
            stop=fields.take("stop_sequences", list) or None,
            tools=tools or None,
            tool_choice=choice if tools else None,
            parallel_tool_calls=parallel if tools else None,
            json_schema=schema,
            effort=effort,
            stream=bool(fields.take("stream", bool)),
            caller="gateway",
        )
        fields.done()
        return Question(ask=ask, dropped=tuple(fields.dropped))

    def answer(self, answer: Answer, *, operation_id: str, created: int) -> bytes:
        del created  # this form tells no time
        content: list[dict[str, Any]] = []
        if answer.reasoning:
            content.append({"type": "thinking", "thinking": answer.reasoning, "signature": ""})
        if answer.text:
            content.append({"type": "text", "text": answer.text})
        for call in answer.tool_calls:
            given = arguments_of(call.arguments)
            content.append({"type": "tool_use", "id": call.id, "name": call.name, "input": given})
        told = _message(operation_id, answer.model)
        told |= {"content": content, "stop_reason": stop_reason(answer), "usage": usage(answer.usage)}
        return encode(told)

    def writer(self, *, operation_id: str, created: int, model: str, include_usage: bool) -> MessagesWriter:
        del created, include_usage  # this form tells no time, and usage always
        return MessagesWriter(operation_id, model)


class MessagesWriter:
    """Writes one streamed answer: one block after the other, numbered without a gap."""

    def __init__(self, operation_id: str, model: str) -> None:
        self._operation_id = operation_id
        self._model = model
        self._begun = False
        self._index = -1
        self._order = Order(self._open, self._more, self._close)

    def piece(self, piece: Piece) -> bytes:
        return self._start() + self._order.piece(piece)

    def finish(self, answer: Answer) -> bytes:
        delta = {"stop_reason": stop_reason(answer), "stop_sequence": None}
        end = {"type": "message_delta", "delta": delta, "usage": usage(answer.usage)}
        return b"".join((self._start(), self._order.finish(), _event(end), _event({"type": "message_stop"})))

    def fail(self, error: TundraError) -> bytes:
        return event(failure.fault("anthropic", error, operation_id=self._operation_id), "error")

    def _start(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        message = _message(self._operation_id, self._model)
        message |= {"content": [], "stop_reason": None, "usage": {"input_tokens": 0, "output_tokens": 0}}
        return _event({"type": "message_start", "message": message})

    def _open(self, _: str, piece: Piece) -> bytes:
        self._index += 1
        match piece:
            case ToolCallPiece():
                block: dict[str, Any] = {"type": "tool_use", "id": piece.id, "name": piece.name, "input": {}}
            case Reasoning():
                block = {"type": "thinking", "thinking": "", "signature": ""}
            case _:
                block = {"type": "text", "text": ""}
        return _event({"type": "content_block_start", "index": self._index, "content_block": block})

    def _more(self, piece: Piece) -> bytes:
        match piece:
            case ToolCallPiece():
                delta = {"type": "input_json_delta", "partial_json": piece.arguments}
            case Reasoning(text):
                delta = {"type": "thinking_delta", "thinking": text}
            case Text(text):
                delta = {"type": "text_delta", "text": text}
            case _:
                return b""
        return _event({"type": "content_block_delta", "index": self._index, "delta": delta})

    def _close(self) -> bytes:
        return _event({"type": "content_block_stop", "index": self._index})


def stop_reason(answer: Answer) -> str:
    """The reason to stop, in this form's own words."""
    if answer.stop_reason in (None, "stop") and answer.tool_calls:
        return "tool_use"
    told = answer.stop_reason or "stop"
    return STOP_REASONS.get(told, "end_turn")


def usage(told: Usage) -> dict[str, Any]:
    cached, stored = told.cached_tokens or 0, told.cache_write_tokens or 0
    return {
        "input_tokens": max((told.input_tokens or 0) - cached - stored, 0),
        "cache_creation_input_tokens": stored,
        "cache_read_input_tokens": cached,
        "output_tokens": told.output_tokens or 0,
    }


def _message(operation_id: str, model: str) -> dict[str, Any]:
    return {
        "id": f"msg_{operation_id}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "stop_sequence": None,
    }


def _event(value: dict[str, Any]) -> bytes:
    return event(value, value["type"])


def _system(fields: Fields) -> list[dict[str, Any]]:
    told = fields.take("system", (str, list))
    if not told:
        return []
    if isinstance(told, str):
        return [{"role": "system", "content": told}]
    parts = [_block(where, block, fields) for where, block in each(told, fields, "system")]
    return [{"role": "system", "content": _plain(parts)}]


def _tool(where: str, told: Any, parent: Fields) -> dict[str, Any]:
    fields = Fields(told, parent.profile, where, parent.dropped)
    if (kind := fields.take("type", str)) not in ("custom", None):
        raise fields.refuse("type", f"{kind!r}, a tool that the vendor itself runs")
    made: dict[str, Any] = {"name": fields.take("name", str)}
    if (text := fields.take("description", str)) is not None:
        made["description"] = text
    made["parameters"] = fields.take("input_schema", dict) or {"type": "object"}
    if (strict := fields.take("strict", bool)) is not None:
        made["strict"] = strict
    fields.drop("cache_control", "eager_input_streaming")
    fields.done()
    return {"type": "function", "function": made}


def _tool_choice(fields: Fields) -> tuple[Any, bool | None]:
    told = fields.inside("tool_choice")
    if told is None:
        return None, None
    kind = told.take("type", str)
    one_only = told.take("disable_parallel_tool_use", bool)
    if kind == "tool":
        choice: Any = {"type": "function", "function": {"name": told.take("name", str)}}
    elif kind in _CHOICES:
        choice = _CHOICES[kind]
    else:
        raise wrong(told.path("type"), f"is {kind!r}")
    told.done()
    return choice, None if one_only is None else not one_only


def _output(fields: Fields) -> tuple[dict[str, Any] | None, str | None]:
    """Schema of the answer and effort."""
    told = fields.inside("output_config")
    if told is None:
        return None, None
    effort = told.take("effort", str)
    form = told.inside("format")
    schema = None
    if form is not None:
        if form.take("type", str) != "json_schema":
            raise form.refuse("type")
        schema = {"name": "answer", "schema": form.take("schema", dict), "strict": True}
        form.done()
    told.done()
    return schema, effort


def _thinking(fields: Fields) -> None:
    told = fields.inside("thinking")
    if told is None:
        return
    kind = told.take("type", str)
    if kind == "enabled":
        raise told.refuse("budget_tokens", "a budget for thinking")
    if kind == "adaptive":  # it permits thinking, and does not ask for it
        fields.dropped.append(told.where)
        told.drop("display")
    told.done()


def _turn(where: str, told: Any, parent: Fields) -> list[dict[str, Any]]:
    """One turn as messages: each tool result is one of its own, before what else the turn says."""
    fields = Fields(told, parent.profile, where, parent.dropped)
    role = fields.take("role", str)
    content = fields.take("content", (str, list))
    fields.done()
    if role not in ("user", "assistant", "system"):
        raise wrong(fields.path("role"), f"is {role!r}")
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    if role == "assistant":
        return _assistant(content, fields)
    results: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    for path, block in each(content, fields, "content"):
        if isinstance(block, dict) and block.get("type") == "tool_result":
            results.append(_result(path, block, fields))
        else:
            parts.append(_block(path, block, fields))
    return [*results, {"role": role, "content": _plain(parts)}] if parts else results


def _assistant(content: Any, parent: Fields) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    for where, told in each(content, parent, "content"):
        fields = Fields(told, parent.profile, where, parent.dropped)
        kind = fields.take("type", str)
        fields.drop("cache_control")
        match kind:
            case "text":
                fields.same("citations", [])
                parts.append({"type": "text", "text": fields.take("text", str) or ""})
            case "tool_use":
                fields.drop("caller")
                function = {
                    "name": fields.take("name", str),
                    "arguments": encode(fields.take("input", dict) or {}).decode(),
                }
                calls.append({"id": fields.take("id", str), "type": "function", "function": function})
            case "thinking":
                if fields.take("signature", str):
                    raise fields.refuse("signature", "a signature of one vendor is nothing to another")
                fields.take("thinking", str)
                parent.dropped.append(where)
            case _:
                raise fields.refuse("type", f"a block of the type {kind!r}")
        fields.done()
    message: dict[str, Any] = {"role": "assistant"}
    if parts or not calls:
        message["content"] = _plain(parts)
    if calls:
        message["tool_calls"] = calls
    return [message]


def _result(where: str, told: Any, parent: Fields) -> dict[str, Any]:
    fields = Fields(told, parent.profile, where, parent.dropped)
    fields.take("type")
    fields.drop("cache_control")
    message: dict[str, Any] = {"role": "tool", "tool_call_id": fields.take("tool_use_id", str)}
    content = fields.take("content", (str, list))
    if isinstance(content, list):
        parts = []
        for path, block in each(content, fields, "content"):
            part = _block(path, block, fields)
            if part["type"] != "text":
                raise fields.refuse("content", "a tool result that is no text")
            parts.append(part)
        content = _plain(parts)
    message["content"] = content or ""
    if fields.take("is_error", bool):
        message["is_error"] = True
    fields.done()
    return message


def _block(where: str, told: Any, parent: Fields) -> dict[str, Any]:
    """A block of a user's or system's turn."""
    if isinstance(told, str):
        return {"type": "text", "text": told}
    fields = Fields(told, parent.profile, where, parent.dropped)
    kind = fields.take("type", str)
    fields.drop("cache_control")
    match kind:
        case "text":
            fields.same("citations", [])
            part: dict[str, Any] = {"type": "text", "text": fields.take("text", str) or ""}
        case "image":
            part = {"type": "image_url", "image_url": {"url": _url(fields, "image")}}
        case "document":
            name = fields.take("title", str) or "file.pdf"
            fields.same("citations", {"enabled": False})
            part = {"type": "file", "file": {"filename": name, "file_data": _url(fields, "application/pdf")}}
        case _:
            raise fields.refuse("type", f"a block of the type {kind!r}")
    fields.done()
    return part


def _url(fields: Fields, media: str) -> str:
    """The URL of an image or document."""
    source = fields.inside("source")
    if source is None:
        raise wrong(fields.path("source"), "is missing")
    kind = source.take("type", str)
    if kind == "base64":
        told = source.take("media_type", str) or ""
        if not told.startswith(media):
            raise source.refuse("media_type", f"{told!r}")
        url = f"data:{told};base64,{source.take('data', str)}"
    elif kind == "url" and media == "image":
        url = source.take("url", str) or ""
    else:
        raise source.refuse("type", f"a source of the type {kind!r}")
    source.done()
    return url


def _plain(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """A lone text as text, which every server reads."""
    if not parts:
        return ""
    if len(parts) == 1 and parts[0]["type"] == "text":
        return str(parts[0]["text"])
    return parts
