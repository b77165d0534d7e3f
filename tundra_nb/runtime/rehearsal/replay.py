"""Recorded calls through today's operations: recorded providers behind them, a virtual clock around them, no network.

Limiter, breakers, router, retries, wire formats and rows are the code that serves live calls; only the provider's side
is played back. Where an exchange was recorded, its bytes come again, piece by piece and at their time, and today's
parsers read them; where none was, the attempt ends as its row says. A request that was never sent in truth fails, and
the call is *unknown*; a call that asked nobody ends as it did. Pauses before retries have no randomness, so two replays
give the same sequence.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import httpx
import msgspec

from tundra_nb.errors import ApiError, Cancelled, TundraError
from tundra_nb.runtime.caller import Budgets
from tundra_nb.runtime.clock import Clock, Ids
from tundra_nb.runtime.keys import KeyRing
from tundra_nb.runtime.limits_shared.limiter import SharedLimiter
from tundra_nb.runtime.operations import Operations
from tundra_nb.runtime.profiles import Profiles
from tundra_nb.runtime.providers import prices
from tundra_nb.runtime.providers.check import AskSize
from tundra_nb.runtime.providers.contract import Answer, Deliver, ModelInfo, Seen
from tundra_nb.runtime.providers.provider import Provider
from tundra_nb.runtime.recordings import Recording
from tundra_nb.runtime.requests import Asked
from tundra_nb.runtime.resilience.router import Router
from tundra_nb.runtime.rows import Journal
from tundra_nb.runtime.telemetry.redact import Redactor
from tundra_nb.settings import ProfileSettings, Settings, SharedLimitsSettings
from tundra_nb.types import Ask, Attempt, BreakerEvent, Operation, Usage

from .clock import VirtualClock
from .simulate import JITTER
from .trace import Arrival, Trace, Try

MODEL = "recorded"
"""Where a row names none."""
LONGEST_SECONDS = 1e9
"""Beyond any timer: the clock runs until nothing is left to wait for."""


class Played:
    """One call under way, and which of its recorded requests come next."""

    def __init__(self, call: Arrival) -> None:
        self.call = call
        self.made: dict[str, int] = {}
        self.is_unknown = False
        self.recording: Recording | None = None
        self.wait: float | None = None
        """`retry-after` of the answer that is played."""

    def next(self, profile: str) -> Try | None:
        number = self.made.get(profile, 0)
        self.made[profile] = number + 1
        return next(
            (one for n, one in enumerate(t for t in self.call.tries if t.profile == profile) if n == number), None
        )


playing: contextvars.ContextVar[Played] = contextvars.ContextVar("playing")
"""The call on whose behalf a recorded provider is asked."""


class _Tape(httpx.AsyncBaseTransport):
    """Plays the recording of the call under way."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        del request
        played = playing.get()
        recording = played.recording
        assert recording is not None
        assert recording.status is not None
        first = recording.first_byte_ms or 0.0
        await self._clock.sleep(first / 1000)
        is_stream = any("data:" in text for _, text in recording.frames[:3])
        kind = "text/event-stream" if is_stream and recording.status == 200 else "application/json"
        headers = {"content-type": kind} | ({} if played.wait is None else {"retry-after": f"{played.wait:g}"})
        return httpx.Response(recording.status, headers=headers, stream=_Frames(recording.frames, first, self._clock))


class _Frames(httpx.AsyncByteStream):
    def __init__(self, frames: Sequence[tuple[float, str]], began_ms: float, clock: Clock) -> None:
        self._frames = frames
        self._at = began_ms
        self._clock = clock

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for when, text in self._frames:
            if when > self._at:
                await self._clock.sleep((when - self._at) / 1000)
                self._at = when
            yield text.encode()


class RecordedProvider(Provider):
    """Answers as the provider of its profile did."""

    def __init__(
        self, profile: ProfileSettings, settings: Settings, trace: Trace, tapes: Mapping[int, Recording], clock: Clock
    ) -> None:
        super().__init__(
            profile,
            _Tape(clock),
            key=lambda: "",
            monotonic=clock.monotonic,
            deadlines=settings.deadlines,
            answers=settings.answers,
        )
        self._clock = clock
        self._trace = trace
        self._tapes = tapes

    async def models(self, refresh: bool = False) -> list[ModelInfo]:  # noqa: ARG002 - nobody lists models here
        return []

    async def choose_model(self) -> str:
        return self.chosen_model or MODEL

    async def attempt(
        self,
        ask: Ask,
        model: str,
        seen: Seen,
        deliver: Deliver,
        *,
        record: bool = False,
        size: AskSize | None = None,
    ) -> Answer:
        played, name = playing.get(), self.profile.name
        one = played.next(name)
        if one is None:
            played.is_unknown = True
            one = Try(
                name, self._trace.usual(name, False), ApiError(profile=name, status=503, detail="never seen"), NO_USAGE
            )
        tape = self._tapes.get(one.attempt_id)
        if tape is not None and tape.is_whole and tape.status is not None and not isinstance(one.error, Cancelled):
            played.recording, played.wait = tape, getattr(one.error, "retry_after", None)
            ask = msgspec.structs.replace(ask, stream=_is_streamed(tape))
            return await super().attempt(ask, model, seen, deliver, record=record, size=size)
        seen.sent_at = self._clock.monotonic()
        await self._clock.sleep(one.seconds)
        if one.error is not None:
            seen.status = getattr(one.error, "status", None)
            if isinstance(one.error, Cancelled):
                raise asyncio.CancelledError
            raise one.error
        seen.status, seen.first_byte_at = 200, self._clock.monotonic()
        return Answer(text="", model=model, usage=one.usage)


class _Question(Asked):
    """What is asked again: the recorded question where there is one, reckoned as it was in truth."""

    def __init__(self, call: Arrival, messages: list[dict[str, Any]]) -> None:
        super().__init__(Ask(messages=messages, profile=call.profile, model=call.model, stream=True, caller="replay"))
        self._tokens = call.tokens

    @property
    def tokens(self) -> int:
        return self._tokens

    def candidates(self, router: Router) -> list[ProfileSettings]:
        try:
            return super().candidates(router)
        except TundraError:  # the profile that was named is no longer there
            self._ask = msgspec.structs.replace(self._ask, profile=None)
            return super().candidates(router)


NO_USAGE = Usage()


class Ran(msgspec.Struct, frozen=True):
    """What a replay did: rows as live calls leave them, in the order of the trace."""

    operations: list[Operation]
    attempts: dict[int, list[Attempt]]
    """By `operation_id`."""
    breaker_events: list[BreakerEvent]
    unknown: set[int]
    """Places in the trace of calls that hang on a request which was never sent in truth."""
    operation_of: list[int]
    """The id of each call of the trace in this replay."""


async def replay(trace: Trace, settings: Settings, tapes: Mapping[int, Recording], speed: float | None = None) -> Ran:
    """Run every call of a trace again.

    Args:
        trace: the calls.
        settings: in force throughout.
        tapes: recordings by the id of their attempt.
        speed: as fast as that many times real time; as fast as it goes when left out.
    """
    await asyncio.to_thread(prices.load)
    clock = VirtualClock(0.0, trace.began_us, rounds=1)
    redactor = Redactor()
    rows: list[Any] = []
    journal = Journal(lambda *events: rows.extend(events), Ids(clock), clock, redactor)
    limiter = SharedLimiter(clock, {}, on_notice=journal.limited)
    router = Router((), settings.router, clock.monotonic, lambda: JITTER)
    chosen = msgspec.structs.replace(
        settings,
        limits=msgspec.structs.replace(settings.limits, shared=SharedLimitsSettings()),  # a rehearsal takes nothing
        profile=tuple(msgspec.structs.replace(profile, api_key_env="") for profile in settings.profile),
    )
    profiles = Profiles(
        keys=KeyRing({}, redactor),
        router=router,
        limiter=limiter,
        journal=journal,
        connect=lambda profile, now: RecordedProvider(profile, now, trace, tapes, clock),
    )
    profiles.configure(chosen)
    operations = Operations(profiles, Budgets(clock, _nothing_spent))
    played = [Played(call) for call in trace.calls]
    ids: list[int] = [0] * len(played)

    async def one(place: int, call: Arrival) -> None:
        await clock.sleep(call.at)
        if call.asked_nobody:
            ids[place] = journal.ids.next()
            rows.append(
                Operation(
                    operation_id=ids[place],
                    at=clock.now_us(),
                    outcome="error",
                    code=call.code,
                    latency_ms=0.0,
                    user_name=call.caller.name,
                )
            )
            return
        playing.set(played[place])
        operation = operations.call(_Question(call, _messages(call, tapes)), call.caller)
        ids[place] = operation.operation_id
        try:
            await operation.carry_out()
        except (TundraError, asyncio.CancelledError):
            return  # its rows tell

    tasks = [asyncio.create_task(one(place, call)) for place, call in enumerate(trace.calls)]
    try:
        await _run_out(clock, speed)
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    attempts: dict[int, list[Attempt]] = {}
    for row in rows:
        if isinstance(row, Attempt):
            attempts.setdefault(row.operation_id, []).append(row)
    by_id = {row.operation_id: row for row in rows if isinstance(row, Operation)}
    return Ran(
        [by_id[key] for key in ids],
        attempts,
        [row for row in rows if isinstance(row, BreakerEvent)],
        {place for place, one_ in enumerate(played) if one_.is_unknown},
        ids,
    )


async def _run_out(clock: VirtualClock, speed: float | None) -> None:
    if speed is None:
        await clock.elapse(LONGEST_SECONDS)
        return
    step = 0.05
    while clock.waiting:
        await clock.elapse(step * speed)
        await asyncio.sleep(step)


def _messages(call: Arrival, tapes: Mapping[int, Recording]) -> list[dict[str, Any]]:
    for one in call.tries:
        if (tape := tapes.get(one.attempt_id)) is not None:
            try:
                found = msgspec.json.decode(tape.request).get("messages")
            except (msgspec.DecodeError, AttributeError):
                continue
            if isinstance(found, list) and found:
                return [{"role": "user", "content": str(message.get("content"))} for message in found[-1:]]
    return [{"role": "user", "content": "(not recorded)"}]


def _is_streamed(tape: Recording) -> bool:
    try:
        return bool(msgspec.json.decode(tape.request).get("stream"))
    except (msgspec.DecodeError, AttributeError):
        return any("data:" in text for _, text in tape.frames[:3])


async def _nothing_spent(name: str, since_us: int) -> float:
    del name, since_us
    return 0.0
