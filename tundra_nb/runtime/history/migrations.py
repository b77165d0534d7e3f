"""Changes of the schema: numbered, forward only, the same on both engines.

A migration is worked out on a branch of its own and merged into `main` as one commit, so that `main` is whole at any
moment: when a statement fails, or the process dies half-way, nothing has changed, and rows that other daemons store
meanwhile are not touched. The tags `schema-N-before` and `schema-N-after` stand beside it for good. The branch is
deleted last: where it still exists, somebody was interrupted.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from tundra_nb.errors import StoreBusy, StoreDamaged, StoreUnavailable, TundraError

from . import schema
from .values import Merge, RefInfo

log = logging.getLogger("tundra.history")

BRANCH = "tundra_migrating"


class Migration(NamedTuple):
    """What leads to schema `number` from the one before: literal statements, in order, for each engine."""

    number: int
    title: str
    doltlite: tuple[str, ...]
    dolt: tuple[str, ...]


_DOLTLITE = {
    "id": "INTEGER",
    "int": "INTEGER",
    "float": "REAL",
    "text": "TEXT",
    "long_text": "TEXT",
    "time": "INTEGER",
    "category": "TEXT",
}
_DOLT = {
    "id": "BIGINT",
    "int": "BIGINT",
    "float": "DOUBLE",
    "text": "VARCHAR(255)",
    "long_text": "LONGTEXT",
    "time": "BIGINT",
    "category": "VARCHAR(255)",
}
_SCHEMA_2 = """
ALTER TABLE operation ADD COLUMN asked {category}
ALTER TABLE operation ADD COLUMN dialect {category}
ALTER TABLE operation ADD COLUMN way {category}
ALTER TABLE operation ADD COLUMN dropped {text}
ALTER TABLE operation ADD COLUMN client {category}
ALTER TABLE operation ADD COLUMN retry_count {int}
ALTER TABLE operation ADD COLUMN trace_id {text}
ALTER TABLE operation ADD COLUMN parent_span_id {text}
ALTER TABLE operation ADD COLUMN run_id {id}
ALTER TABLE operation ADD COLUMN writer_id {category}
ALTER TABLE attempt ADD COLUMN writer_id {category}
ALTER TABLE limit_event ADD COLUMN writer_id {category}
ALTER TABLE breaker_event ADD COLUMN writer_id {category}
ALTER TABLE session_event ADD COLUMN writer_id {category}
ALTER TABLE error_event ADD COLUMN writer_id {category}
ALTER TABLE exchange ADD COLUMN recording {text}
ALTER TABLE exchange ADD COLUMN sha256 {text}
ALTER TABLE exchange ADD COLUMN request_bytes {int}
ALTER TABLE exchange ADD COLUMN response_bytes {int}
ALTER TABLE exchange ADD COLUMN writer_id {category}
ALTER TABLE note ADD COLUMN writer_id {category}
ALTER TABLE imported_log ADD COLUMN writer_id {category}
ALTER TABLE setting ADD COLUMN writer_id {category}
ALTER TABLE profile ADD COLUMN writer_id {category}
ALTER TABLE price ADD COLUMN writer_id {category}
CREATE TABLE connection_event (connection_event_id {id} PRIMARY KEY, at {time} NOT NULL, pty_id {category},
  peer {category} NOT NULL, old_state {category}, new_state {category} NOT NULL, reason {category} NOT NULL,
  bytes_missed {int} NOT NULL, viewer {text}, close_code {int}, code {category}, message {long_text},
  writer_id {category})
CREATE TABLE incident (incident_id {id} PRIMARY KEY, at {time} NOT NULL, title {text} NOT NULL, since {time}
  NOT NULL, until {time} NOT NULL, ref {text} NOT NULL, state {category} NOT NULL, author {category} NOT
  NULL, notebook {long_text} NOT NULL, frame_version {int}, digests {long_text}, reason {long_text},
  writer_id {category})
CREATE TABLE writer (writer_id {text} PRIMARY KEY, at {time} NOT NULL, host {category} NOT NULL, user_name
  {category}, data_dir {text}, node {int} NOT NULL, started_at {time}, seen_at {time}, version {text},
  clock_step_ms {int})
CREATE TABLE agent_run (run_id {id} PRIMARY KEY, at {time} NOT NULL, agent {category} NOT NULL, question
  {long_text} NOT NULL, ref {text}, profile {category}, model {category}, outcome {category} NOT NULL,
  stopped {category}, steps {int} NOT NULL, operations {int} NOT NULL, input_tokens {int}, output_tokens
  {int}, cost_usd {float}, budget_usd {float}, seconds {float}, findings {long_text}, user_name {category},
  caller {category}, message {long_text}, writer_id {category})
CREATE TABLE agent_step (agent_step_id {id} PRIMARY KEY, at {time} NOT NULL, run_id {id} NOT NULL, seq {int}
  NOT NULL, kind {category} NOT NULL, tool {category}, arguments {long_text}, outcome {category} NOT NULL,
  operation_id {id}, rows_found {int}, answer_chars {int}, seconds {float}, message {long_text}, writer_id
  {category})
"""


def _statements(text: str, kinds: dict[str, str]) -> tuple[str, ...]:
    """A migration's text with an engine's words for the types; an indented line goes on with the one before."""
    joined = text.strip().replace("\n  ", " ")
    return tuple(line.format_map(kinds) for line in joined.splitlines())


MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        2,
        "who wrote it, how a call came in, connections, incidents, agents",
        _statements(_SCHEMA_2, _DOLTLITE),
        _statements(_SCHEMA_2, _DOLT),
    ),
)
"""`schema` describes the newest tables; a new database begins there and needs none of these. Schema 1 is the first.
What stands here is literal and never changes, whatever `schema` says later."""


class Migratable(Protocol):
    """What `migrate` needs of a store; of `EventStore` but for `schema_version` and `change`."""

    @property
    def engine(self) -> str: ...
    def schema_version(self) -> int:
        """Which schema the tables on `main` have."""
        ...

    def change(self, branch: str, statements: Sequence[str], message: str) -> None:
        """Run statements on a branch, and commit there what they did."""
        ...

    def commit(self, message: str, author: str, *, allow_empty: bool = True) -> str | None: ...
    def branch(self, name: str, ref: str = "HEAD", *, delete: bool = False) -> None: ...
    def tag(self, name: str, ref: str = "HEAD", message: str = "", *, delete: bool = False) -> None: ...
    def merge(self, branch: str, message: str, author: str) -> Merge: ...
    def refs(self) -> list[RefInfo]: ...


def migrate(store: Migratable) -> None:
    """Bring an open store to this program's schema; one that was interrupted is finished or begun again.

    Raises:
        StoreDamaged: a step failed; the history is as it was before it.
        StoreUnavailable, StoreBusy: the database went away; calling again goes on.
    """
    version = store.schema_version()
    if any(ref.name == BRANCH and ref.kind == "branch" for ref in store.refs()):
        log.warning("a migration was interrupted; the history has schema %d", version)
        if any(ref.name == f"schema-{version}-before" for ref in store.refs()):  # else it began with this schema
            _tag(store, f"schema-{version}-after", is_moved=False)
        store.branch(BRANCH, delete=True)
    for migration in MIGRATIONS:
        if migration.number > version:
            _step(store, migration)


def _step(store: Migratable, migration: Migration) -> None:
    number = migration.number
    statements = migration.dolt if store.engine == "dolt" else migration.doltlite
    message = f"Migrate to schema {number}: {migration.title}"
    store.commit(f"Before schema {number}", schema.AUTHOR, allow_empty=False)
    _tag(store, f"schema-{number}-before", is_moved=True)
    store.branch(BRANCH)
    try:
        note = f"UPDATE meta SET content = '{number}' WHERE name = 'schema_version'"  # noqa: S608 - a number of ours
        store.change(BRANCH, [*statements, note], message)
        if store.merge(BRANCH, message, schema.AUTHOR).conflicts:
            raise StoreDamaged(problem="rows that were stored meanwhile contradict it", kind="migration")
    except (StoreUnavailable, StoreBusy):
        raise
    except TundraError as exc:
        store.branch(BRANCH, delete=True)
        raise StoreDamaged(
            problem=f"the history cannot be brought to schema {number} ({migration.title}): {exc.message}",
            remedy="It is unchanged: the tundra_nb that wrote it can use it. Install that one again, and report this.",
            kind="migration",
        ) from exc
    _tag(store, f"schema-{number}-after", is_moved=False)
    store.branch(BRANCH, delete=True)
    log.info("%s", message)


def _tag(store: Migratable, name: str, *, is_moved: bool) -> None:
    if any(ref.name == name and ref.kind == "tag" for ref in store.refs()):
        if not is_moved:
            return
        store.tag(name, delete=True)
    store.tag(name)
