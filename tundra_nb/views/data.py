"""Results → JSON, CSV and TSV: ids as strings, because JavaScript rounds large integers; times as ISO 8601."""

from __future__ import annotations

import datetime as dt
import re
import sys
from collections.abc import Mapping
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
