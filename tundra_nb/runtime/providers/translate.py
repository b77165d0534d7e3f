"""Translates the OpenAI form of messages and tools into Anthropic's. What comes in has passed `check`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tundra_nb.types import Ask

from .lenient import arguments_of

Block = dict[str, Any]


def messages(given: Sequence[dict[str, Any]]) -> tuple[str | list[Block], list[dict[str, Any]]]:
    """System prompt and turns.

    System messages are taken out, wherever they stand, and joined. Neighbours of one role become one turn, because all
    results of one round of tool calls must stand in the one user turn that follows it.
    """
    system: list[Block] = []
    turns: list[dict[str, Any]] = []
    for message in given:
        role = message["role"]
        if role in ("system", "developer"):
            system += _blocks(message.get("content"))
            continue
        if role == "tool":
            role, blocks = "user", [_result(message)]
        elif role == "assistant":
            blocks = _blocks(message.get("content")) + [_call(call) for call in message.get("tool_calls") or ()]
        else:
            blocks = _blocks(message.get("content"))
        if not blocks:  # the form refuses empty text
            continue
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    for turn in turns:
        turn["content"] = _plain(turn["content"])
    joined = "\n\n".join(block["text"] for block in system)
    return (system if any("cache_control" in block for block in system) else joined), turns


def tools(given: Sequence[dict[str, Any]]) -> list[Block]:
    """Tool definitions."""
    found = []
    for tool in given:
        function = tool["function"]
        block: Block = {
            "name": function["name"],
            "input_schema": {"type": "object", **(function.get("parameters") or {})},
        }
        if function.get("description"):
            block["description"] = function["description"]
        if function.get("strict") is not None:
            block["strict"] = function["strict"]
        if "cache_control" in tool:
            block["cache_control"] = tool["cache_control"]
        found.append(block)
    return found


def tool_choice(given: Any) -> Block:
    """`auto`, `none`, `required` or a function."""
    if isinstance(given, str):
        return {"type": {"required": "any"}.get(given, given)}
    return {"type": "tool", "name": given["function"]["name"]}


def output(ask: Ask) -> Block:
    """Schema of the answer and effort."""
    told: Block = {}
    if ask.json_schema:
        told["format"] = {"type": "json_schema", "schema": ask.json_schema.get("schema") or {"type": "object"}}
    if ask.effort:
        told["effort"] = ask.effort
    return told


def _blocks(content: Any) -> list[Block]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content.strip() else []
    return [_part(part) for part in content or () if part["type"] != "text" or part["text"].strip()]


def _part(part: dict[str, Any]) -> Block:
    if part["type"] == "text":
        block: Block = {"type": "text", "text": part["text"]}
    elif part["type"] == "file":
        block = {"type": "document", "source": _source(part["file"]["file_data"])}
        if (name := part["file"].get("filename")) and name != "file.pdf":
            block["title"] = name
    else:
        block = {"type": "image", "source": _source(part["image_url"]["url"])}
    if "cache_control" in part:
        block["cache_control"] = part["cache_control"]
    return block


def _source(url: str) -> Block:
    if not url.startswith("data:"):
        return {"type": "url", "url": url}
    head, _, data = url.partition(",")
    return {"type": "base64", "media_type": head[len("data:") :].partition(";")[0].lower(), "data": data}


def _call(call: dict[str, Any]) -> Block:
    function = call["function"]
    given = arguments_of(function.get("arguments") or "")
    return {"type": "tool_use", "id": call["id"], "name": function["name"], "input": given}


def _result(message: dict[str, Any]) -> Block:
    content = message.get("content")
    told = content if isinstance(content, str) else _blocks(content)
    block: Block = {"type": "tool_result", "tool_use_id": message["tool_call_id"], "content": told}
    if message.get("is_error"):
        block["is_error"] = True
    return block


def _plain(blocks: list[Block]) -> str | list[Block]:
    """A lone text is sent as one, which is shorter."""
    if len(blocks) == 1 and blocks[0].keys() == {"type", "text"}:
        text: str = blocks[0]["text"]
        return text
    return blocks
