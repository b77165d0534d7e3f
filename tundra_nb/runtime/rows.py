"""The rows that calls, limiter, breakers and router leave in the history.

`Journal` writes what concerns no single call; `CallRows` writes one call: a mark when it begins, a mark before each
request is sent, one row per attempt, one row at its end. Nothing here decides anything.
"""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from tundra_nb import errors
from tundra_nb.errors.spans import dated
from tundra_nb.runtime import lines
from tundra_nb.runtime.caller import Money
from tundra_nb.runtime.clock import Clock, Ids
from tundra_nb.runtime.limits_shared.limiter import TeamReservation
from tundra_nb.runtime.providers import prices
from tundra_nb.runtime.providers.contract import LONGEST_RECORDED_BYTES, Answer, Seen
from tundra_nb.runtime.recordings import KeptRecording, Recording, frames_of
from tundra_nb.runtime.resilience.breaker import BreakerChange, Permit
from tundra_nb.runtime.resilience.limiter import LimitNotice, Reservation
from tundra_nb.runtime.telemetry.redact import Redactor
from tundra_nb.settings import ProfileSettings
from tundra_nb.types import (
    Attempt,
    AttemptOpened,
    BreakerEvent,
    BreakerState,
    ErrorEvent,
    Event,
    Exchange,
    LimitEvent,
    Operation,
    OperationOpened,
    Outcome,
    Reply,
    Usage,
)

Record = Callable[..., None]
"""Takes events, and returns when they are safe."""

_NO_USAGE = Usage()
LONG_BYTES = 32_768
"""What is longer is masked apart from the loop; this much takes some 10 ms."""


class CallFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the rows of a call say of its asking: columns of `Operation` by their names."""

    kind: str = "chat"
    requested_model: str | None = None
    caller: str | None = None
    streamed: bool = False
    dialect: str | None = None
    client: str | None = None
    retry_count: int | None = None
    trace_id: str | None = None
    parent_span_id: str | None = None
    run_id: int | None = None
    """The agent's run that it is part of."""
    record: bool = False
    """Its content is to be recorded, whatever the settings say."""


class Reported(Protocol):
    """What the rows of a call report of its request."""

    @property
    def facts(self) -> CallFacts: ...

    @property
    def way(self) -> str | None:
        """How the last attempt went on: relayed, translated; None for our own calls."""
        ...

    @property
    def dropped(self) -> Sequence[str]:
        """Fields that the last attempt left out, because its provider's form has no word for them."""
        ...

    def remarks(self, answer: Answer) -> list[str]:
        """What a reader of the answer should know beside its text."""
        ...


@dataclasses.dataclass(frozen=True)
class Journal:
    """Where rows go."""

    record: Record
    ids: Ids
    clock: Clock
    redactor: Redactor
    keep: Callable[[Recording], KeptRecording] | None = None
    """Gives a recording its file; without it the row itself holds the texts."""
    traceparent: Callable[[CallFacts, int, int], str] = lambda *_: ""
    """What a provider that may know it is told of an attempt's trace: from the call's facts and both ids."""

    def outside(self, text: str | None) -> str | None:
        """Text that a provider chose, also where it should be a plain word: some echo the key in every header."""
        return self.redactor.text(text) if text else text

    def words(self, error: errors.TundraError) -> str:
        """An error's message as it is kept: masked, with times instead of spans that would be stale later."""
        return self.redactor.text(dated(str(error), self.clock.now_us()))

    def error(self, source: str, error: errors.TundraError, **facts: Any) -> None:
        """An error that a background part met, or that reached a caller outside an operation."""
        self.record(
            ErrorEvent(
                error_id=self.ids.next(),
                at=self.clock.now_us(),
                source=source,
                code=error.code,
                severity=error.severity,
                retryable=error.retryable,
                message=self.words(error),
                reason=error.reason,
                **facts,
            )
        )

    def limited(self, notice: LimitNotice) -> None:
        """A wait, refusal, penalty or correction of the limiter."""
        operation_id, _ = acting_ids()
        self.record(
            LimitEvent(
                limit_event_id=self.ids.next(),
                at=self.clock.now_us(),
                tier=notice.tier,
                limit_key=notice.key,
                resource=notice.resource,
                decision=notice.decision,
                requested=notice.requested,
                remaining=notice.remaining,
                retry_after_s=notice.retry_after,
                operation_id=notice.operation_id if notice.operation_id is not None else operation_id,
            )
        )

    def breaker_moved(self, change: BreakerChange) -> None:
        operation_id, attempt_id = acting_ids()
        lines.breaker_moved(change, operation_id, attempt_id)
        now = self.clock.now_us()
        self.record(
            BreakerEvent(
                breaker_event_id=self.ids.next(),
                at=now,
                profile=change.name,
                old_state=change.old,
                new_state=change.new,
                reason=change.reason,
                failures=change.failures,
                operation_id=operation_id,
                open_until=now + int(change.open_for * 1e6) if change.open_for else None,
            )
        )

    def parked(
        self,
        profile: str,
        state: BreakerState,
        failures: int,
        *,
        reason: str,
        error: errors.TundraError | None,
        settings: str = "",
    ) -> None:
        """A profile was parked because of `error`, or, with None, taken back in.

        `settings` is the fingerprint of those that it was parked under.
        """
        operation_id, attempt_id = acting_ids()
        lines.parked(profile, reason, error, operation_id, attempt_id)
        told = error.to_wire() | {"settings": settings} if error is not None else None
        self.record(
            BreakerEvent(
                breaker_event_id=self.ids.next(),
                at=self.clock.now_us(),
                profile=profile,
                old_state=state,
                new_state=state,
                reason=reason,
                failures=failures,
                operation_id=operation_id,
                parked=told is not None,
                message=self.redactor.text(json.dumps(told)) if told is not None else None,
            )
        )


class Masked(NamedTuple):
    """What is kept of a request and its answer."""

    request: str
    frames: list[tuple[float, str]]
    is_whole: bool


NOTHING_KEPT = Masked("", [], False)


class Entry:
    """One attempt under way: what is known of it until its row is written."""

    __slots__ = (
        "answer",
        "at",
        "attempt_id",
        "backoff",
        "breaker_state",
        "cause",
        "cost_usd",
        "masked",
        "model",
        "money",
        "permit",
        "price_at",
        "profile",
        "reservation",
        "seen",
        "seq",
    )

    def __init__(
        self,
        profile: ProfileSettings,
        *,
        attempt_id: int,
        at: int,
        seq: int,
        cause: str,
        breaker_state: BreakerState,
        backoff: float,
    ) -> None:
        self.profile = profile
        self.attempt_id = attempt_id
        self.at = at
        self.seq = seq
        self.cause = cause
        self.breaker_state = breaker_state
        self.backoff = backoff
        """Seconds of the pause before it."""
        self.model: str | None = None
        self.masked: Masked | None = None
        """What is recorded of it, once that has been masked."""
        self.seen = Seen()
        self.permit: Permit | None = None
        self.reservation: Reservation | TeamReservation | None = None
        self.answer: Answer | None = None
        self.money: Money | None = None
        self.cost_usd: float | None = None
        self.price_at: str | None = None
        """These two are known once its row is written: what it is charged with, and by which price table."""


class CallRows:
    """Writes the rows of one call, and builds its reply from the same facts.

    `content` is the setting `record.content`, or `all` where the call itself asks for it.
    """

    def __init__(self, journal: Journal, request: Reported, user: str, content: str) -> None:
        self._journal = journal
        self._content = content
        self._request = request
        facts = self._facts = request.facts
        self._clock = journal.clock
        self._user = user
        self._at = self._clock.now_us()
        self.operation_id = journal.ids.next()
        self.began = self._clock.monotonic()
        self.waited = 0.0
        """Seconds spent waiting: for buckets, for cooling profiles, before retries."""
        self.attempt_id: int | None = None
        """The attempt under way, or the last one."""
        self._attempts = 0
        self._asked: dict[str, None] = {}
        """The profiles that were asked, in order, each once."""
        self._unwritten: OperationOpened | None = OperationOpened(
            operation_id=self.operation_id,
            at=self._at,
            kind=facts.kind,
            requested_model=facts.requested_model,
            user_name=user,
            caller=facts.caller,
            streamed=facts.streamed,
            run_id=facts.run_id,
        )
        self._last: Attempt | None = None
        self._price_at: str | None = None
        self._cost_usd: float | None = None
        """Of all attempts so far: a failed one may be charged too."""
        self._remarks: list[str] = []

    def begin(self) -> None:
        """Write the mark that the call has begun, unless it is written: before anything that takes time.

        The usual call waits for nothing before its request is sent; its first two marks then are one write.
        """
        if (mark := self._unwritten) is not None:
            self._unwritten = None
            self._journal.record(mark)

    def _record(self, *events: Event) -> None:
        mark, self._unwritten = self._unwritten, None
        if mark is None:
            self._journal.record(*events)
        else:
            self._journal.record(mark, *events)

    def entry(self, profile: ProfileSettings, cause: str, state: BreakerState, backoff: float = 0.0) -> Entry:
        """The next attempt, at a profile whose breaker is in `state`."""
        self._attempts += 1
        self._asked[profile.name] = None
        self.attempt_id = attempt_id = self._journal.ids.next()
        entry = Entry(
            profile,
            attempt_id=attempt_id,
            at=self._clock.now_us(),
            seq=self._attempts,
            cause=cause,
            breaker_state=state,
            backoff=backoff,
        )
        if profile.traceparent:
            entry.seen.traceparent = self._journal.traceparent(self._facts, self.operation_id, attempt_id)
        return entry

    def sending(self, entry: Entry) -> None:
        """The request of an attempt is about to be sent."""
        self._record(
            AttemptOpened(
                attempt_id=entry.attempt_id,
                operation_id=self.operation_id,
                seq=entry.seq,
                at=entry.at,
                profile=entry.profile.name,
                model=entry.model,
                most_usd=entry.money.reserved if entry.money is not None else None,
            )
        )

    def attempt_ended(self, entry: Entry, outcome: Outcome, error: errors.TundraError | None) -> None:
        """Write an attempt; the one that was answered, together with the row of the operation."""
        if error is not None and outcome != "cancelled":
            lines.attempt_failed(error, outcome, self.operation_id, entry.attempt_id, entry.profile.name)
        seen, answer, reservation = entry.seen, entry.answer, entry.reservation
        usage = answer.usage if answer else _NO_USAGE
        outside = self._journal.outside
        model = entry.model
        if answer and answer.model != model:
            model = outside(answer.model)
        row = Attempt(
            attempt_id=entry.attempt_id,
            operation_id=self.operation_id,
            seq=entry.seq,
            at=entry.at,
            profile=entry.profile.name,
            model=model,
            outcome=outcome,
            reason=error.reason if error else "answered",
            status=seen.status,
            code=error.code if error else None,
            retry_after_s=getattr(error, "retry_after", None),
            limiter_wait_ms=reservation.waited * 1000 if reservation else 0.0,
            breaker_state=entry.permit.state if entry.permit else entry.breaker_state,
            first_byte_ms=_ms(seen.sent_at, seen.first_byte_at),
            latency_ms=_ms(seen.sent_at, self._clock.monotonic()),
            input_tokens=usage.input_tokens,
            cached_tokens=usage.cached_tokens,
            output_tokens=usage.output_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            cost_usd=entry.cost_usd,
            stop_reason=outside(answer.stop_reason) if answer else None,
            cause=entry.cause,
            backoff_ms=entry.backoff * 1000,
            bucket_requests=reservation.level_requests if reservation else None,
            bucket_tokens=reservation.level_tokens if reservation else None,
            request_id=outside(seen.request_id or (answer.request_id if answer else None)),
            message=self._journal.words(error) if error else None,
            limit_headers=outside(json.dumps(seen.headers)) if seen.headers else None,
        )
        self._last, self._price_at = row, entry.price_at
        if entry.cost_usd is not None:
            self._cost_usd = (self._cost_usd or 0.0) + entry.cost_usd
        events: list[Event] = [row]
        if seen.request_body and self._is_recorded(outcome):
            events.append(self._exchange(entry, row))
        if outcome == "ok":
            assert answer is not None
            self._remarks = self._request.remarks(answer)
            events.append(self._operation(outcome, row, None))
        self._record(*events)

    def end(self, outcome: Outcome, error: errors.TundraError) -> None:
        """Write the last rows of an operation that has no answer."""
        events: list[Event] = [self._operation(outcome, None, error)]
        if outcome != "cancelled":
            events.append(
                ErrorEvent(
                    error_id=self._journal.ids.next(),
                    at=self._clock.now_us(),
                    source=_source_of(error),
                    code=error.code,
                    severity=error.severity,
                    retryable=error.retryable,
                    message=self._journal.words(error),
                    profile=getattr(error, "profile", None) or None,
                    operation_id=self.operation_id,
                    reason=error.reason,
                )
            )
        self._record(*events)

    def reply(self, entry: Entry, failures: Mapping[str, errors.TundraError]) -> Reply:
        """The reply of the attempt that was answered; `failures` by the profile that gave them."""
        row, answer, name = self._last, entry.answer, entry.profile.name
        assert row is not None
        assert answer is not None
        return Reply(
            operation_id=str(self.operation_id),
            text=answer.text,
            reasoning=answer.reasoning,
            profile=name,
            model=row.model or answer.model,
            requested_model=self._facts.requested_model,
            usage=answer.usage,
            attempts=self._attempts,
            cost_usd=self._cost_usd,
            price_at=self._price_at,
            stop_reason=row.stop_reason,
            tool_calls=list(answer.tool_calls),
            waited_ms=self.waited * 1000,
            latency_ms=(self._clock.monotonic() - self.began) * 1000,
            request_id=row.request_id,
            remarks=self._remarks,
            failed_over_from=[f"{other}: {error.reason}" for other, error in failures.items() if other != name],
        )

    def _operation(self, outcome: Outcome, answered: Attempt | None, error: errors.TundraError | None) -> Operation:
        return Operation(
            operation_id=self.operation_id,
            at=self._at,
            kind=self._facts.kind,
            requested_model=self._journal.outside(self._facts.requested_model),
            profile=answered.profile if answered else None,
            model=answered.model if answered else None,
            outcome=outcome,
            code=error.code if error else None,
            attempts=self._attempts,
            waited_ms=self.waited * 1000,
            latency_ms=(self._clock.monotonic() - self.began) * 1000,
            input_tokens=answered.input_tokens if answered else None,
            output_tokens=answered.output_tokens if answered else None,
            cached_tokens=answered.cached_tokens if answered else None,
            reasoning_tokens=answered.reasoning_tokens if answered else None,
            cost_usd=self._cost_usd,
            price_at=self._price_at if answered else None,
            stop_reason=answered.stop_reason if answered else None,
            streamed=self._facts.streamed,
            user_name=self._user,
            caller=self._facts.caller,
            run_id=self._facts.run_id,
            asked=",".join(self._asked) or None,
            dialect=self._facts.dialect,
            way=self._request.way,
            dropped=",".join(self._request.dropped) or None,
            client=self._journal.outside(self._facts.client),
            retry_count=self._facts.retry_count,
            trace_id=self._facts.trace_id,
            parent_span_id=self._facts.parent_span_id,
            message=(self._journal.words(error) if error else self._journal.outside("; ".join(self._remarks))) or None,
            retry_after_s=getattr(error, "retry_after", None),
        )

    async def mask(self, entry: Entry, outcome: str) -> None:
        """Mask what is recorded of an attempt before its row is written: a long one apart from the loop.

        13,000 pieces of a stream take a second. Cancelled, it leaves a long one masked by nobody, and so unkept.
        """
        if entry.seen.request_body and self._is_recorded(outcome) and _recorded_bytes(entry.seen) > LONG_BYTES:
            entry.masked = await asyncio.to_thread(self._masked, entry)

    def _is_recorded(self, outcome: str) -> bool:
        return self._content == "all" or (self._content == "errors" and outcome != "ok")

    def _masked(self, entry: Entry) -> Masked:
        redact, seen = self._journal.redactor.text, entry.seen
        if _recorded_bytes(seen) > LONGEST_RECORDED_BYTES:
            return NOTHING_KEPT
        request = redact(seen.request_body.decode(errors="replace"))
        frames, is_whole = frames_of(list(zip(seen.arrivals, seen.pieces, strict=True)), redact)
        if entry.answer is not None and (text := redact(entry.answer.text)) is not entry.answer.text:
            # pieces of a stream may have cut the secret in two: keep the masked whole instead of them
            frames, is_whole = [(frames[-1][0] if frames else 0.0, text)], False
        return Masked(request, frames, is_whole)

    def _exchange(self, entry: Entry, row: Attempt) -> Exchange:
        seen, masked = entry.seen, entry.masked
        if masked is None:
            masked = self._masked(entry) if _recorded_bytes(seen) <= LONG_BYTES else NOTHING_KEPT
        request, frames, is_whole = masked
        kept = None
        if self._journal.keep is not None and masked is not NOTHING_KEPT:
            kept = self._journal.keep(
                Recording(
                    operation_id=str(self.operation_id),
                    attempt_id=str(entry.attempt_id),
                    at=entry.at,
                    profile=entry.profile.name,
                    kind=entry.profile.kind,
                    model=row.model,
                    outcome=row.outcome,
                    code=row.code,
                    status=row.status,
                    request=request,
                    frames=frames,
                    first_byte_ms=row.first_byte_ms,
                    latency_ms=row.latency_ms,
                    is_whole=is_whole,
                )
            )
        return Exchange(
            exchange_id=self._journal.ids.next(),
            at=self._clock.now_us(),
            operation_id=self.operation_id,
            attempt_id=entry.attempt_id,
            request="" if kept else request,
            response="" if kept else "".join(text for _, text in frames),
            recording=kept.name if kept else None,
            sha256=kept.sha256 if kept else None,
            request_bytes=len(seen.request_body),
            response_bytes=seen.unkept_bytes or len(seen.response_body),
        )

    @staticmethod
    def cost(entry: Entry) -> tuple[float | None, str | None]:
        """USD by what the provider tells, and the price table; None where nobody knows."""
        answer, profile = entry.answer, entry.profile
        if answer is None:
            return None, None
        if answer.cost_usd is not None:
            return answer.cost_usd, None
        return prices.cost(profile.kind, answer.model or entry.model or "", answer.usage, profile.base_url)


acting: contextvars.ContextVar[CallRows | None] = contextvars.ContextVar("call", default=None)
"""The call on whose behalf the running code acts, for rows written by callbacks of limiter and breakers."""


def acting_ids() -> tuple[int | None, int | None]:
    """Operation and attempt that a row belongs to; the mark that the operation has begun is written before."""
    rows = acting.get()
    if rows is None:
        return None, None
    rows.begin()
    return rows.operation_id, rows.attempt_id


def _source_of(error: errors.TundraError) -> str:
    if isinstance(error, errors.LimitExceeded):
        return "limiter"
    if isinstance(error, errors.BreakerOpen):
        return "breaker"
    if isinstance(error, errors.ProviderError):
        return "providers"
    return "router" if isinstance(error, errors.AllProvidersExhausted | errors.ConfigError) else "daemon"


def _recorded_bytes(seen: Seen) -> int:
    return len(seen.request_body) + (seen.unkept_bytes or len(seen.response_body))


def _ms(start: float | None, end: float | None) -> float | None:
    return (end - start) * 1000 if start is not None and end is not None else None
