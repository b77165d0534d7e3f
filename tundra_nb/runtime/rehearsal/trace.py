"""Recorded calls as plain data, and what each provider was seen to do in them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tundra_nb import errors
from tundra_nb.errors import TundraError
from tundra_nb.runtime.caller import TOKEN_KEY, Caller
from tundra_nb.runtime.reserve import DEFAULT_OUTPUT_TOKENS
from tundra_nb.types import Usage

NOT_SENT = frozenset({"refused"})
"""Outcomes of attempts that reached no provider, and so tell nothing of it."""
DECIDED_ANEW = frozenset({"limit_exceeded", "breaker_open", "budget_spent", "rate_limited"})
"""Reasons of such attempts that may not hold in a rehearsal, which has its own limiter, breakers and router."""
_BY_REASON: dict[str, Any] = {
    "rate_limited": errors.RateLimited,
    "parse_error": errors.ParseError,
    "request_rejected": errors.RequestRejected,
    "key_rejected": errors.KeyRejected,
    "forbidden": errors.Forbidden,
    "quota_spent": errors.QuotaSpent,
    "redirected": errors.Redirected,
    "moderated": errors.Moderated,
}


class Try(NamedTuple):
    """One request that a provider was sent, and what became of it."""

    profile: str
    seconds: float
    """Time from the request to its end."""
    error: TundraError | None
    """None: it was answered; `Cancelled`: nobody waited for the end."""
    usage: Usage
    is_final: bool = False
    """Nobody else was asked, though the error would have allowed it: text had been delivered."""
    attempt_id: int = 0


class Arrival(NamedTuple):
    """One call as it came."""

    operation_id: int
    at: float
    """Seconds from the first one."""
    caller: Caller
    profile: str | None
    """The one that was asked for by name."""
    failover: bool
    tokens: int
    """Reserved: the input that was counted, and the usual output."""
    tries: tuple[Try, ...]
    outcome: str
    code: str | None
    model: str | None = None
    asked_nobody: bool = False
    """It failed before anybody was asked, for a reason that no rehearsal decides: it ends as it did."""


class Trace(NamedTuple):
    """Calls in order, with what is usual for each profile where nothing was seen."""

    calls: list[Arrival]
    began_us: int
    seconds: Mapping[tuple[str, bool], float]
    """Median duration by profile and whether it was answered."""

    def usual(self, profile: str, is_answered: bool) -> float:
        """How long a request takes there that was never sent, in seconds."""
        for key in ((profile, is_answered), (profile, not is_answered)):
            if key in self.seconds:
                return self.seconds[key]
        return statistics.median(self.seconds.values()) if self.seconds else 1.0


def seen_error(row: Mapping[str, Any]) -> TundraError | None:
    """The error that an attempt's row tells of; None when it was answered."""
    outcome, reason = row["outcome"], row.get("reason") or ""
    profile, status = row["profile"], row.get("status")
    if outcome == "ok":
        return None
    if outcome in ("cancelled", "interrupted"):
        return errors.Cancelled()
    wait = row.get("retry_after_s")
    if reason.startswith("timeout_"):
        return errors.Timeout(
            profile=profile, deadline=reason.removeprefix("timeout_"), seconds=(row.get("latency_ms") or 0.0) / 1000
        )
    if reason.startswith("unsupported_"):
        return errors.Unsupported(profile=profile, kind=reason.removeprefix("unsupported_"))
    if row.get("code") == errors.HttpError.code:
        return errors.HttpError(profile=profile, host="", kind=reason or "connect")
    kind = _BY_REASON.get(reason, errors.ApiError)
    if kind is errors.RateLimited:
        return errors.RateLimited(profile=profile, retry_after=wait)
    if kind is errors.ParseError:
        return errors.ParseError(profile=profile, problem="as recorded")
    made: TundraError = kind(profile=profile, status=status or 500, retry_after=wait)
    return made


def read(operations: Iterable[Mapping[str, Any]], attempts: Iterable[Mapping[str, Any]], first: str | None) -> Trace:
    """A trace of rows.

    Args:
        operations: rows of calls, in any order; times in microseconds.
        attempts: rows of attempts, in any order.
        first: the profile that was asked first by priority; another one at the head of a call was asked for by name.
    """
    by_call: dict[int, list[Mapping[str, Any]]] = {}
    passed_over: dict[int, list[Mapping[str, Any]]] = {}
    for row in attempts:
        of_call = passed_over if row["outcome"] in NOT_SENT else by_call
        of_call.setdefault(row["operation_id"], []).append(row)
    parked: set[str] = set()
    """Profiles that a call of this trace parked: a rehearsal parks them too."""
    shared: dict[tuple[Any, ...], TundraError | None] = {}
    callers: dict[tuple[str | None, str | None], Caller] = {}
    durations: dict[tuple[str, bool], list[float]] = {}
    calls = []
    ordered = sorted(operations, key=lambda row: (row["at"], row["operation_id"]))
    began = ordered[0]["at"] if ordered else 0
    for row in ordered:
        who = (row.get("user_name"), row.get("caller"))
        if who not in callers:
            name = who[0] or ""
            callers[who] = Caller(name, TOKEN_KEY + name if who[1] == "gateway" else "")
        rows = by_call.get(row["operation_id"], [])
        if len(rows) > 1:
            rows = sorted(rows, key=lambda one: one["seq"])
        tries = []
        for one in rows:
            key = (one["outcome"], one.get("reason"), one["profile"], one.get("status"), one.get("retry_after_s"))
            if key not in shared:
                shared[key] = seen_error(one)
            error = shared[key]
            if error is not None and error.parks:
                parked.add(one["profile"])
            took = (one.get("latency_ms") or 0.0) / 1000
            durations.setdefault((one["profile"], error is None), []).append(took)
            is_last = one is rows[-1] and error is not None and error.fails_over and one.get("code") == row.get("code")
            usage = Usage(input_tokens=one.get("input_tokens"), output_tokens=one.get("output_tokens"))
            tries.append(Try(one["profile"], took, error, usage, is_last, one["attempt_id"]))
        refusals = passed_over.get(row["operation_id"], [])
        is_decided_anew = any(one.get("reason") in DECIDED_ANEW or one["profile"] in parked for one in refusals)
        asked = (row.get("asked") or "").partition(",")[0] or None
        read_tokens = row.get("input_tokens")
        calls.append(
            Arrival(
                operation_id=row["operation_id"],
                at=(row["at"] - began) / 1e6,
                caller=callers[who],
                profile=asked if asked != first else None,
                failover=True,
                tokens=(read_tokens or 0) + DEFAULT_OUTPUT_TOKENS,
                tries=tuple(tries),
                outcome=row["outcome"],
                code=row.get("code"),
                model=row.get("requested_model"),
                asked_nobody=row["outcome"] == "error" and not tries and not is_decided_anew,
            )
        )
    medians = {key: _median(times) for key, times in durations.items()}
    return Trace(calls, began, medians)


def _median(times: list[float]) -> float:
    times.sort()
    return times[len(times) // 2]
