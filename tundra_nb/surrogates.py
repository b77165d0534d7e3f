"""Half characters: what is left when something cuts a UTF-16 pair in two. No file, wire or database takes one."""

from __future__ import annotations

import re
from typing import Any

REPLACEMENT = "\ufffd"
_HIGH = re.compile("[\ud800-\udbff]\\Z")


def _has_halves(text: str) -> bool:
    try:
        text.encode()  # faster than a search
    except UnicodeEncodeError:
        return True
    return False


def whole(text: str) -> str:
    """The text with the two halves of a character joined, and a half that is alone replaced by U+FFFD."""
    if text.isascii() or not _has_halves(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def mended(value: Any) -> Any:
    """A JSON value with `whole` text everywhere, also in names."""
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, dict):
        return {mended(name): mended(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [mended(inner) for inner in value]
    return value


class Halves:
    """Joins the text of a stream: half a character at the end of one piece waits for the next piece."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = ""

    def join(self, text: str) -> str:
        """What of the text so far can be given now."""
        if not self._held and (text.isascii() or not _has_halves(text)):
            return text
        text = self._held + text
        self._held = ""
        if _HIGH.search(text):
            text, self._held = text[:-1], text[-1]
        return whole(text)

    def rest(self) -> str:
        """What is left at the end: a half that stayed alone."""
        held, self._held = self._held, ""
        return REPLACEMENT if held else ""
