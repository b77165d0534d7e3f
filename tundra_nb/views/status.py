"""The status card."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from tundra_nb.client.results import DaemonStatus, Status

from .blocks import Block, Cell, Code, Facts, Heading, Para, Styled, Table, Tone, duration, number
from .frame import TONES


def blocks(status: Status) -> Sequence[Block]:
    """One card that tells how everything is, and what to do next."""
    made: list[Block] = [Heading(Styled(_verdict(status), _tone_of(status)))]
    made.append(Facts(list(_facts(status))))
    made += _problems(status)
    profiles = status.get("profiles") or []
    if profiles:
        made.append(_profiles(profiles, {row["profile"]: row for row in status.get("breakers") or ()}))
    if buckets := [row for row in status.get("limits") or () if row.get("owner", "tundra") == "tundra"]:
        made.append(_limits(buckets))
    if errors := status.get("last_errors"):
        rows: list[list[Cell]] = [
            [str(row.get("at", ""))[11:19], Styled(str(row["code"]), "bad"), str(row["message"])] for row in errors
        ]
        made.append(Table(["at (UTC)", "code", "message"], rows, title="last errors"))
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
    elif state == "hung":
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


def _verdict(status: Status) -> str:
    profiles = status.get("profiles") or []
    ready = sum(row["state"] == "ready" for row in profiles)
    if not profiles:
        return "tundra runs, but has no profile to ask"
    if ready == len(profiles):
        return f"tundra is ready: {ready} profile{'s' if ready != 1 else ''}"
    return f"tundra runs: {ready} of {len(profiles)} profiles ready"


def _tone_of(status: Status) -> Tone:
    states = [row["state"] for row in status.get("profiles") or ()]
    if (status.get("store") or {}).get("error") or "ready" not in states:
        return "bad"
    return "good" if all(state in ("ready", "disabled") for state in states) else "warn"


def _facts(status: Status) -> list[tuple[str, Cell]]:
    store: Mapping[str, Any] = status.get("store") or {}
    facts: list[tuple[str, Cell]] = [
        ("daemon", f"version {status.get('version')}, pid {status.get('pid')}, up {duration(status.get('uptime_s'))}")
    ]
    if error := store.get("error"):
        facts.append(("store", Styled(f"{status.get('engine')}: {error['message']}", "bad")))
    else:
        facts.append(("store", ", ".join(_store(status, store))))
    facts.append(("data", str(status.get("data_dir"))))
    facts.append(("settings", str(status.get("config_file"))))
    ptys = status.get("ptys")
    if isinstance(ptys, Mapping) and ptys:
        facts.append(("ptys", ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in ptys.items())))
    if status.get("running"):
        facts.append(("calls", f"{status['running']} under way"))
    return facts


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
        if breaker.get("open_for_s"):
            told += f", probe in {duration(breaker['open_for_s'])}"
        state = str(row["state"])
        if row.get("cooling_s"):
            state += f" for {duration(row['cooling_s'])}"
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
    if not variable:
        return Styled("none needed", "dim")
    if row.get("key_present"):
        return str(variable)
    return Styled(f"{variable} is missing", "bad")


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
    step = str(status.get("next_step") or "")
    if not step:
        return []
    lines = step.splitlines()
    to_copy = [line.strip() for line in lines if line.startswith("    ")]
    told = " ".join(line for line in lines if not line.startswith("    "))
    return [Heading("next"), Para(told), *([Code("\n".join(to_copy))] if to_copy else [])]
