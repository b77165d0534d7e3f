"""Events: rows of the history tables, and the marks that only the spool holds."""

from __future__ import annotations

import hashlib

import msgspec

from tundra_nb.errors import Severity

from .columns import Category, Column, Id, LongText, Text, Time, columns_of
from .words import (
    BreakerState,
    ConnectionState,
    Decision,
    IncidentState,
    Outcome,
    PtyState,
    Resource,
    RunOutcome,
    Tier,
)


class Operation(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """One call, written when it ends. `at` is when it began."""

    operation_id: Id
    at: Time
    kind: Category = "chat"
    requested_model: Category | None = None
    profile: Category | None = None
    """The profile that answered; None when none did."""
    model: Category | None = None
    outcome: Outcome
    code: Category | None = None
    attempts: int = 0
    waited_ms: float = 0.0
    latency_ms: float | None = None
    input_tokens: int | None = None
    """Includes cached tokens."""
    output_tokens: int | None = None
    """Includes reasoning tokens."""
    cost_usd: float | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    price_at: Text | None = None
    """Date of the price table that `cost_usd` was computed with."""
    stop_reason: Category | None = None
    streamed: bool = False
    user_name: Category | None = None
    caller: Category | None = None
    """What asked: kernel, cli, python, gateway."""
    message: LongText | None = None
    retry_after_s: float | None = None
    asked: Category | None = None
    """The profiles that were asked, in order and each once, with commas between them; the first answers for the call
    where none of them did."""
    dialect: Category | None = None
    """The wire form in which the caller spoke: openai-chat, openai-responses, anthropic; None for our own `ask`."""
    way: Category | None = None
    """How a caller's body went on: relayed, translated."""
    dropped: Text | None = None
    """Names of the caller's fields that the other wire form has no word for, with commas between them."""
    client: Category | None = None
    """Name and version of the caller's own library, as it says."""
    retry_count: int | None = None
    """How often that library has sent the same call before, as it says."""
    trace_id: Text | None = None
    parent_span_id: Text | None = None
    """The caller's span, by its W3C `traceparent`; with `-00` behind it where the caller does not sample its trace."""
    run_id: Id | None = None
    """The agent's run that this call belongs to."""
    writer_id: Category | None = None


class Attempt(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """One try at one profile, also one that limiter or breaker refused before anything was sent."""

    attempt_id: Id
    operation_id: Id
    seq: int
    """1 for the first attempt of its operation."""
    at: Time
    profile: Category
    model: Category | None = None
    outcome: Outcome
    reason: Category | None = None
    """Why it ended as it did, one stable word (`tundra_nb.errors.TundraError.reason`), or `answered`."""
    status: int | None = None
    code: Category | None = None
    retry_after_s: float | None = None
    limiter_wait_ms: float = 0.0
    breaker_state: BreakerState | None = None
    """The state in which the breaker let it through, or refused it."""
    first_byte_ms: float | None = None
    latency_ms: float | None = None
    input_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    reasoning_tokens: int | None = None
    stop_reason: Category | None = None
    cause: Category | None = None
    """Why this attempt was made: first, retry, failover, probe."""
    backoff_ms: float = 0.0
    """Pause before it, after the attempt before."""
    bucket_requests: float | None = None
    bucket_tokens: float | None = None
    """Level of the narrowest bucket after the reservation."""
    request_id: Text | None = None
    message: LongText | None = None
    limit_headers: LongText | None = None
    """The provider's rate-limit headers as seen, JSON object of strings."""
    writer_id: Category | None = None


class LimitEvent(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """A wait, refusal, penalty or correction of the limiter; plain admissions are not rows."""

    limit_event_id: Id
    at: Time
    tier: Tier
    limit_key: Category
    resource: Resource
    decision: Decision
    requested: float = 0.0
    remaining: float | None = None
    retry_after_s: float | None = None
    operation_id: Id | None = None
    writer_id: Category | None = None


class BreakerEvent(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """One transition of a breaker, or a profile being parked and unparked (then the states are equal)."""

    breaker_event_id: Id
    at: Time
    profile: Category
    old_state: BreakerState
    new_state: BreakerState
    reason: Category
    failures: int = 0
    operation_id: Id | None = None
    open_until: Time | None = None
    parked: bool = False
    message: LongText | None = None
    writer_id: Category | None = None


class SessionEvent(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """A start, refusal, resize, exit, kill or orphan end of a PTY."""

    pty_id: Category
    at: Time
    command: LongText
    state: PtyState
    pid: int | None = None
    exit_code: int | None = None
    exit_signal: Category | None = None
    bytes_out: int = 0
    seconds: float = 0.0
    event_id: Id
    event: Category
    """started, refused, resized, exited, killed, orphan_ended, lost."""
    message: LongText | None = None
    cwd: LongText | None = None
    user_name: Category | None = None
    writer_id: Category | None = None


class ErrorEvent(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """An error that reached a caller, or that a background part met."""

    error_id: Id
    at: Time
    source: Category
    """The room it came from: providers, limiter, breaker, router, ptys, history, daemon, server, kernel."""
    code: Category
    severity: Severity
    retryable: bool
    message: LongText
    profile: Category | None = None
    operation_id: Id | None = None
    pty_id: Category | None = None
    reason: Category | None = None
    writer_id: Category | None = None


class Exchange(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """Request and response of one attempt, redacted; only when `record.content` asks for it."""

    exchange_id: Id
    at: Time
    operation_id: Id
    attempt_id: Id
    request: LongText = ""
    response: LongText = ""
    """Both texts are empty where the recording's file holds them."""
    recording: Text | None = None
    """The recording's file below `recordings/` in the data directory, with the timing of each piece."""
    sha256: Text | None = None
    """Hash of that file."""
    request_bytes: int | None = None
    response_bytes: int | None = None
    writer_id: Category | None = None


class Note(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """An annotation by a person, on an operation, an error or the history as a whole."""

    note_id: Id
    at: Time
    author: Category
    subject: Text
    """What it is about: an id, a code, or empty."""
    body: LongText
    writer_id: Category | None = None


class ImportedLog(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """A log line taken over from another program."""

    imported_log_id: Id
    at: Time
    origin: Category
    severity: Category
    logger: Category
    message: LongText
    writer_id: Category | None = None


class Setting(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """The value of a setting in force since `at`. Mutable and versioned: `diff` shows what changed."""

    setting_id: Id
    """Stable hash of `path`, so that both engines key alike."""
    path: Text
    value: LongText
    source: Text
    at: Time
    author: Category
    reason: LongText = ""
    writer_id: Category | None = None


class ProfileRow(msgspec.Struct, frozen=True, kw_only=True, tag="Profile", omit_defaults=True):
    """A profile in force since `at`. Mutable and versioned."""

    profile_id: Id
    name: Text
    kind: Category
    base_url: LongText
    model: Category | None = None
    priority: int = 0
    enabled: bool = True
    api_key_env: Text = ""
    rpm: float | None = None
    tpm: float | None = None
    at: Time
    writer_id: Category | None = None


class Price(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """Price of a model in force since `at`, USD per million tokens. Mutable and versioned."""

    price_id: Id
    provider: Category
    model: Text
    input_usd: float | None = None
    output_usd: float | None = None
    cached_usd: float | None = None
    dated: Text = ""
    at: Time
    writer_id: Category | None = None


class ConnectionEvent(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """One transition of a viewer's connection to a PTY, or of a line between the processes that failed."""

    connection_event_id: Id
    at: Time
    pty_id: Category | None = None
    """None when the connection is no terminal's."""
    peer: Category
    """Who is at the other end: lab, kernel, cli, browser, bridge."""
    old_state: ConnectionState | None = None
    """None at the first transition of a connection."""
    new_state: ConnectionState
    reason: Category
    """One stable word: opened, resumed, ping_timeout, closed_by_peer, slow, released …"""
    bytes_missed: int = 0
    """How much of the shown output the viewer never got."""
    viewer: Text | None = None
    """Tells the connections of one PTY apart; a resumed one keeps it."""
    close_code: int | None = None
    """Closing code of the WebSocket."""
    code: Category | None = None
    """TransportError or IpcError, where it was one."""
    message: LongText | None = None
    """What the client saw."""
    writer_id: Category | None = None


class IncidentRow(msgspec.Struct, frozen=True, kw_only=True, tag="Incident", omit_defaults=True):
    """A title, a window, a pin and a notebook. Mutable and versioned."""

    incident_id: Id
    at: Time
    title: Text
    since: Time
    until: Time
    ref: Text
    """The tag of the pin."""
    state: IncidentState = "open"
    author: Category
    notebook: LongText = ""
    """Where it was written; it may have been moved since."""
    frame_version: int | None = None
    """The columns over which the pin's digests are computed."""
    digests: LongText | None = None
    """SHA-256 of each pinned frame, a JSON object by the frame's name."""
    reason: LongText | None = None
    """Why it was closed, or pinned anew."""
    writer_id: Category | None = None


class WriterRow(msgspec.Struct, frozen=True, kw_only=True, tag="Writer", omit_defaults=True):
    """A daemon that writes to this history. One row each, replaced as it is seen again."""

    writer_id: Text
    at: Time
    """When it first wrote here."""
    host: Category
    user_name: Category | None = None
    data_dir: Text | None = None
    """Hash of the data directory's path: a copied directory is another writer."""
    node: int
    """What tells its ids from others'."""
    started_at: Time | None = None
    seen_at: Time | None = None
    version: Text | None = None
    """Version of tundra_nb."""
    clock_step_ms: int | None = None
    """Farthest that a row's id has ever been from its `at`: the clock was set by so much. It only grows."""


class AgentRun(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """One run of an agent, written when it ends. `at` is when it began."""

    run_id: Id
    at: Time
    agent: Category
    """What ran: triage, or the name an agent from outside gives itself."""
    question: LongText
    ref: Text | None = None
    """The pin that it read at."""
    profile: Category | None = None
    model: Category | None = None
    outcome: RunOutcome
    stopped: Category | None = None
    """Why it ended: done, budget, deadline, calls, refused, no_model, error."""
    steps: int = 0
    operations: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    budget_usd: float | None = None
    seconds: float | None = None
    findings: LongText | None = None
    """JSON list of what it found, each with the ids that prove it."""
    user_name: Category | None = None
    caller: Category | None = None
    message: LongText | None = None
    writer_id: Category | None = None


class AgentStep(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """One step of an agent's run: a call of the model, of a tool, or a question to a person."""

    agent_step_id: Id
    at: Time
    run_id: Id
    seq: int
    """1 for the first step of its run."""
    kind: Category
    """model, tool, approval, finding."""
    tool: Category | None = None
    arguments: LongText | None = None
    """JSON object, as the model wrote it."""
    outcome: Category
    """ok, error, refused, denied, struck."""
    operation_id: Id | None = None
    """The model's call, where the step is one."""
    rows_found: int | None = None
    answer_chars: int | None = None
    """Length of the tool's answer, as the model was given it."""
    seconds: float | None = None
    message: LongText | None = None
    writer_id: Category | None = None


Row = (
    Operation
    | Attempt
    | LimitEvent
    | BreakerEvent
    | SessionEvent
    | ErrorEvent
    | Exchange
    | Note
    | ImportedLog
    | Setting
    | ProfileRow
    | Price
    | ConnectionEvent
    | IncidentRow
    | WriterRow
    | AgentRun
    | AgentStep
)
"""What one history table holds a row of."""


class OperationOpened(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """Spool mark: the operation has begun. Without a later `Operation` it becomes `interrupted` at the next start."""

    operation_id: Id
    at: Time
    kind: str = "chat"
    requested_model: str | None = None
    user_name: str | None = None
    caller: str | None = None
    streamed: bool = False
    run_id: int | None = None


class AttemptOpened(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """Spool mark: a request is about to be sent; its `Attempt` row follows, or `interrupted` at the next start."""

    attempt_id: Id
    operation_id: Id
    seq: int
    at: Time
    profile: str
    model: str | None = None
    most_usd: float | None = None
    """What a budget has reserved for it: its cost, should nobody live to learn the real one."""


class NewestId(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """Spool mark at the head of a segment: the highest id of all segments before, which may be gone."""

    newest_id: Id


class AgentRunOpened(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """Spool mark: an agent's run has begun. Its `AgentRun` row follows, or `interrupted` at the next start."""

    run_id: Id
    at: Time
    agent: str
    question: str
    ref: str | None = None
    profile: str | None = None
    budget_usd: float | None = None
    user_name: str | None = None
    caller: str | None = None


Mark = OperationOpened | AttemptOpened | AgentRunOpened
"""What says in the spool that something has begun."""
Event = Row | Mark | NewestId
"""What the spool holds."""
TABLES: dict[str, type[msgspec.Struct]] = {
    "operation": Operation,
    "attempt": Attempt,
    "limit_event": LimitEvent,
    "breaker_event": BreakerEvent,
    "session_event": SessionEvent,
    "error_event": ErrorEvent,
    "exchange": Exchange,
    "note": Note,
    "imported_log": ImportedLog,
    "setting": Setting,
    "profile": ProfileRow,
    "price": Price,
    "connection_event": ConnectionEvent,
    "incident": IncidentRow,
    "writer": WriterRow,
    "agent_run": AgentRun,
    "agent_step": AgentStep,
}
"""History table by name."""
VERSIONED_TABLES = ("setting", "profile", "price", "incident")
"""Tables that people change: rows are replaced in place, and each change is a commit with author and reason."""
REPLACED_TABLES = (*VERSIONED_TABLES, "writer")
"""Tables whose rows are replaced by newer ones of the same key; all others only grow."""
TEAM_TABLES = ("price", "note", "incident", "writer", "imported_log")
"""Where several daemons share a history, rows of these are everybody's; of all other tables each sees its own first."""
TABLE_OF: dict[type[msgspec.Struct], str] = {row: name for name, row in TABLES.items()}
KEY_OF: dict[str, str] = {
    name: next(field for field in row.__struct_fields__ if field.endswith("_id") and field != "pty_id")
    for name, row in TABLES.items()
}
"""Primary key column by table: a time-ordered id, or a stable hash in the versioned tables."""
FRAMES: dict[str, str] = {
    "calls": "operation",
    "attempts": "attempt",
    "limit-history": "limit_event",
    "breaker-history": "breaker_event",
    "pty-history": "session_event",
    "errors": "error_event",
    "notes": "note",
    "connections": "connection_event",
    "incidents": "incident",
    "writers": "writer",
    "agent-runs": "agent_run",
    "agent-steps": "agent_step",
}
"""History table by the name that magics and the HTTP API use."""


def stable_id(*words: str) -> int:
    """The key of a versioned row: the same on every machine and engine. 62 bits of SHA-256."""
    digest = hashlib.sha256("\0".join(words).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 2


_COLUMNS = {name: columns_of(row) for name, row in TABLES.items()}


FRAME_VERSION = 2
"""Which columns frames have today; the schema of the database has the same number."""
_WIDTHS: dict[int, dict[str, int]] = {
    1: {
        "operation": 23,
        "attempt": 28,
        "limit_event": 10,
        "breaker_event": 11,
        "session_event": 14,
        "error_event": 11,
        "exchange": 6,
        "note": 5,
        "imported_log": 6,
        "setting": 7,
        "profile": 11,
        "price": 8,
    }
}
"""How many columns each table had in the frame versions of before."""


def columns(table: str, version: int = FRAME_VERSION) -> tuple[Column, ...]:
    """The columns of a history table, in order; of an earlier frame version, those that it had then (maybe none)."""
    if version >= FRAME_VERSION:
        return _COLUMNS[table]
    return _COLUMNS[table][: _WIDTHS[version].get(table, 0)]
