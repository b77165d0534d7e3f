"""A Dolt server of our own for one data directory: set up, started, stopped, asked whether it runs.

It lives in `dolt/` of the data directory: configuration, data, log, logins (0600). It listens on the loopback only,
takes no files (`secure_file_priv`), and outlives the command that started it. Works without a daemon and without the
runtime: everything here is the standard library, psutil and the `dolt` binary.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import msgspec
import psutil

from tundra_nb import paths
from tundra_nb.errors import ConfigError, StoreDamaged, StoreError, StoreUnavailable
from tundra_nb.paths import Paths
from tundra_nb.protocol import greeting
from tundra_nb.settings import StoreSettings, store_login

START_SECONDS = 20.0
DAMAGE = re.compile(r"Failed to load database|corrupt|malformed database|root hash doesn't exist")
"""How a server that does not start says that the files of a database are damaged."""
STOP_SECONDS = 20.0
FORCE_SECONDS = 3.0
"""So long a server has to end in order before it is killed, where that was asked for."""
CONNECT_SECONDS = 2.0
MOST_CONNECTIONS = 1000
"""Most connections of a shared server: each daemon holds one that writes, and one for each query under way."""
LOGINS = ".doltcfg/privileges.db"
"""Where Dolt keeps its users, in the folder of its data."""
BACKUP = "history.dolt"
"""What a backup is called in its folder."""
LOCAL = ("127.0.0.1", "localhost", "::1")
GET = "https://docs.dolthub.com/introduction/installation"


class DoltStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Whether our server runs. `answers`: somebody listens on its port; `greeting`: with which version."""

    running: bool
    pid: int | None
    host: str
    port: int
    database: str
    folder: str
    answers: bool
    greeting: str
    binary: str | None


def status(where: Paths, store: StoreSettings) -> DoltStatus:
    """Look; nothing is changed."""
    process = _process(where)
    version = greeting.ask(store.host, store.port)
    return DoltStatus(
        running=process is not None,
        pid=process.pid if process else None,
        host=store.host,
        port=store.port,
        database=store.database,
        folder=str(where.dolt),
        answers=version is not None,
        greeting=version or "",
        binary=shutil.which("dolt"),
    )


def start(where: Paths, store: StoreSettings) -> DoltStatus:
    """Set the server up when it is not yet, start it, and wait until it answers; nothing happens when it runs.

    Raises:
        ConfigError: no `dolt` binary, or a host that is not this machine.
        StoreUnavailable: the port is taken (says by whom), or the server does not come up (its last words).
        StoreDamaged: the server does not come up because its files are damaged.
    """
    if _process(where) is not None:
        return status(where, store)
    binary = shutil.which("dolt")
    if binary is None:
        raise ConfigError(problem="no `dolt` is on the PATH", remedy=f"Install it: {GET}")
    if store.host not in LOCAL:
        raise ConfigError(
            where="store.host",
            problem=f"{store.host} is another machine",
            remedy="Start the server there, or set store.host to 127.0.0.1.",
        )
    _refuse_taken(store)
    paths.make_private(where.dolt)
    login = store_login.load(where.dolt)
    if login is None:
        login = store_login.make(store.host, store.port, store.database)
        # where a backup is, there was a history: whether it comes back or a new one begins is for people to say
        anew = () if (where.backups / BACKUP).exists() else (f"CREATE DATABASE IF NOT EXISTS `{login.database}`",)
        _set_up(binary, where.dolt, login, *anew)
    elif not (where.dolt / "data" / LOGINS).exists():
        # Its data were deleted. It lets us in again; a new history is begun, or a backup brought back, by who asks for
        # it: what the spool still holds waits for that.
        _set_up(binary, where.dolt, login)
    login = msgspec.structs.replace(login, host=store.host, port=store.port, database=store.database)
    store_login.save(where.dolt, login)
    _write_config(where.dolt, store)
    _launch(binary, where.dolt, store)
    return status(where, store)


def stop(where: Paths, *, force: bool = False) -> int | None:
    """Stop the server in order; return its pid, or None when none ran.

    Args:
        where: whose server.
        force: kill it when it does not end soon; nothing that was acknowledged is lost by that.

    Raises:
        StoreUnavailable: it does not end.
    """
    process = _process(where)
    if process is None:
        return None
    _end(process, where, force=force)
    (where.dolt / "server.pid").unlink(missing_ok=True)
    return process.pid


def _end(process: psutil.Process, where: Paths, *, force: bool) -> None:
    process.terminate()
    if not _has_ended(process, where, FORCE_SECONDS if force else STOP_SECONDS):
        if force:
            process.kill()
        if not force or not _has_ended(process, where, STOP_SECONDS):
            raise StoreUnavailable(
                problem=f"the Dolt server (pid {process.pid}) does not end within {STOP_SECONDS:g} s",
                remedy="`tundra dolt stop --force` kills it; nothing that was acknowledged is lost by that.",
                kind="stop",
            )


def start_anew(where: Paths, store: StoreSettings) -> int | None:
    """Stop and start the server that was started here for these settings, or start it where it has ended by itself.

    Returns:
        The new server's pid; None when the one in use is not ours to start, or was stopped on purpose.

    Raises:
        StoreUnavailable: it does not end, or does not come up.
        StoreDamaged: it does not come up because its files are damaged.
    """
    if store.host not in LOCAL or not (where.dolt / "server.pid").exists() or _port(where) != store.port:
        return None
    if (process := _process(where)) is not None:
        _end(process, where, force=True)  # its pid stays on record, so that a start that fails is tried again
    return start(where, store).pid


def _port(where: Paths) -> int | None:
    """Where the server that was started here listens."""
    try:
        return int(json.loads((where.dolt / "config.yaml").read_text(encoding="utf-8"))["listener"]["port"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _refuse_taken(store: StoreSettings) -> None:
    version = greeting.ask(store.host, store.port)
    if version is None:
        return
    owner = listener(store.port)
    who = f"{greeting.product(version)} {version}".strip() + (f" ({owner})" if owner else "")
    raise StoreUnavailable(
        problem=f"port {store.port} is taken by {who}",
        remedy="`tundra settings set store.port=3308` chooses another one; or stop that program.",
        kind="port_taken",
    )


def listener(port: int) -> str:
    """Name and pid of who listens on a port, as far as we may know."""
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            address = connection.laddr
            if connection.status == psutil.CONN_LISTEN and address and address.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()}, pid {connection.pid}"
    return ""


def _environment(folder: Path) -> dict[str, str]:
    """No keys, no configuration of the user's own Dolt."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TZ", "TMPDIR") if name in os.environ}
    return kept | {"HOME": str(folder), "DOLT_ROOT_PATH": str(folder)}


def _set_up(binary: str, folder: Path, login: store_login.Login, *before: str) -> None:
    """Make its users while no server runs; passwords go by standard input, never by arguments."""
    data = folder / "data"
    data.mkdir(mode=0o700, exist_ok=True)
    env = _environment(folder)
    for name, value in (("user.name", "tundra_nb"), ("user.email", "tundra@localhost"), ("metrics.disabled", "true")):
        _dolt([binary, "config", "--global", "--add", name, value], env, data)
    (folder / "empty").mkdir(mode=0o700, exist_ok=True)
    statements = [
        *before,
        f"CREATE USER IF NOT EXISTS '{login.user}'@'%' IDENTIFIED BY '{login.password}'",
        f"GRANT ALL PRIVILEGES ON *.* TO '{login.user}'@'%' WITH GRANT OPTION",
        f"CREATE USER IF NOT EXISTS '{login.reader}'@'%' IDENTIFIED BY '{login.reader_password}'",
        f"GRANT SELECT ON `{login.database}`.* TO '{login.reader}'@'%'",
    ]
    command = [binary, "--data-dir", str(data), "--doltcfg-dir", str(data / ".doltcfg"), "sql"]
    _dolt(command, env, data, ";\n".join(statements) + ";\n")


def _dolt(command: list[str], env: dict[str, str], folder: Path, text: str = "") -> None:
    done = subprocess.run(
        command, env=env, cwd=folder, input=text, capture_output=True, text=True, check=False, umask=0o077
    )
    if done.returncode != 0:
        raise StoreUnavailable(problem=f"Dolt cannot be set up: {(done.stderr or done.stdout).strip()}", kind="setup")


def _write_config(folder: Path, store: StoreSettings) -> None:
    """JSON is YAML."""
    config = {
        "log_level": "warning",
        "data_dir": str(folder / "data"),
        "cfg_dir": str(folder / "data" / ".doltcfg"),
        "listener": {"host": store.host, "port": store.port, "max_connections": MOST_CONNECTIONS},
        "system_variables": {"secure_file_priv": str(folder / "empty")},
    }
    _write(folder / "config.yaml", json.dumps(config, indent=2))


def _write(file: Path, text: str) -> None:
    """Write a file of ours, readable by its owner only."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    with open(os.open(file, flags, 0o600), "w", encoding="utf-8") as stream:
        stream.write(text)


def _launch(binary: str, folder: Path, store: StoreSettings) -> None:
    log = folder / "server.log"
    written = log.stat().st_size if log.exists() else 0
    with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab") as stream:
        process = subprocess.Popen(
            [binary, "sql-server", "--config", str(folder / "config.yaml")],
            env=_environment(folder),
            cwd=folder / "data",
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            umask=0o077,
        )
    _write(folder / "server.pid", f"{process.pid}\n")
    deadline = time.monotonic() + START_SECONDS
    while not greeting.ask(store.host, store.port):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise _not_started(folder, store, log.read_bytes()[written:].decode("utf-8", "replace"))
        time.sleep(0.05)


def _not_started(folder: Path, store: StoreSettings, said: str) -> StoreError:
    """Why, by the server's last words. It does not start at all when the files of one of its databases are damaged."""
    words = " · ".join(said.strip().splitlines()[-3:]) or "it said nothing"
    if DAMAGE.search(said):
        return StoreDamaged(
            problem=f"the Dolt server finds its files damaged: {words}",
            remedy=f"Move {folder / 'data' / store.database} away, `tundra dolt start`, and `tundra restore` a backup;"
            " what the spool still holds is delivered again.",
            kind="corrupt",
        )
    return StoreUnavailable(
        problem=f"the Dolt server did not start: {words}", remedy=f"Its log is {folder / 'server.log'}.", kind="start"
    )


def _process(where: Paths) -> psutil.Process | None:
    """The server that we started, if it lives: the pid's number alone may belong to another process by now.

    Without the file, which may have been deleted with all its data, it is the process that says it is ours.
    """
    try:
        process = psutil.Process(int((where.dolt / "server.pid").read_text()))
        return process if _is_ours(process, where) else None
    except (OSError, ValueError):
        return next((process for process in psutil.process_iter() if _is_ours(process, where)), None)
    except psutil.Error:
        return None


def _has_ended(process: psutil.Process, where: Paths, timeout: float) -> bool:
    """Wait for its end; one whose parent, a notebook that started it, has not taken note of it has ended, too."""
    deadline = time.monotonic() + timeout
    while _is_ours(process, where):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _is_ours(process: psutil.Process, where: Paths) -> bool:
    try:
        is_it = {"sql-server", str(where.dolt / "config.yaml")} <= {*process.cmdline()}
        return is_it and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
