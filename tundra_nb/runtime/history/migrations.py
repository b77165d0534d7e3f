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
from .contract import Merge, RefInfo

log = logging.getLogger("tundra.history")

BRANCH = "tundra_migrating"


class Migration(NamedTuple):
    """What leads to schema `number` from the one before: literal statements, in order, for each engine."""

    number: int
    title: str
    doltlite: tuple[str, ...]
    dolt: tuple[str, ...]


MIGRATIONS: tuple[Migration, ...] = ()
"""`schema` describes the newest tables; a new database begins there and needs none of these. Schema 1 is the first."""


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
        if version > 1:
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
