"""Spans as OTLP in its binary form, which every receiver takes: JSON is optional in the standard, and Phoenix for one
refuses it.

Written by hand, as messages of protobuf are little more than tags and lengths: the library for it costs an import of
0.1 s and a generated module for each message. Tags are a field's number times eight, plus how its value is written.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable, Mapping
from typing import Any

MEDIA_TYPE = "application/x-protobuf"
_VARINT, _FIXED64, _BYTES = 0, 1, 2
_DOUBLE = struct.Struct("<d")
_TIMES = struct.Struct("<BQBQ")
_MASK = (1 << 64) - 1
_MOST = _MASK >> 1
"""Of a signed number; what is above is written for one below zero."""
_SHORT = 0x80 - 4
"""A key and text of fewer bytes have one byte for each length around them."""


def span(
    *,
    trace_id: str,
    span_id: str,
    parent_id: str,
    name: str,
    kind: int,
    began_us: int,
    ended_us: int,
    attributes: bytes,
    error: str | None,
) -> bytes:
    """One span: ids in hex, no parent is "", attributes as `attributes` writes them; `error` is why it failed."""
    parts = [b"\x0a\x10", bytes.fromhex(trace_id), b"\x12\x08", bytes.fromhex(span_id)]
    if parent_id:
        parts += (b"\x22\x08", bytes.fromhex(parent_id))
    parts.append(_field(5, name.encode("utf-8", "replace")))
    parts.append(bytes((0x30, kind)))
    parts.append(_TIMES.pack(0x39, began_us * 1000, 0x41, ended_us * 1000))
    parts.append(attributes)
    if error is not None:
        parts.append(_field(15, _field(2, error.encode("utf-8", "replace")) + b"\x18\x02"))
    return b"".join(parts)


def attributes(values: Mapping[str, Any]) -> bytes:
    """Attributes of a span; those that are None are left out."""
    return b"".join([_attribute(9, name, value) for name, value in values.items() if value is not None])


def request(spans: Iterable[bytes], resource: Mapping[str, Any], scope: str, version: str) -> bytes:
    """An export request with these spans."""
    named = _field(1, b"".join(_attribute(1, name, value) for name, value in resource.items()))
    scoped = _field(1, _field(1, scope.encode()) + _field(2, version.encode()))
    body = scoped + b"".join(_field(2, one) for one in spans)
    return _field(1, named + _field(2, body))


def rejected(answer: bytes) -> tuple[int, str]:
    """How many spans a receiver left out of a request that it took, and why.

    0 also where it says nothing readable, or fewer than none.
    """
    try:
        partial = dict(_fields(answer)).get(1)
        told = dict(_fields(partial)) if isinstance(partial, bytes) else {}
    except IndexError:
        return 0, ""
    number, words = told.get(1), told.get(2)
    count = number if isinstance(number, int) and number <= _MOST else 0
    return count, words.decode("utf-8", "replace") if isinstance(words, bytes) else ""


def _field(number: int, content: bytes) -> bytes:
    if len(content) < 0x80:
        return bytes((number << 3 | _BYTES, len(content))) + content
    return bytes((number << 3 | _BYTES,)) + _varint(len(content)) + content


def _attribute(field: int, name: str, value: Any) -> bytes:
    """A key and its value."""
    if type(value) is str:
        key, text = _key(name), value.encode("utf-8", "replace")
        if (size := len(text)) + len(key) < _SHORT:
            return b"%c%c%b\x12%c\x0a%c%b" % (field << 3 | _BYTES, len(key) + size + 4, key, size + 2, size, text)
    elif type(value) is float:
        return _before_double(field, name) + _DOUBLE.pack(value)
    elif type(value) is int:
        return _whole_number(field, name, value)
    return _field(field, _key(name) + _field(2, _value(value)))


@functools.lru_cache(maxsize=4096)
def _whole_number(field: int, name: str, value: int) -> bytes:
    return _field(field, _key(name) + _field(2, _value(value)))


@functools.cache
def _key(name: str) -> bytes:
    return _field(1, name.encode())


@functools.cache
def _before_double(field: int, name: str) -> bytes:
    """All but the number itself, which has always eight bytes."""
    return _field(field, _key(name) + _field(2, _value(0.0)))[: -_DOUBLE.size]


def _value(value: Any) -> bytes:
    if isinstance(value, str):
        return _field(1, value.encode("utf-8", "replace"))
    if isinstance(value, bool):
        return bytes((0x10, value))
    if isinstance(value, int):
        return b"\x18" + _varint(value & _MASK)
    if isinstance(value, float):
        return b"\x21" + _DOUBLE.pack(value)
    if isinstance(value, tuple):
        return _field(5, b"".join(_field(1, _value(one)) for one in value))
    return _field(1, str(value).encode("utf-8", "replace"))


def _varint(number: int) -> bytes:
    if number < 0x80:
        return bytes((number,))
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def _fields(message: bytes) -> Iterable[tuple[int, int | bytes]]:
    """The fields of a message, by number."""
    at = 0
    while at < len(message):
        tag, at = _read(message, at)
        value: int | bytes
        if tag & 7 == _VARINT:
            value, at = _read(message, at)
        elif tag & 7 == _BYTES:
            size, at = _read(message, at)
            value, at = message[at : at + size], at + size
        else:
            size = 8 if tag & 7 == _FIXED64 else 4
            value, at = message[at : at + size], at + size
        yield tag >> 3, value


def _read(message: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = message[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at
