"""JSON as servers send it: strict about what it means, lenient about how it is spelled.

A byte order mark, NaN, a lone surrogate or an id that is a number do not make an answer unusable; bytes that are not
UTF-8, text that is no JSON, and nesting without end do.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_BOM = b"\xef\xbb\xbf"
_SURROGATE = re.compile("[\ud800-\udfff]")
_HIGH = re.compile("[\ud800-\udbff]\\Z")
REPLACEMENT = "\ufffd"
MAX_COUNT = 1 << 53


class NotJsonError(ValueError):
    """The bytes hold no JSON that can be read; the message says why."""


def loads(data: bytes) -> Any:
    """Decode a JSON document.

    Strings may hold surrogates, where the document escapes half a character: `word` and `whole` mend them.

    Raises:
        NotJsonError: it is none.
    """
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return json.loads(data.removeprefix(_BOM).decode(), strict=False)
    except UnicodeDecodeError:
        problem = "it is not valid UTF-8"
    except RecursionError:
        problem = "it is nested too deeply"
    except ValueError:
        problem = "it is not valid JSON"
    raise NotJsonError(problem)


def dumps(value: Any) -> str:
    """JSON text of a decoded value, with half characters replaced."""
    try:
        return _encode(value).decode()
    except (UnicodeEncodeError, TypeError, ValueError, RecursionError):
        pass
    try:
        return _encode(mended(value)).decode()
    except (TypeError, ValueError, RecursionError):
        return ""


UNREADABLE = "unreadable_arguments"
"""Where the text of a tool call's arguments stands that are no JSON object: forms and servers want one."""


def arguments_of(text: str) -> dict[str, Any]:
    """The arguments of a tool call as an object. What a model wrote that is none is kept, marked, as text."""
    try:
        value = _decode(text.encode(errors="surrogatepass")) if text.strip() else {}
    except (msgspec.DecodeError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {UNREADABLE: whole(text)}


def whole(text: str) -> str:
    """The text with the two halves of a character joined, and a half that is alone replaced by U+FFFD."""
    if text.isascii() or not _SURROGATE.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def mended(value: Any) -> Any:
    """A JSON value with `whole` text everywhere, also in names; the same object where nothing had to be mended."""
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, dict):
        return {mended(name): mended(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [mended(inner) for inner in value]
    return value


def word(value: Any) -> str:
    """A name, an id, a reason: text as it is, a number as text; anything else is none."""
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    return str(value)


def count(value: Any) -> int | None:
    """A count, also one written as text; None for anything else."""
    if isinstance(value, str):
        if not (value.isascii() and value.strip().isdecimal() and len(value) < 20):
            return None
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < MAX_COUNT:
        return None
    return int(value)


class Halves:
    """Joins the text of a stream: half a character at the end of one piece waits for the next piece."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = ""

    def join(self, text: str) -> str:
        """What of the text so far can be given now."""
        if not self._held and (text.isascii() or not _SURROGATE.search(text)):
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
