"""A JSON object as its bytes: the members at its top, and the same bytes with a few of them changed.

A relayed body goes on as it came, but for the model's name. Decoding and encoding it would lose what a decoder does not
keep: numbers beyond a float's range, the order and the spelling of escapes, white space. So only the spans of the
members at the top are found, and changed members are put in their places.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

Members = Mapping[str, msgspec.Raw]

_NEXT = re.compile(rb'[ \t\n\r]*(,?)[ \t\n\r]*("(?:[^"\\]|\\.)*")[ \t\n\r]*:[ \t\n\r]*')
_END = re.compile(rb"[ \t\n\r]*\}[ \t\n\r]*\Z")
_HALF = re.compile(
    rb"\\u(?:[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..\\u)[dD][c-fC-F][0-9a-fA-F]{2})"
)
"""The escape of one half of a character without the other."""
_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class NotAnObjectError(ValueError):
    """A body that is no JSON object; the text says why."""


def members(body: bytes) -> dict[str, msgspec.Raw]:
    """The members at the top of an object, undecoded.

    Raises:
        NotAnObjectError: not JSON, not an object, nested too deeply, or not UTF-8.
    """
    try:
        found = _decode(body)
        if not body.isascii():
            body.decode()
    except UnicodeDecodeError as exc:
        raise NotAnObjectError(f"it is not UTF-8 at byte {exc.start}") from exc
    except RecursionError as exc:
        raise NotAnObjectError("it is nested too deeply") from exc
    except msgspec.DecodeError as exc:
        half = _HALF.search(body)
        told = f"half a character is escaped at byte {half.start()} (a lone surrogate)" if half else str(exc)
        raise NotAnObjectError(told) from exc
    return found


def value(found: Members, name: str, kind: Any) -> Any:
    """A member decoded as `kind`; None when it is not there, or null, or of another kind."""
    raw = found.get(name)
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw, type=kind | None)
    except (msgspec.DecodeError, RecursionError):
        return None


def decoded(found: Members) -> dict[str, Any]:
    """All members as values. The items of lists are decoded one by one: in a thread, others get their turn between two.

    Raises:
        msgspec.DecodeError: a member cannot be read.
        RecursionError: it is nested too deeply.
    """
    told: dict[str, Any] = {}
    for name, raw in found.items():
        if bytes(memoryview(raw)[:1]) == b"[":
            told[name] = [msgspec.json.decode(item) for item in msgspec.json.decode(raw, type=list[msgspec.Raw])]
        else:
            told[name] = msgspec.json.decode(raw)
    return told


def changed(body: bytes, found: Members, changes: Mapping[str, bytes]) -> bytes:
    """The body with some members replaced or added; everything else stays byte for byte.

    With a member that stands there twice, which readers understand differently, the object is written anew instead, so
    that everybody reads the one that we did.
    """
    changes = {name: new for name, new in changes.items() if name not in found or bytes(found[name]) != new}
    if not changes:
        return body
    pieces: list[bytes] = []
    place = body.index(b"{") + 1
    kept_from = 0
    for name, raw in found.items():
        match = _NEXT.match(body, place)
        if match is None or msgspec.json.decode(match[2]) != name:
            return _anew(found, changes)
        place = match.end() + memoryview(raw).nbytes
        if name in changes:
            pieces += (body[kept_from : match.end()], changes[name])
            kept_from = place
    end = _END.match(body, place)
    if end is None:
        return _anew(found, changes)
    pieces.append(body[kept_from:place])
    added = [msgspec.json.encode(name) + b":" + new for name, new in changes.items() if name not in found]
    if added:
        pieces.append((b"," if found else b"") + b",".join(added))
    pieces.append(body[place:])
    return b"".join(pieces)


def _anew(found: Members, changes: Mapping[str, bytes]) -> bytes:
    return msgspec.json.encode({**found, **{name: msgspec.Raw(new) for name, new in changes.items()}})
