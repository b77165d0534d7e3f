"""The table of API calls: what each method of a client asks and what it makes of the answer. No I/O.

Both clients take their methods, help texts and types from here (`endpoints`); `versions` and `ptys` hold the functions
of those two namespaces.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import msgspec

from tundra_nb.errors import UsageError
from tundra_nb.frames import frames
from tundra_nb.nearest import nearest
from tundra_nb.protocol import daemon as daemon_routes
from tundra_nb.protocol import faults as faults_routes
from tundra_nb.protocol import history as history_routes
from tundra_nb.protocol import operations as operations_routes
from tundra_nb.protocol import profiles as profiles_routes
from tundra_nb.protocol import status as status_routes
from tundra_nb.protocol import versions as versions_routes
from tundra_nb.protocol.digest import digest
from tundra_nb.protocol.endpoint import Endpoint, params
from tundra_nb.protocol.endpoint import text as text_of
from tundra_nb.protocol.live import LIVE
from tundra_nb.protocol.words import ARROW, EVENTS, META_HEADER
from tundra_nb.surrogates import mended, whole
from tundra_nb.types import FRAME_VERSION, FRAMES, TABLES, Ask, Reply, columns

from . import times
from .call import STREAM_TIMEOUT, Call, Flow, HttpAnswer, call
from .results import Document, Last, Status, Why

if TYPE_CHECKING:
    import pandas as pd

Prompt = str | Sequence[Mapping[str, Any]]
Window = tuple[times.When, times.When]

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
ASK_TIMEOUT = 3600.0
"""Seconds of silence on an unstreamed question; the daemon's own `router.deadline_seconds` ends it before."""
PRIORITY_STEP = 10
"""Between two profiles that `reorder_providers` has put in order."""
STORE_TIMEOUT = 120.0
"""Seconds of silence on a question to the history; the store's own deadline is 30 s."""


# the present:


def status(brief: bool = False) -> Call[Status]:
    """The daemon's state: itself, store, profiles, breakers, limits, PTYs, last errors, next step.

    Args:
        brief: without what must be asked of the store, for those who look often.
    """
    return call(
        status_routes.STATUS,
        decode=lambda answer: Status(answer.json()),
        query=status_routes.StatusQuery(brief=brief),
    )


def providers(all: bool = False) -> Call[pd.DataFrame]:  # noqa: A002 - the option's name
    """The profiles in order of priority, with their state: ready, cooling or parked, and why.

    Args:
        all: instead, the profiles that each daemon of a shared history has had in force last, by `writer_id`.
    """
    if all:
        return history("profile", "all", all=True)
    return _live("providers", profiles_routes.PROVIDERS)


def profile_names() -> Call[list[str]]:
    """The names of the profiles, in order of priority."""
    return call(
        profiles_routes.PROVIDERS,
        decode=lambda answer: [str(row["profile"]) for row in answer.json()["rows"]],
        timeout=2.0,
    )


def models(profile: str | None = None) -> Call[pd.DataFrame]:
    """The models that each profile, or the one named, can reach by its provider's own list."""
    return _live("models", profiles_routes.MODELS, profiles_routes.ModelsQuery(profile=profile))


def limits() -> Call[pd.DataFrame]:
    """The limiter's buckets and their levels, and the providers' own as far as they told."""
    return _live("limits", profiles_routes.LIMITS)


def breakers() -> Call[pd.DataFrame]:
    """The breaker of each profile; `open_for_s` counts down to the next probe."""
    return _live("breakers", profiles_routes.BREAKERS)


def settings(changed: bool = False, all: bool = False) -> Call[pd.DataFrame]:  # noqa: A002 - the option's name
    """Every setting in force with its default and where its value came from; `changed` leaves the defaults out.

    Args:
        changed: only those that are not at their default.
        all: instead, the settings that each daemon of a shared history has had in force last, by `writer_id`.
    """
    if all:
        return history("setting", "all", all=True)
    found = _live("settings", profiles_routes.SETTINGS)
    return _with(found, lambda answer: _changed(found.decode(answer))) if changed else found


def set_setting(path: str, value: Any, *, reason: str = "", on: str | None = None) -> Call[Document]:
    """Change a setting: in the settings file, in force at once where that is possible, and in the history.

    Args:
        path: `breaker.failures`, `profile.NAME.rpm`.
        value: a JSON value; None takes it out of the file.
        reason: for those who read the history.
        on: only propose it on this branch; `versions.merge` applies it.

    Raises:
        UsageError: no such setting (names the nearest), or the value is not allowed; nothing changed.
    """
    body = profiles_routes.SettingBody(path=path, value=value, reason=reason, on=on or None)
    return call(profiles_routes.SET_SETTING, decode=document, body=body, timeout=STORE_TIMEOUT)


def keys() -> Call[pd.DataFrame]:
    """The key variables that profiles name, and whether the daemon has them: salted fingerprints, never a value."""
    return _live("keys", profiles_routes.KEYS)


def offer_keys(values: Mapping[str, str]) -> Call[Document]:
    """Hand keys to the daemon by the name of their variable; it holds them in memory only."""
    return call(profiles_routes.OFFER_KEYS, decode=document, body=dict(values))


def reset_breaker(profile: str) -> Call[Document]:
    """Close the breaker of a profile now."""
    return call(profiles_routes.RESET_BREAKER, decode=document, name=profile)


def add_provider(
    name: str,
    kind: str,
    *,
    base_url: str | None = None,
    model: str | None = None,
    api_key_env: str | None = None,
    priority: int | None = None,
) -> Call[Document]:
    """Write a profile into the settings file and use it from now on.

    Args:
        name: how it is called from now on.
        kind: anthropic, openai, openrouter or local.
        base_url: left out: the vendor's own host.
        model: left out: chosen from the provider's own model list.
        api_key_env: name of the variable that holds the key; left out: the vendor's usual one.
        priority: lower is asked first.
    """
    body = profiles_routes.ProviderBody(
        name=name, kind=kind, base_url=base_url, model=model, api_key_env=api_key_env, priority=priority
    )
    return call(profiles_routes.ADD_PROVIDER, decode=document, body=body)


def recheck_provider(name: str) -> Call[Document]:
    """Look again whether a parked profile can be used."""
    return call(profiles_routes.RECHECK_PROVIDER, decode=document, name=name)


def test_provider(name: str) -> Call[Document]:
    """Ask a profile's provider for its models: whether it answers, how long that took, or what is wrong."""
    return call(profiles_routes.TEST_PROVIDER, decode=document, name=name)


def remove_provider(name: str) -> Call[Document]:
    """Take a profile out of the settings file."""
    return call(profiles_routes.REMOVE_PROVIDER, decode=document, name=name, timeout=STORE_TIMEOUT)


def set_provider(name: str, **fields: Any) -> Flow[Document]:
    """Change fields of a profile: `base_url`, `model`, `api_key_env`, `priority`, `rpm`, `tpm`, `enabled`.

    Raises:
        UsageError: no such profile or field, or a value that is not allowed; what came before it has changed.
    """
    if not fields:
        raise UsageError(problem="there is nothing to change", field="fields", remedy="For example `--model NAME`.")
    for field, value in fields.items():
        yield set_setting(f"profile.{name}.{field}", value, reason="providers set")
    return Document({"profile": name, **fields})


def reorder_providers(names: Sequence[str]) -> Flow[pd.DataFrame]:
    """Have these profiles asked in this order, before all others; returns the profiles as they stand then."""
    rows: pd.DataFrame = yield providers()
    known = [str(profile) for profile in rows["profile"]]
    for name in names:
        if name not in known:
            raise UsageError(problem=f"no profile {name!r}", field="names", nearest=nearest(name, known))
    priorities = dict(zip(rows["profile"], rows["priority"], strict=True))
    order = [*dict.fromkeys(names), *(name for name in known if name not in names)]
    for place, name in enumerate(order):
        if int(priorities[name]) != place * PRIORITY_STEP:
            yield set_setting(f"profile.{name}.priority", place * PRIORITY_STEP, reason="providers reorder")
    found: pd.DataFrame = yield providers()
    return found


def park_provider(name: str) -> Call[Document]:
    """Take a profile out of use until it is rechecked."""
    return call(profiles_routes.PARK_PROVIDER, decode=document, name=name)


def faults() -> Call[pd.DataFrame]:
    """The faults that are injected now: one row per rule, and one for a proxy without any."""
    return call(faults_routes.FAULTS, decode=_fault_frame)


def start_faults(profile: str) -> Call[Document]:
    """Put a fault proxy in front of a profile, in this daemon only; nothing fails before `set_fault`."""
    return call(faults_routes.START_FAULTS, decode=document, body=faults_routes.DrillBody(profile))


def set_fault(profile: str, fault: str, **rule: Any) -> Call[Document]:
    """Have a fault happen to a profile from now on.

    Args:
        profile: one that `start_faults` was called for.
        fault: a kind, as `tundra fault kinds` lists them.
        rule: `count`, `probability`, `seed`, `seconds`, `model`, `path`, `events`, `cut_bytes`, `status`.
    """
    return call(faults_routes.SET_FAULT, decode=document, body={"fault": fault, **rule}, name=profile)


def clear_faults(profile: str, fault: str | None = None) -> Call[Document]:
    """Have one fault, or all, happen no longer."""
    return call(faults_routes.CLEAR_FAULTS, decode=document, query=faults_routes.FaultQuery(fault=fault), name=profile)


def stop_faults(profile: str) -> Call[Document]:
    """Take the fault proxy of a profile away."""
    return call(faults_routes.STOP_FAULTS, decode=document, name=profile)


def stop_daemon(force: bool = False, hold: bool = True) -> Call[Document]:
    """Stop the daemon.

    Args:
        force: also while others are attached or PTYs live.
        hold: only an explicit start brings it back.
    """
    return call(daemon_routes.STOP, decode=document, body=daemon_routes.StopBody(force=force, hold=hold))


def descriptors() -> Call[Document]:
    """How many file descriptors the daemon has `open`, and its `limit`: only it can count them."""
    return call(daemon_routes.DESCRIPTORS, decode=document)


def log_level(filter: str | None = None) -> Call[Document]:  # noqa: A002 - the word of the settings
    """Which log lines the daemon keeps; with a filter such as `info,tundra.ptys=debug`, from now on until it ends."""
    if filter is None:
        return call(daemon_routes.LOG_LEVEL, decode=document)
    return call(daemon_routes.SET_LOG_LEVEL, decode=document, body=daemon_routes.LogLevel(filter))


# asking:


class AskOptions(TypedDict, total=False):
    """Keyword arguments of `ask`; see `Client.ask`."""

    profile: str | None
    model: str | None
    system: str | None
    max_tokens: int | None
    temperature: float | None
    failover: bool
    tools: Sequence[Mapping[str, Any]] | None
    tool_choice: Any
    json_mode: bool
    json_schema: Mapping[str, Any] | None
    stop: Sequence[str] | None
    top_p: float | None
    parallel_tool_calls: bool | None
    effort: str | None
    extra: Mapping[str, Any] | None
    record: bool


def question(
    prompt: Prompt,
    *,
    profile: str | None = None,
    model: str | None = None,
    system: str | None = None,
    max_tokens: int | None = None,
    temperature: float | None = None,
    failover: bool = True,
    tools: Sequence[Mapping[str, Any]] | None = None,
    tool_choice: Any = None,
    json_mode: bool = False,
    json_schema: Mapping[str, Any] | None = None,
    stop: Sequence[str] | None = None,
    top_p: float | None = None,
    parallel_tool_calls: bool | None = None,
    effort: str | None = None,
    extra: Mapping[str, Any] | None = None,
    record: bool = False,
) -> Ask:
    """Make the question of what a caller gave.

    Raises:
        UsageError: the prompt is empty or no text or messages, or the temperature is no number; nothing is sent.
    """
    if isinstance(prompt, str):
        if not prompt.strip():
            raise UsageError(problem="the prompt is empty", field="prompt", remedy="Say what to ask.")
        messages: list[dict[str, Any]] = [{"role": "user", "content": whole(prompt)}]
    else:
        messages = _mended("prompt", _messages(prompt))
    if system:
        messages.insert(0, {"role": "system", "content": whole(system)})
    if temperature is not None and not math.isfinite(temperature):
        # JSON has no NaN: it would arrive as "not given"
        raise UsageError(problem=f"temperature {temperature} is not a number", field="temperature")
    return Ask(
        messages=messages,
        profile=profile,
        model=model,
        max_tokens=max_tokens,
        temperature=temperature,
        failover=failover,
        tools=None if tools is None else _mended("tools", [dict(tool) for tool in tools]),
        tool_choice=tool_choice,
        json_mode=json_mode,
        json_schema=None if json_schema is None else _mended("json_schema", dict(json_schema)),
        stop=None if stop is None else _mended("stop", list(stop)),
        top_p=top_p,
        parallel_tool_calls=parallel_tool_calls,
        effort=effort,
        extra=None if extra is None else _mended("extra", dict(extra)),
        record=record,
    )


def _mended(field: str, value: Any) -> Any:
    """The value with whole characters everywhere.

    Raises:
        UsageError: it is nested too deeply, or holds itself.
    """
    try:
        return mended(value)
    except RecursionError:
        raise UsageError(problem=f"{field} is nested too deeply", field=field, remedy="Send less of it.") from None


def ask(question: Ask) -> Call[Reply]:
    """Ask and wait for the whole answer."""
    return call(
        operations_routes.ASK,
        decode=lambda answer: msgspec.json.decode(answer.body, type=Reply),
        body=question,
        timeout=ASK_TIMEOUT,
    )


def ask_stream(question: Ask) -> Call[None]:
    """Ask; the answer comes as events (`answer.AnswerReader`)."""
    return call(
        operations_routes.ASK,
        decode=lambda _: None,
        body=msgspec.structs.replace(question, stream=True),
        accept=EVENTS,
        timeout=STREAM_TIMEOUT,
    )


def why(operation: str | int = "last", source: str | None = None, all: bool = False) -> Call[Why]:  # noqa: A002
    """The causal chain of one operation: waits, refusals, attempts, breaker moves, failover, cost.

    Args:
        operation: its id, the last digits of it, `last`, or `-2` for the one before.
        source: of what was imported under this name.
        all: `last` and `-2` count the calls of all daemons of a shared history.
    """
    query = operations_routes.WhyQuery(source=source, all=all)
    return call(
        operations_routes.WHY,
        decode=lambda answer: Why(answer.json(), source),
        query=query,
        takes_source=True,
        id=operation,
    )


def last(source: str | None = None, all: bool = False) -> Call[Last]:  # noqa: A002 - the option's name
    """What happened in the latest operation, of a source or of `all` daemons where asked for, and the next step."""
    query = operations_routes.WhyQuery(source=source, all=all)
    return call(
        operations_routes.WHY,
        decode=lambda answer: Last(answer.json(), source),
        query=query,
        takes_source=True,
        id="last",
    )


# the past:


def calls(
    since: times.When | None = None,
    *,
    between: Window | None = None,
    code: str | None = None,
    profile: str | None = None,
    at: str | None = None,
    limit: int | None = None,
    wait: float | None = None,
    source: str | None = None,
    all: bool = False,  # noqa: A002 - the option's name
    by: str | Sequence[str] | None = None,
    outcome: str | None = None,
) -> Call[pd.DataFrame]:
    """The operations, one row each.

    Args:
        since: from when on: `1h`, `yesterday`, `14:00`, ISO, a datetime, `all`. The last 24 h by default.
        between: two of these instead.
        code: only those that ended with this error code.
        profile: only those that this profile answered, or was asked first where none did.
        at: the history as of a commit, branch, tag or time.
        limit: at most so many rows, the newest; `df.attrs["truncated"]` says whether more were there.
        wait: seconds to wait until everything recorded is in the store; after a second, by default, the frame holds
            what is there, and `df.attrs["behind"]` and `["stored_until"]` say so.
        source: of what was imported under this name; all of it where no window is given.
        all: also what other daemons wrote into a shared history; `writer_id` tells whose a row is. A view at a state
            of the history (`at`) always has them.
        by: group by these (`profile`, `model`, `outcome`, `code`, `kind`, `day`, `hour`, `minute`,
            `latency_band`): counts, p50/p95,
            errors, tokens and cost.
        outcome: ok, error, refused, cancelled or interrupted.
    """
    equals: dict[str, Any] = {"code": code, "profile": profile, "outcome": outcome}
    return history(
        "calls", since, between=between, at=at, limit=limit, wait=wait, source=source, all=all, by=by, **equals
    )


def attempts(
    since: times.When | None = None,
    *,
    between: Window | None = None,
    code: str | None = None,
    profile: str | None = None,
    at: str | None = None,
    limit: int | None = None,
    wait: float | None = None,
    source: str | None = None,
    all: bool = False,  # noqa: A002 - the option's name
    by: str | Sequence[str] | None = None,
    outcome: str | None = None,
) -> Call[pd.DataFrame]:
    """Every try at a profile, one row each, also those that limiter or breaker refused; see `calls` for the filters."""
    equals: dict[str, Any] = {"code": code, "profile": profile, "outcome": outcome}
    return history(
        "attempts", since, between=between, at=at, limit=limit, wait=wait, source=source, all=all, by=by, **equals
    )


def errors(
    since: times.When | None = None,
    *,
    between: Window | None = None,
    code: str | None = None,
    profile: str | None = None,
    at: str | None = None,
    limit: int | None = None,
    wait: float | None = None,
    source: str | None = None,
    all: bool = False,  # noqa: A002 - the option's name
    severity: str | None = None,
) -> Call[pd.DataFrame]:
    """Errors that reached a caller or that a background part met; see `calls` for the filters."""
    return history(
        "errors",
        since,
        between=between,
        at=at,
        limit=limit,
        wait=wait,
        source=source,
        all=all,
        code=code,
        profile=profile,
        severity=severity,
    )


def limit_history(
    since: times.When | None = None,
    *,
    between: Window | None = None,
    at: str | None = None,
    limit: int | None = None,
    wait: float | None = None,
    source: str | None = None,
    all: bool = False,  # noqa: A002 - the option's name
    tier: str | None = None,
    decision: str | None = None,
) -> Call[pd.DataFrame]:
    """Waits, refusals, penalties and corrections of the limiter; see `calls` for the filters."""
    return history(
        "limit-history",
        since,
        between=between,
        at=at,
        limit=limit,
        wait=wait,
        source=source,
        all=all,
        tier=tier,
        decision=decision,
    )


def connections(
    since: times.When | None = None,
    *,
    between: Window | None = None,
    pty: str | None = None,
    at: str | None = None,
    limit: int | None = None,
    wait: float | None = None,
    source: str | None = None,
    all: bool = False,  # noqa: A002 - the option's name
) -> Call[pd.DataFrame]:
    """Viewers of terminals, and lines to the daemon: opened, lost, resumed, ended, why, and what they missed."""
    return history(
        "connections", since, between=between, at=at, limit=limit, wait=wait, source=source, all=all, pty_id=pty
    )


def breaker_history(
    since: times.When | None = None,
    *,
    between: Window | None = None,
    profile: str | None = None,
    at: str | None = None,
    limit: int | None = None,
    wait: float | None = None,
    source: str | None = None,
    all: bool = False,  # noqa: A002 - the option's name
) -> Call[pd.DataFrame]:
    """Transitions of the breakers; see `calls` for the filters."""
    return history(
        "breaker-history",
        since,
        between=between,
        at=at,
        limit=limit,
        wait=wait,
        source=source,
        all=all,
        profile=profile,
    )


def agent_runs(
    since: times.When | None = None,
    *,
    between: Window | None = None,
    at: str | None = None,
    limit: int | None = None,
    wait: float | None = None,
    source: str | None = None,
    all: bool = False,  # noqa: A002 - the option's name
    outcome: str | None = None,
) -> Call[pd.DataFrame]:
    """Runs of agents: what was asked, how it ended, what it cost; see `calls` for the filters."""
    return history(
        "agent-runs", since, between=between, at=at, limit=limit, wait=wait, source=source, all=all, outcome=outcome
    )


def agent_steps(
    since: times.When | None = None,
    *,
    between: Window | None = None,
    at: str | None = None,
    limit: int | None = None,
    wait: float | None = None,
    source: str | None = None,
    all: bool = False,  # noqa: A002 - the option's name
    run_id: str | int | None = None,
) -> Call[pd.DataFrame]:
    """Steps of agents' runs: calls of the model, tools, questions to a person, findings; those of the run `run_id`, or
    all. See `calls` for the filters.
    """
    return history(
        "agent-steps", since, between=between, at=at, limit=limit, wait=wait, source=source, all=all, run_id=run_id
    )


def history(
    frame: str,
    since: times.When | None = None,
    *,
    between: Window | None = None,
    at: str | None = None,
    limit: int | None = None,
    wait: float | None = None,
    source: str | None = None,
    all: bool = False,  # noqa: A002 - the option's name
    by: str | Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    every: int | None = None,
    quantiles: Sequence[float] = (),
    **equals: object,
) -> Call[pd.DataFrame]:
    """Rows of a history frame or table, or groups of them; `equals` are columns and the values they must have.

    Args:
        frame: `calls`, `errors` … or a table.
        since: as of `calls`; so are `between`, `at`, `limit`, `wait` and `by`.
        between: two times instead.
        at: a state of the history.
        limit: at most so many rows.
        wait: seconds until all that was recorded must be in the store.
        source: of what was imported under this name; all of it where no window is given.
        all: as in `calls`.
        by: group by these.
        columns: only these; all by default.
        every: seconds; rows are grouped by intervals of this length too, whose beginning is `at`.
        quantiles: shares from 0 to 1: of the latency in each group; p50 and p95 by default.
        equals: columns and their values.
    """
    begin, end = _window(since, between)
    table = FRAMES.get(frame, frame)
    more = one_more(limit)
    names = None if by is None else _names(by)
    is_grouped = names is not None or every is not None
    shown = None if is_grouped else limit
    if is_grouped:
        table, more = "", limit
    elif columns is not None:
        table = ""
    asked = history_routes.FrameParams(
        since=None if begin is None else str(begin),
        until=None if end is None else str(end),
        at=ref(at),
        limit=more,
        newest=more is not None,
        wait=wait,
        source=source,
        all=all,
        by=names,
        columns=None if columns is None else ",".join(columns),
        every=every,
        quantiles=",".join(map(str, quantiles)) or None,
    )
    conditions = tuple((f"{column}.eq", text_of(value)) for column, value in equals.items() if value is not None)
    given = (*params(asked), *conditions)
    return call(
        history_routes.HISTORY,
        decode=lambda answer: _history_frame(
            table or None, answer, query=_told(frame, given), limit=shown, source=source
        ),
        query=asked,
        more=conditions,
        accept=ARROW,
        timeout=STORE_TIMEOUT,
        takes_at=True,
        takes_source=True,
        frame=frame,
    )


def note(body: str, subject: str = "") -> Call[Document]:
    """Write an annotation into the history.

    Args:
        body: what was seen or done.
        subject: what it is about: an id, an error code, a word.
    """
    return call(versions_routes.NOTE, decode=document, body=versions_routes.NoteBody(body, subject))


def notes(
    since: times.When | None = "all",
    *,
    between: Window | None = None,
    at: str | None = None,
    limit: int | None = None,
    wait: float | None = None,
    source: str | None = None,
    all: bool = False,  # noqa: A002 - the option's name
    subject: str | None = None,
) -> Call[pd.DataFrame]:
    """The annotations: `note_id, at, author, subject, body`."""
    return history(
        "notes",
        None if between else since,
        between=between,
        at=at,
        limit=limit,
        wait=wait,
        source=source,
        all=all,
        subject=subject,
    )


def sql(
    text: str,
    at: str | None = None,
    limit: int | None = None,
    wait: float | None = None,
    source: str | None = None,
    archive: bool = False,
) -> Call[pd.DataFrame]:
    """Run one read-only statement over the history's tables.

    Args:
        text: a SELECT, WITH or EXPLAIN.
        at: the history as of a commit, branch, tag or time.
        limit: at most so many rows.
        wait: as in `calls`.
        source: as in `calls`.
        archive: over history and archive together: one SELECT in DuckDB's SQL, for months and quantiles.

    Raises:
        QueryRefused: it writes, reaches files, or does not parse.
    """
    if not isinstance(text, str):
        raise UsageError(problem=f"a statement is text, not {type(text).__name__}", field="text")
    if not text.strip():
        raise UsageError(
            problem="the statement is empty", field="sql", remedy="For example: select * from operation limit 5"
        )
    more = one_more(limit)
    body = history_routes.SqlBody(text, at=ref(at), limit=more, wait=wait, source=source, archive=archive)
    return call(
        history_routes.SQL,
        decode=lambda answer: _history_frame(
            None, answer, query=text, limit=limit, is_newest_first=False, source=source
        ),
        body=body,
        accept=ARROW,
        timeout=STORE_TIMEOUT,
        takes_at=True,
        takes_source=True,
    )


# shared:


def ref(at: str | None) -> str | None:
    """A ref as the daemon takes it: time words become ISO times here, because only the client knows the local zone."""
    if at is None:
        return None
    if not at.strip():  # as from a variable that is not set: the present would pass for a state that was meant
        raise UsageError(
            problem="the state to read at is empty", field="at", remedy="Give a commit, branch, tag or time."
        )
    when = times.from_word(at, now=dt.datetime.now(dt.UTC))
    return when.isoformat() if when else at


def frame_of(name: str, answer: HttpAnswer) -> pd.DataFrame:
    """A frame of an answer that is an Arrow stream or JSON rows, as the daemon likes."""
    if answer.headers.get("content-type", "").startswith(ARROW):
        return _history_frame(None, answer, query=name, limit=None)
    return _live_frame(name, answer)


def document(answer: HttpAnswer) -> Document:
    found = answer.json() if answer.body else {}
    return Document(found if isinstance(found, dict) else {"result": found})


def _with(call: Call[pd.DataFrame], decode: Callable[[HttpAnswer], pd.DataFrame]) -> Call[pd.DataFrame]:
    return dataclasses.replace(call, decode=decode)


def _live(name: str, endpoint: Endpoint, query: msgspec.Struct | None = None) -> Call[pd.DataFrame]:
    return call(endpoint, query=query, decode=lambda answer: _live_frame(name, answer))


def _live_frame(name: str, answer: HttpAnswer) -> pd.DataFrame:
    body = answer.json()
    rows = body["rows"] if isinstance(body, dict) else body
    return frames.from_rows(rows, LIVE.get(name, ()), meta={"query": name})


def _fault_frame(answer: HttpAnswer) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for drill in answer.json()["rows"]:
        for rule in drill["rules"] or ({"fault": None},):
            happened = drill["requests"].get(rule["fault"], 0) if rule["fault"] else None
            rows.append(
                {
                    "profile": drill["profile"],
                    "fault": rule["fault"],
                    "happened": happened,
                    "count": rule.get("count"),
                    "probability": rule.get("probability", 1.0),
                    "model": rule.get("model", "*"),
                    "passed": drill["requests"].get("passed", 0),
                    "url": drill["url"],
                }
            )
    return frames.from_rows(rows, LIVE["faults"], meta={"query": "faults"})


def _changed(frame: pd.DataFrame) -> pd.DataFrame:
    attrs = frame.attrs
    kept = frame[frame["source"] != "default"].reset_index(drop=True)
    kept.attrs.update(attrs)
    return kept


def _names(by: str | Sequence[str]) -> str:
    """What to group by, with commas between.

    Raises:
        UsageError: nothing is named. Names are checked where the rows are.
    """
    names = [name.strip() for name in (by.split(",") if isinstance(by, str) else by)]
    if not any(names):
        raise UsageError(problem="`by` names nothing to group by", field="by", remedy="For example `profile,hour`.")
    return ",".join(name for name in names if name)


def _history_frame(
    table: str | None,
    answer: HttpAnswer,
    *,
    query: str,
    limit: int | None,
    is_newest_first: bool = True,
    source: str | None = None,
) -> pd.DataFrame:
    header = answer.headers.get(META_HEADER.lower())
    told = msgspec.json.decode(header) if header else {}
    meta = {"store": told.get("store"), "commit": told.get("commit"), "query": query, "truncated": False}
    if source is not None:
        meta["asked_source"] = source
    if told.get("stored_until") is not None:
        until = EPOCH + dt.timedelta(microseconds=told["stored_until"])
        told["stored_until"] = until.isoformat(timespec="milliseconds")
    arrow = frames.read_arrow(answer.body)
    if told.get("commit") is not None or told.get("source"):
        # what was read at a pin, or of a source, is the same for ever, and can be checked by this
        names = [column.name for column in columns(table)] if table in TABLES else None
        told |= {"digest": digest(arrow, names), "frame_version": FRAME_VERSION}
    frame = frames.from_arrow(arrow, table=table if table in TABLES else None, meta=meta | told)
    if limit is not None and len(frame) > limit:
        frame = frame.iloc[:limit]
        frame.attrs["truncated"] = True
    if limit is not None and is_newest_first:
        frame = frame.iloc[::-1]  # asked newest first, so that the newest are kept; every frame is oldest first
    return frame.reset_index(drop=True)


def _told(frame: str, given: tuple[tuple[str, str], ...]) -> str:
    """The query in words, for provenance."""
    return " ".join([frame, *(f"{name}={value}" for name, value in given if name != "newest")])


def _window(since: times.When | None, between: Window | None) -> tuple[int | str | None, int | str | None]:
    if between is None:
        return (None if since is None else times.to_us(since)), None
    if since is not None:
        raise UsageError(problem="`since` and `between` exclude each other", field="between")
    try:
        first, last = between
    except (TypeError, ValueError):
        raise UsageError(problem="`between` is a pair of times", field="between") from None
    begin, end = (times.to_us(when, field="between") for when in (first, last))
    if end == "all" or (begin != "all" and begin > end):
        raise UsageError(problem=f"{between[1]!r} is not after {between[0]!r}", field="between")
    return begin, end


def one_more(limit: int | None) -> int | None:
    """How many rows to ask for: one more than wanted tells whether the frame is cut."""
    if limit is None:
        return None
    if limit < 1:
        raise UsageError(problem=f"limit {limit} is not a positive number", field="limit")
    if limit >= history_routes.MAX_ROWS:
        most = history_routes.MAX_ROWS - 1
        raise UsageError(problem=f"limit {limit} is more rows than can be counted: {most}", field="limit")
    return limit + 1


def _messages(prompt: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    if not isinstance(prompt, list | tuple):
        raise UsageError(problem=f"a prompt is text or a list of messages, not {type(prompt).__name__}", field="prompt")
    if not prompt:
        raise UsageError(problem="the prompt is empty", field="prompt", remedy="Say what to ask.")
    for index, message in enumerate(prompt):
        if not isinstance(message, Mapping) or "role" not in message:
            raise UsageError(
                problem=f"message {index} is not a mapping with a role",
                field="messages",
                remedy='A message is {"role": "user", "content": "…"}.',
            )
    return [dict(message) for message in prompt]


def caller_name() -> str:
    """What asks: `kernel` inside IPython, else `python`."""
    ipython = sys.modules.get("IPython")
    return "kernel" if ipython is not None and ipython.get_ipython() is not None else "python"


def by(question: Ask, caller: str, records: bool = False) -> Ask:
    """The same question, with who asks, and whether all that it asks is recorded."""
    return msgspec.structs.replace(question, caller=caller, record=question.record or records)
