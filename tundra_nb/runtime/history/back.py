"""Sets a history back to the schema before this program's: `python -m tundra_nb.runtime.history.back`.

`main` becomes what the tag `schema-N-before` names, so that the version of tundra_nb that left it can use it again. All
that came since stays on the branch `schema-N-kept`. How far the spool was followed stays as it is. The setup comes as
JSON on standard input, the answer goes as one JSON line to standard output. The daemon must be stopped.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tundra_nb.errors import TundraError, UsageError

from . import loading, schema
from .migrate import Setup
from .protocol import Config
from .spool import identity

if TYPE_CHECKING:
    from .dolt import DoltStore
    from .doltlite import DoltliteStore


class BackSetup(Setup, kw_only=True):
    """Where the history is."""

    engine: str


def back(setup: BackSetup) -> dict[str, Any]:
    """Do it; returns the schema that it has now, and the branch on which the rest is.

    Raises:
        UsageError: the history began with this schema.
    """
    own = identity(Path(setup.spool))
    config = Config(
        **msgspec.structs.asdict(setup),
        owner=own.owner,
        node=own.node,
        commit_rows=1,
        commit_seconds=1,
    )
    store: DoltStore | DoltliteStore
    if setup.engine == "dolt":
        from .dolt import DoltStore

        store = DoltStore(config)
    else:
        loading.load()
        from .doltlite import DoltliteStore

        store = DoltliteStore(Path(config.store))
    store.open(config.owner, config.node)
    try:
        number = store.schema_version()
        before, kept = f"schema-{number}-before", f"schema-{number}-kept"
        names = {ref.name for ref in store.refs()}
        if before not in names:
            raise UsageError(
                problem=f"this history began with schema {number}: there is none before it",
                remedy="`tundra restore` goes back to a backup.",
            )
        store.commit(f"Before going back to schema {number - 1}", schema.AUTHOR, allow_empty=False)
        if kept in names:
            store.branch(kept, delete=True)  # gone back before, and forward again: it holds nothing that main lacks
        store.branch(kept)
        store.reset(before)
    finally:
        store.close()
    return {"schema": number - 1, "kept": kept}


def main() -> int:
    """Run; the exit code is 1 after an error."""
    try:
        told = {"back": back(msgspec.json.decode(sys.stdin.buffer.read(), type=BackSetup))}
    except TundraError as error:
        told = {"error": error.to_wire()}
    sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
    return 1 if "error" in told else 0


if __name__ == "__main__":
    sys.exit(main())
