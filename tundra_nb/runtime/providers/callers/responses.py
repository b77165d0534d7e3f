"""OpenAI's Responses as a caller's form."""

from __future__ import annotations

from typing import Any

from tundra_nb.errors import TundraError
from tundra_nb.runtime.providers.contract import Answer
from tundra_nb.types import Ask, ToolCall, Usage
from tundra_nb.types.pieces import Piece, Reasoning, Text, ToolCallPiece

from . import failure
from .form import Fields, Order, Question, each, encode, event, wrong

DROPPED = (
    "user",
    "metadata",
    "store",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "client_metadata",
    "stream_options",
)
_TEXT_PARTS = ("input_text", "output_text", "text", "refusal")


class ResponsesForm:
    """`POST /v1/responses`."""

    vendor = "openai"

    def read(self, body: dict[str, Any], profile: str) -> Question:
        fields = Fields(body, profile)
        fields.drop(*DROPPED)
        fields.same("background", False)
        fields.same("truncation", "disabled")
        fields.same("service_tier", "auto", "default")
        fields.same("top_logprobs", 0)
        for name in ("previous_response_id", "conversation", "prompt"):
            if fields.take(name) is not None:
                raise fields.refuse(name, "it is kept by the vendor that made it")
        if fields.take("include", list) not in (None, []):
            _include(body["include"], fields)
        effort = _reasoning(fields)
        json_mode, schema = _text(fields)
        tools = [_tool(where, told, fields) for where, told in each(fields.take("tools") or [], fields, "tools")]
        choice = _tool_choice(fields)
        parallel = fields.take("parallel_tool_calls", bool)
        instructions = fields.take("instructions", str)
        messages = [{"role": "system", "content": instructions}] if instructions else []
        ask = Ask(
            model=fields.take("model", str),
            messages=messages + _input(fields),
            max_tokens=fields.take("max_output_tokens", int),
            temperature=fields.take("temperature", (int, float)),
            top_p=fields.take("top_p", (int, float)),
            tools=tools or None,
            tool_choice=choice if tools else None,
            parallel_tool_calls=parallel if tools else None,
            json_mode=json_mode,
            json_schema=schema,
            effort=effort,
            stream=bool(fields.take("stream", bool)),
            caller="gateway",
        )
        fields.done()
        return Question(ask=ask, dropped=tuple(fields.dropped))

    def answer(self, answer: Answer, *, operation_id: str, created: int) -> bytes:
        output: list[dict[str, Any]] = []
        if answer.reasoning:
            output.append(_reasoning_item(operation_id, len(output), answer.reasoning))
        if answer.text or not answer.tool_calls:
            output.append(_message_item(operation_id, len(output), answer.text, "completed"))
        for call in answer.tool_calls:
            output.append(_call_item(operation_id, len(output), call, "completed"))
        return encode(_response(operation_id, created, answer.model, output, answer))

    def writer(self, *, operation_id: str, created: int, model: str, include_usage: bool) -> ResponsesWriter:
        del include_usage  # this form always tells it
        return ResponsesWriter(operation_id, created, model)


class ResponsesWriter:
    """Writes one streamed answer: one item after the other, each with all events that SDKs wait for."""

    def __init__(self, operation_id: str, created: int, model: str) -> None:
        self._operation_id = operation_id
        self._created = created
        self._model = model
        self._sequence = 0
        self._output: list[dict[str, Any]] = []
        self._item: dict[str, Any] = {}
        self._parts: list[str] = []
        self._order = Order(self._open, self._more, self._close)

    def piece(self, piece: Piece) -> bytes:
        return self._start() + self._order.piece(piece)

    def finish(self, answer: Answer) -> bytes:
        frames = [self._start(), self._order.finish()]
        if not self._output:
            frames += [self._open("text", Text("")), self._close()]
        response = _response(self._operation_id, self._created, answer.model, self._output, answer)
        name = "response.completed" if response["status"] == "completed" else "response.incomplete"
        return b"".join([*frames, self._event(name, response=response)])

    def fail(self, error: TundraError) -> bytes:
        return self._event("error", **failure.fault("openai", error, operation_id=self._operation_id))

    def _start(self) -> bytes:
        if self._sequence:
            return b""
        response = _response(self._operation_id, self._created, self._model, [], None)
        return self._event("response.created", response=response) + self._event(
            "response.in_progress", response=response
        )

    def _event(self, kind: str, **told: Any) -> bytes:
        frame = event({"type": kind, "sequence_number": self._sequence, **told}, kind)
        self._sequence += 1
        return frame

    @property
    def _place(self) -> dict[str, Any]:
        return {"item_id": self._item["id"], "output_index": len(self._output)}

    def _open(self, _: str, piece: Piece) -> bytes:
        number = len(self._output)
        self._parts = []
        match piece:
            case ToolCallPiece():
                call = ToolCall(id=piece.id, name=piece.name, arguments="")
                self._item = _call_item(self._operation_id, number, call, "in_progress")
            case Reasoning():
                self._item = _reasoning_item(self._operation_id, number, None)
            case _:
                self._item = _message_item(self._operation_id, number, None, "in_progress")
        added = self._event("response.output_item.added", output_index=number, item=self._item)
        kind = self._item["type"]
        if kind == "message":
            return added + self._event("response.content_part.added", **self._place, content_index=0, part=_part(""))
        if kind == "reasoning":
            part = {"type": "summary_text", "text": ""}
            return added + self._event(
                "response.reasoning_summary_part.added", **self._place, summary_index=0, part=part
            )
        return added

    def _more(self, piece: Piece) -> bytes:
        match piece:
            case ToolCallPiece():
                told = piece.arguments
                name, more = "response.function_call_arguments.delta", dict[str, Any]()
            case Reasoning(told):
                name, more = "response.reasoning_summary_text.delta", {"summary_index": 0}
            case Text(told):
                name, more = "response.output_text.delta", {"content_index": 0, "logprobs": []}
            case _:
                return b""
        if not told:
            return b""
        self._parts.append(told)
        return self._event(name, **self._place, **more, delta=told)

    def _close(self) -> bytes:
        text, place, number = "".join(self._parts), self._place, len(self._output)
        match self._item["type"]:
            case "function_call":
                call = ToolCall(id=self._item["call_id"], name=self._item["name"], arguments=text or "{}")
                item = _call_item(self._operation_id, number, call, "completed")
                name = "response.function_call_arguments.done"
                frames = self._event(name, **place, name=call.name, arguments=call.arguments)
            case "reasoning":
                item = _reasoning_item(self._operation_id, number, text)
                part = {"type": "summary_text", "text": text}
                frames = self._event("response.reasoning_summary_text.done", **place, summary_index=0, text=text)
                frames += self._event("response.reasoning_summary_part.done", **place, summary_index=0, part=part)
            case _:
                item = _message_item(self._operation_id, number, text, "completed")
                frames = self._event("response.output_text.done", **place, content_index=0, text=text, logprobs=[])
                frames += self._event("response.content_part.done", **place, content_index=0, part=_part(text))
        frames += self._event("response.output_item.done", output_index=number, item=item)
        self._output.append(item)
        return frames


def usage(told: Usage) -> dict[str, Any]:
    given, written = told.input_tokens or 0, told.output_tokens or 0
    return {
        "input_tokens": given,
        "input_tokens_details": {"cached_tokens": told.cached_tokens or 0},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": told.reasoning_tokens or 0},
        "total_tokens": given + written,
    }


def _response(
    operation_id: str, created: int, model: str, output: list[dict[str, Any]], answer: Answer | None
) -> dict[str, Any]:
    """The response as a whole; without an answer, as it stands at the beginning."""
    why = {"length": "max_output_tokens", "content_filter": "content_filter"}.get((answer and answer.stop_reason) or "")
    return {
        "id": f"resp_{operation_id}",
        "object": "response",
        "created_at": created,
        "status": "in_progress" if answer is None else "incomplete" if why else "completed",
        "background": False,
        "error": None,
        "incomplete_details": {"reason": why} if why else None,
        "instructions": None,
        "max_output_tokens": None,
        "metadata": {},
        "model": model,
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": False,
        "temperature": None,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "truncation": "disabled",
        "usage": None if answer is None else usage(answer.usage),
    }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _message_item(operation_id: str, number: int, text: str | None, status: str) -> dict[str, Any]:
    content = [] if text is None else [_part(text)]
    item_id = f"msg_{operation_id}_{number}"
    return {"id": item_id, "type": "message", "status": status, "role": "assistant", "content": content}


def _call_item(operation_id: str, number: int, call: ToolCall, status: str) -> dict[str, Any]:
    told = {"call_id": call.id, "name": call.name, "arguments": call.arguments, "status": status}
    return {"id": f"fc_{operation_id}_{number}", "type": "function_call", **told}


def _reasoning_item(operation_id: str, number: int, text: str | None) -> dict[str, Any]:
    summary = [] if text is None else [{"type": "summary_text", "text": text}]
    return {"id": f"rs_{operation_id}_{number}", "type": "reasoning", "summary": summary}


def _include(told: list[Any], fields: Fields) -> None:
    for name in told:
        if name != "reasoning.encrypted_content":  # what is not there cannot be included
            raise fields.refuse("include", f"{name!r}")
        fields.dropped.append("include")


def _reasoning(fields: Fields) -> str | None:
    told = fields.inside("reasoning")
    if told is None:
        return None
    effort = told.take("effort", str)
    told.drop("summary", "generate_summary")
    told.done()
    return effort  # type: ignore[no-any-return]


def _text(fields: Fields) -> tuple[bool, dict[str, Any] | None]:
    """JSON mode and schema, from `text.format`."""
    told = fields.inside("text")
    if told is None:
        return False, None
    told.same("verbosity", "medium")
    form = told.inside("format")
    told.done()
    if form is None:
        return False, None
    kind = form.take("type", str)
    if kind == "json_schema":
        schema = {"name": form.take("name", str) or "answer", "schema": form.take("schema", dict)}
        for name, value_kind in (("description", str), ("strict", bool)):
            if (value := form.take(name, value_kind)) is not None:
                schema[name] = value
        form.done()
        return False, schema
    if kind not in ("text", "json_object"):
        raise form.refuse("type", f"{kind!r}")
    form.done()
    return kind == "json_object", None


def _tool(where: str, told: Any, parent: Fields) -> dict[str, Any]:
    fields = Fields(told, parent.profile, where, parent.dropped)
    if (kind := fields.take("type", str)) != "function":
        raise fields.refuse("type", f"a tool of the type {kind!r}")
    made: dict[str, Any] = {"name": fields.take("name", str)}
    for name, form in (("description", str), ("parameters", dict), ("strict", bool)):
        if (value := fields.take(name, form)) is not None:
            made[name] = value
    fields.done()
    return {"type": "function", "function": made}


def _tool_choice(fields: Fields) -> Any:
    told = fields.take("tool_choice", (str, dict))
    if told is None or isinstance(told, str):
        return told
    if told.get("type") != "function":
        raise fields.refuse("tool_choice", f"the type {told.get('type')!r}")
    return {"type": "function", "function": {"name": told.get("name")}}


def _input(fields: Fields) -> list[dict[str, Any]]:
    told = fields.take("input", (str, list))
    if isinstance(told, str):
        return [{"role": "user", "content": told}]
    messages: list[dict[str, Any]] = []
    for where, item in each(told, fields, "input"):
        _item(where, item, fields, messages)
    return messages


def _item(where: str, told: Any, parent: Fields, messages: list[dict[str, Any]]) -> None:
    fields = Fields(told, parent.profile, where, parent.dropped)
    kind = fields.take("type", str) or "message"
    fields.take("id")
    fields.take("status")
    match kind:
        case "message":
            role = fields.take("role", str)
            if role not in ("user", "assistant", "system", "developer"):
                raise wrong(fields.path("role"), f"is {role!r}")
            content = fields.take("content", (str, list))
            fields.drop("phase")
            if isinstance(content, list):
                parts = [_content(path, part, fields) for path, part in each(content, fields, "content")]
                content = parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts
            messages.append({"role": role, "content": content if content is not None else ""})
        case "function_call":
            function = {"name": fields.take("name", str), "arguments": fields.take("arguments", str) or ""}
            call = {"id": fields.take("call_id", str), "type": "function", "function": function}
            if messages and messages[-1]["role"] == "assistant":
                messages[-1].setdefault("tool_calls", []).append(call)
            else:
                messages.append({"role": "assistant", "tool_calls": [call]})
        case "function_call_output":
            output = fields.take("output", (str, list))
            if isinstance(output, list):
                parts = [_content(path, part, fields) for path, part in each(output, fields, "output")]
                if any(part["type"] != "text" for part in parts):
                    raise fields.refuse("output", "a tool result that is no text")
                output = "".join(part["text"] for part in parts)
            messages.append({"role": "tool", "tool_call_id": fields.take("call_id", str), "content": output or ""})
        case "reasoning":
            if fields.take("encrypted_content"):
                raise fields.refuse("encrypted_content", "what one vendor has encrypted is nothing to another")
            fields.take("summary")
            fields.take("content")
            parent.dropped.append(where)
        case _:
            raise fields.refuse("type", f"an item of the type {kind!r}")
    fields.done()


def _content(where: str, told: Any, parent: Fields) -> dict[str, Any]:
    fields = Fields(told, parent.profile, where, parent.dropped)
    kind = fields.take("type", str)
    if kind in _TEXT_PARTS:
        part: dict[str, Any] = {
            "type": "text",
            "text": fields.take("refusal" if kind == "refusal" else "text", str) or "",
        }
        fields.same("annotations", [])
        fields.same("logprobs", [])
    elif kind == "input_image":
        if fields.take("file_id") is not None:
            raise fields.refuse("file_id", "it is kept by the vendor that made it")
        fields.same("detail", "auto")
        part = {"type": "image_url", "image_url": {"url": fields.take("image_url", str)}}
    elif kind == "input_file":
        data = fields.take("file_data", str)
        if not data or not data.startswith("data:application/pdf;base64,"):
            raise fields.refuse("type", "only a PDF given as a data URL can be passed on")
        part = {"type": "file", "file": {"filename": fields.take("filename", str) or "file.pdf", "file_data": data}}
    else:
        raise fields.refuse("type", f"a part of the type {kind!r}")
    fields.done()
    return part
