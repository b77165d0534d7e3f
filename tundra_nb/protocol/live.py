"""Rows of what is now: the frames that are not history tables. Their columns follow from these structs (`LIVE`)."""

from __future__ import annotations

from typing import Literal

import msgspec

from tundra_nb.types import BreakerState, Category, Column, Json, ProviderKind, Time, columns_of

ProfileState = Literal["ready", "cooling", "parked", "breaker_open", "disabled"]


class ProviderRow(msgspec.Struct, frozen=True, kw_only=True):
    """A profile with its live state."""

    profile: str
    kind: ProviderKind
    base_url: str | None
    model: str | None
    """As configured, else as chosen from the provider's list."""
    priority: int
    enabled: bool
    state: ProfileState
    reason: str | None
    hint: str | None
    cooling_s: float | None
    cooling_until: Time | None
    key_variable: str | None
    key_present: bool | None
    rpm: float | None
    tpm: float | None


class ModelRow(msgspec.Struct, frozen=True, kw_only=True):
    """A model that a profile can reach, or the problem why its list is not known."""

    profile: Category | None
    model: str | None = None
    available: bool | None = None
    context_tokens: int | None = None
    input_usd_per_mtok: float | None = None
    output_usd_per_mtok: float | None = None
    checked_at: Time | None = None
    problem: str | None = None


class LimitRow(msgspec.Struct, frozen=True, kw_only=True):
    """A bucket of ours (owner `tundra`), or what a provider last told of its own."""

    owner: Category | None
    tier: Category | None
    limit_key: Category | None
    resource: Category | None
    limit: float | None
    remaining: float | None
    per_second: float | None = None
    waiting: int | None = None
    penalised_for_s: float | None = None
    reset_after_s: float | None = None
    told_s_ago: float | None = None
    scope: Category | None = None
    """own: of this daemon; team: shared, as its server told last; share, closed, open: that server is away."""


class BreakerRow(msgspec.Struct, frozen=True, kw_only=True):
    """The breaker of a profile; `open_for_s` counts down to the next probe."""

    profile: str
    state: BreakerState
    open_for_s: float | None
    probe_at: Time | None
    failures: int | None


class SettingRow(msgspec.Struct, frozen=True, kw_only=True):
    """A setting in force, with its default and where its value came from."""

    path: str
    value: Json | None
    default: Json | None
    source: str | None


class KeyRow(msgspec.Struct, frozen=True, kw_only=True):
    """A key variable that profiles name; its value is shown by a salted fingerprint only."""

    variable: str
    profiles: Json | None
    """Their names, a list."""
    present: bool
    fingerprint: str | None


class TokenRow(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway token: what it may do and has spent today; never the token itself."""

    name: str
    state: Literal["valid", "expired", "revoked"]
    profiles: Json | None
    """Names of those that it may use, a list; empty is all."""
    rpm: float | None
    tpm: float | None
    usd_per_day: float | None
    spent_usd: float | None
    """Settled and reserved since 00:00 UTC; None while it has no budget, or nobody has asked."""
    created_at: Time | None
    expires_at: Time | None


class CallerRow(msgspec.Struct, frozen=True, kw_only=True):
    """A program that called the gateway since the daemon's start."""

    by: Category
    """token, or user for who comes by the daemon's own socket."""
    name: Category
    """Name of the token, or the user."""
    client: str
    """Its library and version, as it says."""
    dialect: Category
    calls: int
    running: int
    failed: int
    last_at: Time | None


class FaultRow(msgspec.Struct, frozen=True, kw_only=True):
    """A rule of a fault proxy, or a proxy without one."""

    profile: str
    fault: str | None
    happened: int | None
    count: int | None
    probability: float
    model: str | None
    passed: int
    url: str | None


class PtyRow(msgspec.Struct, frozen=True, kw_only=True):
    """A PTY of the pool."""

    pty_id: str
    at: Time | None
    command: str | None
    state: Category | None
    pid: int | None
    exit_code: int | None
    exit_signal: Category | None
    bytes_out: int | None
    seconds: float | None
    keep: Category | None
    viewers: int | None
    warning: str | None = None


class HitRow(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a transcript that a search found."""

    pty_id: str
    at: Time | None
    line: str
    offset: int
    command: str | None


class LeftRow(msgspec.Struct, frozen=True, kw_only=True):
    """Something that an earlier daemon left behind."""

    kind: Literal["process", "socket", "transcript"]
    name: str
    detail: str


class TimingRow(msgspec.Struct, frozen=True, kw_only=True):
    """When output came, up to which offset, or what size the screen got."""

    seconds: float
    kind: Literal["output", "resize"]
    offset: int | None
    columns: int | None
    rows: int | None


class CommitRow(msgspec.Struct, frozen=True, kw_only=True):
    """A commit of the history."""

    commit: str
    at: Time | None
    author: str | None
    message: str | None
    rows: int | None


class BranchRow(msgspec.Struct, frozen=True, kw_only=True):
    """A branch and the commit it stands on."""

    name: str
    commit: str | None


class TagRow(msgspec.Struct, frozen=True, kw_only=True):
    """A tag and the commit it names."""

    name: str
    commit: str | None


class DiffRow(msgspec.Struct, frozen=True, kw_only=True):
    """How a row differs between two states; `from_…` and `to_…` of each column of its table follow."""

    table: Category | None
    diff_type: Category | None
    from_commit: str | None
    to_commit: str | None


class StatRow(msgspec.Struct, frozen=True, kw_only=True):
    """How many rows of a table differ between two states."""

    table: Category | None
    rows_added: int
    rows_removed: int
    rows_modified: int
    rows_before: int
    rows_after: int


class ConflictRow(msgspec.Struct, frozen=True, kw_only=True):
    """A cell that both sides of a merge changed."""

    table: Category | None
    row_id: str
    name: str | None
    column: Category | None
    base: str | None
    ours: str | None
    theirs: str | None


class ProblemRow(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is wrong with the database."""

    problem: str


class SourceRow(msgspec.Struct, frozen=True, kw_only=True):
    """Records of another program or machine, as they were imported."""

    source: str
    kind: Category
    at: Time
    since: Time | None
    until: Time | None
    rows: int
    lines: int
    left: int
    """Lines or records that were not understood."""
    size_bytes: int
    file: str


ROWS: dict[str, type[msgspec.Struct]] = {
    "faults": FaultRow,
    "providers": ProviderRow,
    "models": ModelRow,
    "limits": LimitRow,
    "breakers": BreakerRow,
    "settings": SettingRow,
    "keys": KeyRow,
    "tokens": TokenRow,
    "callers": CallerRow,
    "ptys": PtyRow,
    "hits": HitRow,
    "left": LeftRow,
    "timing": TimingRow,
    "commits": CommitRow,
    "branches": BranchRow,
    "tags": TagRow,
    "diff": DiffRow,
    "stat": StatRow,
    "conflicts": ConflictRow,
    "check": ProblemRow,
    "sources": SourceRow,
}
"""Struct of a row by the name of its frame."""
LIVE: dict[str, tuple[Column, ...]] = {name: columns_of(row) for name, row in ROWS.items()}
"""Columns of the frames that are not history tables; what the daemon sends beyond them follows."""
