"""A made-up outage in a store, for what looks at many calls: three hours, four profiles, 45 minutes of 529s.

It follows a change of a setting nine minutes before, as one did in the issue. Written without a daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tundra_nb import paths
from tundra_nb.runtime.clock import Ids, SystemClock
from tundra_nb.runtime.history.service import History
from tundra_nb.settings import StoreSettings
from tundra_nb.types import (
    Attempt,
    BreakerEvent,
    BreakerState,
    Operation,
    Outcome,
    PtyState,
    Row,
    SessionEvent,
    Setting,
)

PROFILES = ("anthropic", "openai", "azure-eu", "local")
SHARES = (0.5, 0.3, 0.12, 0.08)
SHIFT = 22


@dataclasses.dataclass(frozen=True)
class Outage:
    """What was written: seconds since 1970, and counts."""

    since: float
    until: float
    changed: float
    begins: float
    ends: float
    calls: int
    failed: int
    """Calls that a provider failed."""


def fill(
    env: Mapping[str, str],
    calls: int,
    *,
    seconds: float = 10_800.0,
    until: float | None = None,
    names: Sequence[str] = PROFILES,
) -> Outage:
    """Write the outage into the store of an environment, before its daemon is started.

    Args:
        env: names its data directory.
        calls: how many.
        seconds: from the first to the last.
        until: when it ends; a minute ago when left out.
        names: of the profiles; the first is the one that fails.
    """
    Path(env["TUNDRA_DATA_DIR"]).mkdir(parents=True, exist_ok=True, mode=0o700)
    with ThreadPoolExecutor(1) as own:  # a test with a browser has a loop in its thread
        return own.submit(asyncio.run, _fill(env, calls, seconds, until or time.time() - 60, names)).result()


async def _fill(env: Mapping[str, str], calls: int, seconds: float, until: float, names: Sequence[str]) -> Outage:
    where = paths.find(env["TUNDRA_DATA_DIR"], env)
    since = until - seconds
    begins, ends = since + seconds * 0.4, since + seconds * 0.65
    changed = begins - 540 * seconds / 10_800
    for value, moment, reason, message in (
        ("8", since - 60, "start", "settings at start"),
        ("64", changed, "faster", "setting retry.attempts"),
    ):
        async with _history(where) as history:
            history.append(
                Setting(
                    setting_id=17, path="retry.attempts", value=value, source="file", at=int(moment * 1e6),
                    author="ada", reason=reason,
                )
            )  # fmt: skip
            await _settled(history)
        _name_commit(where.store, message, moment)
    async with _history(where) as history:
        rng = np.random.default_rng(17)
        at = np.sort(rng.uniform(since, until, calls))
        profile = rng.choice(len(names), calls, p=SHARES if len(names) == len(SHARES) else None)
        luck = rng.random(calls)
        latency = rng.lognormal(6.8, 0.5, calls) * np.where((at > begins) & (at < ends), 2.0, 1.0)
        is_out = (profile == 0) & (at > begins) & (at < ends)
        failed = (is_out & (luck < 0.75)) | (luck > 0.997)
        refused = is_out & ~failed & (luck < 0.95)
        rows: list[Row] = []
        for index in range(calls):
            key = (int(at[index] * 1000) << SHIFT) | (index & 0xFFF)
            name = names[profile[index]]
            outcome: Outcome = "error" if failed[index] else "refused" if refused[index] else "ok"
            is_during = bool(begins < at[index] < ends)
            rows += _call(key, float(at[index]), name, outcome, is_during, float(latency[index]), index, names[0])
            if len(rows) > 4000:
                history.append(*rows)
                rows.clear()
        history.append(*rows, *_beside(since, begins, ends, names[0]))
        await _settled(history)
    return Outage(since, until, changed, begins, ends, calls, int(failed.sum()))


@contextlib.asynccontextmanager
async def _history(where: paths.Paths) -> AsyncIterator[History]:
    clock = SystemClock()
    history = History(where, StoreSettings(), Ids(clock), clock)
    await history.open()
    try:
        await history.call("create")
        yield history
    finally:
        await history.aclose()


def _name_commit(store: Path, message: str, at: float) -> None:
    """Date the commit of what was left at the stop, and name it; nothing else has the store open."""
    code = """if True:
        from tundra_nb.runtime.history import loading
        loading.load()
        import sqlite3, sys
        line = "SELECT dolt_commit('--amend', '-m', ?, '--author', ?, '--date', ?)"
        sqlite3.connect(sys.argv[1]).execute(line, sys.argv[2:]).fetchall()
    """
    moment = dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    values = [str(store), message, "tundra_nb <tundra@localhost>", moment]
    subprocess.run([sys.executable, "-c", code, *values], check=True, timeout=100)


async def _settled(history: History) -> None:
    while not await history.settled(30):
        pass


def _call(
    key: int, at: float, name: str, outcome: Outcome, is_during: bool, latency: float, index: int, bad: str
) -> Iterator[Row]:
    code = None if outcome == "ok" else "AllProvidersExhausted"
    failure = "status_529" if is_during and name == bad else "timeout"
    reason = {"error": failure, "refused": "breaker_open", "ok": "answered"}[outcome]
    took = latency if outcome == "ok" else 40.0 if outcome == "error" else None
    yield Operation(
        operation_id=key, at=int(at * 1e6), profile=name if outcome == "ok" else None, asked=name, model="some-model",
        outcome=outcome, code=code, attempts=1, latency_ms=took, caller=("kernel", "gateway", "cli")[index % 3],
        user_name="ada",
    )  # fmt: skip
    yield Attempt(
        attempt_id=key, operation_id=key, seq=1, at=int(at * 1e6), profile=name, outcome=outcome, reason=reason,
        code=code, latency_ms=took, bucket_requests=None if name != "openai" else 0.0 if is_during else 55.0,
    )  # fmt: skip


def _beside(since: float, begins: float, ends: float, name: str) -> Iterator[Row]:
    third = (ends - begins) / 3
    moments: list[tuple[BreakerState, BreakerState, float]] = [("closed", "open", begins + 20)]
    for part in (1, 2):
        moments += [("open", "half_open", begins + third * part), ("half_open", "open", begins + third * part + 10)]
    moments += [("open", "half_open", ends), ("half_open", "closed", ends + 60)]
    for index, (old, new, at) in enumerate(moments):
        yield BreakerEvent(
            breaker_event_id=(int(at * 1000) << SHIFT) | index, at=int(at * 1e6), profile=name,
            old_state=old, new_state=new, reason="status_529" if new == "open" else "probe", failures=5,
        )  # fmt: skip
    for index, (command, begin, end, code) in enumerate(
        (
            ("make eval", since + 60, None, None),
            ("htop", since + 300, ends, 0),
            ("curl -sS https://…", begins, begins + 90, 7),
        )
    ):
        pty = f"demo{index}"
        for event, moment in (("started", begin), ("exited", end)):
            if moment is not None:
                state: PtyState = "running" if event == "started" else "exited"
                yield SessionEvent(
                    pty_id=pty, at=int(moment * 1e6), command=command, state=state,
                    event_id=(int(moment * 1000) << SHIFT) | 100 + index, event=event,
                    exit_code=code if event == "exited" else None,
                )  # fmt: skip
