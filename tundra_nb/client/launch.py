"""Finding the daemon of a data directory, starting it when it is not there, and stopping it.

A daemon is found by the record in its lock file, or by its connection file. Neither is believed: only a socket that
answers is a daemon, so a stale file or a reused pid does no harm. The lock file comes first, because the connection
file of another Jupyter runtime directory may be an older daemon's, with the same socket path.

Starting needs no agreement among clients either: whoever comes second starts a process that sees the lock held, and
goes on waiting for the first one's. Standard library only, and nothing of the daemon: a kernel pays for what it uses.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tundra_nb import paths as places
from tundra_nb._version import API, __version__
from tundra_nb.errors import ConfigError, InternalError, IpcError, TundraError, from_wire
from tundra_nb.paths import Paths

START_SECONDS = 15.0
"""From the start of the process to its first answer; measured: below 1 s, more on a cold or networked disk."""
STOP_SECONDS = 15.0
"""The daemon's own limits add up to 10 s."""
CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 5.0
STARTING_SECONDS = 0.3
"""A daemon that is starting lets callers wait; whoever only wants to know its state does not."""
POLL_SECONDS = 0.02
JUST_SECONDS = 3.0
PROGRESS_SECONDS = 1.0
TAIL_LINES = 12
TAIL_BYTES = 32768
STARTS = 2
"""A second start is tried when the daemon that was in the way has ended meanwhile."""
START_ERROR = "TUNDRA-START-ERROR "
"""As in `tundra_nb.daemon.serve`, which the client may not import."""
NOT_PASSED_ON = ("TUNDRA_URL", "TUNDRA_TOKEN", "JPY_PARENT_PID", "JPY_SESSION_NAME", "MPLBACKEND")
"""Variables that belong to one kernel and would mislead the daemon and what runs in its PTYs."""

Progress = Callable[[float], None]
_started: list[subprocess.Popen[bytes]] = []
"""Processes started here; kept so that they are reaped when they have ended."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Connection:
    """How to reach a daemon: by its Unix socket, or through a Jupyter server's URL."""

    socket: str | None = None
    url: str | None = None
    token: str | None = dataclasses.field(default=None, repr=False)
    pid: int = 0
    host: str = ""
    version: str = ""
    api: int = API


def find(paths: Paths, *, environ: Mapping[str, str] | None = None) -> Connection | None:
    """The running daemon, None when there is none. It is not started and not asked for its version.

    `TUNDRA_URL` and `TUNDRA_TOKEN` in `environ` (default: the process's own) name a Jupyter server instead.
    """
    env = os.environ if environ is None else environ
    if url := env.get("TUNDRA_URL"):
        return Connection(url=url, token=env.get("TUNDRA_TOKEN"))
    return next((record for record in _records(paths) if _listens(record)), None)


def ensure(
    paths: Paths,
    start: bool = True,
    *,
    started_by: str = "kernel",
    explicit: bool = False,
    on_wait: Progress | None = None,
    environ: Mapping[str, str] | None = None,
    command: Sequence[str] | None = None,
    timeout: float = START_SECONDS,
) -> Connection:
    """The running daemon, started if need be; blocks until it answers.

    Args:
        paths: whose daemon.
        start: start it when it is not there, replace it when it is idle and of another API version.
        started_by: who starts it: kernel, cli, server …
        explicit: a person asked for the start, so that it also happens after `tundra daemon stop`.
        on_wait: called with the seconds waited, after the first second and then each second.
        environ: the environment of the daemon; default: the process's own.
        command: what starts a daemon; for tests.
        timeout: seconds until it must answer.

    Raises:
        IpcError: absent and `start` is False, stopped on purpose, of another version, on another host, died while
            starting (with the end of its log), or not ready in time.
        TundraError: the error for which it could not start, such as a ConfigError with file and line.
    """
    _reap()
    env = os.environ if environ is None else environ
    found = find(paths, environ=env)
    if found is not None and found.url is None and found.api != API:
        found = _replaced(paths, found, start=start)
    if found is None:
        if not start:
            raise _absent(paths)
        if paths.held.exists() and not explicit:
            raise IpcError(
                kind="stopped",
                problem="the daemon was stopped with `tundra daemon stop`, and is not started by itself",
                remedy="`tundra daemon start` brings it back.",
            )
    elif found.url or not _is_starting(paths):
        return found
    starter = _Starter(paths, started_by, explicit, env, command) if start else None
    return _until_ready(paths, starter, timeout, on_wait)


def stop(paths: Paths, *, force: bool = False, hold: bool = True, timeout: float = STOP_SECONDS) -> Connection | None:
    """Stop the daemon and wait until its process has gone.

    Args:
        paths: whose daemon.
        force: do not wait for calls in flight; a daemon that does not answer is killed.
        hold: it stays stopped until somebody starts it explicitly, also when none was running. Without `hold` and
            `force` the daemon refuses while somebody else uses it.
        timeout: seconds until it must be gone.

    Returns:
        The daemon that was stopped; None when none was running.

    Raises:
        IpcError: it is in use, or does not end.
    """
    found = find(paths, environ={})
    if hold and paths.data_dir.is_dir() and (found is None or _is_starting(paths)):
        paths.held.write_text(json.dumps({"at": time.time(), "by": "tundra daemon stop"}), encoding="utf-8")
    if found is None:
        return None
    deadline = time.monotonic() + timeout
    if _is_starting(paths):
        _signal(found, signal.SIGTERM)
    else:
        _ask_to_stop(found, force=force, hold=hold, timeout=min(timeout, CONNECT_SECONDS if force else ANSWER_SECONDS))
    while _is_alive(found):
        if time.monotonic() > deadline:
            if force and _signal(found, signal.SIGKILL):
                deadline += CONNECT_SECONDS
                force = False
                continue
            raise IpcError(
                kind="refused",
                problem=f"the daemon (pid {found.pid}) has not ended within {timeout:g} s",
                remedy="`tundra daemon stop --force` kills it.",
            )
        time.sleep(POLL_SECONDS)
    _reap()
    return found


def status(paths: Paths) -> dict[str, Any]:
    """What `tundra daemon status` shows; never starts anything.

    At least `running`, `state` (running, starting, hung, stopped, held), `pid`, `socket`, `version`, `engine`,
    `data_dir`; the daemon's own brief status beside it when it answers.
    """
    found = find(paths, environ={})
    told: dict[str, Any] = dict.fromkeys(("pid", "socket", "version", "engine", "api", "host"))
    told |= {"running": found is not None, "data_dir": str(paths.data_dir), "log": str(paths.log)}
    if found is None:
        return {**told, "state": "held" if paths.held.exists() else "stopped"}
    for name in ("pid", "socket", "version", "api", "host"):
        told[name] = getattr(found, name)
    is_starting = _is_starting(paths)
    answer = _status(found, STARTING_SECONDS if is_starting else ANSWER_SECONDS)
    if answer is None:
        return {**told, "state": "starting" if is_starting else "hung"}
    return {**told, **answer, "running": True, "state": "running"}


# --- what is there --------------------------------------------------------------------------------------------------


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _records(paths: Paths, *, ended: bool = False) -> Iterator[Connection]:
    for file in (paths.lock, paths.connection_file):
        record = _read(file)
        if record.get("state") == "stopping" and not ended:
            continue
        with contextlib.suppress(KeyError, TypeError, ValueError):
            yield Connection(
                socket=str(record["socket"]),
                pid=int(record["pid"]),
                host=str(record["host"]),
                version=str(record["version"]),
                api=int(record["api"]),
            )


def _is_starting(paths: Paths) -> bool:
    return _read(paths.lock).get("state") == "starting"


def _is_just_starting(paths: Paths) -> bool:
    """Another client's daemon has the lock and does not listen yet. It only saves a process: a reused pid is no harm."""
    record = _read(paths.lock)
    if record.get("state") != "starting" or record.get("host") != socket.gethostname():
        return False
    try:
        os.kill(int(record["pid"]), 0)
        return bool(time.time() - float(record["started_at"]) < JUST_SECONDS)
    except (OSError, KeyError, TypeError, ValueError):
        return False


def _connected(connection: Connection, timeout: float) -> socket.socket:
    if not hasattr(socket, "AF_UNIX"):
        raise ConfigError(
            problem="the daemon needs Unix sockets, which this platform lacks",
            remedy="Work inside WSL2, or set TUNDRA_URL and TUNDRA_TOKEN to reach a Jupyter server that has one.",
        )
    assert connection.socket is not None
    owner = os.stat(connection.socket).st_uid
    if owner != os.geteuid():
        raise IpcError(
            kind="refused",
            problem=f"{connection.socket} belongs to uid {owner}, not to you",
            remedy="Each user has a daemon of their own: check TUNDRA_DATA_DIR, and whether sudo is in the way.",
        )
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connected.settimeout(timeout)
        connected.connect(connection.socket)
    except BaseException:
        connected.close()
        raise
    return connected


def _listens(connection: Connection) -> bool:
    try:
        _connected(connection, CONNECT_SECONDS).close()
    except (TimeoutError, BlockingIOError):
        return True  # its queue of connections is full
    except OSError:
        return False
    return True


class _Http(http.client.HTTPConnection):
    def __init__(self, to: Connection, timeout: float) -> None:
        super().__init__("tundra", timeout=timeout)
        self._to = to
        self._seconds = timeout

    def connect(self) -> None:
        self.sock = _connected(self._to, self._seconds)


def _request(
    to: Connection, method: str, path: str, body: Any = None, timeout: float = ANSWER_SECONDS
) -> tuple[int, dict[str, Any]]:
    connection = _Http(to, timeout)
    try:
        payload = None if body is None else json.dumps(body)
        connection.request(method, path, payload, {"Content-Type": "application/json", "Connection": "close"})
        answer = connection.getresponse()
        found = json.loads(answer.read())
    except ValueError as exc:
        raise http.client.HTTPException(f"the answer is not JSON: {exc}") from exc
    finally:
        connection.close()
    return answer.status, found if isinstance(found, dict) else {}


def _status(connection: Connection, timeout: float) -> dict[str, Any] | None:
    try:
        code, body = _request(connection, "GET", "/api/status?brief=1", timeout=timeout)
    except (OSError, http.client.HTTPException):
        return None
    return body if code == 200 else None


def _absent(paths: Paths) -> IpcError:
    here = socket.gethostname()
    elsewhere = next((record.host for record in _records(paths) if record.host != here), None)
    if elsewhere:
        return _on_another_host(paths, elsewhere)
    return IpcError(
        kind="absent",
        problem=f"no daemon runs for {paths.data_dir}",
        remedy="`tundra daemon start` starts it.",
    )


def _on_another_host(paths: Paths, host: str) -> IpcError:
    return IpcError(
        kind="host",
        problem=f"the daemon of {paths.data_dir} was started on another host, {host}, and cannot be reached from here",
        remedy="Work there, set TUNDRA_URL to a Jupyter server there, or choose another TUNDRA_DATA_DIR here.",
    )


# --- starting -------------------------------------------------------------------------------------------------------


class _Starter:
    """Starts a daemon in the background, its output going to the log, and tells how that ended."""

    def __init__(
        self,
        paths: Paths,
        started_by: str,
        explicit: bool,
        environ: Mapping[str, str],
        command: Sequence[str] | None,
    ) -> None:
        self._paths = paths
        # -P: the working directory must not be searched for modules; a cloned repository could bring its own
        chosen = command or (sys.executable, "-P", "-m", "tundra_nb.daemon", "run")
        self._command = [*chosen, "--background", "--started-by", started_by, *(() if explicit else ("--automatic",))]
        self._environ = {name: value for name, value in environ.items() if name not in NOT_PASSED_ON}
        self._environ["TUNDRA_DATA_DIR"] = str(paths.data_dir)
        self._child: subprocess.Popen[bytes] | None = None
        self._offset = 0
        self.starts = 0

    def start(self) -> None:
        """Start one more process.

        Raises:
            ConfigError: the data directory or its log cannot be written.
        """
        places.make_private(self._paths.data_dir)
        places.make_private(self._paths.logs)
        self.starts += 1
        log = os.open(self._paths.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self._offset = os.fstat(log).st_size
            self._child = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environ,
                cwd=self._paths.data_dir,
                start_new_session=True,
            )
        except OSError as exc:
            raise IpcError(kind="absent", problem=f"{self._command[0]} cannot be started: {exc.strerror}") from exc
        finally:
            os.close(log)
        _started.append(self._child)

    @property
    def exit_code(self) -> int | None:
        """How the process ended; None while it runs."""
        return self._child.poll() if self._child is not None else None

    def error(self) -> TundraError | None:
        """The error that a daemon has reported since the start, rather than that another one was in its way."""
        told: TundraError | None = None
        for line in self._lines():
            if line.startswith(START_ERROR):
                with contextlib.suppress(ValueError):
                    error = from_wire(json.loads(line.removeprefix(START_ERROR)))
                    if told is None or not _is_in_the_way(error):
                        told = error
        return told

    def tail(self) -> str:
        """The last lines that were logged since the start."""
        return "\n".join(line for line in self._lines() if not line.startswith(START_ERROR))

    def _lines(self) -> list[str]:
        try:
            with self._paths.log.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                since = self._offset if self._offset <= size else 0
                log.seek(max(since, size - TAIL_BYTES))
                return log.read().decode("utf-8", "replace").splitlines()[-TAIL_LINES:]
        except OSError:
            return []


def _until_ready(paths: Paths, starter: _Starter | None, timeout: float, on_wait: Progress | None) -> Connection:
    began = time.monotonic()
    told = began
    while True:
        now = time.monotonic()
        rest = began + timeout - now
        listening = [record for record in _records(paths) if _listens(record)]
        for record in listening:
            answer = _status(record, max(POLL_SECONDS, min(rest, PROGRESS_SECONDS)))
            if answer is not None and answer.get("pid") == record.pid:  # else a successor's, at the same path
                return record
        if starter is None:
            if not listening:
                raise _absent(paths)  # the one that was starting has not made it
        elif starter.starts == 0:
            if not listening and not _is_just_starting(paths):
                starter.start()
        elif starter.exit_code is not None:
            _check_ended(paths, starter)
        if rest <= 0:
            raise (starter and starter.error()) or _not_ready(paths, starter, timeout)
        if on_wait is not None and now - told >= PROGRESS_SECONDS:
            told = now
            on_wait(now - began)
        time.sleep(POLL_SECONDS)


def _check_ended(paths: Paths, starter: _Starter) -> None:
    """Decide what the end of the started process means: go on waiting, start again, or give up.

    Raises:
        TundraError: it failed, and no other daemon is there.
    """
    error = starter.error()
    if error is not None and _is_in_the_way(error):
        other = next(_records(paths, ended=True), None)
        if other is not None and other.host != socket.gethostname():
            raise _on_another_host(paths, other.host)
        if other is None and starter.starts < STARTS:
            starter.start()
        return
    if error is not None and not isinstance(error, InternalError):
        raise error
    how = _how_ended(starter.exit_code or 0)
    cause = f"{error}; " if error is not None else ""
    raise IpcError(
        kind="died",
        problem=f"the daemon ended while starting ({cause}{how})\n{_quoted_tail(paths, starter)}",
        remedy="Correct what the log says, then `tundra daemon start`; `tundra daemon run` shows it in the foreground.",
    ) from error


def _is_in_the_way(error: TundraError) -> bool:
    return isinstance(error, IpcError) and error.kind == "refused"


def _not_ready(paths: Paths, starter: _Starter | None, timeout: float) -> IpcError:
    return IpcError(
        kind="absent",
        problem=f"the daemon does not answer {timeout:g} s after its start"
        + (f"\n{_quoted_tail(paths, starter)}" if starter is not None else ""),
        remedy="It may only be slow: try again; `tundra daemon stop --force` ends it, `tundra logs` shows more.",
    )


def _quoted_tail(paths: Paths, starter: _Starter) -> str:
    return f"the end of {paths.log}:\n    " + (starter.tail() or "(empty)").replace("\n", "\n    ")


def _how_ended(code: int) -> str:
    """In words: a signal shows as its negative number, or as 128 + its number when the guard passes it on."""
    number = -code if code < 0 else code - 128
    with contextlib.suppress(ValueError):
        return f"by {signal.Signals(number).name}"
    return f"with exit code {code}"


def _reap() -> None:
    _started[:] = [child for child in _started if child.poll() is None]


# --- stopping -------------------------------------------------------------------------------------------------------


def _replaced(paths: Paths, found: Connection, *, start: bool) -> Connection | None:
    """End an idle daemon of another API version, so that one of ours can be started; None when it has gone.

    Raises:
        IpcError: it is in use, or may not be replaced; names both versions.
    """
    versions = (
        f"the daemon (pid {found.pid}) is of version {found.version} with API {found.api}, "
        f"this client of version {__version__} with API {API}"
    )
    if not start:
        raise IpcError(kind="version", problem=versions, remedy="`tundra daemon restart` replaces it.")
    try:
        stop(paths, hold=False)
    except TundraError as exc:
        raise IpcError(
            kind="version",
            problem=f"{versions}; it is not replaced: {exc}",
            remedy="Close what uses it, or `tundra daemon restart`, which ends its terminals and calls.",
        ) from exc
    return None


def _is_alive(connection: Connection) -> bool:
    _reap()
    if connection.host != socket.gethostname():
        return _listens(connection)
    try:
        os.kill(connection.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return _listens(connection)
    try:
        state = Path(f"/proc/{connection.pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):
        return _listens(connection)  # gone this moment, or a system without /proc
    return state not in (b"Z", b"X")  # ended, and only not yet waited for by whoever started it


def _ask_to_stop(found: Connection, *, force: bool, hold: bool, timeout: float) -> None:
    try:
        status, body = _request(found, "POST", "/api/daemon/stop", {"force": force, "hold": hold}, timeout)
    except (OSError, http.client.HTTPException) as exc:
        if force:
            _signal(found, signal.SIGKILL)
            return
        if not _is_alive(found):
            return  # it was on its way out already
        raise IpcError(
            kind="refused",
            problem=f"the daemon (pid {found.pid}) does not answer: {exc}",
            remedy="`tundra daemon stop --force` kills it.",
        ) from exc
    if status >= 400:
        raise from_wire(body)


def _signal(connection: Connection, number: signal.Signals) -> bool:
    """Send a signal to the process that listens at the socket: the kernel tells its pid, so nobody else's is hit."""
    if not hasattr(socket, "SO_PEERCRED"):
        return False
    try:
        with _connected(connection, CONNECT_SECONDS) as connected:
            pid = struct.unpack("3i", connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        os.kill(pid, number)
    except OSError:
        return False
    return True
