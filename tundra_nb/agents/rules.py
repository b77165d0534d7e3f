"""Triage without a model: the same report from rules over the rows and the guide.

In an outage the providers may all be down, which is when triage is needed most. Failed attempts and errors are grouped
by code and profile; each group says since when, whom it hit, whether it is over, what people changed in the hour
before, and the cause and first remedy of the guide's page on its code. A healthy history gives no finding.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tundra_nb.client.sync import Client
from tundra_nb.dashboard import changes
from tundra_nb.dashboard.hour import Change, is_over
from tundra_nb.errors.spelling import as_typed
from tundra_nb.guide import lookup, pages
from tundra_nb.guide.pages import Page
from tundra_nb.types.triage import TriageFinding

from . import answers

if TYPE_CHECKING:
    import pandas as pd

EVIDENCE = 5
"""Ids that are named per finding: the first and the latest ones."""
BEFORE_SECONDS = 3600.0
"""How long before a failure a change is worth naming."""
MOST_CHANGED = 4
"""Changes that are named per finding."""
_SEVERITY = {"critical": 0, "high": 1, "medium": 2, "low": 3, "info": 4, "": 5}
_NOT_A_FAULT = ("Cancelled", "UsageError", "QueryRefused", "RefNotFound")
"""Codes of what a person did or mistyped, not of what broke."""
_SUMS_UP = ("AllProvidersExhausted",)
"""Codes that only say that every candidate failed; the attempts of the call say why."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """The rows of a window as of a pin, read once."""

    calls: pd.DataFrame
    attempts: pd.DataFrame
    errors: pd.DataFrame
    breakers: pd.DataFrame
    changes: list[Change]
    """What people changed, from an hour before the window on; the oldest first."""
    out: dict[str, Any]
    """Since when nothing is asked of a profile, for those that were removed or switched off."""

    @property
    def newest(self) -> Any:
        """When the newest row was written; None where there is none."""
        times = [frame["at"].max() for frame in (self.calls, self.attempts, self.errors) if len(frame)]
        return max(times, default=None)


def read(client: Client, *, at: str | None, since: str, until: str) -> Reading:
    """Read what the rules look at.

    Args:
        client: reads.
        at: the pin.
        since: beginning of the window, ISO.
        until: its end, ISO.
    """
    window = (since, until)
    begin, end = (dt.datetime.fromisoformat(one).timestamp() for one in window)
    gone = client.sql("select name, at from profile where not enabled", at=at)
    changed = changes.read(client, begin - BEFORE_SECONDS, end) or []
    return Reading(
        calls=client.calls(between=window, at=at),
        attempts=client.attempts(between=window, at=at),
        errors=client.errors(between=window, at=at),
        breakers=client.breaker_history(between=window, at=at),
        changes=[one for one in changed if not one.is_commit],
        out={str(row.name): row.at for row in gone.itertuples(index=False)},
    )


def findings(reading: Reading, *, operation_id: str | None = None) -> list[TriageFinding]:
    """What went wrong, the worst first: what goes on before what is over, then by severity, then by number.

    Args:
        reading: the rows.
        operation_id: only what happened in this call.
    """
    failed = reading.attempts[reading.attempts["outcome"].isin(["error", "refused"])]
    others = _errors_beside(reading)
    if operation_id is not None:
        failed = failed[failed["operation_id"].astype(str) == operation_id]
        others = others[others["operation_id"].astype(str) == operation_id]
    made = [_of_attempts(reading, *key, rows) for key, rows in _groups(failed)]
    made += [_of_errors(reading, *key, rows) for key, rows in _groups(others)]
    return sorted(made, key=_rank)


def _groups(frame: pd.DataFrame) -> Iterator[tuple[tuple[str, str], pd.DataFrame]]:
    """The rows by kind and profile. The kind is the guide's page: classes that share a code have pages of their own."""
    if not len(frame):
        return
    plain = frame.assign(
        kind=[_kind(str(code), reason) for code, reason in zip(frame["code"], frame["reason"], strict=True)],
        profile=frame["profile"].astype(object).fillna("").astype(str),
    )
    plain = plain[~plain["kind"].isin(_NOT_A_FAULT)]
    plain["case"] = [_case(kind, message) for kind, message in zip(plain["kind"], plain["message"], strict=True)]
    for (kind, profile, _), rows in plain.groupby(["kind", "profile", "case"], sort=True):
        yield (str(kind), str(profile)), rows


def _case(kind: str, message: Any) -> str:
    page = _page(kind)
    return page.case_of(message) if page is not None and isinstance(message, str) else ""


def _kind(code: str, reason: Any) -> str:
    page = lookup.for_error(code, reason if isinstance(reason, str) else None)
    if page is None or page.code == code == page.title:
        return code
    return page.name


def _errors_beside(reading: Reading) -> pd.DataFrame:
    """Errors that no failed attempt stands for: of terminals, the store, the limiter's upper tiers."""
    errors = reading.errors
    told = set(reading.attempts.loc[reading.attempts["outcome"] != "ok", "operation_id"].astype(str))
    is_told = errors["operation_id"].astype(str).isin(told)
    sums_up = errors["code"].astype(str).isin(_SUMS_UP)
    return errors[~is_told & ~sums_up]


def _of_attempts(reading: Reading, kind: str, profile: str, rows: pd.DataFrame) -> TriageFinding:
    ids = list(dict.fromkeys(rows["operation_id"].astype(str)))
    calls = reading.calls[reading.calls["operation_id"].astype(str).isin(set(ids))]
    lost = calls[calls["outcome"].astype(str) != "ok"]
    first, last = rows["at"].min(), rows["at"].max()
    same = reading.attempts[reading.attempts["profile"].astype(str) == profile]
    answered = same.loc[(same["at"] > last) & (same["outcome"].astype(str) == "ok"), "at"]
    out = reading.out.get(profile)
    is_out = out is not None and out >= last
    page = _page(kind)
    code = str(rows["code"].iloc[-1])
    where = f" of profile {profile}" if profile else ""
    told = [_tried(rows), _lost(len(lost), len(calls))]
    ended = is_over(answered=bool(len(answered)), state=_state(reading, profile), is_out=is_out)
    if ended and len(answered):
        told.append(f"over since {_time(answered.min())}Z, when it answered again")
    elif ended:
        told.append(f"over since {_time(out)}Z, when it was taken out of use")
    else:
        told.append("still so")
    return TriageFinding(
        claim=f"{_named(kind, code)}{where}: {'; '.join(told)}{_breaker(reading, profile)}",
        code=code,
        kind=kind,
        profile=profile,
        count=len(rows),
        calls_failed=len(lost),
        since=_time(first),
        until=_time(last),
        is_over=ended,
        whom=_whom(calls),
        changed_before=_changed(reading, first, profile),
        cause=_cause(page, rows),
        remedy=_remedy(page, code, profile, rows),
        evidence=[*_few(ids), *_few(_breaker_ids(reading, profile))],
    )


def _of_errors(reading: Reading, kind: str, profile: str, rows: pd.DataFrame) -> TriageFinding:
    first, last = rows["at"].min(), rows["at"].max()
    page = _page(kind)
    code = str(rows["code"].iloc[-1])
    sources = ", ".join(sorted(set(rows["source"].astype(str))))
    where = f" of profile {profile}" if profile else ""
    claim = f"{_named(kind, code)}{where}: {len(rows):,} error{'s' if len(rows) != 1 else ''} in {sources}"
    calls = reading.calls
    answered = calls.loc[(calls["at"] > last) & (calls["outcome"].astype(str) == "ok"), "at"]
    # each failed a call, and calls are answered
    ended = bool(rows["operation_id"].notna().all()) and len(answered) > 0
    if ended:
        claim += f"; over since {_time(answered.min())}Z, when a call was answered"
    return TriageFinding(
        claim=claim,
        code=code,
        kind=kind,
        profile=profile,
        count=len(rows),
        calls_failed=int(rows["operation_id"].notna().sum()),
        since=_time(first),
        until=_time(last),
        is_over=ended,
        changed_before=_changed(reading, first, profile),
        cause=_cause(page, rows),
        remedy=_remedy(page, code, profile, rows),
        evidence=_few(list(rows["error_id"].astype(str))),
    )


def _rank(finding: TriageFinding) -> tuple[Any, ...]:
    page = _page(finding.kind)
    severity = _SEVERITY.get(page.severity if page else "", 5)
    return (finding.is_over, severity, -finding.calls_failed, -finding.count, finding.code, finding.profile)


def _named(kind: str, code: str) -> str:
    return code if kind == code or _page(kind) is lookup.for_error(code) else f"{kind} ({code})"


def _page(kind: str) -> Page | None:
    return pages.every_page().get(kind) or lookup.for_error(kind)


def _cause(page: Page | None, rows: pd.DataFrame) -> str:
    messages = rows["message"].dropna().astype(str)
    said = answers.plain(messages.iloc[-1]) if len(messages) else ""
    general = " ".join((page.intro if page else "").replace("`", "").split())
    first = "" if page and page.case_of(said) else re.split(r"(?<=\.) ", general)[0]
    told = " ".join(said.split())[:300].removesuffix(".")
    return f"{told}. In general: {first}".removesuffix(" In general: ") if told else first


def _remedy(page: Page | None, code: str, profile: str, rows: pd.DataFrame) -> str:
    messages = rows["message"].dropna().astype(str)
    found = page.remedies_for(messages.iloc[-1] if len(messages) else "") if page is not None else []
    if not found:
        return f"`tundra explain {code}` tells what is known of it."
    first = as_typed(found[0][0].upper() + found[0][1:])
    return first.replace("NAME", profile) if profile else first


def _breaker(reading: Reading, profile: str) -> str:
    rows = reading.breakers[reading.breakers["profile"].astype(str) == profile]
    if not len(rows):
        return ""
    opened = int((rows["new_state"].astype(str) == "open").sum())
    return f"; its breaker opened {opened} time{'s' if opened != 1 else ''}" if opened else ""


def _state(reading: Reading, profile: str) -> str:
    """What a profile's breaker is at the pin."""
    rows = reading.breakers[reading.breakers["profile"].astype(str) == profile]
    if not len(rows):
        return ""
    last = rows.sort_values("at", kind="stable").iloc[-1]
    return "parked" if last["parked"] else str(last["new_state"])


def _breaker_ids(reading: Reading, profile: str) -> list[str]:
    rows = reading.breakers[reading.breakers["profile"].astype(str) == profile]
    rows = rows[rows["new_state"].astype(str) == "open"]
    return list(rows["breaker_event_id"].astype(str))[:1]


def _whom(calls: pd.DataFrame) -> list[str]:
    if "user_name" not in calls.columns:
        return []
    users = calls["user_name"].dropna().astype(str).value_counts().sort_index(kind="stable")
    return [f"{name} ({count} call{'s' if count != 1 else ''})" for name, count in users.items() if name]


def _tried(rows: pd.DataFrame) -> str:
    """How often it was tried, and how often nothing was sent because it was known to be in vain."""
    refused = int((rows["outcome"].astype(str) == "refused").sum())
    failed = len(rows) - refused
    told = [f"{failed:,} attempt{'s' if failed != 1 else ''} failed"] if failed else []
    told += [f"{refused:,} {'was' if refused == 1 else 'were'} refused before anything was sent"] if refused else []
    return ", ".join(told)


def _lost(lost: int, calls: int) -> str:
    if not lost:
        whose = {1: "its call was", 2: "both calls were"}.get(calls, f"all {calls:,} calls were")
        return f"{whose} answered all the same"
    if lost == calls:
        return "its call got no answer" if calls == 1 else f"none of {calls:,} calls got an answer"
    return f"{lost:,} of {calls:,} calls got no answer"


def _changed(reading: Reading, first: Any, profile: str) -> list[str]:
    """What was changed before, the latest first, and what names the profile before all else."""
    begun = first.timestamp()
    rows = [one for one in reading.changes if begun - BEFORE_SECONDS <= one.at <= begun]
    rows.sort(key=lambda one: (not _names(one, profile), -one.at))
    told = [
        answers.plain(
            " ".join(
                [
                    one.words,
                    "at",
                    f"{_time(dt.datetime.fromtimestamp(one.at, dt.UTC))}Z",
                    *([f"by {one.author}"] if one.author else []),
                ]
            )
        )
        for one in rows[:MOST_CHANGED]
    ]
    if more := len(rows) - len(told):
        told.append(f"and {more} more")
    return told


def _names(change: Change, profile: str) -> bool:
    return bool(profile) and re.search(rf"(?<![\w-]){re.escape(profile)}(?![\w-])", change.words) is not None


def _few(ids: Sequence[str]) -> list[str]:
    return list(ids) if len(ids) <= EVIDENCE else [*ids[:2], *ids[2 - EVIDENCE :]]


def _time(when: Any) -> str:
    return str(when.strftime("%Y-%m-%dT%H:%M:%S"))
