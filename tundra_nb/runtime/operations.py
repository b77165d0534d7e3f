"""The life of a call: limiter → breaker → attempt → classify → retry, fail over or answer; every step recorded.

One call is one operation with n attempts. An attempt row is written for each try, also for one that the limiter, the
breaker or a parked profile refused before anything was sent. The decisions are made by the pure parts in `resilience`;
this module carries them out, in order. `rows` writes down what happened.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence

import msgspec

from tundra_nb import errors
from tundra_nb.errors.spans import span
from tundra_nb.runtime import lines
from tundra_nb.runtime.caller import Budgets, Caller
from tundra_nb.runtime.profiles import Profiles, ProfileSlot
from tundra_nb.runtime.providers import prices
from tundra_nb.runtime.providers.contract import ANSWERED, Answer, Deliver
from tundra_nb.runtime.providers.provider import Provider
from tundra_nb.runtime.requests import Asked, Request
from tundra_nb.runtime.reserve import MOST_CONTEXT_TOKENS, used_tokens
from tundra_nb.runtime.resilience.router import FailOver, Retry, StopRouting, exhausted, remaining
from tundra_nb.runtime.rows import CallRows, Entry, acting
from tundra_nb.runtime.under_way import UnderWay
from tundra_nb.settings import ProfileSettings
from tundra_nb.types import Ask, Outcome, Reply
from tundra_nb.types.pieces import Piece

CONTEXT_SECONDS = 3.0
"""How long the candidates' model lists may take, when it must be known whose context is larger."""
LISTS_AT_ONCE = 4
"""Model lists read at once to find a larger context: hundreds of profiles must not hold up other calls."""
FEWEST_OUTPUT_TOKENS = 256
"""An answer is not bounded more narrowly than this for the sake of a budget: the call is refused instead."""


class Notice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something a person who waits for the answer wants to know. `kind`: wait, retry, failover."""

    kind: str
    message: str
    profile: str
    seconds: float = 0.0


OnNotice = Callable[[Notice], Awaitable[None]]


class Operations:
    """Carries out calls. Each keeps the settings and profiles that it began with.

    `running` holds those under way, by id.
    """

    def __init__(self, profiles: Profiles, budgets: Budgets) -> None:
        self._profiles = profiles
        self._budgets = budgets
        self.running: dict[int, UnderWay] = {}

    async def ask(
        self,
        ask: Ask,
        *,
        user: str,
        on_piece: Deliver | None = None,
        on_notice: OnNotice | None = None,
        on_attempt: OnNotice | None = None,
        trace: tuple[str | None, str | None] = (None, None),
    ) -> Reply:
        """Carry out one call of our own client.

        Args:
            ask: what to ask.
            user: whose bucket of the user tier it takes from.
            on_piece: see `LiveOperation.carry_out`.
            on_notice: see there.
            on_attempt: see there.
            trace: the caller's trace and span.

        Raises:
            TundraError: see there.
        """
        operation = self.call(Asked(ask, trace), Caller(user))
        entry = await operation.carry_out(on_piece, on_notice, on_attempt)
        return operation.rows.reply(entry, operation.failures)

    def call(self, request: Request, caller: Caller) -> LiveOperation:
        """Open an operation; nothing is asked and nothing written before it is carried out."""
        return LiveOperation(self._profiles, self._budgets, self.running, request, caller)


class LiveOperation:
    """One call: carried out once."""

    def __init__(
        self, profiles: Profiles, budgets: Budgets, running: dict[int, UnderWay], request: Request, caller: Caller
    ) -> None:
        self._p = profiles
        self._budgets = budgets
        self._running = running
        self._settings = profiles.settings
        self._slots = profiles.slots
        self._request = request
        self._caller = caller
        self._on_piece: Deliver | None = None
        self._on_notice: OnNotice | None = None
        self._on_attempt: OnNotice | None = None
        self._clock = profiles.clock
        self._router = self._settings.router
        self._content = "all" if request.facts.record else self._settings.record.content
        self.rows = CallRows(profiles.journal, request, caller.name, self._content)
        self.operation_id = self.rows.operation_id
        self._now = UnderWay(
            operation_id=self.rows.operation_id,
            at=self._clock.now_us(),
            began=self._clock.monotonic(),
            kind=request.facts.kind,
            user=caller.name,
            requested_model=request.facts.requested_model,
        )
        self._delivered = False
        self.failures: dict[str, errors.TundraError] = {}
        """The last error by profile, in the order in which they were first met."""
        self.retries = 0
        """Made so far, at all profiles."""
        self._tokens = 0
        self._deadline = self._clock.timeout(self._router.deadline_seconds)

    async def carry_out(
        self,
        on_piece: Deliver | None = None,
        on_notice: OnNotice | None = None,
        on_attempt: OnNotice | None = None,
    ) -> Entry:
        """Ask until somebody answers or nobody is left; the attempt that was answered.

        Args:
            on_piece: awaited for each piece of the answer as it arrives; being slow there slows the provider's stream
                down. What has been delivered is never repeated: after the first piece a failure ends the operation.
            on_notice: awaited for each wait, retry and failover.
            on_attempt: awaited when somebody is about to be asked.

        Raises:
            TundraError: what went wrong; `AllProvidersExhausted` when every candidate failed.
            asyncio.CancelledError: the caller went away. The upstream connection is closed, reservations are given
                back, and the operation is recorded as cancelled, before this is raised.
        """
        self._on_piece, self._on_notice, self._on_attempt = on_piece, on_notice, on_attempt
        token = acting.set(self.rows)
        self._running[self.operation_id] = self._now
        try:
            return await self._carry_out()
        finally:
            self._running.pop(self.operation_id, None)
            acting.reset(token)

    async def _carry_out(self) -> Entry:
        try:
            self._request.check()
            async with self._deadline:
                return await self._answer()
        except TimeoutError:
            error = self._out_of_time()
            self.rows.end("error", error)
            raise error from None
        except errors.TundraError as error:
            self.rows.end(_outcome_of(error, self.failures.values()), error)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            self.rows.end("cancelled", errors.Cancelled())
            raise
        except Exception as exc:
            self.rows.end("error", errors.InternalError(problem=_defect(exc)))
            raise

    async def _answer(self) -> Entry:
        if not self._slots:
            raise errors.NoProfile
        queue = self._request.candidates(self._p.router)
        self._tokens = self._request.tokens
        await self._budgets.ready(self._caller)
        cooling: set[str] = set()
        while queue:
            candidate = queue.pop(0)
            pause = 0.0
            if (unable := await self._request.unable(self._slots[candidate.name])) is not None:
                self._pass_over(candidate, unable)
                continue
            refusal = self._p.refusal(candidate)
            if isinstance(refusal, errors.RateLimited) and self._may_wait(refusal.retry_after):
                if candidate.name not in cooling:  # asked after the others, once it may be
                    cooling.add(candidate.name)
                    queue.append(candidate)
                    continue
                pause = refusal.retry_after or 0.0
                await self._pause(pause, "wait", candidate.name, refusal)
                refusal = self._p.refusal(candidate)
            if refusal is not None:
                self._pass_over(candidate, refusal)
                continue
            done = await self._try(self._slots[candidate.name], pause)
            if isinstance(done, Entry):
                return done
            if done.larger_context:
                queue = await self._larger(candidate, queue, done)
        if not self._request.failover and self.failures:
            raise next(iter(self.failures.values()))
        raise exhausted(self.failures.values())

    @property
    def _time_left(self) -> float:
        return self.rows.began + self._router.deadline_seconds - self._clock.monotonic()

    def _may_wait(self, seconds: float | None) -> bool:
        return seconds is not None and seconds <= self._router.max_wait_seconds and seconds < self._time_left

    async def _try(self, slot: ProfileSlot, pause: float) -> Entry | FailOver:
        """Attempts at one profile: the one that was answered, or that the next candidate is to be asked.

        Raises:
            TundraError: nobody else is to be asked.
        """
        name = slot.profile.name
        cause = "first"
        last = None
        if self.failures:
            cause = "failover"
            last = next(reversed(self.failures.values()))
            if self._on_notice is not None:
                await self._notify("failover", name, f"asking {name}: {last}")
        retries = 0
        while True:
            entry = self.rows.entry(slot.profile, cause, slot.breaker.state, pause)
            if last is not None and not retries:
                lines.failed_over(name, last, self.operation_id, entry.attempt_id)
            try:
                await self._attempt(slot, entry)
            except errors.TundraError as error:
                if isinstance(error, errors.BreakerOpen) and retries:
                    # opened by this very call, or meanwhile: what the provider said is what matters
                    met = self.failures[name]
                    if self._request.failover:
                        return FailOver()
                    raise met from error
                self.failures[name] = error
                decision = self._p.router.decide(
                    error,
                    retries,
                    should_retry=entry.seen.should_retry,
                    delivered=self._delivered,
                    time_left=self._time_left,
                )
                if isinstance(decision, Retry) and slot.breaker.state == "open":  # a retry would only be refused
                    decision = FailOver() if error.fails_over else StopRouting()
                if isinstance(decision, FailOver) and self._request.failover:
                    return decision
                if not isinstance(decision, Retry):
                    raise
                retries += 1
                self.retries += 1
                cause, pause = "retry", decision.delay
                await self._pause(pause, "retry", name, error)
            else:
                return entry

    async def _attempt(self, slot: ProfileSlot, entry: Entry) -> None:
        """One attempt: it fills `entry`. However it ends, breaker, limiter and history are told exactly once."""
        try:
            await self._ask(slot, entry)
        except BaseException as exc:
            self._failed(slot, entry, exc)
            if isinstance(exc, errors.TundraError):
                _let_go(exc)
            raise
        assert entry.answer is not None
        assert entry.permit is not None
        entry.permit.success()
        self._give_back(entry, used_tokens(entry.answer.usage, self._tokens))
        self._pay(slot, entry)
        self._row(slot, entry, "ok", None)

    async def _ask(self, slot: ProfileSlot, entry: Entry) -> None:
        """Ask once, when limiter, breaker and budget let it."""
        entry.model = self._request.model(slot.profile)
        if entry.breaker_state == "open":
            slot.breaker.admit()  # refused at once, before waiting for a bucket
        self._now.profile, self._now.doing = slot.profile.name, "waiting for the limiter"
        entry.reservation = await self._p.limiter.reserve(
            self._p.path(slot, self._caller), self._tokens, self._router.max_wait_seconds, self.operation_id
        )
        self.rows.waited += entry.reservation.waited
        entry.permit = slot.breaker.admit()
        if entry.permit.state == "half_open":
            entry.cause = "probe"
        if entry.model is None:  # under limiter and breaker too: a dead server's model list is a failure of it
            self.rows.begin()
            entry.model = await slot.provider.choose_model()
        if self._caller.usd_per_day is not None:
            needed = await self._most_it_costs(slot, entry.model, self._budgets.left(self._caller))
            entry.money = self._budgets.reserve(self._caller, slot.profile.name, needed)
        self.rows.sending(entry)
        self._now.doing = "asking"
        if self._on_attempt is not None:
            name = slot.profile.name
            await self._on_attempt(Notice(kind="attempt", message=f"asking {name}", profile=name))
        record = self._content != "off"
        outcome = "error"
        try:
            entry.answer = await self._request.attempt(slot, entry.model, entry, self._deliver, record=record)
            outcome = "ok"
        finally:
            await self.rows.mask(entry, outcome)

    async def _deliver(self, piece: Piece) -> None:
        self._delivered = True
        self._now.doing = "answering"
        if self._on_piece is not None:
            await self._on_piece(piece)

    async def _most_it_costs(self, slot: ProfileSlot, model: str, left: float) -> float | None:
        """USD; None where the model has no price. An answer that nobody bounds is bounded here, by what is left too."""
        profile = slot.profile
        if profile.kind == "local":
            return 0.0
        if not prices.is_loaded():
            await asyncio.to_thread(prices.load)
        read, written = self._request.most_tokens(slot.provider.context_tokens(model) or MOST_CONTEXT_TOKENS)

        def most(written: int) -> float | None:
            return prices.most(profile.kind, model, read, written, profile.base_url, slot.provider.listed(model))

        if most(0) is None:
            with contextlib.suppress(errors.TundraError):
                await slot.provider.models()  # its own list may tell one, which `models` shows
        if written is None:
            written = self._settings.gateway.budget_output_tokens
            while (needed := most(written)) is not None:
                if needed <= left or written <= FEWEST_OUTPUT_TOKENS:
                    break
                written //= 2
            self._request.limit_output(written)
            return needed
        return most(written)

    def _failed(self, slot: ProfileSlot, entry: Entry, exc: BaseException) -> None:
        """An attempt ended without an answer."""
        if isinstance(exc, errors.TundraError):
            self._fail(slot, entry, exc)
            self._row(slot, entry, _outcome_of(exc), exc)
        elif self._deadline.expired():
            late = self._out_of_time()
            self._fail(slot, entry, late)
            self._row(slot, entry, "error", late)
        else:
            if entry.permit is not None:
                entry.permit.release()
            self._give_back(entry, self._tokens)
            self._pay(slot, entry, exc)
            if isinstance(exc, Exception):
                self._row(slot, entry, "error", errors.InternalError(problem=_defect(exc)))
            else:
                self._row(slot, entry, "cancelled", errors.Cancelled())

    def _fail(self, slot: ProfileSlot, entry: Entry, error: errors.TundraError) -> None:
        """Tell breaker, limiter and router of a failed attempt."""
        if entry.permit is not None:
            if error.trips_breaker:
                entry.permit.failure(error.reason)
            else:
                entry.permit.release()
        self._give_back(entry, self._tokens if self._delivered else 0)  # an error answer costs its request only
        self._pay(slot, entry, error)
        name = slot.profile.name
        if error.parks:
            self._p.park(name, error)
        elif isinstance(error, errors.RateLimited) and error.retry_after:
            self._p.router.note(name, error)
            until = self._clock.monotonic() + error.retry_after
            self._p.limiter.penalise("profile", name, "requests", until)

    @staticmethod
    def _give_back(entry: Entry, tokens: int) -> None:
        if entry.reservation is not None:
            if entry.seen.sent_at is None:
                entry.reservation.refund()
            else:
                entry.reservation.settle(tokens)

    def _pay(self, slot: ProfileSlot, entry: Entry, failure: BaseException | None = None) -> None:
        """Settle what was reserved of a budget: all of it where an attempt may be billed and nobody says how much.

        Its row has the same cost, since the counter is rebuilt from the rows.
        """
        entry.cost_usd, entry.price_at = self.rows.cost(entry)
        if entry.cost_usd is None and entry.answer is not None:
            told = slot.provider.listed(entry.answer.model) or slot.provider.listed(entry.model or "")
            entry.cost_usd, entry.price_at = prices.by_list(told, entry.answer.usage)
        if entry.money is None:
            return
        if entry.answer is not None:
            is_told = entry.cost_usd is not None and self._is_whole(entry.answer)
            may_be_billed = True
        else:
            is_told = False
            may_be_billed = self._delivered or entry.seen.status in ANSWERED or _may_have_arrived(entry, failure)
        if may_be_billed and not is_told:
            entry.cost_usd, entry.price_at = entry.money.reserved, None
        entry.money.settle(entry.cost_usd or 0.0)

    def _is_whole(self, answer: Answer) -> bool:
        """Whether the provider told all that it bills for: its price, or the tokens of both directions."""
        if answer.cost_usd is not None:
            return True
        _, written = self._request.most_tokens(0)
        return answer.usage.input_tokens is not None and (answer.usage.output_tokens is not None or written == 0)

    def _row(self, slot: ProfileSlot, entry: Entry, outcome: Outcome, error: errors.TundraError | None) -> None:
        if entry.seen.status is not None:
            slot.seen, slot.seen_at = entry.seen, self._clock.monotonic()
        if outcome == "ok":
            slot.note(self._clock.monotonic(), None)
        elif outcome == "error" and error is not None:
            if not isinstance(error, errors.StoreError):  # what cannot be written down is no failure of the profile
                slot.note(self._clock.monotonic(), error)
            self._now.tried.append(f"{slot.profile.name}: {error.reason}")
        self.rows.attempt_ended(entry, outcome, error)

    def _pass_over(self, profile: ProfileSettings, error: errors.TundraError) -> None:
        """Write the attempt row of a profile that is not asked."""
        slot = self._slots[profile.name]
        entry = self.rows.entry(profile, "failover" if self.failures else "first", slot.breaker.state)
        entry.model = self._request.model(profile)
        self.failures[profile.name] = error
        self.rows.attempt_ended(entry, "refused", error)

    async def _larger(
        self, failed: ProfileSettings, queue: Sequence[ProfileSettings], decision: FailOver
    ) -> list[ProfileSettings]:
        """The candidates that are known to take a longer prompt; their model lists are read where need be."""
        asked = [failed, *queue]
        unknown = [self._slots[p.name].provider for p in asked if self._context_tokens(p) is None]
        if queue and unknown:
            places = asyncio.Semaphore(LISTS_AT_ONCE)
            async with asyncio.TaskGroup() as group:
                for provider in unknown:
                    group.create_task(_read_models(provider, places))
        return remaining(asked, failed, decision, self._context_tokens)

    def _context_tokens(self, profile: ProfileSettings) -> int | None:
        return self._slots[profile.name].provider.context_tokens(self._request.model(profile))

    def _out_of_time(self) -> errors.Timeout:
        return errors.Timeout(deadline="operation", seconds=self._router.deadline_seconds)

    async def _pause(self, seconds: float, kind: str, profile: str, why: errors.TundraError) -> None:
        self.rows.begin()
        self._now.doing = "pausing before a retry"
        told = str(why)  # a 429 that named its wait has told it already
        await self._notify(
            kind, profile, told if ", again in " in told else f"{told}; again in {span(seconds)}", seconds
        )
        began = self._clock.monotonic()
        try:
            await self._clock.sleep(seconds)
        finally:
            self.rows.waited += self._clock.monotonic() - began

    async def _notify(self, kind: str, profile: str, message: str, seconds: float = 0.0) -> None:
        if self._on_notice is not None:
            message = self._p.journal.redactor.text(message)
            await self._on_notice(Notice(kind=kind, message=message, profile=profile, seconds=seconds))


async def _read_models(provider: Provider, places: asyncio.Semaphore) -> None:
    """Let a provider learn what its models take; best effort."""
    try:
        async with places, asyncio.timeout(CONTEXT_SECONDS):
            await provider.models()
    except (errors.TundraError, TimeoutError):
        return


def _may_have_arrived(entry: Entry, failure: BaseException | None) -> bool:
    """Whether a request that nobody answered may have reached the provider, which then works on it, and bills it."""
    if entry.seen.sent_at is None or entry.seen.status is not None:
        return False
    if isinstance(failure, errors.HttpError):
        return failure.kind == "reset"
    return not (isinstance(failure, errors.Timeout) and failure.deadline == "connect")


def _let_go(error: BaseException | None) -> None:
    """Forget where an error came through: those frames hold what was read of the answer, which may be a lot, and the
    operation and its errors know each other, so that only the garbage collector would free them.
    """
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _defect(exc: Exception) -> str:
    return f"unexpected {type(exc).__name__} in the daemon"


def _outcome_of(error: errors.TundraError, causes: Iterable[errors.TundraError] = ()) -> Outcome:
    """`refused` when our own limiter or breaker said no, also when they did so at every candidate."""
    met = list(causes) if isinstance(error, errors.AllProvidersExhausted) else [error]
    return "refused" if met and all(isinstance(each, _REFUSALS) for each in met) else "error"


_REFUSALS = (errors.LimitExceeded, errors.BreakerOpen, errors.BudgetSpent)
