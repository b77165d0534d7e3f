"""`t.simulate` and `t.replay`: recorded calls under other settings, in this process.

Rows come from the daemon as for anybody else; the running is `runtime.rehearsal`'s, over plain data.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tundra_nb.client import times
from tundra_nb.client.incidents import EPOCH, window_us
from tundra_nb.client.own_loop import on_own_loop
from tundra_nb.errors import UsageError
from tundra_nb.protocol.digest import digest
from tundra_nb.runtime.recordings import Recording, inside
from tundra_nb.runtime.rehearsal.replay import Ran
from tundra_nb.runtime.rehearsal.replay import replay as play
from tundra_nb.runtime.rehearsal.trace import Trace, read
from tundra_nb.settings import Settings, variants

from . import sweep

if TYPE_CHECKING:
    import pandas as pd

    from tundra_nb.client.sync import Client

LONGEST = dt.timedelta(minutes=15)
"""How long after a call's beginning its last attempt may begin: `router.deadline_seconds` by default."""
MOST_VARIANTS = 200
MOST_REPLAYED = 50_000
"""Calls. A replay runs each through everything; a simulation takes more."""
AS_IT_WAS = "as it was"
RECORDED = "recorded"
CALLS = ("operation_id", "at", "outcome", "code", "user_name", "caller", "asked", "input_tokens", "requested_model")
MORE_OF_CALLS = ("profile", "attempts", "waited_ms", "latency_ms", "cost_usd")
ATTEMPTS = (
    *("attempt_id", "operation_id", "seq", "profile", "outcome", "reason", "status", "code", "retry_after_s"),
    *("latency_ms", "input_tokens", "output_tokens"),
)

LOGGERS = tuple(f"tundra.{part}" for part in ("router", "breaker", "providers", "limiter"))

OnProgress = Callable[[str], None]


class Past:
    """A part of the history, read once: its calls and the settings that were in force."""

    def __init__(self, client: Client, given: Mapping[str, Any], title: str = "") -> None:
        self.client = client
        self.title = title
        self.given = given
        self.settings = _settings(client, given.get("at"), given.get("source"))
        enabled = sorted((p for p in self.settings.profile if p.enabled), key=lambda profile: profile.priority)
        if not enabled:
            raise UsageError(problem="no profile was set up then, so there is nobody to ask", field="since")
        self.calls = client.calls(**given)
        if not len(self.calls):
            raise UsageError(
                problem="there is no call in this window",
                field="since",
                remedy="Take a wider one; `%tundra calls --since all` shows what there is.",
            )
        self.attempts = client.attempts(**_longer(given, self.calls))
        self.trace: Trace = read(
            _rows(self.calls, (*CALLS, *MORE_OF_CALLS)), _rows(self.attempts, ATTEMPTS), enabled[0].name
        )


def past(client: Client, incident: str | None, **given: Any) -> Past:
    """What to run again: an incident's window at its pin, or a window of the history."""
    if incident is None:
        return Past(client, {name: value for name, value in given.items() if value is not None})
    if any(value is not None for value in given.values()):
        raise UsageError(problem="an incident has its own window and state", field="since")
    found = client.incidents.find(incident)
    begin, end = (EPOCH + dt.timedelta(microseconds=when) for when in window_us(found))
    place = {"source": found["source"]} if "source" in found else {"at": found["ref"]}
    return Past(client, {"between": (begin, end), **place}, found["title"])


def simulate(
    client: Client,
    incident: str | None = None,
    *,
    since: Any = None,
    between: tuple[Any, Any] | None = None,
    at: str | None = None,
    settings: Sequence[str] = (),
    propose: str | None = None,
    workers: int | None = None,
    on_progress: OnProgress | None = None,
) -> pd.DataFrame:
    """See `Client.simulate`."""
    import pandas as pd

    chosen = variants.variants(settings)
    if len(chosen) > MOST_VARIANTS:
        raise UsageError(problem=f"{len(chosen)} variants are too many: at most {MOST_VARIANTS}", field="set")
    if propose is not None and (len(chosen) != 1 or not chosen[0]):
        raise UsageError(problem="only one variant can be proposed", field="propose", remedy="Give one value each.")
    if incident is None and since is None and between is None:
        since = "1d"
    recorded = past(client, incident, since=since, between=between, at=at)
    trace, base = recorded.trace, recorded.settings
    wanted = [{}, *(one for one in chosen if one)]
    forms = [variants.changed(base, one) for one in wanted]  # all of them are checked before the first is run
    names = [", ".join(f"{path}={_text(value)}" for path, value in values.items()) or AS_IT_WAS for values in wanted]
    jobs = [(name, form) for name, form in zip(names, forms, strict=True)]
    tell = on_progress or (lambda _: None)
    made = _one_by_one(trace, jobs, tell) if workers in (None, 1) else sweep.run(trace, jobs, workers, tell)
    shown = [{path: _text(value) for path, value in values.items()} for values in wanted]
    rows = [_recorded_row(recorded), *(row | more for row, more in zip(made, shown, strict=True))]
    tell("")
    if propose is not None:
        for path, value in chosen[0].items():
            client.set_setting(path, value, reason=f"simulated over {len(trace.calls):,} calls", on=propose)
    paths = list(dict.fromkeys(path for one in wanted for path in one))
    frame = pd.DataFrame(rows, columns=[*FIGURES, *paths])
    return _finished(frame, recorded, f"simulate {' '.join(settings)}".strip())


def _one_by_one(trace: Trace, jobs: Sequence[sweep.Job], tell: OnProgress) -> list[dict[str, Any]]:
    """The variants in this process, in their order."""
    rows = []
    for place, (name, form) in enumerate(jobs, 1):

        def told(done: int, place: int = place, name: str = name) -> None:
            tell(f"variant {place} of {len(jobs)} ({name}): {done:,} of {len(trace.calls):,} calls")

        told(0)
        rows.append(sweep.variant(trace, name, form, told))
    return rows


FIGURES = (
    *("variant", "calls", "ok", "ok_least", "ok_most", "failed", "refused", "unknown", "cancelled", "same"),
    *("attempts", "breaker_opened", "waited_p50_ms", "waited_p95_ms", "latency_p50_ms", "latency_p95_ms"),
)
"""Columns of a simulation. `same`: calls that ended as they did in truth."""


def _recorded_row(recorded: Past) -> dict[str, Any]:
    calls = recorded.calls
    counts = calls["outcome"].astype(str).value_counts()
    ok = int(counts.get("ok", 0))
    done = calls[calls["outcome"].astype(str) == "ok"]
    told = {
        "variant": RECORDED,
        "calls": len(calls),
        "ok": ok,
        "ok_least": ok,
        "ok_most": ok,
        "failed": int(counts.get("error", 0)) + int(counts.get("interrupted", 0)),
        "refused": int(counts.get("refused", 0)),
        "unknown": 0,
        "cancelled": int(counts.get("cancelled", 0)),
        "same": len(calls),
        "attempts": int(calls["attempts"].sum()),
        "breaker_opened": _opened(recorded),
    }
    return told | sweep.quantiles("waited", calls["waited_ms"]) | sweep.quantiles("latency", done["latency_ms"])


def _opened(recorded: Past) -> int:
    moves: Any = recorded.client.breaker_history(**recorded.given)
    states = moves["old_state"].astype(str), moves["new_state"].astype(str)
    return int(((states[1] == "open") & (states[0] != "open")).sum())


def replay(
    client: Client,
    incident: str | None = None,
    *,
    since: Any = None,
    between: tuple[Any, Any] | None = None,
    at: str | None = None,
    settings: Sequence[str] = (),
    speed: float | None = None,
    on_progress: OnProgress | None = None,
) -> pd.DataFrame:
    """See `client.rehearsal.replay`."""
    import pandas as pd

    (values, *others) = variants.variants(settings)
    if others:
        raise UsageError(
            problem="a replay has one value for each setting",
            field="set",
            remedy="`%tundra simulate` runs many variants.",
        )
    if speed is not None and not 0 < speed < float("inf"):
        raise UsageError(problem=f"speed {speed:g} is not a positive number", field="speed")
    if incident is None and since is None and between is None:
        raise UsageError(
            problem="nothing is named to be replayed", field="incident", remedy="An incident, or `--since`."
        )
    recorded = past(client, incident, since=since, between=between, at=at)
    if len(recorded.trace.calls) > MOST_REPLAYED:
        raise UsageError(
            problem=f"{len(recorded.trace.calls):,} calls are too many for a replay: at most {MOST_REPLAYED:,}",
            field="since",
            remedy="`%tundra simulate` takes them all, or take a shorter window.",
        )
    form = variants.changed(recorded.settings, values)
    if on_progress is not None:
        on_progress(f"replaying {len(recorded.trace.calls):,} calls")
    kept = [(logger, logger.disabled) for logger in map(logging.getLogger, LOGGERS)]
    for logger, _ in kept:
        logger.disabled = True  # its failures are played, and are not today's
    tapes = _tapes(client, recorded)
    try:
        ran = on_own_loop(play(recorded.trace, form, tapes, speed), "replay")
    finally:
        for logger, was in kept:
            logger.disabled = was
        if on_progress is not None:
            on_progress("")
    rows = list(_compared(recorded, ran))
    frame = pd.DataFrame(rows, columns=list(COMPARED))
    told = _finished(frame, recorded, f"replay {' '.join(settings)}".strip())
    told.attrs["summary"] = _summary(recorded, ran, frame, values, len(tapes))
    return told


COMPARED = (
    *("operation_id", "at", "outcome_then", "outcome_now", "code_then", "code_now", "profile_then", "profile_now"),
    *("attempts_then", "attempts_now", "waited_ms_then", "waited_ms_now", "latency_ms_then", "latency_ms_now"),
    *("cost_usd_then", "cost_usd_now", "parts", "sequence_now"),
)
"""Columns of a replay. `parts`: it ended otherwise than it did in truth."""


def _compared(recorded: Past, ran: Ran) -> Iterator[dict[str, Any]]:
    then = {row["operation_id"]: row for row in _rows(recorded.calls, (*CALLS, *MORE_OF_CALLS))}
    for place, call in enumerate(recorded.trace.calls):
        old, new = then[call.operation_id], ran.operations[place]
        now = "unknown" if place in ran.unknown and new.outcome != "cancelled" else str(new.outcome)
        tries = ran.attempts.get(new.operation_id, [])
        yield {
            "operation_id": call.operation_id,
            "at": EPOCH + dt.timedelta(microseconds=int(old["at"])),
            "outcome_then": old["outcome"],
            "outcome_now": now,
            "code_then": old["code"],
            "code_now": new.code,
            "profile_then": old["profile"],
            "profile_now": new.profile,
            "attempts_then": int(old["attempts"]),
            "attempts_now": new.attempts,
            "waited_ms_then": round(float(old["waited_ms"] or 0), 3),
            "waited_ms_now": round(new.waited_ms, 3),
            "latency_ms_then": old["latency_ms"],
            "latency_ms_now": None if new.latency_ms is None else round(new.latency_ms, 3),
            "cost_usd_then": old["cost_usd"],
            "cost_usd_now": new.cost_usd,
            "parts": now != old["outcome"] or (new.code or None) != (old["code"] or None),
            "sequence_now": " → ".join(f"{one.profile} {one.reason or one.outcome}" for one in tries),
        }


def _summary(recorded: Past, ran: Ran, frame: pd.DataFrame, values: Mapping[str, Any], tapes: int) -> dict[str, str]:
    moved: Any = recorded.client.breaker_history(**recorded.given)
    then = [f"{row.profile} {row.new_state}" for row in moved.itertuples() if str(row.old_state) != str(row.new_state)]
    now = [f"{row.profile} {row.new_state}" for row in ran.breaker_events if row.old_state != row.new_state]
    parting = frame[frame["parts"]]
    told = {
        "replayed": f"{len(frame):,} calls" + (f" of {recorded.title!r}" if recorded.title else ""),
        "under": ", ".join(f"{path}={_text(value)}" for path, value in values.items()) or "the settings of then",
        "recordings": f"{tapes:,} attempts with their bytes, the others by their rows",
        "then": _counted(frame["outcome_then"]),
        "now": _counted(frame["outcome_now"]),
        "breakers then": ", ".join(then) or "did not move",
        "breakers now": ", ".join(now) or "did not move",
        "they part": "nowhere"
        if parting.empty
        else f"in {len(parting):,} calls, first at {times.local(parting['at'].iloc[0])}: "
        f"{parting['outcome_then'].iloc[0]} then, {parting['outcome_now'].iloc[0]} now",
    }
    if frame["outcome_now"].eq("unknown").any():
        told["unknown"] = "a request that was never sent in truth fails here; such a call is no success"
    return told


def _counted(values: Any) -> str:
    counts = values.astype(str).value_counts()
    return ", ".join(f"{counts[name]:,} {name}" for name in sorted(counts.index))


def _tapes(client: Client, recorded: Past) -> dict[int, Recording]:
    """The recordings of these attempts that are on this machine and are what was recorded."""
    paths = client.link.paths
    if paths is None:
        return {}  # it is another machine's daemon: the rows tell
    given = _longer(recorded.given, recorded.calls)
    rows: Any = client.history("exchange", **given)
    source = recorded.given.get("source")
    folder = paths.sources / source / "recordings" if source else Path(paths.recordings)
    found: dict[int, Recording] = {}
    for row in rows.itertuples():
        file = inside(folder, str(row.recording)) if isinstance(row.recording, str) else None
        if file is None or not file.exists():
            continue
        data = file.read_bytes()
        if hashlib.sha256(data).hexdigest() != row.sha256:
            continue
        found[int(row.attempt_id)] = msgspec.json.decode(data, type=Recording)
    return found


def _settings(client: Client, at: str | None, source: str | None) -> Settings:
    """What was in force at a state of the history, or in a source; now when none is named."""
    rows: Any = client.sql("select path, value from setting", at=at, source=source)
    named: Any = client.sql(
        "select name, kind, base_url, model, priority, enabled, api_key_env, rpm, tpm from profile",
        at=at,
        source=source,
    )
    profiles = [
        {name: value for name, value in zip(named.columns, row, strict=True) if value == value and value is not None}  # noqa: PLR0124 - NaN
        for row in named.astype(object).itertuples(index=False)
    ]
    for one in profiles:
        one["enabled"] = bool(one["enabled"])
        one["priority"] = int(one["priority"])
    try:
        return variants.of_rows({row.path: json.loads(row.value) for row in rows.itertuples()}, profiles)
    except (msgspec.ValidationError, ValueError) as exc:
        raise UsageError(
            problem=f"the settings of then mean nothing to this version: {exc}",
            field="at",
            remedy="Give another state with `--at`.",
        ) from exc


def _longer(given: Mapping[str, Any], calls: pd.DataFrame) -> dict[str, Any]:
    """The same window, with the time in which the last calls may have made further attempts."""
    if "between" not in given:
        return dict(given)
    last = calls["at"].iloc[-1].to_pydatetime()
    begin, end = given["between"]
    until = last + LONGEST if isinstance(end, dt.datetime) else end
    return {**given, "between": (begin, max(until, end) if isinstance(end, dt.datetime) else end)}


def _rows(frame: Any, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Rows as plain values: None where there is none, times in microseconds."""
    series = []
    for name in names:
        values = frame[name]
        if name == "at":
            series.append(values.astype("int64").tolist())
        else:
            values = values.astype(object)
            series.append(values.where(values.notna(), None).tolist())
    for row in zip(*series, strict=True):
        yield dict(zip(names, row, strict=True))


def _finished(frame: pd.DataFrame, recorded: Past, query: str) -> pd.DataFrame:
    """With where it came from, and with a digest, so that it can be compared later."""
    import pyarrow as pa

    attrs = recorded.calls.attrs
    frame.attrs = {"query": query, "commit": attrs.get("commit"), "store": attrs.get("store"), "truncated": False}
    if attrs.get("commit") is not None:
        table = pa.Table.from_pandas(frame, preserve_index=False)
        frame.attrs |= {"digest": digest(table), "frame_version": attrs.get("frame_version")}
    return frame


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
