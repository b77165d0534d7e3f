"""What happened in the window of an incident, computed from the rows."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from tundra_nb.client import times
from tundra_nb.client.incidents import EPOCH, window_us
from tundra_nb.client.results import Document, Stories, Why

if TYPE_CHECKING:
    import pandas as pd

    from tundra_nb.client.sync import Client

BEFORE = dt.timedelta(hours=2)
"""How long before the window a change of settings may be a cause."""
SLACK = dt.timedelta(seconds=2)
"""A change may be written down a moment after what it does."""
MOST = 8
"""Things named of each kind."""


def story(client: Client, wanted: str) -> Document:
    """The incident in figures: what failed, from when to when, whom it hit, what it cost, what was changed before."""
    found = client.incidents.find(wanted)
    begin, end = window_us(found)
    window = (EPOCH + dt.timedelta(microseconds=begin), EPOCH + dt.timedelta(microseconds=end))
    at = found["ref"]
    if client.versions.window and client.versions.at:
        at = client.versions.at  # a notebook that was written before the pin moved on stays at its own
    calls: Any = client.calls(between=window, at=at)
    failed = calls[calls["outcome"].astype(str) != "ok"]
    errors: Any = client.errors(between=window, at=at)
    told: dict[str, Any] = {
        "incident": found["title"],
        "window": f"{_when(window[0])} – {_when(window[1])} ({times.zone(window[0])})",
        "calls": f"{len(calls):,}, of them {len(failed):,} without an answer",
    }
    if len(failed):
        told["first failure"] = _when(failed["at"].iloc[0].to_pydatetime())
        told["last failure"] = _when(failed["at"].iloc[-1].to_pydatetime())
        told["by code"] = _counted(failed["code"])
        told["by profile"] = _counted(failed["profile"].astype(object).fillna(failed["asked"].astype(object)))
        told["whom it hit"] = _counted(failed["user_name"])
    if len(errors):
        told["errors"] = _counted(errors["code"])
    known = calls["cost_usd"].dropna()
    cost = float(known.sum())
    told["cost"] = f"{cost:.4f} USD" if cost else "0 USD" if len(known) else "none known"
    if "source" in found:
        before, meanwhile = found["changed_before"], found["changed_meanwhile"]
    else:
        first = failed["at"].iloc[0].to_pydatetime() + SLACK if len(failed) else window[1]
        before = _changes(client, window[0] - BEFORE, first)
        meanwhile = _changes(client, first, failed["at"].iloc[-1].to_pydatetime()) if len(failed) else ""
    told["changed before"] = before or "nothing"
    if meanwhile:  # where the first failure was a stray one, it may be the cause of the others
        told["changed meanwhile"] = meanwhile
    return Document(told)


def worst(client: Client, wanted: str, limit: int = 5) -> Stories:
    """The calls that went worst: those without an answer, the longest first, then the slowest of the others."""
    found = client.incidents.find(wanted)
    begin, end = window_us(found)
    window = (EPOCH + dt.timedelta(microseconds=begin), EPOCH + dt.timedelta(microseconds=end))
    calls: Any = client.calls(**({} if client.versions.window else {"between": window, "at": found["ref"]}))
    ranked = calls.assign(failed=calls["outcome"].astype(str) != "ok").sort_values(
        ["failed", "latency_ms", "operation_id"], ascending=[False, False, True], kind="stable"
    )
    source = found.get("source")
    told = {str(key): client.why(str(key), source=source) for key in ranked["operation_id"].head(limit)}
    # what is recorded and under way now is no part of what happened then
    return Stories({key: Why({**why, "record": None, "under_way": []}) for key, why in told.items()})


def _counted(values: pd.Series[Any]) -> str:
    counts = values.astype(object).fillna("unknown").value_counts(sort=False)
    pairs = sorted(counts.items(), key=lambda pair: (-pair[1], str(pair[0])))
    shown = ", ".join(f"{name} × {count:,}" for name, count in pairs[:MOST])
    return shown + (f" and {len(pairs) - MOST} more" if len(pairs) > MOST else "")


def _changes(client: Client, since: dt.datetime, until: dt.datetime) -> str:
    """Settings that were changed in a time, and by whom; the very first commit of them is no change."""
    rows: Any = client.versions.history("setting")
    known: dict[str, Any] = {}
    told = []
    for _, row in rows.iterrows():
        before, known[row["path"]] = known.get(row["path"]), row["value"]
        when = row["committed_at"]
        if before is None or before == row["value"] or str(when) == "NaT" or not since <= when <= until:
            continue
        told.append(f"{row['path']} {before} → {row['value']} ({row['author']}, {_when(when.to_pydatetime())})")
    return "; ".join(told[-MOST:])


def _when(moment: dt.datetime) -> str:
    """With its date, unlike elsewhere: a report is read on another day."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"
