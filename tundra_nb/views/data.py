"""Results → JSON, CSV and TSV: ids as strings, because JavaScript rounds large integers; times as ISO 8601."""

from __future__ import annotations

import datetime as dt
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from tundra_nb.terminal import escapes

from . import Compared, Lines, Message
from .blocks import literal

_UNESCAPED = re.compile(f"\x7f|{escapes.C1}|{escapes.BIDI}")
"""Controls that JSON allows as they are."""
_ROUNDED_BEYOND = 2**53


def to_json(value: Any) -> str:
    """The JSON text of a result."""
    text = msgspec.json.format(msgspec.json.encode(to_data(value)), indent=2).decode()
    return _UNESCAPED.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def printed(value: Any, form: Literal["", "json", "csv", "tsv"]) -> str:
    """A result for programs to read.

    Raises:
        UsageError: it is no table, and cannot be CSV.
    """
    if form not in ("csv", "tsv"):
        return to_json(value)
    from .frame import separated

    return separated(value, "," if form == "csv" else "\t").rstrip("\n")


_ADVICE = frozenset({"hint", "remedy", "remedies", "next", "next_step", "next_steps", "page"})
"""Fields and columns in which we say what to do; everything else is as it came."""


def advised(value: Any, words: Callable[[str], str]) -> Any:
    """A result whose advice names commands as the face of `words` gives them: a frame, or plain values."""
    pandas = sys.modules.get("pandas")
    if pandas is None or not isinstance(value, pandas.DataFrame):
        return _advised(to_data(value), words)
    told = {
        str(name): value[name].map(lambda cell: words(cell) if isinstance(cell, str) else cell)
        for name in value.columns
        if name in _ADVICE
    }
    return value.assign(**told) if told else value


def _advised(data: Any, words: Callable[[str], str], *, is_advice: bool = False) -> Any:
    match data:
        case str():
            return words(data) if is_advice else data
        case dict():
            return {name: _advised(item, words, is_advice=name in _ADVICE) for name, item in data.items()}
        case list():
            return [_advised(item, words, is_advice=is_advice) for item in data]
        case _:
            return data


def to_data(value: Any) -> Any:
    """The same as plain Python values."""
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(value, pandas.DataFrame):
        return [{str(name): to_data(cell) for name, cell in row.items()} for row in value.to_dict("records")]
    match value:
        case None | bool() | str():
            return value
        case bytes():
            return literal(value)
        case int():
            return str(value) if abs(value) > _ROUNDED_BEYOND else value
        case float():
            return value if value - value == 0 else None  # NaN and infinities are no JSON
        case Compared(one, other):
            return [to_data(one), to_data(other)]
        case Message(text):
            return {"message": text}
        case Lines(lines, _):
            return lines
        case dt.datetime():
            return None if value != value else value.isoformat().replace("+00:00", "Z")  # noqa: PLR0124 - NaT
        case msgspec.Struct():
            return to_data(msgspec.structs.asdict(value))
        case Mapping():
            return {str(name): to_data(item) for name, item in value.items()}
        case list() | tuple():
            return [to_data(item) for item in value]
        case _ if hasattr(value, "item"):  # a number of numpy
            return to_data(value.item())
        case _:
            return None if pandas is not None and value is pandas.NA else str(value)
