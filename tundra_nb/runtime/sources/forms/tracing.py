"""Logs as Rust's `tracing-subscriber` writes them, Auto-Tundra's above all, in the human and the JSON form.

Every line is kept as it is in `imported_log`. Beside that, what Auto-Tundra says of breakers, limits and profiles
becomes rows of the history's own tables, and warnings and errors are classified by the guide's index. A failover is a
row of lines there, each naming the profile that was left: they are one call, whose end the log only tells when all of
them failed.
"""

from __future__ import annotations

import re
from typing import Any

from tundra_nb.runtime.sources.taking import Taker, cleaned
from tundra_nb.types import Attempt, BreakerEvent, ErrorEvent, ImportedLog, LimitEvent, Operation

from .fields import UNCLASSIFIED, Classifier, seconds, time_us
from .outcomes import failure

KIND = "tracing"
LEVELS = {"TRACE": "trace", "DEBUG": "debug", "INFO": "info", "WARN": "warning", "WARNING": "warning", "ERROR": "error"}
FAILOVER_SECONDS = 120
"""A failover that goes on after a longer silence is another call's."""

_LINE = re.compile(
    r"(?P<at>\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)?)\s+"
    r"(?P<level>TRACE|DEBUG|INFO|WARN|ERROR)\s+(?:ThreadId\(\d+\) )?(?P<rest>.*)",
    re.DOTALL,
)
_SPANS = re.compile(r"(?:[\w.-]+(?:\{[^{}]*\})?:)+ (?=[\w:]+: )|[\w.-]+\{[^{}]*\}: ?")
_TARGET = re.compile(r"(?P<target>[A-Za-z_][\w]*(?:::[\w]+)*): (?P<rest>.*)", re.DOTALL)
_PLACE = re.compile(r"(?:[\w./@+-]+\.rs):(?:\d+:)? ?")
_FIELD = re.compile(r"(?<!\S)([A-Za-z_][\w.]*)=")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_STATES = {"closed": "closed", "open": "open", "halfopen": "half_open"}
_TRANSITION = re.compile(r"circuit breaker transitioning (\w+) -> (\w+)")
_LEFT = {
    "rate limit exceeded, trying next provider": ("refused", "RateLimitError::Exceeded", "limit_exceeded"),
    "circuit open, trying next provider": ("refused", "CircuitBreakerError::Open", "breaker_open"),
    "call timed out, trying next provider": ("error", "Timeout", "timeout_total"),
    "call failed, trying next provider": ("error", "", ""),
}
"""What is said of a profile that is left for the next: outcome, code and reason; empty: by the error it names."""


class Tracing:
    """Reads the lines of one file."""

    def __init__(self, taker: Taker) -> None:
        self._taker = taker
        self._classifier = Classifier()
        self._calls: dict[str, list[Attempt]] = {}
        """Failovers under way, by what tells them apart."""
        self._last: ImportedLog | None = None

    def text(self, line: str) -> None:
        """One line of the human form."""
        line = cleaned(line)
        match = _LINE.match(line)
        at_us = time_us(match["at"].replace(" ", "T")) if match else None
        if match is None or at_us is None:
            self._more(line)
            return
        rest, spans = match["rest"], ""
        if (found := _SPANS.match(rest)) is not None:
            spans, rest = found.group(), rest[found.end() :]
        target = ""
        if (found := _TARGET.match(rest)) is not None:
            target, rest = found["target"], found["rest"]
        if (found := _PLACE.match(rest)) is not None:
            rest = rest[found.end() :]
        fields: dict[str, str] = {}
        for part in re.findall(r"\{([^{}]*)\}", spans):
            fields |= _fields(part)[1]
        message, own = _fields(rest)
        self._event(at_us, LEVELS[match["level"]], target, message, fields | own, rest.strip())

    def record(self, told: dict[str, Any]) -> bool:
        """One record of the JSON form; False when it is none."""
        level, at_us = LEVELS.get(str(told.get("level", "")).upper()), time_us(told.get("timestamp"))
        if level is None or at_us is None:
            return False
        inner = told.get("fields")
        fields = dict(inner) if isinstance(inner, dict) else {}
        outer = {k: v for k, v in told.items() if k not in _OWN} if not isinstance(inner, dict) else {}
        for span in [*(told.get("spans") or ()), told.get("span") or {}]:
            if isinstance(span, dict):
                outer |= {name: value for name, value in span.items() if name != "name"}
        message = str(fields.pop("message", told.get("message", "")))
        whole = " ".join([message, *(f"{name}={_shown(value)}" for name, value in fields.items())])
        given = {str(name): _shown(value) for name, value in (outer | fields).items()}
        target = str(told.get("target") or told.get("component") or told.get("logger") or "")
        if isinstance(told.get("stacktrace"), str):
            whole += f"\n{told['stacktrace']}"
        self._event(at_us, level, target, message, given, whole)
        return True

    def finish(self) -> None:
        """What is under way at the end of the file has no end."""
        self._put_off()
        for key in list(self._calls):
            self._end(key, None)

    def _more(self, line: str) -> None:
        """A line of no form of its own goes on with the message before, where it is indented or a panic's."""
        if self._last is not None and _GOES_ON.match(line):
            self._taker.line(KIND)
            return
        self._taker.not_understood(line)

    def _put_off(self) -> None:
        self._last = None

    def _event(self, at_us: int, level: str, target: str, message: str, fields: dict[str, str], whole: str) -> None:
        self._taker.line(KIND)
        self._last = row = ImportedLog(
            imported_log_id=self._taker.key("imported_log", at_us),
            at=at_us,
            origin="auto-tundra" if target.startswith("at_") else KIND,
            severity=level,
            logger=target,
            message=whole,
        )
        self._taker.add(row)
        if level in ("trace", "debug"):
            return
        operation_id = self._meaning(at_us, message, fields, whole)
        if level in ("warning", "error"):
            self._error(at_us, level, target, message, fields, whole, operation_id)

    def _meaning(self, at_us: int, message: str, fields: dict[str, str], whole: str) -> int | None:
        """What Auto-Tundra says of its breakers, limits and profiles; the call that it belongs to."""
        if (moved := _TRANSITION.match(message)) is not None:
            old, new = (_STATES.get(word.lower()) for word in moved.groups())
            if old and new:
                self._taker.add(
                    BreakerEvent(
                        breaker_event_id=self._taker.key("breaker_event", at_us),
                        at=at_us,
                        profile=fields.get("profile", "unknown"),
                        old_state=old,  # type: ignore[arg-type]  # of the closed set
                        new_state=new,  # type: ignore[arg-type]
                        reason="failures" if new == "open" else "timer" if new == "half_open" else "successes",
                        failures=int(fields["failures"]) if fields.get("failures", "").isdigit() else 0,
                    )
                )
            return None
        if message == "rate limit exceeded" and "key" in fields:
            key = fields["key"]
            self._taker.add(
                LimitEvent(
                    limit_event_id=self._taker.key("limit_event", at_us),
                    at=at_us,
                    tier="global" if key == "global" else "user" if key.startswith("user") else "profile",
                    limit_key=key,
                    resource="requests",
                    decision="refused",
                    requested=1.0,
                    retry_after_s=seconds(fields.get("retry_after", "")),
                )
            )
            return None
        if message in _LEFT and "profile" in fields:
            return self._left(at_us, message, fields)
        if "AllProvidersExhausted" in whole or "all providers exhausted" in whole.lower():
            key = _call_of(fields)
            if key in self._calls:
                return self._end(key, at_us)
        return None

    def _left(self, at_us: int, message: str, fields: dict[str, str]) -> int:
        outcome, code, reason = _LEFT[message]
        told = fields.get("error", "")
        if not code:
            code, found = failure(None, "", told)
            reason = found or ""
        key = _call_of(fields)
        profile = fields["profile"]
        attempts = self._calls.get(key, [])
        if attempts and (
            any(attempt.profile == profile for attempt in attempts)
            or at_us - attempts[-1].at > FAILOVER_SECONDS * 1_000_000
        ):
            self._end(key, None)
            attempts = []
        operation_id = attempts[0].operation_id if attempts else self._taker.key("operation", at_us)
        took = seconds(fields.get("timeout", ""))
        attempts.append(
            Attempt(
                attempt_id=self._taker.key("attempt", at_us),
                operation_id=operation_id,
                seq=len(attempts) + 1,
                at=at_us,
                profile=profile,
                model=fields.get("model"),
                outcome=outcome,  # type: ignore[arg-type]  # of the closed set
                reason=reason or None,
                code=code,
                latency_ms=None if took is None else took * 1000,
                cause="failover" if attempts else "first",
                message=told or message,
            )
        )
        self._calls[key] = attempts
        return operation_id

    def _end(self, key: str, at_us: int | None) -> int:
        """Write a call. `at_us`: when all of its profiles had failed; None where the log does not tell how it ended."""
        attempts = self._calls.pop(key)
        first = attempts[0]
        for attempt in attempts:
            self._taker.add(attempt)
        end_us = attempts[-1].at if at_us is None else at_us
        told = "the log does not say how it ended: a profile that answers leaves no line"
        self._taker.add(
            Operation(
                operation_id=first.operation_id,
                at=first.at,
                requested_model=first.model,
                outcome="interrupted" if at_us is None else "error",
                code=None if at_us is None else "AllProvidersExhausted",
                attempts=len(attempts),
                latency_ms=(end_us - first.at) / 1000,
                caller="imported",
                asked=",".join(dict.fromkeys(attempt.profile for attempt in attempts)),
                message=told if at_us is None else None,
            )
        )
        return first.operation_id

    def _error(
        self,
        at_us: int,
        level: str,
        target: str,
        message: str,
        fields: dict[str, str],
        whole: str,
        operation_id: int | None,
    ) -> None:
        if message in _LEFT and "profile" in fields:
            code: str | None = _LEFT[message][1] or failure(None, "", fields.get("error", ""))[0]
        elif message == "rate limit exceeded" and "key" in fields:
            code = "RateLimitError::Exceeded"
        elif _TRANSITION.match(message):
            code = "CircuitBreakerError::Open" if "-> Open" in message else None
        else:
            code = self._classifier.code(whole)
        if code is None:
            if level != "error":
                return
            code = UNCLASSIFIED
        severity, retryable = self._classifier.facts(code)
        self._taker.add(
            ErrorEvent(
                error_id=self._taker.key("error_event", at_us),
                at=at_us,
                source=target.partition("::")[0] or KIND,
                code=code,
                severity=severity,  # type: ignore[arg-type]  # of the closed set
                retryable=retryable,
                message=whole,
                profile=fields.get("profile"),
                operation_id=operation_id,
            )
        )


_GOES_ON = re.compile(r"\s|at |thread '|note: |stack backtrace|caused by", re.IGNORECASE)
_OWN = frozenset({"timestamp", "level", "target", "message", "span", "spans", "filename", "line_number", "stacktrace"})


def _call_of(fields: dict[str, str]) -> str:
    """What tells a call from others that run beside it, where the log names it."""
    for name in ("operation_id", "request_id", "call_id", "trace_id", "task_id"):
        if name in fields:
            return f"{name}={fields[name]}"
    return ""


def _fields(text: str) -> tuple[str, dict[str, str]]:
    """The message, and the fields behind it. A value without quotes may hold spaces: it ends where the next begins."""
    message: str | None = None
    fields: dict[str, str] = {}
    name, begin, at = "", 0, 0
    while (found := _FIELD.search(text, at)) is not None:
        if message is None:
            message = text[: found.start()]
        else:
            fields.setdefault(name, text[begin : found.start()].strip())
        name, begin = found[1], found.end()
        quoted = _QUOTED.match(text, begin)
        at = quoted.end() if quoted else begin
    if message is None:
        return text.strip(), fields
    fields.setdefault(name, text[begin:].strip())
    return message.strip(), {name: _unquoted(value) for name, value in fields.items()}


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value.startswith('"') and value.endswith('"'):
        return value[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    return value


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else repr(value) if not isinstance(value, bool) else str(value).lower()
