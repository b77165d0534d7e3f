"""Values that cross rooms, and the glossary.

- **provider**: a company or server that answers (Anthropic, a local llama.cpp).
- **model**: what a provider runs. Its **price** is what a million of its tokens cost.
- **profile**: one named way to reach one model: provider + model + key name + priority. Limiter, breaker and router
  work on profiles.
- **operation**: one call as the caller sees it. It has one or more **attempts**, each at one profile. An **exchange**
  is the recording of one attempt: what was sent and what came back.
- **limiter**: token **buckets** over **tiers** (global, user, profile) and **resources** (requests, tokens).
- **breaker**: Closed, Open, HalfOpen; one per profile.
- **router**: decides after a failed attempt whether to repeat it, to ask the next profile, or to give up.
- **error**: one class of the tree in `tundra_nb.errors`, with its code.
- **spool**: the daemon's append-only log of events; the **store worker** follows it into the **store** (the database).
- **commit**, **ref**, **pin**: a state of the store, a name for one, a name that will not change.
- **frame version**: the columns that a frame had when it was pinned. Columns are only added, at the end, and may be
  empty, so that a version is a number of columns (`columns(table, version)`).
- **writer**: one daemon as the author of rows. `writer_id` stands in each row; the store worker fills it in.
- **setting**: one value of the configuration by its dotted path, with where it came from.
- **note**: what a person wrote into the history.
- **PTY**: one pseudo-terminal with the **session** of processes in it. A **connection** is one viewer of it, or one
  client's line to the daemon.
- **incident**: a title, a window, a pin and a notebook that tells what happened.
- **source**: a read-only store of **imported** records of other programs and machines, beside the own history.
- **agent**: a program that asks a model what to look at next. One **run** of it has steps.
- **client**, **daemon**, **bridge**: who asks, the one process per data directory that answers, and the Jupyter server
  extension between them.

One class name stands for one thing in the whole package. Where a client and its daemon show the same thing at the two
ends of a line, both classes have its name: they are listed, each with its reason, in the test of this page.

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
    TEAM_TABLES,
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
    stable_id,
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
    "TEAM_TABLES",
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
    "stable_id",
]
