"""Checks of an `Ask` before anything is sent: each failure is a `UsageError` that names the field."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from tundra_nb.errors import UsageError
from tundra_nb.nearest import nearest
from tundra_nb.types import Ask

MAX_TEXT_BYTES = 4 * 1024 * 1024
"""About a million tokens: the largest context commonly offered. Images do not count."""
MAX_BODY_BYTES = 32 * 1024 * 1024
"""Anthropic's limit for a whole request; OpenAI's is higher."""
MAX_TEMPERATURE = 2.0
ROLES = ("system", "developer", "user", "assistant", "tool")
PARTS = ("text", "image_url", "file")
TOOL_CHOICES = ("auto", "none", "required")
SCHEMA_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
MAX_SCHEMA_DEPTH = 64
OURS = {
    "model": "model",
    "messages": "messages",
    "stream": "stream",
    "stream_options": "stream",
    "max_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "temperature": "temperature",
    "tools": "tools",
    "tool_choice": "tool_choice",
    "stop": "stop",
    "stop_sequences": "stop",
    "system": "messages",
}
"""Fields of a provider's body that may not come through `extra`, and the field of `Ask` to use instead."""

_TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_PDF_URL = "data:application/pdf;base64,"
_DATA_URL = re.compile(r"data:image/[a-z0-9.+-]+;base64,[a-z0-9+/_-]{4}", re.IGNORECASE)
"""Only the start is looked at: an image of 20 MB must not hold up the loop."""


BIG_BYTES = 256 * 1024
"""A larger conversation is translated in a thread: on the loop it would hold up everybody for milliseconds."""


class AskSize(msgspec.Struct, frozen=True):
    """How large an ask is."""

    text_bytes: int
    images: int


def check_ask(ask: Ask) -> AskSize:
    """Check an ask and measure it.

    Raises:
        UsageError: the first thing that is wrong; `field` names it, as `messages[2].content`.
    """
    if not ask.messages:
        raise _wrong("messages", "the prompt is empty", "Give a text, or a list of messages.")
    size = _Measure()
    called: set[str] = set()
    for index, message in enumerate(ask.messages):
        _message(f"messages[{index}]", message, size, called)
    if not any(message["role"] not in ("system", "developer") for message in ask.messages):
        raise _wrong("messages", "there is only a system prompt, nothing to answer", "Add a message of role 'user'.")
    if not size.substance:
        raise _wrong("messages", "the prompt is empty", "Give a text, or a list of messages.")
    if ask.tools is not None:
        _tools(ask.tools, size)
    _tool_choice(ask)
    _numbers(ask)
    _stop(ask.stop)
    for name in ask.extra or ():
        if name in OURS:
            raise _wrong(f"extra.{name}", f"{name!r} cannot be given in `extra`", f"Use `{OURS[name]}`.")
    if ask.extra and ask.extra.get("n", 1) != 1:
        raise _wrong("extra.n", "only one answer per call can be read", "Call several times instead.")
    if size.text_bytes > MAX_TEXT_BYTES:
        problem = f"the prompt has {size.text_bytes:,} bytes of text, more than {MAX_TEXT_BYTES:,}"
        raise _wrong("messages", problem, "Shorten it, or split it over several calls.")
    if size.text_bytes + size.image_bytes > MAX_BODY_BYTES:
        problem = f"the request has more than {MAX_BODY_BYTES:,} bytes"
        raise _wrong("messages", problem, "Send fewer or smaller images.")
    return AskSize(size.text_bytes, size.images)


class _Measure:
    def __init__(self) -> None:
        self.text_bytes = 0
        self.images = 0
        self.image_bytes = 0
        self.substance = False

    def text(self, field: str, text: str) -> None:
        try:
            self.text_bytes += len(text) if text.isascii() else len(text.encode())
        except UnicodeEncodeError:
            raise _wrong(field, f"{field} holds half a character (a lone surrogate)", "Decode the text anew.") from None
        self.substance = self.substance or bool(text.strip())


def _message(field: str, message: Any, size: _Measure, called: set[str]) -> None:
    if not isinstance(message, dict):
        raise _wrong(
            field, f"{field} is a {type(message).__name__}, not a message", 'Like {"role": "user", "content": "…"}.'
        )
    role = message.get("role")
    if role not in ROLES:
        problem = f"{field} has no role" if role is None else f"{field} has the unknown role {role!r}"
        near = nearest(role, ROLES) if isinstance(role, str) else None
        raise UsageError(problem=problem, field=f"{field}.role", nearest=near, remedy=f"One of {', '.join(ROLES)}.")
    content = message.get("content")
    calls = message.get("tool_calls")
    if calls and role != "assistant":
        raise _wrong(f"{field}.tool_calls", f"{field} of role {role!r} cannot call tools", "Only 'assistant' does.")
    if content is None and not (role == "assistant" and calls):
        raise _wrong(f"{field}.content", f"{field} has no content", "Give a text or a list of parts.")
    if isinstance(content, str):
        size.text(f"{field}.content", content)
    elif isinstance(content, list):
        for index, part in enumerate(content):
            _part(f"{field}.content[{index}]", part, role, size)
    elif content is not None:
        raise _wrong(
            f"{field}.content", f"{field}.content is a {type(content).__name__}", "Give a text or a list of parts."
        )
    if calls:
        _tool_calls(f"{field}.tool_calls", calls, size, called)
    if role == "tool":
        name = message.get("tool_call_id")
        if not isinstance(name, str) or name not in called:
            problem = f"{field} answers the tool call {name!r}, which no message before it makes"
            raise UsageError(
                problem=problem,
                field=f"{field}.tool_call_id",
                nearest=nearest(name, called) if isinstance(name, str) else None,
                remedy="Use the id of a tool call of the assistant.",
            )
        size.substance = True


def _part(field: str, part: Any, role: str, size: _Measure) -> None:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind not in PARTS:
        near = nearest(kind, PARTS) if isinstance(kind, str) else None
        raise UsageError(
            problem=f"{field} is no part that can be sent (type {kind!r})",
            field=f"{field}.type",
            nearest=near,
            remedy=f"One of {', '.join(PARTS)}.",
        )
    if kind == "text":
        if not isinstance(part.get("text"), str):
            raise _wrong(f"{field}.text", f"{field} has no text", 'Like {"type": "text", "text": "…"}.')
        size.text(f"{field}.text", part["text"])
        return
    if kind == "file":
        _file(field, part, role, size)
        return
    image = part.get("image_url")
    url = image.get("url") if isinstance(image, dict) else None
    if not isinstance(url, str):
        raise _wrong(
            f"{field}.image_url", f"{field} has no image URL", 'Like {"image_url": {"url": "data:image/png;base64,…"}}.'
        )
    if role != "user":
        raise _wrong(field, f"{field}: a message of role {role!r} cannot hold images", "Put it into a 'user' message.")
    if not url.startswith(("http://", "https://")) and not (_DATA_URL.match(url) and url.isascii()):
        remedy = "An http(s) URL, or data:image/png;base64,…"
        raise _wrong(f"{field}.image_url.url", f"{field} is neither an http(s) nor a base64 image URL", remedy)
    size.images += 1
    size.image_bytes += len(url)
    size.substance = True


def _file(field: str, part: dict[str, Any], role: str, size: _Measure) -> None:
    file = part.get("file")
    data = file.get("file_data") if isinstance(file, dict) else None
    if not isinstance(data, str) or not data.startswith(_PDF_URL) or not data.isascii():
        remedy = 'Like {"file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,…"}}.'
        raise _wrong(f"{field}.file", f"{field} holds no PDF as a data URL", remedy)
    if role != "user":
        raise _wrong(field, f"{field}: a message of role {role!r} cannot hold files", "Put it into a 'user' message.")
    size.image_bytes += len(data)
    size.substance = True


def _tool_calls(field: str, calls: Any, size: _Measure, called: set[str]) -> None:
    if not isinstance(calls, list):
        raise _wrong(field, f"{field} is not a list", "")
    for index, call in enumerate(calls):
        here = f"{field}[{index}]"
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise _wrong(f"{here}.function", f"{here} names no function", "")
        if not isinstance(call.get("id"), str) or not call["id"]:
            raise _wrong(f"{here}.id", f"{here} has no id", "")
        arguments = function.get("arguments", "{}")
        if not isinstance(arguments, str):  # as text they may be anything: a model's own broken ones are sent back too
            raise _wrong(f"{here}.function.arguments", f"the arguments of {here} are no text", "As the model wrote it.")
        size.text(f"{here}.function.arguments", arguments)
        called.add(call["id"])


def _tools(tools: Any, size: _Measure) -> None:
    if not isinstance(tools, list):
        raise _wrong("tools", "tools is not a list", "")
    seen: set[str] = set()
    for index, tool in enumerate(tools):
        field = f"tools[{index}]"
        function = (
            tool.get("function") if isinstance(tool, dict) and tool.get("type", "function") == "function" else None
        )
        if not isinstance(function, dict):
            remedy = 'Like {"type": "function", "function": {"name": "…", "parameters": {…}}}.'
            raise _wrong(field, f"{field} is no function tool", remedy)
        name = function.get("name")
        if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
            remedy = "1 to 64 letters, digits, '_' or '-'."
            raise _wrong(f"{field}.function.name", f"{field} has the unusable name {name!r}", remedy)
        if name in seen:
            raise _wrong(f"{field}.function.name", f"two tools are called {name!r}", "Name them apart.")
        seen.add(name)
        description = function.get("description")
        if description is not None and not isinstance(description, str):
            raise _wrong(f"{field}.function.description", f"the description of {name!r} is no text", "")
        parameters = function.get("parameters")
        if parameters is not None:
            where = f"{field}.function.parameters"
            if not isinstance(parameters, dict) or parameters.get("type", "object") != "object":
                raise _wrong(where, f"the parameters of {name!r} are not a JSON schema of type 'object'", "")
            _schema(where, parameters, 0)
        try:
            size.text_bytes += len(msgspec.json.encode(tool))
        except (TypeError, ValueError, UnicodeEncodeError) as exc:
            raise _wrong(field, f"{field} cannot be written as JSON: {exc}", "") from exc


def _schema(field: str, schema: Any, depth: int) -> None:
    """Check what any JSON schema must be; finer rules are the provider's."""
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict) or depth > MAX_SCHEMA_DEPTH:
        raise _wrong(field, f"{field} is not a JSON schema", "")
    kind = schema.get("type")
    for name in kind if isinstance(kind, list) else [kind] if kind is not None else []:
        if name not in SCHEMA_TYPES:
            near = nearest(name, SCHEMA_TYPES) if isinstance(name, str) else None
            problem = f"{field} has the unknown type {name!r}"
            remedy = f"One of {', '.join(SCHEMA_TYPES)}."
            raise UsageError(problem=problem, field=f"{field}.type", nearest=near, remedy=remedy)
    properties = schema.get("properties", {})
    if not isinstance(properties, dict):
        raise _wrong(f"{field}.properties", f"{field}.properties is not an object", "")
    for name, inner in properties.items():
        _schema(f"{field}.properties.{name}", inner, depth + 1)
    if "items" in schema and not isinstance(schema["items"], list):
        _schema(f"{field}.items", schema["items"], depth + 1)
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise _wrong(f"{field}.required", f"{field}.required is not a list of names", "")


def _tool_choice(ask: Ask) -> None:
    choice = ask.tool_choice
    if choice is None:
        return
    if not ask.tools:
        raise _wrong("tool_choice", "tool_choice is given, but no tools are", "Give `tools` too.")
    if isinstance(choice, str):
        if choice not in TOOL_CHOICES:
            raise UsageError(
                problem=f"unknown tool_choice {choice!r}",
                field="tool_choice",
                nearest=nearest(choice, TOOL_CHOICES),
                remedy=f"One of {', '.join(TOOL_CHOICES)}, or a function.",
            )
        return
    function = choice.get("function") if isinstance(choice, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    names = [tool["function"]["name"] for tool in ask.tools]
    if name not in names:
        near = nearest(name, names) if isinstance(name, str) else None
        problem = f"tool_choice names no tool that is given ({name!r})"
        raise UsageError(problem=problem, field="tool_choice", nearest=near, remedy=f"One of {', '.join(names)}.")


def _numbers(ask: Ask) -> None:
    if ask.max_tokens is not None and (isinstance(ask.max_tokens, bool) or ask.max_tokens < 1):
        raise _wrong("max_tokens", f"max_tokens is {ask.max_tokens}", "At least 1.")
    temperature = ask.temperature
    if temperature is not None and not (math.isfinite(temperature) and 0 <= temperature <= MAX_TEMPERATURE):
        raise _wrong("temperature", f"temperature is {temperature}", f"Between 0 and {MAX_TEMPERATURE:g}.")
    if ask.extra:
        _finite("extra", ask.extra)


def _finite(field: str, value: Any, depth: int = 0) -> None:
    """JSON has no NaN: it would silently become null."""
    if isinstance(value, float) and not math.isfinite(value):
        raise _wrong(field, f"{field} is {value}", "A finite number.")
    if depth > MAX_SCHEMA_DEPTH:
        raise _wrong(field, f"{field} is nested too deeply", "")
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _finite(f"{field}.{name}", inner, depth + 1)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            _finite(f"{field}[{index}]", inner, depth + 1)


def _stop(stop: list[str] | None) -> None:
    for index, text in enumerate(stop or ()):
        if not isinstance(text, str) or not text:
            raise _wrong(f"stop[{index}]", f"stop[{index}] is no text", "Non-empty texts at which the answer ends.")


def _wrong(field: str, problem: str, remedy: str) -> UsageError:
    return UsageError(problem=problem, field=field, remedy=remedy)
