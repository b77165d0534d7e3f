"""Values that cross rooms, and the glossary.

- **provider**: a company or server that answers (Anthropic, a local llama.cpp).
- **model**: what a provider runs.
- **profile**: one named way to reach one model: provider + model + key name + priority. Limiter, breaker and router
  work on profiles.
- **operation**: one call as the caller sees it. It has one or more **attempts**, each at one profile.
- **limiter**: token buckets over **tiers** (global, user, profile) and **resources** (requests, tokens).
- **breaker**: Closed, Open, HalfOpen; one per profile.
- **spool**: the daemon's append-only log of events; the **store worker** follows it into the **store** (the database).
- **commit**, **ref**, **pin**: a state of the store, a name for one, a name that will not change.
- **PTY**: one pseudo-terminal with the session of processes in it.
- **writer**: one daemon as the author of rows. `writer_id` stands in each row; the store worker fills it in.
- **frame version**: the columns that a frame had when it was pinned. Columns are only added, at the end, and may be
  empty, so that a version is a number of columns (`columns(table, version)`).

Event rows are the columns of the history tables: a field's order is the column's order, its annotation the column's
type (`columns` reads both), so that the database, the Arrow stream and the DataFrame cannot disagree. Times are int64
microseconds since the epoch, UTC. Ids are time-ordered int64 (`tundra_nb.runtime.clock.Ids`).
"""

from __future__ import annotations

from tundra_nb.errors import Severity

from .calls import Ask, Reply, ToolCall, Usage
from .columns import Category, Column, ColumnType, Id, Json, LongText, Text, Time, columns_of
from .events import (
    FRAME_VERSION,
    FRAMES,
    KEY_OF,
    REPLACED_TABLES,
    TABLE_OF,
    TABLES,
    VERSIONED_TABLES,
    AgentRun,
    AgentRunOpened,
    AgentStep,
    Attempt,
    AttemptOpened,
    BreakerEvent,
    ConnectionEvent,
    ErrorEvent,
    Event,
    Exchange,
    ImportedLog,
    IncidentRow,
    LimitEvent,
    Mark,
    NewestId,
    Note,
    Operation,
    OperationOpened,
    Price,
    ProfileRow,
    Row,
    SessionEvent,
    Setting,
    WriterRow,
    columns,
)
from .words import (
    BreakerState,
    ConnectionState,
    Decision,
    IncidentState,
    Outcome,
    ProviderKind,
    PtyState,
    Resource,
    RunOutcome,
    Tier,
)

__all__ = [
    "FRAMES",
    "FRAME_VERSION",
    "KEY_OF",
    "REPLACED_TABLES",
    "TABLES",
    "TABLE_OF",
    "VERSIONED_TABLES",
    "AgentRun",
    "AgentRunOpened",
    "AgentStep",
    "Ask",
    "Attempt",
    "AttemptOpened",
    "BreakerEvent",
    "BreakerState",
    "Category",
    "Column",
    "ColumnType",
    "ConnectionEvent",
    "ConnectionState",
    "Decision",
    "ErrorEvent",
    "Event",
    "Exchange",
    "Id",
    "ImportedLog",
    "IncidentRow",
    "IncidentState",
    "Json",
    "LimitEvent",
    "LongText",
    "Mark",
    "NewestId",
    "Note",
    "Operation",
    "OperationOpened",
    "Outcome",
    "Price",
    "ProfileRow",
    "ProviderKind",
    "PtyState",
    "Reply",
    "Resource",
    "Row",
    "RunOutcome",
    "SessionEvent",
    "Setting",
    "Severity",
    "Text",
    "Tier",
    "Time",
    "ToolCall",
    "Usage",
    "WriterRow",
    "columns",
    "columns_of",
]
