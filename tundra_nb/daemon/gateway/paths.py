"""The paths of the two forms, and what each answers with."""

from __future__ import annotations

import functools
from typing import Literal

import msgspec

Dialect = Literal["openai", "anthropic"]


class Path(msgspec.Struct, frozen=True):
    """One path below `/v1`. `form` "" is the model list."""

    form: str
    family: Dialect
    method: str
    dialect: str
    """The word in the rows."""


PATHS: dict[str, Path] = {
    "/chat/completions": Path("chat", "openai", "POST", "openai-chat"),
    "/responses": Path("responses", "openai", "POST", "openai-responses"),
    "/embeddings": Path("embeddings", "openai", "POST", "openai-embeddings"),
    "/messages": Path("messages", "anthropic", "POST", "anthropic"),
    "/messages/count_tokens": Path("count_tokens", "anthropic", "POST", "anthropic"),
}
MODELS = "/models"
PREFIX = "/v1"


@functools.lru_cache(maxsize=256)
def below(path: str) -> str:
    """A path without its `/v1`, however often that was put in: base URLs are given with it and without."""
    while path == PREFIX or path.startswith(PREFIX + "/"):
        path = path[len(PREFIX) :]
    return path if len(path) < 2 else path.rstrip("/")


def family_of(path: str, headers: dict[bytes, bytes]) -> Dialect:
    """Whose form an answer is to have, also on a path that there is not."""
    known = PATHS.get(path)
    if known is not None:
        return known.family
    if b"anthropic-version" in headers or (b"x-api-key" in headers and b"authorization" not in headers):
        return "anthropic"
    return "anthropic" if path.startswith("/messages") else "openai"
