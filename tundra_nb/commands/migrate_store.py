"""`tundra migrate-store`: from the embedded engine to a Dolt server, and `--back` to the schema before."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from tundra_nb import paths, settings
from tundra_nb.errors import InternalError, StoreBusy, TundraError, UsageError, from_wire
from tundra_nb.local import launch
from tundra_nb.settings import file as settings_file
from tundra_nb.settings import store_login
from tundra_nb.views import Message

from .command import Command
from .command import command as _command
from .face import Face, pass_face

MODULE = "tundra_nb.runtime.history.migrate"
BACK = "tundra_nb.runtime.history.back"
MAP = "migrated-commits.json"
BEGUN = "migrating-to"
"""File of the data directory that says in which database a copy has begun, until that is in use."""
LOCK = "migrate-store.lock"


@_command("migrate-store", cls=Command)
@click.option("--back", is_flag=True, help="Set the history back to the schema before, for an older tundra_nb.")
@pass_face
def command(face: Face, back: bool) -> Message:
    """Replay the history of the embedded engine into Dolt, and use Dolt from then on.

    The server is the one that `store.host`, `store.port` and `store.database` name (`tundra dolt start` runs one).
    Messages, authors and dates are kept; the map of the hashes is written into the data directory. The old file stays.

    With `--back`, on either engine, the history becomes what it was before this version changed its tables, so that the
    version before can be installed and use it again. What came since stays on a branch.
    """
    found = face.client.link.paths
    if found is None:
        raise UsageError(problem="TUNDRA_URL is set: the store is that machine's", remedy="Give the command there.")
    with _alone(found.data_dir) as lock:
        return _migrate(face, found, lock, back=back)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[tuple[int, ...]]:
    """While it holds, no other one runs on this data directory; gives the lock, for the process that does the work.

    Raises:
        StoreBusy: another one runs, or what it has begun.
        ConfigError: the file of the lock cannot be opened.
    """
    file = folder / LOCK
    lock: tuple[int, ...] = ()
    with contextlib.ExitStack() as held:
        try:
            import fcntl

            lock = (paths.unwaiting(os.fspath(file), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC),)
            held.callback(os.close, *lock)
            fcntl.flock(*lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreBusy(
                problem="a migration is under way", remedy="Wait for its end. This one did nothing.", kind="migration"
            ) from None
        except (ImportError, FileNotFoundError):
            pass  # no daemon runs on this system, or there is no data directory yet
        except OSError as exc:
            raise paths.unwritable(file, exc) from exc
        yield lock


def _migrate(face: Face, found: paths.Paths, lock: tuple[int, ...], *, back: bool) -> Message:
    file = paths.config_file()
    store = settings.load(file, os.environ).settings.store
    if store.engine == "dolt" and not back:
        raise UsageError(problem="the store is on Dolt already", field="store.engine")
    if store.engine != "dolt" and not found.store.exists():
        raise UsageError(problem=f"there is no history {found.store}", remedy="Set store.engine to dolt; that is all.")
    login = store_login.load(found.dolt)
    password = os.environ.get(store.password_env, "") if store.password_env else ""
    if not password and login is not None and login.fits(store.host, store.port, store.user):
        password = login.password
    setup = {
        "spool": str(found.spool),
        "store": str(found.store),
        "host": store.host,
        "port": store.port,
        "database": store.database,
        "user": store.user,
        "password": password,
        "tls": store.tls,
        "ca_file": store.ca_file,
    }
    if back:
        with _stopped(found, face.name):
            told = _run(BACK, setup | {"engine": store.engine}, face, lock)
        return Message(
            f"The history has schema {told['schema']}; what came since is on the branch {told['kept']}. The daemon is "
            "stopped: install the version before now, as this one would migrate it again."
        )
    target = found.data_dir / MAP
    where = f"{store.host}:{store.port}/{store.database}"
    begun = found.data_dir / BEGUN
    with _stopped(found, face.name):
        mapped = _run(MODULE, setup | {"begun": str(begun)}, face, lock)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with open(os.open(target, flags, 0o600), "w", encoding="utf-8") as stream:
            json.dump(mapped, stream, indent=1)
        settings_file.set_value(file, "store.engine", "dolt", os.environ)
        begun.unlink(missing_ok=True)
    launch.ensure(found, started_by=face.name, explicit=True)
    return Message(f"{len(mapped):,} commits are at {where}, and every table is equal. The map of hashes is {target}.")


@contextlib.contextmanager
def _stopped(where: paths.Paths, by: str) -> Iterator[None]:
    """Stop the daemon for what needs the history alone; what fails leaves it as it was: running, stopped or held."""
    held = paths.read_at_once(where.held) if where.is_held else None
    was_running = False
    try:
        was_running = launch.stop(where) is not None
        launch.mark_held(where, "tundra migrate-store")
        yield
    except BaseException:
        if held is None:
            launch.release(where)
        else:
            with contextlib.suppress(OSError):  # a full disk
                where.held.write_bytes(held)
        if was_running:
            with contextlib.suppress(TundraError):  # what failed first tells more; the next call starts it then
                launch.ensure(where, started_by=by, explicit=True)
        raise


def _run(module: str, setup: dict[str, Any], face: Face, lock: tuple[int, ...]) -> dict[str, Any]:
    """The work, in a process of its own: the embedded engine cannot live in this one.

    It has a session of its own, because the interrupt of a terminal is for this process, which ends it then; and it
    holds the lock too, because where this process is killed it may work on for a moment.
    """
    command = [sys.executable, "-P", "-m", module]
    env = {name: value for name, value in os.environ.items() if name not in ("LD_PRELOAD", "_DOLTLITE_BOOTSTRAPPED")}
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=env,
        pass_fds=lock,
        start_new_session=True,
    ) as process:
        try:
            return _result(process, setup, face)
        except BaseException:
            process.terminate()
            process.wait()
            raise


def _result(process: subprocess.Popen[str], setup: dict[str, Any], face: Face) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(msgspec.json.encode(setup).decode())
    process.stdin.close()
    for line in process.stdout:
        told = json.loads(line)
        if "error" in told:
            raise from_wire(told["error"])
        if (answer := told.get("mapped") or told.get("back")) is not None:
            found: dict[str, Any] = answer
            return found
        if "left_out" in told:
            face.write(f"left out: {told['left_out']}\n")
        elif told["commit"] % 50 == 0 or told["commit"] == told["of"]:
            face.write(f"{told['commit']:,} of {told['of']:,} commits\n")
    raise InternalError(problem=f"the migration ended with exit code {process.wait()}")
