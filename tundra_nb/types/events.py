"""Events: rows of the history tables, and the marks that only the spool holds."""

from __future__ import annotations

import msgspec

from tundra_nb.errors import Severity

from .columns import Category, Column, Id, LongText, Text, Time, columns_of
from .words import BreakerState, Decision, Outcome, PtyState, Resource, Tier


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


class Exchange(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """Request and response text of one attempt, redacted; only when `record.content` asks for it."""

    exchange_id: Id
    at: Time
    operation_id: Id
    attempt_id: Id
    request: LongText
    response: LongText


class Note(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """An annotation by a person, on an operation, an error or the history as a whole."""

    note_id: Id
    at: Time
    author: Category
    subject: Text
    """What it is about: an id, a code, or empty."""
    body: LongText


class ImportedLog(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """A log line taken over from another program."""

    imported_log_id: Id
    at: Time
    origin: Category
    severity: Category
    logger: Category
    message: LongText


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


class AttemptOpened(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """Spool mark: a request is about to be sent; its `Attempt` row follows, or `interrupted` at the next start."""

    attempt_id: Id
    operation_id: Id
    seq: int
    at: Time
    profile: str
    model: str | None = None


Event = Row | OperationOpened | AttemptOpened
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
}
"""History table by name."""
VERSIONED_TABLES = ("setting", "profile", "price")
"""Tables whose rows change in place; all others only grow."""
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
}
"""History table by the name that magics and the HTTP API use."""
_COLUMNS = {name: columns_of(row) for name, row in TABLES.items()}


def columns(table: str) -> tuple[Column, ...]:
    """The columns of a history table, in order."""
    return _COLUMNS[table]
