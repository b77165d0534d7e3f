"""JSON as servers send it: strict about what it means, lenient about how it is spelled.

A byte order mark, NaN, a lone surrogate or an id that is a number do not make an answer unusable; bytes that are not
UTF-8, text that is no JSON, and nesting without end do.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from tundra_nb.surrogates import mended, whole

_decode = msgspec.json.Decoder().decode
_check = msgspec.json.Decoder(msgspec.Raw).decode
_encode = msgspec.json.Encoder().encode
_BOM = b"\xef\xbb\xbf"
MAX_COUNT = 1 << 53
_NUMBER = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_LONGEST_NUMBER = 24
LONGEST_WORD = 16 * 1024
"""Longer ids of tool calls, which some servers pack signatures into, have not been seen; names are far shorter."""


_MOST_DIGITS = 300
"""Longer integers than a float can be are read as infinity, which nobody takes for a count."""


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
        return json.loads(data.removeprefix(_BOM).decode(), strict=False, parse_int=_integer)
    except UnicodeDecodeError:
        problem = "it is not valid UTF-8"
    except RecursionError:
        problem = "it is nested too deeply"
    except ValueError:
        problem = "it is not valid JSON"
    raise NotJsonError(problem)


def is_strict(data: bytes) -> bool:
    """Whether it is JSON that any reader takes: no mark before it, no bare control characters, one document."""
    try:
        _check(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _integer(digits: str) -> float:
    return int(digits) if len(digits) <= _MOST_DIGITS else float(digits)


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


def word(value: Any) -> str:
    """A name, an id, a reason: text as it is, cut where none is so long, a number as text; anything else is none."""
    if isinstance(value, str):
        return whole(value[:LONGEST_WORD])
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    return str(value)


def amount(value: Any) -> float | None:
    """A number that is not negative, also one written as text; None for anything else."""
    if isinstance(value, str):
        if len(value) > _LONGEST_NUMBER or not _NUMBER.fullmatch(value.strip()):
            return None
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < MAX_COUNT:
        return None
    return value


def count(value: Any) -> int | None:
    """A count, also one written as text; None for anything else."""
    if type(value) is int or value is None:  # nearly always
        return value if value is not None and 0 <= value < MAX_COUNT else None
    told = amount(value)
    return None if told is None else int(told)
