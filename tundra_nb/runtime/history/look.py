"""What a history's file holds while no daemon has it: `python -m tundra_nb.runtime.history.look FILE`.

It opens the file for reading, in a process of its own because the embedded engine cannot live in the caller's, and
writes one JSON object to standard output: `schema`, `commits`, `is_whole` (False when there was no time to test all of
it), or `error`, an error in its wire form.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from tundra_nb.errors import StoreDamaged, StoreUnavailable, TundraError

from . import loading

LEAST_BYTES = 16
TEST_SECONDS = 4.0
"""So long the pages of the file are tested; a large file takes longer than anybody waits."""
STEPS = 10_000
"""Instructions of the engine between two looks at the time."""


def look(file: Path) -> dict[str, Any]:
    """Open a history for reading and test it.

    Raises:
        StoreDamaged: it is no history, damaged, or of a newer version.
        StoreUnavailable: it cannot be opened, or somebody else has it.
        ConfigError: the embedded engine cannot be loaded here.
    """
    loading.load()
    import sqlite3  # the engine has just been put under it

    from . import length
    from .doltlite import integrity
    from .readers import refuse_other
    from .rules import refuse_newer

    refuse_other(file)
    size = file.stat().st_size
    if words := length.cut(file) or ("" if size >= LEAST_BYTES else f"it is only {size} bytes long"):
        raise StoreDamaged(problem=f"{file} is damaged, or not a history: {words}", kind="corrupt")
    db = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)
    try:
        (commits,) = db.execute("SELECT count(*) FROM dolt_log").fetchone()
        ((schema,),) = db.execute("SELECT content FROM meta WHERE name = 'schema_version'").fetchall()
        refuse_newer(int(schema))
        until = time.monotonic() + TEST_SECONDS
        db.set_progress_handler(lambda: time.monotonic() > until, STEPS)
        try:
            problems, is_whole = integrity(db), True
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorname != "SQLITE_INTERRUPT":
                raise
            problems, is_whole = [], False
        if problems:
            raise StoreDamaged(problem=f"{file} is damaged: {problems[0]}", kind="corrupt")
    except sqlite3.Error as exc:
        name = str(getattr(exc, "sqlite_errorname", ""))
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_IOERR")):
            raise StoreUnavailable(problem=f"{file} cannot be read: {exc}", kind="file") from exc
        raise StoreDamaged(problem=f"{file} is damaged, or not a history: {exc}", kind="corrupt") from exc
    finally:
        db.close()
    return {"schema": int(schema), "commits": commits, "is_whole": is_whole}


def main() -> None:
    try:
        told = look(Path(sys.argv[1]))
    except TundraError as error:
        told = {"error": error.to_wire()}
    sys.stdout.write(msgspec.json.encode(told).decode() + "\n")


if __name__ == "__main__":
    main()
