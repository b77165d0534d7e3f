"""The life of a call: limiter → breaker → attempt → classify → retry, fail over or answer; every step recorded.

One call is one operation with n attempts. An attempt row is written for each try, also for one that the limiter, the
breaker or a parked profile refused before anything was sent. The decisions are made by the pure parts in `resilience`;
this module carries them out, in order, and writes down what happened.
"""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import json
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager

import msgspec

from tundra_nb import errors
from tundra_nb.runtime.clock import Clock, Ids
from tundra_nb.runtime.keys import KeyRing
from tundra_nb.runtime.providers import prices
from tundra_nb.runtime.providers.check import check_ask
from tundra_nb.runtime.providers.contract import Answer, Seen
from tundra_nb.runtime.providers.provider import Provider
from tundra_nb.runtime.resilience.breaker import Breaker, BreakerChange, Permit
from tundra_nb.runtime.resilience.limiter import Limit, Limiter, LimitNotice, LimitPath, Reservation
from tundra_nb.runtime.resilience.router import Decision, FailOver, Retry, Router, exhausted, remaining
from tundra_nb.runtime.telemetry.redact import Redactor
from tundra_nb.settings import ProfileSettings, Settings
from tundra_nb.types import (
    Ask,
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

DEFAULT_OUTPUT_TOKENS = 256
"""Output tokens reserved when the caller names no `max_tokens`; real usage settles the difference."""

FIRST_PROFILE = """Make one, for example for a local server, then ask again:
    %tundra providers add local --kind local --base-url http://127.0.0.1:8080/v1
    %tundra status
    %tundra ask Say hi"""
"""Three lines to copy when there is no profile at all."""

OnText = Callable[[str], Awaitable[None]]


class Notice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something a person who waits for the answer wants to know. `kind`: attempt, wait, retry, failover."""

    kind: str
    message: str
    profile: str
    seconds: float = 0.0


OnNotice = Callable[[Notice], Awaitable[None]]
Record = Callable[..., None]

_acting: contextvars.ContextVar[int | None] = contextvars.ContextVar("operation_id", default=None)
"""The operation on whose behalf the running code acts, for rows written by callbacks."""


class ProfileSlot:
    """What the runtime keeps per profile: its provider, its breaker, and its limiter path by user."""

    def __init__(self, profile: ProfileSettings, provider: Provider, breaker: Breaker) -> None:
        self.profile = profile
        self.provider = provider
        self.breaker = breaker
        self.paths: dict[str, LimitPath] = {}
        self.seen: Seen | None = None
        """What the last attempt that reached the provider saw."""
        self.seen_at: float = 0.0


@dataclasses.dataclass(frozen=True)
class Parts:
    """What operations work with."""

    settings: Settings
    slots: Mapping[str, ProfileSlot]
    router: Router
    limiter: Limiter
    keys: KeyRing
    redactor: Redactor
    record: Record
    ids: Ids
    clock: Clock


class Operations:
    """Carries out calls. One per daemon; everything it uses is passed in."""

    def __init__(self, parts: Parts) -> None:
        self._p = parts
        self.running = 0

    async def ask(
        self, ask: Ask, *, user: str, on_text: OnText | None = None, on_notice: OnNotice | None = None
    ) -> Reply:
        """Carry out one call.

        Args:
            ask: what to ask. With `stream`, pieces go to `on_text` as they arrive, and a text once delivered is never
                repeated: after the first piece a failure ends the operation.
            user: whose bucket of the user tier it takes from.
            on_text: awaited for each piece; being slow there slows the provider's stream down.
            on_notice: awaited for each wait, retry and failover.

        Raises:
            TundraError: what went wrong; `AllProvidersExhausted` when every candidate failed.
            asyncio.CancelledError: the caller went away. The upstream connection is closed, reservations are given
                back, and the operation is recorded as cancelled, before this is raised.
        """
        run = _Run(self, self._p, ask, user, on_text, on_notice)
        token = _acting.set(run.operation_id)
        self.running += 1
        try:
            return await run.carry_out()
        finally:
            self.running -= 1
            _acting.reset(token)

    def path(self, slot: ProfileSlot, user: str) -> LimitPath:
        """The limiter path of a user on a profile: global → user → profile, the tiers that are switched on."""
        path = slot.paths.get(user)
        if path is None:
            if len(slot.paths) > 1000:
                slot.paths.clear()
            path = slot.paths[user] = self._p.limiter.path(limits_for(self._p.settings, slot.profile, user))
        return path

    def on_limit_notice(self, notice: LimitNotice) -> None:
        """Callback of the limiter: write the row."""
        self._p.record(
            LimitEvent(
                limit_event_id=self._p.ids.next(),
                at=self._p.clock.now_us(),
                tier=notice.tier,
                limit_key=notice.key,
                resource=notice.resource,
                decision=notice.decision,
                requested=notice.requested,
                remaining=notice.remaining,
                retry_after_s=notice.retry_after,
                operation_id=notice.operation_id if notice.operation_id is not None else _acting.get(),
            )
        )

    def on_breaker_change(self, change: BreakerChange) -> None:
        """Callback of the breakers: write the row."""
        now = self._p.clock.now_us()
        self._p.record(
            BreakerEvent(
                breaker_event_id=self._p.ids.next(),
                at=now,
                profile=change.name,
                old_state=change.old,
                new_state=change.new,
                reason=change.reason,
                failures=change.failures,
                operation_id=_acting.get(),
                open_until=now + int(change.open_for * 1e6) if change.open_for else None,
            )
        )

    def park(self, name: str, error: errors.TundraError) -> None:
        """Take a profile out until settings change or it is rechecked; the reason is kept in the history."""
        if self._p.router.parked(name) is not None:
            return
        self._p.router.park(name, error)
        self._record_parked(name, error.reason, parked=True, message=json.dumps(error.to_wire()))

    def unpark(self, name: str, reason: str) -> None:
        if self._p.router.unpark(name):
            self._record_parked(name, reason, parked=False, message=None)

    def _record_parked(self, name: str, reason: str, *, parked: bool, message: str | None) -> None:
        state = self._p.slots[name].breaker.state
        self._p.record(
            BreakerEvent(
                breaker_event_id=self._p.ids.next(),
                at=self._p.clock.now_us(),
                profile=name,
                old_state=state,
                new_state=state,
                reason=reason,
                failures=self._p.slots[name].breaker.failures,
                operation_id=_acting.get(),
                parked=parked,
                message=message,
            )
        )


def limits_for(settings: Settings, profile: ProfileSettings, user: str) -> list[Limit]:
    """The buckets that a call of `user` on `profile` takes from."""
    limits: list[Limit] = []
    for tier, key, values in (
        ("global", "global", settings.limits.global_),
        ("user", user, settings.limits.user),
        ("profile", profile.name, settings.limits.profile),
    ):
        if tier == "profile" and (profile.rpm is not None or profile.tpm is not None):
            if profile.rpm is not None:
                limits.append(Limit("profile", key, "requests", profile.rpm / 60, max(profile.rpm, 1.0)))
            if profile.tpm is not None:
                limits.append(Limit("profile", key, "tokens", profile.tpm / 60, profile.tpm))
        elif values.enabled:
            limits.append(Limit(tier, key, "requests", values.rate, values.burst))  # type: ignore[arg-type]
            if values.tokens_per_minute is not None:
                per_minute = values.tokens_per_minute
                limits.append(Limit(tier, key, "tokens", per_minute / 60, per_minute))  # type: ignore[arg-type]
    return limits


def estimate_tokens(ask: Ask) -> int:
    """Tokens to reserve: a quarter of the UTF-8 bytes of the messages, rounded up, and the output asked for."""
    prompt = sum(
        len(message["content"].encode()) for message in ask.messages if isinstance(message.get("content"), str)
    )
    rest = [message["content"] for message in ask.messages if isinstance(message.get("content"), list)]
    if rest or ask.tools:
        prompt += len(msgspec.json.encode([rest, ask.tools]))
    return math.ceil(prompt / 4) + (ask.max_tokens or DEFAULT_OUTPUT_TOKENS)


class _Run:
    """One operation under way."""

    def __init__(
        self,
        operations: Operations,
        parts: Parts,
        ask: Ask,
        user: str,
        on_text: OnText | None,
        on_notice: OnNotice | None,
    ) -> None:
        self._o = operations
        self._p = parts
        self._ask = ask
        self._user = user
        self._on_text = on_text
        self._on_notice = on_notice
        self._clock = self._p.clock
        self._began = self._clock.monotonic()
        self._at = self._clock.now_us()
        self.operation_id = self._p.ids.next()
        self._attempts = 0
        self._waited = 0.0
        self._delivered = False
        self._failures: dict[str, errors.TundraError] = {}
        self._tokens = 0
        self._last_row: Attempt | None = None
        self._deadline = asyncio.timeout(parts.settings.router.deadline_seconds)

    async def carry_out(self) -> Reply:
        ask = self._ask
        self._write(
            OperationOpened(
                operation_id=self.operation_id,
                at=self._at,
                requested_model=ask.model,
                user_name=self._user,
                caller=ask.caller,
                streamed=ask.stream,
            )
        )
        try:
            check_ask(ask)
            async with self._deadline:
                answer, profile = await self._answer()
        except TimeoutError:
            error = self._out_of_time()
            self._end("error", error)
            raise error from None
        except errors.TundraError as error:
            self._end("refused" if isinstance(error, errors.LimitExceeded | errors.BreakerOpen) else "error", error)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            self._end("cancelled", errors.Cancelled())
            raise
        except Exception as exc:
            self._end("error", errors.InternalError(problem=f"unexpected {type(exc).__name__} in the daemon"))
            raise
        return self._reply(answer, profile)

    async def _answer(self) -> tuple[Answer, ProfileSettings]:
        if not self._p.slots:
            raise errors.ConfigError(problem="no profile is set up, so there is nobody to ask", remedy=FIRST_PROFILE)
        queue = self._p.router.candidates(self._ask.profile, failover=self._ask.failover)
        self._tokens = estimate_tokens(self._ask)
        first = queue[0] if queue else None
        cooling: list[ProfileSettings] = []
        while queue:
            candidate = queue.pop(0)
            refusal = self._refusal(candidate)
            if isinstance(refusal, errors.RateLimited) and self._may_wait(refusal.retry_after):
                if candidate not in cooling:  # asked after the others, once it may be
                    cooling.append(candidate)
                    queue.append(candidate)
                    continue
                await self._pause(refusal.retry_after or 0.0, "wait", candidate.name, str(refusal))
            elif refusal is not None:
                self._refuse(candidate, refusal)
                continue
            decision = await self._try(candidate, first)
            if isinstance(decision, Answer):
                return decision, candidate
            if decision.larger_context:
                queue = remaining([candidate, *queue], candidate, decision, self._context_tokens)
        if not self._ask.failover and self._failures:
            raise next(iter(self._failures.values()))
        raise exhausted(self._failures.values())

    def _refusal(self, candidate: ProfileSettings) -> errors.TundraError | None:
        """Why a profile is not to be asked now, without having asked it."""
        variable = candidate.api_key_env
        if variable and self._p.keys.get(variable) is None:
            return errors.KeyMissing(profile=candidate.name, variable=variable)
        return self._p.router.unavailable(candidate.name)

    def _may_wait(self, seconds: float | None) -> bool:
        return seconds is not None and seconds <= self._p.settings.router.max_wait_seconds

    def _context_tokens(self, profile: ProfileSettings) -> int | None:
        return self._p.slots[profile.name].provider.context_tokens(self._ask.model)

    async def _try(self, profile: ProfileSettings, first: ProfileSettings | None) -> Answer | FailOver:
        """Attempts at one profile: its answer, or that the next candidate is to be asked."""
        slot = self._p.slots[profile.name]
        if self._failures:
            await self._notify("failover", profile.name, f"asking {profile.name}: {self._last_failure()}")
        cause = "failover" if self._failures else "first"
        try:
            model = await self._model(slot, first)
        except errors.TundraError as error:
            self._refuse(profile, error)
            return self._follow(self._p.router.decide(error, self._p.settings.router.retries), error)
        retries = 0
        backoff = 0.0
        while True:
            entry = self._entry(slot, cause)
            try:
                return await self._attempt(slot, model, entry, backoff)
            except errors.TundraError as error:
                self._failures[profile.name] = error
                decision = self._p.router.decide(
                    error,
                    retries,
                    should_retry=entry.seen.should_retry,
                    delivered=self._delivered,
                    time_left=self._began + self._p.settings.router.deadline_seconds - self._clock.monotonic(),
                )
                if not isinstance(decision, Retry):
                    return self._follow(decision, error)
                retries += 1
                cause, backoff = "retry", decision.delay
                await self._pause(decision.delay, "retry", profile.name, str(error))

    def _follow(self, decision: Decision, error: errors.TundraError) -> FailOver:
        """The failover that a decision allows; anything else ends the operation with the error."""
        if isinstance(decision, FailOver) and self._ask.failover:
            return decision
        raise error

    async def _model(self, slot: ProfileSlot, first: ProfileSettings | None) -> str:
        """The model to ask of this profile.

        A model that the caller named is asked of the first candidate and of others of the same kind; another vendor
        would not know it, so there the profile's own model is.
        """
        profile = slot.profile
        if self._ask.model and (first is None or profile.kind == first.kind):
            return self._ask.model
        return profile.model or await slot.provider.choose_model()

    def _entry(self, slot: ProfileSlot, cause: str) -> _Entry:
        self._attempts += 1
        return _Entry(self._p.ids.next(), self._clock.now_us(), self._attempts, cause, slot.breaker.state)

    async def _attempt(self, slot: ProfileSlot, model: str, entry: _Entry, backoff: float) -> Answer:
        with self._settled(slot, model, entry, backoff):
            if entry.breaker_state == "open":
                slot.breaker.admit()  # refused at once, before waiting for a bucket
            entry.reservation = await self._p.limiter.reserve(
                self._o.path(slot, self._user),
                self._tokens,
                self._p.settings.router.max_wait_seconds,
                self.operation_id,
            )
            self._waited += entry.reservation.waited
            entry.permit = slot.breaker.admit()
            if entry.permit.state == "half_open":
                entry.cause = "probe"
            self._write(
                AttemptOpened(
                    attempt_id=entry.attempt_id,
                    operation_id=self.operation_id,
                    seq=entry.seq,
                    at=entry.at,
                    profile=slot.profile.name,
                    model=model,
                )
            )
            record = self._p.settings.record.content != "off"
            async with aclosing(slot.provider.attempt(self._ask, model, entry.seen, record)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, str):
                        self._delivered = True
                        if self._on_text is not None:
                            await self._on_text(piece)
                    else:
                        entry.answer = piece
            if entry.answer is None:
                raise errors.ParseError(profile=slot.profile.name, problem="the answer ended without its end")
        return entry.answer

    @contextmanager
    def _settled(self, slot: ProfileSlot, model: str, entry: _Entry, backoff: float) -> Iterator[None]:
        """Around one attempt: however it ends, breaker, limiter and history are told exactly once."""
        try:
            yield
        except errors.TundraError as error:
            self._fail(slot, entry, error)
            self._attempt_row(slot, entry, model, backoff, _outcome_of(error), error)
            raise
        except BaseException:
            if self._deadline.expired():
                late = self._out_of_time()
                self._fail(slot, entry, late)
                self._attempt_row(slot, entry, model, backoff, "error", late)
                raise
            if entry.permit is not None:
                entry.permit.release()
            if entry.reservation is not None:
                if entry.seen.sent_at is None:
                    entry.reservation.refund()
                else:
                    entry.reservation.settle(self._tokens)
            self._attempt_row(slot, entry, model, backoff, "cancelled", errors.Cancelled())
            raise
        assert entry.answer is not None
        assert entry.permit is not None
        assert entry.reservation is not None
        entry.permit.success()
        entry.reservation.settle(_total(entry.answer.usage, self._tokens))
        self._attempt_row(slot, entry, model, backoff, "ok", None)

    def _fail(self, slot: ProfileSlot, entry: _Entry, error: errors.TundraError) -> None:
        """Tell breaker, limiter and router of a failed attempt."""
        if entry.permit is not None:
            if error.trips_breaker:
                entry.permit.failure(error.reason)
            else:
                entry.permit.release()
        if entry.reservation is not None:
            if entry.seen.sent_at is None:
                entry.reservation.refund()
            else:  # an error answer costs its request, not the tokens
                entry.reservation.settle(self._tokens if self._delivered else 0)
        name = slot.profile.name
        if error.parks:
            self._o.park(name, error)
        elif isinstance(error, errors.RateLimited) and error.retry_after:
            self._p.router.note(name, error)
            until = self._clock.monotonic() + error.retry_after
            self._p.limiter.penalise("profile", name, "requests", until)

    def _refuse(self, profile: ProfileSettings, error: errors.TundraError) -> None:
        """Write the attempt row of a profile that was passed over without being asked."""
        slot = self._p.slots[profile.name]
        entry = self._entry(slot, "failover" if self._failures else "first")
        self._failures[profile.name] = error
        if error.parks and not isinstance(error, errors.KeyMissing):
            self._o.park(profile.name, error)
        self._attempt_row(slot, entry, self._ask.model or profile.model or None, 0.0, "refused", error)

    def _attempt_row(
        self,
        slot: ProfileSlot,
        entry: _Entry,
        model: str | None,
        backoff: float,
        outcome: Outcome,
        error: errors.TundraError | None,
    ) -> None:
        seen, answer, reservation = entry.seen, entry.answer, entry.reservation
        if seen.status is not None:
            slot.seen, slot.seen_at = seen, self._clock.monotonic()
        usage = answer.usage if answer else Usage()
        entry.cost_usd, entry.price_at = self._cost(slot.profile, model, answer)
        row = Attempt(
            attempt_id=entry.attempt_id,
            operation_id=self.operation_id,
            seq=entry.seq,
            at=entry.at,
            profile=slot.profile.name,
            model=answer.model if answer else model,
            outcome=outcome,
            reason=error.reason if error else "answered",
            status=seen.status,
            code=error.code if error else None,
            retry_after_s=getattr(error, "retry_after", None),
            limiter_wait_ms=reservation.waited * 1000 if reservation else 0.0,
            breaker_state=entry.permit.state if entry.permit else entry.breaker_state,
            first_byte_ms=_ms(seen.sent_at, seen.first_byte_at),
            latency_ms=(self._clock.monotonic() - seen.sent_at) * 1000 if seen.sent_at is not None else None,
            input_tokens=usage.input_tokens,
            cached_tokens=usage.cached_tokens,
            output_tokens=usage.output_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            cost_usd=entry.cost_usd,
            stop_reason=answer.stop_reason if answer else None,
            cause=entry.cause,
            backoff_ms=backoff * 1000,
            bucket_requests=reservation.level_requests if reservation else None,
            bucket_tokens=reservation.level_tokens if reservation else None,
            request_id=seen.request_id or (answer.request_id if answer else None),
            message=self._p.redactor.text(str(error)) if error else None,
            limit_headers=json.dumps(seen.headers) if seen.headers else None,
        )
        self._last_row = row
        events: list[Event] = [row]
        content = self._p.settings.record.content
        if seen.request_body and (content == "all" or (content == "errors" and error is not None)):
            events.append(self._exchange(entry))
        if outcome == "ok":
            events.append(self._operation_row("ok", None, slot.profile.name, entry))
        self._write(*events)

    def _exchange(self, entry: _Entry) -> Exchange:
        redact = self._p.redactor.text
        return Exchange(
            exchange_id=self._p.ids.next(),
            at=self._clock.now_us(),
            operation_id=self.operation_id,
            attempt_id=entry.attempt_id,
            request=redact(entry.seen.request_body.decode(errors="replace")),
            response=redact(entry.seen.response_body.decode(errors="replace")),
        )

    def _cost(
        self, profile: ProfileSettings, model: str | None, answer: Answer | None
    ) -> tuple[float | None, str | None]:
        if answer is None:
            return None, None
        if answer.cost_usd is not None:
            return answer.cost_usd, None
        return prices.cost(profile.kind, answer.model or model or "", answer.usage, profile.base_url)

    def _operation_row(
        self, outcome: Outcome, error: errors.TundraError | None, profile: str | None, entry: _Entry | None
    ) -> Operation:
        answer = entry.answer if entry else None
        usage = answer.usage if answer else Usage()
        return Operation(
            operation_id=self.operation_id,
            at=self._at,
            requested_model=self._ask.model,
            profile=profile,
            model=answer.model if answer else None,
            outcome=outcome,
            code=error.code if error else None,
            attempts=self._attempts,
            waited_ms=self._waited * 1000,
            latency_ms=(self._clock.monotonic() - self._began) * 1000,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cached_tokens=usage.cached_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            cost_usd=entry.cost_usd if entry else None,
            price_at=entry.price_at if entry else None,
            stop_reason=answer.stop_reason if answer else None,
            streamed=self._ask.stream,
            user_name=self._user,
            caller=self._ask.caller,
            message=self._p.redactor.text(str(error)) if error else None,
            retry_after_s=getattr(error, "retry_after", None),
        )

    def _end(self, outcome: Outcome, error: errors.TundraError) -> None:
        """Write the last rows of an operation that has no answer."""
        rows: list[Event] = [self._operation_row(outcome, error, None, None)]
        if outcome != "cancelled":
            rows.append(
                ErrorEvent(
                    error_id=self._p.ids.next(),
                    at=self._clock.now_us(),
                    source=_source_of(error),
                    code=error.code,
                    severity=error.severity,
                    retryable=error.retryable,
                    message=self._p.redactor.text(str(error)),
                    profile=getattr(error, "profile", None) or None,
                    operation_id=self.operation_id,
                    reason=error.reason,
                )
            )
        self._write(*rows)

    def _reply(self, answer: Answer, profile: ProfileSettings) -> Reply:
        row = self._last_row
        assert row is not None
        cost, price_at = self._cost(profile, row.model, answer)
        return Reply(
            operation_id=str(self.operation_id),
            text=answer.text,
            profile=profile.name,
            model=answer.model,
            requested_model=self._ask.model,
            usage=answer.usage,
            attempts=self._attempts,
            cost_usd=cost,
            price_at=price_at,
            stop_reason=answer.stop_reason,
            tool_calls=list(answer.tool_calls),
            waited_ms=self._waited * 1000,
            latency_ms=(self._clock.monotonic() - self._began) * 1000,
            request_id=row.request_id,
            failed_over_from=[
                f"{name}: {error.reason}" for name, error in self._failures.items() if name != profile.name
            ],
        )

    def _out_of_time(self) -> errors.Timeout:
        return errors.Timeout(deadline="operation", seconds=self._p.settings.router.deadline_seconds)

    def _last_failure(self) -> str:
        return str(next(reversed(self._failures.values())))

    async def _pause(self, seconds: float, kind: str, profile: str, why: str) -> None:
        await self._notify(kind, profile, f"{why}; again in {seconds:.2g} s", seconds)
        began = self._clock.monotonic()
        try:
            await self._clock.sleep(seconds)
        finally:
            self._waited += self._clock.monotonic() - began

    async def _notify(self, kind: str, profile: str, message: str, seconds: float = 0.0) -> None:
        if self._on_notice is not None:
            message = self._p.redactor.text(message)
            await self._on_notice(Notice(kind=kind, message=message, profile=profile, seconds=seconds))

    def _write(self, *events: Event) -> None:
        self._p.record(*events)


class _Entry:
    """What one attempt gathers until its row is written."""

    def __init__(self, attempt_id: int, at: int, seq: int, cause: str, breaker_state: BreakerState) -> None:
        self.attempt_id = attempt_id
        self.at = at
        self.seq = seq
        self.cause = cause
        self.seen = Seen()
        self.permit: Permit | None = None
        self.reservation: Reservation | None = None
        self.answer: Answer | None = None
        self.breaker_state: BreakerState = breaker_state
        self.cost_usd: float | None = None
        self.price_at: str | None = None


def _outcome_of(error: errors.TundraError) -> Outcome:
    return "refused" if isinstance(error, errors.LimitExceeded | errors.BreakerOpen) else "error"


def _source_of(error: errors.TundraError) -> str:
    if isinstance(error, errors.LimitExceeded):
        return "limiter"
    if isinstance(error, errors.BreakerOpen):
        return "breaker"
    if isinstance(error, errors.ProviderError):
        return "providers"
    return "router" if isinstance(error, errors.AllProvidersExhausted | errors.ConfigError) else "daemon"


def _total(usage: Usage, reserved: int) -> float:
    if usage.input_tokens is None and usage.output_tokens is None:
        return reserved
    return (usage.input_tokens or 0) + (usage.output_tokens or 0)


def _ms(start: float | None, end: float | None) -> float | None:
    return (end - start) * 1000 if start is not None and end is not None else None
