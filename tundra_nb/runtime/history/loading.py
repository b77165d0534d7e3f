"""Loading doltlite, the embedded engine: every trick of it is in this file.

doltlite replaces the engine under the standard `sqlite3` module of a whole process, by being loaded first. Where
`sqlite3` is loaded already it re-executes the interpreter, and every variable is gone; so it is only ever loaded in the
store worker, before anything there imports `sqlite3`. It marks the environment when loaded; a child that inherits the
mark takes it for done, and silently runs on stock SQLite.
"""

from __future__ import annotations

import os
import sys

from tundra_nb.errors import ConfigError

MARK = "_DOLTLITE_BOOTSTRAPPED"
ENGINE = "prolly"
"""What `doltlite_engine()` answers when it is the one."""


def load() -> None:
    """Load doltlite and prove that `sqlite3` now runs on it.

    Raises:
        ConfigError: this Python cannot (its `sqlite3` is linked statically), or something imported `sqlite3` before.
    """
    if "sqlite3" in sys.modules or "_sqlite3" in sys.modules:
        raise not_loaded("something imported sqlite3 before it")
    os.environ.pop(MARK, None)
    try:
        import doltlite  # noqa: F401 - for what it does to sqlite3
    except Exception as exc:
        raise not_loaded(str(exc) or type(exc).__name__) from exc
    finally:
        os.environ.pop(MARK, None)
    import sqlite3

    db = sqlite3.connect(":memory:")
    try:
        (engine,) = db.execute("SELECT doltlite_engine()").fetchone()
    except sqlite3.Error:
        engine = "stock SQLite"
    finally:
        db.close()
    if engine != ENGINE:
        raise not_loaded(f"sqlite3 still runs on {engine}")


def not_loaded(problem: str) -> ConfigError:
    """Why the embedded engine does not work here, and what does."""
    return ConfigError(
        problem=f"the embedded database engine cannot be loaded in this Python: {problem}",
        where="store.engine",
        remedy=(
            "Use a Python whose sqlite3 is linked to the system's libsqlite3 (Debian's, pyenv's or conda's; not uv's or"
            " python.org's), or set `store.engine` to `dolt` and run Dolt's server."
        ),
    )
