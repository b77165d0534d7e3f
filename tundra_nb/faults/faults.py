"""The faults that `fault_proxy` can inject: their names, and what each answers.

Names are in `FAULTS`, which is complete: a test walks it. Bodies are in the dialect of the path that was asked
(`dialects`). Everything here is pure; `fault_proxy` does the network's part.
"""

from __future__ import annotations

import email.utils
import fnmatch
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec

from tundra_nb.errors import UsageError
from tundra_nb.nearest import nearest

from . import dialects
from .dialects import Dialect

HUGE_HEADER_BYTES: Final = 200_000
HTML: Final = b"<!doctype html><html><head><title>Sign in</title></head><body>Please sign in.</body></html>"
BROKEN_TEXT: Final = b"\xff\xfe\xfa"
"""Valid in no place of UTF-8."""

Place = Literal["url", "connection", "pace", "answer", "body"]


class Fault(msgspec.Struct, frozen=True):
    """One fault. `place` says what makes it.

    url: no rule, but another base URL (`FaultProxy.url_for`) · connection: hanging up or not listening · pace: the real
    answer, late · answer: an answer of our own, upstream is not asked · body: the real answer, damaged.
    """

    name: str
    place: Place
    summary: str


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When to inject which fault. The first rule that matches a request applies."""

    fault: str
    path: str = "*"
    """Shell pattern of the path."""
    model: str = "*"
    """Shell pattern of the model that is asked."""
    probability: float = 1.0
    seed: int = 0
    """The same seed gives the same choice for the same sequence of matching requests."""
    count: int | None = None
    """How often at most; None means always."""
    seconds: float = 1.0
    """What a retry hint says; how long `slow_headers` waits, and `slow_stream` before each piece."""
    cut_bytes: int = 200
    """Where `stream_cut` ends the body."""
    events: int | None = None
    """How many real events `error_in_stream` lets through first."""
    status: int = 529
    """The status that `error_in_200` and `error_in_stream` would have had."""
    dialect: Dialect | None = None
    """Whose words an error is in; None goes by the path."""


class CannedAnswer(msgspec.Struct, frozen=True):
    """A whole answer of the proxy's own."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Draw:
    """A rule at work: how often it applied, and its own dice."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.applied = 0
        self._dice = random.Random(rule.seed)

    def applies(self, path: str, model: str) -> bool:
        """Decide for one request, and count it when it does."""
        rule = self.rule
        if rule.count is not None and self.applied >= rule.count:
            return False
        if not (fnmatch.fnmatchcase(path, rule.path) and fnmatch.fnmatchcase(model, rule.model)):
            return False
        # Thrown also when the outcome is certain, so that a change of the probability moves no other choice.
        if self._dice.random() >= rule.probability:
            return False
        self.applied += 1
        return True


_Maker = Callable[[Rule, Dialect], CannedAnswer]
_JSON: Final = ("content-type", "application/json")


def _status(status: int) -> _Maker:
    def make(_: Rule, dialect: Dialect) -> CannedAnswer:
        return CannedAnswer(status, (_JSON,), dialects.error(dialect, status))

    return make


def _limited(*headers: Callable[[float], tuple[str, str]]) -> _Maker:
    def make(rule: Rule, dialect: Dialect) -> CannedAnswer:
        return CannedAnswer(429, (_JSON, *(header(rule.seconds) for header in headers)), dialects.error(dialect, 429))

    return make


def _quota(_: Rule, dialect: Dialect) -> CannedAnswer:
    if dialect == "anthropic":
        body = dialects.error(dialect, 429, "spend limit reached", code="enforced_spend_limit_reached")
        return CannedAnswer(429, (_JSON,), body)
    if dialect == "openrouter":
        return CannedAnswer(402, (_JSON,), dialects.error(dialect, 402, "insufficient credits"))
    body = dialects.error(
        dialect, 429, "You exceeded your current quota.", kind="insufficient_quota", code="insufficient_quota"
    )
    return CannedAnswer(429, (_JSON,), body)


def _moderated(_: Rule, dialect: Dialect) -> CannedAnswer:
    if dialect == "openrouter":
        metadata = {
            "reasons": ["violence"],
            "flagged_input": "…",
            "provider_name": "Scripted",
            "model_slug": "scripted-1",
        }
        body = dialects.error(
            dialect, 403, "Your input was flagged", kind="content_policy_violation", metadata=metadata
        )
        return CannedAnswer(403, (_JSON,), body)
    if dialect == "anthropic":
        return CannedAnswer(400, (_JSON,), dialects.error(dialect, 400, "Output blocked by content filtering policy"))
    return CannedAnswer(
        400, (_JSON,), dialects.error(dialect, 400, "Your request was rejected", code="content_policy_violation")
    )


def _too_long(_: Rule, dialect: Dialect) -> CannedAnswer:
    if dialect == "anthropic":
        body = dialects.error(dialect, 400, "prompt is too long: 210000 tokens > 200000 maximum")
    else:
        kind = "context_length_exceeded" if dialect == "openrouter" else None
        message = "This model's maximum context length is 8192 tokens."
        body = dialects.error(dialect, 400, message, kind=kind, code="context_length_exceeded")
    return CannedAnswer(400, (_JSON,), body)


def _html(_: Rule, _dialect: Dialect) -> CannedAnswer:
    return CannedAnswer(200, (("content-type", "text/html; charset=utf-8"),), HTML)


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(time.time() + seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _date(seconds: float) -> str:
    return email.utils.formatdate(time.time() + seconds, usegmt=True)


def go_duration(seconds: float) -> str:
    """As Go prints a duration, and OpenAI a reset: `12ms`, `1.5s`, `6m0s`, `1h0m0s`."""
    if seconds < 1:
        return f"{seconds * 1000:g}ms"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{rest:g}s"


ANSWERS: Final[dict[str, tuple[str, _Maker]]] = {
    **{
        str(status): (f"status {status} with the error body of the dialect", _status(status))
        for status in (400, 401, 402, 403, 404, 408, 409, 413, 422, 500, 502, 503, 504, 529)
    },
    "429": ("rate limited, without any hint", _limited()),
    "429_seconds": ("rate limited, Retry-After in seconds", _limited(lambda s: ("retry-after", f"{s:g}"))),
    "429_date": ("rate limited, Retry-After as an HTTP date", _limited(lambda s: ("retry-after", _date(s)))),
    "429_ms": ("rate limited, retry-after-ms", _limited(lambda s: ("retry-after-ms", f"{s * 1000:g}"))),
    "429_rfc3339": (
        "rate limited, Anthropic's reset as an RFC 3339 time",
        _limited(
            lambda _: ("anthropic-ratelimit-requests-limit", "50"),
            lambda _: ("anthropic-ratelimit-requests-remaining", "0"),
            lambda s: ("anthropic-ratelimit-requests-reset", _rfc3339(s)),
        ),
    ),
    "429_epoch": (
        "rate limited, Anthropic's unified reset in seconds since the epoch",
        _limited(
            lambda _: ("anthropic-ratelimit-unified-status", "rejected"),
            lambda s: ("anthropic-ratelimit-unified-reset", str(int(time.time() + s))),
        ),
    ),
    "429_epoch_ms": (
        "rate limited, OpenRouter's reset in milliseconds since the epoch",
        _limited(
            lambda _: ("X-RateLimit-Limit", "20"),
            lambda _: ("X-RateLimit-Remaining", "0"),
            lambda s: ("X-RateLimit-Reset", str(int((time.time() + s) * 1000))),
        ),
    ),
    "429_duration": (
        "rate limited, OpenAI's reset as a Go duration",
        _limited(
            lambda _: ("x-ratelimit-limit-requests", "60"),
            lambda _: ("x-ratelimit-remaining-requests", "0"),
            lambda s: ("x-ratelimit-reset-requests", go_duration(s)),
        ),
    ),
    "429_no_retry": ("rate limited, x-should-retry: false", _limited(lambda _: ("x-should-retry", "false"))),
    "429_nonsense": ("rate limited, a Retry-After that means nothing", _limited(lambda _: ("retry-after", "soon"))),
    "quota": ("the quota or the spend limit of the key is used up", _quota),
    "moderation": ("the content policy refuses the prompt", _moderated),
    "context": ("the prompt is longer than the model takes", _too_long),
    "html": ("a web page with status 200 instead of JSON", _html),
}
"""Faults that answer instead of the upstream."""

_OTHERS: Final[tuple[tuple[str, Place, str], ...]] = (
    ("dns", "url", "the host's name cannot be resolved"),
    ("tls", "url", "the server does not speak TLS"),
    (
        "refused",
        "connection",
        "nobody listens, for as long as the rule is there; path, probability and count do not apply",
    ),
    ("reset", "connection", "the connection is reset instead of an answer"),
    ("closed", "connection", "the connection is closed instead of an answer"),
    ("hang", "connection", "no answer, ever"),
    ("slow_headers", "pace", "the real answer begins `seconds` late"),
    ("slow_stream", "pace", "each piece of the real body comes `seconds` late"),
    ("truncated_json", "body", "the JSON of the body, or of the stream's second event, ends in the middle"),
    ("bad_encoding", "body", "bytes that are not UTF-8 in the body, or in the stream's second event"),
    ("stream_cut", "body", "the connection is closed after `cut_bytes` of the body"),
    ("error_in_200", "body", "an error as the body, or as the first event, of an answer with status 200"),
    ("error_in_stream", "body", "an error event after some text of a stream with status 200"),
    ("huge_headers", "body", "the real answer with a header of 200 kB"),
)

FAULTS: Final[dict[str, Fault]] = {
    **{name: Fault(name, place, summary) for name, place, summary in _OTHERS},
    **{name: Fault(name, "answer", summary) for name, (summary, _) in ANSWERS.items()},
}
"""Every fault by name."""


def check(rule: Rule) -> None:
    """Refuse a rule that could never do what it says.

    Raises:
        UsageError: no such fault (names the nearest), one that no proxy can make, or a number out of range.
    """
    if rule.fault not in FAULTS:
        raise UsageError(
            problem=f"no fault {rule.fault!r}",
            field="fault",
            nearest=nearest(rule.fault, FAULTS),
            remedy=f"There are: {', '.join(FAULTS)}.",
        )
    if FAULTS[rule.fault].place == "url":
        raise UsageError(
            problem=f"a proxy cannot make {rule.fault!r} happen",
            field="fault",
            remedy=f"Use the base URL that `url_for({rule.fault!r})` gives.",
        )
    for field, is_right in (
        ("probability", 0 <= rule.probability <= 1),
        ("count", rule.count is None or rule.count >= 0),
        ("seconds", 0 <= rule.seconds < float("inf")),
        ("cut_bytes", rule.cut_bytes >= 0),
        ("events", rule.events is None or rule.events >= 0),
        ("status", 400 <= rule.status <= 599),
    ):
        if not is_right:
            raise UsageError(problem=f"{field} {getattr(rule, field)!r} is out of range", field=field)
