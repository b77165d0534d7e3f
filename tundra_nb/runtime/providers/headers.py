"""Rate-limit headers and retry hints, of every family seen, read by one function.

Families: `anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}` (also
`anthropic-priority-…` and `anthropic-ratelimit-unified-…`), OpenAI's `x-ratelimit-{limit,remaining,reset}-{requests,
tokens}`, and the plain `x-ratelimit-{limit,remaining,reset}` and `ratelimit-…` of OpenRouter and gateways. Hints:
`retry-after-ms`, `retry-after`, `x-should-retry`. A time may be written as seconds, HTTP-date, RFC 3339, epoch in
seconds or milliseconds, or a Go duration. Nothing a server sends makes this module raise.
"""

from __future__ import annotations

import datetime as dt
import email.utils
import functools
import math
import re
from collections.abc import Mapping

from .contract import BucketSeen

MAX_SECONDS = 31 * 86400.0
"""Longest hint believed: the longest quota window is a month."""
_EPOCH_SECONDS = 1e9
"""A number from here on is no duration (32 years) but a point of time (2001)."""
_EPOCH_MS = 1e11
"""… and from here on one in milliseconds (a date of 5138 if it were seconds)."""

_GO_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h|d)")
_GO = re.compile(r"[+-]?(?:(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|μs|ms|s|m|h|d))+", re.ASCII)
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)

_IN_WORDS = re.compile(
    r"(\d+(?:\.\d+)?) ?(s|secs?|seconds?|mins?|minutes?|h|hrs?|hours?|days?)", re.IGNORECASE | re.ASCII
)
_FIRST = re.compile(r"\s*[,;]")

_HINTS = frozenset({"retry-after", "retry-after-ms", "x-should-retry"})
_MARK = "ratelimit"
_PRIORITY = "anthropic-priority-"
_FIELDS = ("limit", "remaining", "reset")
_PREFIXES = (
    ("anthropic-ratelimit-", ""),
    (_PRIORITY, "priority_"),
    ("x-ratelimit-", ""),
    ("ratelimit-", ""),
)


def seconds(text: str, now_epoch: float) -> float | None:
    """How far away a time is, in whatever form it is written: 0 to `MAX_SECONDS`; None if unreadable.

    Args:
        text: seconds, HTTP-date, RFC 3339, epoch seconds or milliseconds, or a Go duration.
        now_epoch: seconds since the epoch, to take points of time from.
    """
    text = text.strip(" \t\"'")
    if len(text) > 64:
        return None
    first = _FIRST.split(text, maxsplit=1)[0]
    if _NUMBER.fullmatch(first) or _GO.fullmatch(first):  # two headers joined, a parameter behind
        text = first
    if in_words := _IN_WORDS.fullmatch(text):
        return _clamp(float(in_words.group(1)) * _UNITS[in_words.group(2)[0].lower()])
    if _NUMBER.fullmatch(text):
        value = float(text)
        if value >= _EPOCH_MS:
            value = value / 1000 - now_epoch
        elif value >= _EPOCH_SECONDS:
            value -= now_epoch
        return _clamp(value)
    if _GO.fullmatch(text):
        return duration(text)
    at = _point(text)
    return None if at is None else _clamp(at - now_epoch)


def duration(text: str) -> float | None:
    """A Go-style duration (`12ms`, `1s`, `6m0s`) in seconds, clamped; None when it is not one."""
    text = text.strip()
    if len(text) > 64 or not _GO.fullmatch(text):
        return None
    total = sum(float(number) * _UNITS[unit] for number, unit in _GO_PART.findall(text))
    return _clamp(-total if text.startswith("-") else total)


def read(
    headers: Mapping[str, str], now_epoch: float
) -> tuple[tuple[BucketSeen, ...], float | None, bool | None, dict[str, str]]:
    """Read what an answer tells of the provider's limits.

    Args:
        headers: all headers, names in lower case.
        now_epoch: seconds since the epoch.

    Returns:
        The provider's buckets; seconds until a retry makes sense; what `x-should-retry` says; the headers all this was
        read from, as sent.

    Where nothing else is told, the reset of a bucket that is empty is the retry hint. In the families of OpenAI and
    Anthropic it says when the bucket is *full* again: later than need be, but by the provider's own word, and better
    than to ask again at once.
    """
    kept = {
        name: value for name, value in headers.items() if _MARK in name or name in _HINTS or name.startswith(_PRIORITY)
    }
    if not kept:
        return (), None, None, kept
    found: dict[str, dict[str, float | None]] = {}
    for name, value in kept.items():
        place = _place(name)
        if place is None:
            continue
        resource, field = place
        number = seconds(value, now_epoch) if field == "reset" else _amount(value)
        if number is not None:
            found.setdefault(resource, {})[field] = number
    buckets = tuple(
        BucketSeen(
            resource=resource,
            limit=fields.get("limit"),
            remaining=fields.get("remaining"),
            reset_after=fields.get("reset"),
        )
        for resource, fields in found.items()
    )
    return buckets, _hint(kept, buckets, now_epoch), _should(kept.get("x-should-retry")), kept


@functools.lru_cache(maxsize=256)
def _place(name: str) -> tuple[str, str] | None:
    """Resource and field that a header is about."""
    for prefix, family in _PREFIXES:
        if not name.startswith(prefix):
            continue
        rest = name[len(prefix) :]
        for field in _FIELDS:
            if rest == field:
                return "requests", field
            if rest.startswith(field + "-"):  # OpenAI: x-ratelimit-limit-tokens
                return family + rest[len(field) + 1 :].replace("-", "_"), field
            if rest.endswith("-" + field):  # Anthropic: anthropic-ratelimit-tokens-limit
                return family + rest[: -len(field) - 1].replace("-", "_"), field
        return None
    return None


def _hint(kept: Mapping[str, str], buckets: tuple[BucketSeen, ...], now_epoch: float) -> float | None:
    milliseconds = kept.get("retry-after-ms", "").strip()
    if len(milliseconds) <= 64 and _NUMBER.fullmatch(milliseconds):
        return _clamp(float(milliseconds) / 1000)
    if "retry-after" in kept:
        told = seconds(kept["retry-after"], now_epoch)
        if told is not None:
            return told
    if "anthropic-ratelimit-unified-reset" in kept and kept.get("anthropic-ratelimit-unified-status") == "rejected":
        return seconds(kept["anthropic-ratelimit-unified-reset"], now_epoch)
    empty = [b.reset_after for b in buckets if b.remaining == 0 and not b.resource.startswith("priority_")]
    return max((reset for reset in empty if reset is not None), default=None)


def _should(text: str | None) -> bool | None:
    return {"true": True, "false": False}.get((text or "").strip().lower())


def _amount(text: str) -> float | None:
    """A count. `-1` stands for "no limit", which is no bucket. Lists (`100, 100;w=60`) open with the count."""
    if text.isdecimal() and text.isascii() and len(text) < 16:
        return float(text)
    text = text.strip()[:64].partition(",")[0].partition(";")[0].strip()
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    return value if math.isfinite(value) and value >= 0 else None


def _point(text: str) -> float | None:
    """An HTTP-date or RFC 3339 time as seconds since the epoch."""
    try:
        at = dt.datetime.fromisoformat(text) if text[:4].isdigit() else email.utils.parsedate_to_datetime(text)
        if at.tzinfo is None:
            at = at.replace(tzinfo=dt.UTC)
        return at.timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _clamp(value: float) -> float | None:
    if not math.isfinite(value):
        return None
    return min(max(value, 0.0), MAX_SECONDS)
