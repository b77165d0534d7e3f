"""What in a body means something to one vendor only, and must not go to another."""

from __future__ import annotations

from typing import Any

import msgspec

from tundra_nb.runtime.providers import bodies
from tundra_nb.runtime.providers.relay import CallerBody

TOP = {
    "responses": ("previous_response_id", "conversation", "background", "prompt"),
    "chat": (),
    "messages": ("container",),
    "count_tokens": (),
    "embeddings": (),
}
"""Members at the top that name something the vendor keeps."""
_WITHIN = {
    b'"signature"': "signature",
    b'"redacted_thinking"': "redacted_thinking",
    b'"encrypted_content"': "encrypted_content",
    b'"file_id"': "file_id",
}
"""What may stand inside; looked for as bytes first, because bodies are long and these are rare."""


def staying(given: CallerBody) -> tuple[str, ...]:
    """The fields that bind a call to one vendor, by name."""
    found = [name for name in TOP[given.form] if bodies.value(given.members, name, Any) not in (None, False)]
    words = [word for mark, word in _WITHIN.items() if mark in given.body]
    if words:
        for name in ("messages", "input"):
            if name in given.members:
                found += _inside(bodies.value(given.members, name, list[Any]), words)
    return tuple(dict.fromkeys(found))


def _inside(value: Any, words: list[str]) -> list[str]:
    """Which of the words are really there, as the key or the type of a block of a message."""
    found: list[str] = []
    pending: list[Any] = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, list):
            pending += item
        elif isinstance(item, dict):
            found += [word for word in words if item.get(word) or item.get("type") == word]
            pending += [inner for key, inner in item.items() if key not in ("input", "arguments", "parameters")]
    return found


def previous_response(given: CallerBody) -> str | None:
    """The response that this one goes on from."""
    if given.form != "responses":
        return None
    told = bodies.value(given.members, "previous_response_id", str)
    return told or None


def response_id(body: bytes) -> str | None:
    """The id by which a later call may go on from this answer."""
    try:
        told = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None
    name = told.get("id") if isinstance(told, dict) else None
    return name if isinstance(name, str) else None
