"""The status card."""

from __future__ import annotations

import datetime as dt
import itertools
import os
from collections.abc import Mapping, Sequence
from typing import Any

from tundra_nb.client import times
from tundra_nb.client.keys_here import keys_here
from tundra_nb.client.results import DaemonStatus, Status
from tundra_nb.errors import NoProfile

from .blocks import Block, Cell, Code, Facts, Heading, Para, Styled, Table, Tone, duration, number
from .frame import TONES

RECENT_SECONDS = 600.0
"""How long a failure is news."""


_SHARED = {
    "team": "the team's",
    "share": "its server is away, this daemon keeps to its part",
    "closed": "its server is away, nothing passes",
    "open": "its server is away, nothing is limited",
}


def blocks(status: Status) -> Sequence[Block]:
    """One card that tells how everything is, and what to do next."""
    made: list[Block] = [Heading(Styled(_verdict(status), _tone_of(status)))]
    made.append(Facts(list(_facts(status))))
    made += _problems(status)
    made += _over(status)
    if calls := status.get("under_way"):
        made.append(_under_way(calls))
    profiles = status.get("profiles") or []
    if profiles:
        made.append(_profiles(profiles, {row["profile"]: row for row in status.get("breakers") or ()}))
    if buckets := [row for row in status.get("limits") or () if row.get("owner", "tundra") == "tundra"]:
        made.append(_limits(buckets))
    if errors := status.get("last_errors"):
        made.append(_errors(errors))
    made += _next(status)
    return made


def daemon_blocks(status: DaemonStatus) -> Sequence[Block]:
    """Whether the daemon runs, and where."""
    state = str(status.get("state"))
    tone: Tone = "good" if status.get("running") else "warn"
    shown = ("pid", "version", "api", "engine", "socket", "data_dir", "config_file", "log", "started_by")
    facts: list[tuple[str, Cell]] = [(name, str(status[name])) for name in shown if status.get(name) is not None]
    if status.get("uptime_s") is not None:
        facts.append(("up for", duration(status["uptime_s"])))
    if isinstance(error := (status.get("store") or {}).get("error"), Mapping):
        facts.append(("store", Styled(str(error.get("message")), "bad")))
    made: list[Block] = [Heading(Styled(f"daemon {state}", tone)), Facts(facts), *_problems(status)]
    if state == "held":
        made.append(Para("It was stopped on purpose; `%tundra daemon start` brings it back."))
    elif state in ("hung", "elsewhere"):
        told = status.get("problem") or "It does not answer."
        hint = status.get("hint") or "`%tundra daemon stop --force` ends it, `%tundra logs` shows its last words."
        made += [Para(Styled(str(told), "bad")), Para(str(hint))]
    elif state == "stopped":
        made.append(Para("It starts by itself with the next call."))
    return made


def _problems(status: Mapping[str, Any]) -> list[Block]:
    """What is wrong with the daemon itself: one line each."""
    rows: list[list[Cell]] = [
        [Styled(str(row.get("message")), "bad"), str(row.get("hint") or "")] for row in status.get("problems") or ()
    ]
    return [Table(["problem", "remedy"], rows)] if rows else []


def _over(status: Status) -> list[Block]:
    """What was wrong and is over: one line each."""
    rows: list[list[Cell]] = []
    for row in status.get("over") or ():
        since, until = (times.local(dt.datetime.fromtimestamp(row[name], dt.UTC)) for name in ("since", "until"))
        again = f", {row['times']} times" if row.get("times", 1) > 1 else ""
        when = f"{since} to {until}" if since != until else since
        rows.append([times.in_text(str(row["message"])), Styled(when + again, "dim")])
    return [Table(["over", f"when ({times.zone()})"], rows)] if rows else []


def _verdict(status: Status) -> str:
    profiles = [row for row in status.get("profiles") or () if row["state"] != "disabled"]
    ready = sum(row["state"] == "ready" for row in profiles)
    if any(row.get("what") == "data_dir" for row in status.get("problems") or ()):
        return "tundra runs, but cannot use its data directory"
    if not profiles:
        return "tundra runs, but has no profile to ask"
    failing = [row for row in profiles if _fails(row)]
    if failing:
        asked = [row for row in profiles if _fails(row) or _is_recent(row.get("answered_s_ago"))]
        answered = sum(_is_recent(row.get("answered_s_ago")) for row in asked)
        some = f"{answered} of {len(asked)} profile{'s' if len(asked) != 1 else ''} answered in the last 10 min"
        return f"tundra runs, but {', '.join(str(row['profile']) for row in failing)} failed last: {some}"
    if ready == len(profiles):
        return f"tundra is ready: {ready} profile{'s' if ready != 1 else ''}"
    return f"tundra runs: {ready} of {len(profiles)} profiles ready"


def _fails(row: Mapping[str, Any]) -> bool:
    """Whether a profile's last attempt failed, and that is news."""
    return bool(row.get("failure")) and _is_recent(row.get("failed_s_ago"))


def _is_recent(seconds: float | None) -> bool:
    return seconds is not None and seconds < RECENT_SECONDS


def _tone_of(status: Status) -> Tone:
    profiles = [row for row in status.get("profiles") or () if row["state"] != "disabled"]
    ready = [row for row in profiles if row["state"] == "ready" and not _fails(row)]
    if (status.get("store") or {}).get("error") or not ready:
        return "bad"
    return "good" if len(ready) == len(profiles) else "warn"


def _errors(errors: Sequence[Mapping[str, Any]]) -> Table:
    """The last errors, those that say the same in one row."""
    rows: list[list[Cell]] = []
    for _, same in itertools.groupby(errors, key=lambda row: (row["code"], times.without(row["message"]))):
        first, *more = same
        count = f" × {1 + len(more)}" if more else ""
        message = times.in_text(str(first["message"]))
        rows.append([_clock(first.get("at")), Styled(f"{first['code']}{count}", "bad"), message])
    return Table([f"at ({times.zone()})", "code", "message"], rows, title="last errors", long=2, below=True)


def _under_way(calls: Sequence[Mapping[str, Any]]) -> Table:
    rows: list[list[Cell]] = [
        [
            f"…{str(call['operation_id'])[-5:]}",
            Styled(str(call["profile"] or ""), "strong"),
            f"{call['doing']} for {duration(call['age_s'])}",
            f"after {', '.join(call['tried'])}" if call.get("tried") else "",
        ]
        for call in calls
    ]
    return Table(["id", "profile", "does", ""], rows, title="calls under way")


def _facts(status: Status) -> list[tuple[str, Cell]]:
    store: Mapping[str, Any] = status.get("store") or {}
    facts: list[tuple[str, Cell]] = [
        ("daemon", f"version {status.get('version')}, pid {status.get('pid')}, up {duration(status.get('uptime_s'))}")
    ]
    if error := store.get("error"):
        facts.append(("store", Styled(f"{status.get('engine')}: {error['message']}", "bad")))
    else:
        facts.append(("store", ", ".join(_store(status, store))))
    if shared := status.get("shared_limits"):
        facts.append(("shared limits", _shared(shared)))
    facts.append(("data", str(status.get("data_dir"))))
    facts.append(("settings", str(status.get("config_file"))))
    ptys = status.get("ptys")
    if isinstance(ptys, Mapping) and ptys:
        told = [f"{name} {ptys[name]}" for name in ("open", "capacity") if name in ptys]
        facts.append(("ptys", ", ".join(told)))
    if status.get("running"):
        facts.append(("calls", f"{status['running']} under way"))
    return facts


def _shared(shared: Mapping[str, Any]) -> Cell:
    """Whether the team's limits are decided by their server, or by this daemon's part of them, and since when."""
    told = f"budget {shared['budget']} at {shared['url']}: "
    told += f"{_SHARED[str(shared['scope'])]}, since {duration(shared['since'])}"
    count = int(shared["daemons"])
    told += f", {count} daemon{'s' if count != 1 else ''}"
    return told if shared["scope"] == "team" else Styled(told, "bad")


def _store(status: Status, store: Mapping[str, Any]) -> list[str]:
    told = [str(status.get("engine"))]
    if store.get("state") not in (None, "ready"):
        told.append(str(store["state"]))
    if store.get("rows") is not None:
        told.append(f"{store['rows']:,} rows written")
    if store.get("size_bytes"):
        told.append(f"{number(store['size_bytes'] / 1e6)} MB")
    if store.get("is_behind"):
        told.append(f"behind, {store.get('waiting_bytes', 0):,} bytes wait")
    if store.get("restarts"):
        told.append(f"worker started again {store['restarts']} times ({store.get('last_end')})")
    if store.get("refused_rows"):
        told.append(f"{store['refused_rows']:,} rows refused")
    return told


def _profiles(profiles: Sequence[Mapping[str, Any]], breakers: Mapping[str, Mapping[str, Any]]) -> Table:
    rows: list[list[Cell]] = []
    for row in profiles:
        breaker = breakers.get(row["profile"]) or {}
        told = str(breaker.get("state") or "")
        if breaker.get("probe_at"):
            told += f", probe at {times.clock(breaker['probe_at'])}"
        state = str(row["state"])
        if row.get("cooling_until"):
            state += f" until {times.clock(row['cooling_until'])}"
        rows.append(
            [
                Styled(str(row["profile"]), "strong"),
                str(row["kind"]),
                str(row.get("model") or "chosen when asked"),
                Styled(state, TONES.get(str(row["state"]))),
                Styled(told, TONES.get(str(breaker.get("state")))),
                _key(row),
            ]
        )
    return Table(["profile", "kind", "model", "state", "breaker", "key"], rows)


def _key(row: Mapping[str, Any]) -> Cell:
    variable = row.get("key_variable")
    if row.get("key_rejected"):
        return Styled(f"{variable} was rejected" if variable else "rejected: the profile names none", "bad")
    if not variable:
        return Styled("none named" if _wants_key(row) else "none needed", "dim")
    if row.get("key_present"):
        return str(variable)
    return Styled(f"{variable} is missing", "bad")


def _wants_key(row: Mapping[str, Any]) -> bool:
    return row.get("kind") != "local"


def _clock(at: Any) -> str:
    try:
        return times.local(dt.datetime.fromisoformat(str(at)))
    except ValueError:
        return str(at or "")


def _limits(buckets: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        [
            f"{row.get('tier')} {row.get('limit_key') if row.get('limit_key') != row.get('tier') else ''}".strip(),
            str(row.get("resource")),
            f"{number(row.get('remaining'))} of {number(row.get('limit'))}",
            f"{number(row.get('per_second'))}/s",
        ]
        for row in buckets
    ]
    return Table(["limit", "resource", "free", "refill"], rows, right=frozenset({2, 3}))


def _next(status: Status) -> list[Block]:
    offers = sorted(
        {
            str(row["key_variable"])
            for row in status.get("profiles") or ()
            if row.get("key_variable") and not row.get("key_present") and os.environ.get(str(row["key_variable"]))
        }
    )
    if offers:  # only this side can see it
        told = (
            f"{', '.join(offers)} is set here, but not where the daemon was started. To hand it over, in memory only:"
        )
        return [Heading("next"), Para(told), Code("%tundra keys offer")]
    steps = [times.in_text(str(step)) for step in status.get("next_steps") or [status.get("next_step") or ""] if step]
    if not status.get("profiles") and (restart := NoProfile(keys=keys_here()).restart):
        steps.insert(0, restart)
    made: list[Block] = [Heading("next")] if steps else []
    for number_, step in enumerate(steps, 1):
        lines = step.splitlines()
        to_copy = [line.strip() for line in lines if line.startswith("    ")]
        told = " ".join(line for line in lines if not line.startswith("    "))
        made.append(Para(f"{number_}. {told}" if len(steps) > 1 else told))
        if to_copy:
            made.append(Code("\n".join(to_copy)))
    return made
