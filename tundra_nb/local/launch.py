"""Finding the daemon of a data directory, starting it when it is not there, and stopping it.

Of clients that come at the same time one starts it and the others wait: twenty interpreters that all load a daemon
would keep the one that serves from being ready in time. Nothing hangs on that turn: whoever starts beside another one's
start starts a process that sees the daemon's lock held, and goes on waiting for the first one's. Nothing of the daemon
is imported: a kernel pays for what it uses.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

from tundra_nb import environment
from tundra_nb import paths as places
from tundra_nb._version import API, __version__
from tundra_nb.errors import InternalError, IpcError, TundraError, from_wire
from tundra_nb.paths import STOPPED_BY, Paths
from tundra_nb.protocol import daemon as routes
from tundra_nb.protocol.words import START_ERROR

from . import running
from .running import Connection, find

__all__ = ["Connection", "ensure", "find", "restart", "status", "stop"]

START_SECONDS = 15.0
"""Longest time from the start of the process to its first answer; measured: below 1 s, more on a cold disk."""
STOP_SECONDS = 15.0
"""The daemon's own limits add up to 10 s."""
STARTING_SECONDS = 0.3
"""A daemon that is starting lets callers wait; whoever only wants to know its state does not."""
RENEW_SECONDS = 3.0
"""A daemon whose socket was deleted notices it twice a second, and binds anew."""
KILL_AFTER_SECONDS = 3.0
"""A daemon that cannot be asked to stop and is in a hurry to be gone is told by a signal, then killed."""
LATE_MARK_SECONDS = 0.5
"""A daemon that was asked to stop leaves its mark before it answers, and whoever asked may be gone by then."""
POLL_SECONDS = 0.02
PROGRESS_SECONDS = 1.0
TAIL_LINES = 12
TAIL_BYTES = 32768
STARTS = 2
"""A second start is tried when the daemon that was in the way has ended meanwhile."""
NOT_PASSED_ON = ("TUNDRA_URL", "TUNDRA_TOKEN", "JPY_PARENT_PID", "JPY_SESSION_NAME", "MPLBACKEND")
"""Variables that belong to one kernel and would mislead the daemon and what runs in its PTYs."""

Progress = Callable[[float], None]
_started: list[subprocess.Popen[bytes]] = []
"""Processes started here; kept so that they are reaped when they have ended."""


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
        IpcError: absent and `start` is False, stopped on purpose, of another version, on another host, hung, died
            while starting (with the end of its log), or not ready in time.
        TundraError: the error for which it could not start, such as a ConfigError with file and line.
    """
    _reap()
    env = os.environ if environ is None else environ
    found = find(paths, environ=env) or _renewed(paths)
    if found is not None and found.url is None and found.api != API:
        found = _replaced(paths, found, start=start)
    if found is None:
        if not start:
            raise _absent(paths)
        if paths.is_held and not explicit:
            raise paths.held_error()
    elif found.url:
        return found
    elif not running.is_starting(paths):
        if running.is_stopped(found) and (error := running.hung(found.socket or "", running.CONNECT_SECONDS)):
            raise error
        return found
    if not start:
        return _until_ready(paths, None, timeout, on_wait)
    starter = _Starter(paths, started_by, explicit, env, command)
    try:
        starter.begin()
        return _until_ready(paths, starter, timeout, on_wait)
    finally:
        starter.close()


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
    before = running.recorded(paths.lock)
    try:
        return _stopped(paths, force=force, hold=hold, timeout=timeout)
    finally:
        running.let_guard_go_on(before)


def _stopped(paths: Paths, *, force: bool, hold: bool, timeout: float) -> Connection | None:
    found = find(paths, environ={})
    lost = running.unreached(paths) if found is None else None
    if hold and (found is None or running.is_starting(paths)):
        mark_held(paths)
    found = found or lost
    if found is None:
        return None
    deadline = time.monotonic() + timeout
    if lost is not None:
        running.send_signal(lost, signal.SIGTERM)
        if force:
            deadline = min(deadline, time.monotonic() + KILL_AFTER_SECONDS)
    elif running.is_starting(paths):
        running.send_signal(found, signal.SIGTERM)
    else:
        _ask_to_stop(
            found,
            force=force,
            hold=hold,
            timeout=min(timeout, running.CONNECT_SECONDS if force else running.ANSWER_SECONDS),
        )
    while _lives(found):
        if time.monotonic() > deadline:
            if force and running.send_signal(found, signal.SIGKILL):
                deadline += running.CONNECT_SECONDS
                force = False
                continue
            raise IpcError(
                kind="refused",
                problem=f"the daemon (pid {found.pid}) has not ended within {timeout:g} s",
                remedy="`tundra daemon stop --force` kills it.",
            )
        time.sleep(POLL_SECONDS)
    for child in _started:
        if child.pid == found.pid:  # its last threads may still be on their way out
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(running.CONNECT_SECONDS)
    _reap()
    return found


def restart(
    paths: Paths,
    *,
    by: str,
    started_by: str,
    force: bool = False,
    environ: Mapping[str, str] | None = None,
    on_wait: Progress | None = None,
) -> Connection:
    """Stop the daemon and start a new one; nobody else starts one in between.

    What breaks it off, an interrupt too, leaves no mark: the next call starts a daemon by itself.

    Args:
        paths: whose daemon.
        by: the command, of which those are told who want a daemon meanwhile.
        started_by: as `ensure` takes it.
        force: as `stop` takes it.
        environ: the environment of the new daemon; default: the process's own.
        on_wait: as `ensure` takes it.
    """
    try:
        stop(paths, force=force)
        mark_held(paths, by)
        started = ensure(paths, started_by=started_by, explicit=True, environ=environ, on_wait=on_wait)
    except BaseException:
        release(paths)
        raise
    _unmark(paths)  # somebody else may have started it before the mark was there
    return started


def release(paths: Paths) -> None:
    """Take away the mark of a stop that was broken off, also one that the daemon is about to leave."""
    deadline = time.monotonic() + LATE_MARK_SECONDS
    while not paths.is_held and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    _unmark(paths)


def _unmark(paths: Paths) -> None:
    with contextlib.suppress(OSError):
        paths.held.unlink(missing_ok=True)


def mark_held(paths: Paths, by: str = STOPPED_BY) -> None:
    """Leave the mark that keeps it stopped; a disk that takes no mark must not keep a daemon from being stopped."""
    with contextlib.suppress(OSError):
        if paths.data_dir.is_dir():
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            with open(places.unwaiting(os.fspath(paths.held), flags), "w", encoding="utf-8") as file:
                json.dump({"at": time.time(), "by": by}, file)


def _renewed(paths: Paths) -> Connection | None:
    """The daemon that lives without a socket, once it has bound a new one; None when there is none, or it has ended.

    Raises:
        IpcError: it does not bind one.
    """
    lost = running.unreached(paths)
    deadline = time.monotonic() + RENEW_SECONDS
    while lost is not None:
        if (found := find(paths, environ={})) is not None:
            return found
        if not running.is_the_process(lost):
            return None
        is_stopped = running.is_stopped(lost)
        if is_stopped or time.monotonic() > deadline:
            cont = f"`kill -CONT {lost.pid}` lets it go on; " if is_stopped else ""
            raise IpcError(
                kind="hung",
                problem=f"the daemon (pid {lost.pid}) runs and does not listen at {lost.socket}",
                remedy=f"{cont}`tundra logs` tells why; `tundra daemon restart --force` replaces it.",
            )
        time.sleep(POLL_SECONDS)
    return None


def status(paths: Paths) -> dict[str, Any]:
    """What `tundra daemon status` shows; never starts anything.

    At least `running`, `state` (running, starting, hung, stopped, held, elsewhere), `pid`, `socket`, `version`,
    `engine`, `data_dir`; the daemon's own brief status beside it when it answers, `problem` and `hint` when it hangs or
    another host has it.
    """
    try:
        found = find(paths, environ={}) or _renewed(paths)
        problem = None
    except IpcError as error:
        found, problem = running.unreached(paths), error
    told: dict[str, Any] = dict.fromkeys(("pid", "socket", "version", "engine", "api", "host"))
    told |= {"running": found is not None, "data_dir": str(paths.data_dir), "log": str(paths.log)}
    if found is None:
        if host := running.holder_elsewhere(paths):
            there = _on_another_host(paths, host)
            return {**told, "state": "elsewhere", "host": host, "problem": there.message, "hint": there.hint}
        return {**told, "state": "held" if paths.is_held else "stopped"}
    for name in ("pid", "socket", "version", "api", "host"):
        told[name] = getattr(found, name)
    is_starting = running.is_starting(paths)
    if problem is None and running.is_stopped(found):
        problem = running.hung(found.socket or "", running.CONNECT_SECONDS)
    answer = None
    if problem is None:
        answer = running.ask_status(found, STARTING_SECONDS if is_starting else running.HUNG_SECONDS)
    if answer is None:
        if not is_starting:
            problem = problem or running.hung(found.socket or "", STARTING_SECONDS)
        facts = {} if problem is None else {"problem": problem.message, "hint": problem.hint}
        return {**told, "state": "starting" if is_starting else "hung", **facts}
    return {**told, **answer, "running": True, "state": "running"}


def _absent(paths: Paths) -> IpcError:
    here = socket.gethostname()
    elsewhere = next((record.host for record in running.records(paths) if record.host != here), None)
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
        self._said: IO[bytes] | None = None
        """Where it says why it cannot start, when the log takes nothing."""
        self._turn: int | None = None
        self.starts = 0

    def begin(self) -> None:
        """Take what the log holds already for another daemon's."""
        with contextlib.suppress(OSError):
            self._offset = self._paths.log.stat().st_size

    def has_turn(self) -> bool:
        """Whether no other client is starting a daemon here just now. The turn is kept until `close`.

        Raises:
            ConfigError: the data directory cannot be written, or a pipe is in it.
        """
        if self._turn is not None:
            return True
        places.make_private(self._paths.data_dir)
        places.refuse_pipes(self._paths)
        try:
            import fcntl
        except ImportError:  # no daemon runs on this system
            return True
        try:
            turn = os.open(self._paths.turn, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:  # such as a full disk: then two may start at once, which does no harm
            return True
        try:
            fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(turn)
            return False
        except OSError:  # a filesystem without locks
            os.close(turn)
            return True
        self._turn = turn
        return True

    def close(self) -> None:
        """Let the next one have the turn. The process that was started goes on."""
        if self._turn is not None:
            os.close(self._turn)
            self._turn = None

    def start(self) -> None:
        """Start one more process.

        Raises:
            ConfigError: the data directory cannot be written.
        """
        places.make_private(self._paths.data_dir)
        self.starts += 1
        log = self._output()
        seen, handed = environment.divided(self._environ)
        try:
            self._offset = os.fstat(log).st_size
            self._child = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=seen,
                pass_fds=(handed,),
                cwd=self._paths.data_dir,
                start_new_session=True,
            )
        except OSError as exc:
            raise IpcError(kind="absent", problem=f"{self._command[0]} cannot be started: {exc.strerror}") from exc
        finally:
            os.close(log)
            os.close(handed)
        _started.append(self._child)

    def _output(self) -> int:
        """A descriptor of the log; where that cannot be opened, of a file without a name."""
        try:
            self._paths.logs.mkdir(mode=0o700, exist_ok=True)
            return os.open(self._paths.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError:
            self._said = tempfile.TemporaryFile()  # noqa: SIM115 - read until the start has been judged
            return os.dup(self._said.fileno())

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

    def _reading(self) -> IO[bytes]:
        return self._paths.log.open("rb") if self._said is None else os.fdopen(os.dup(self._said.fileno()), "rb")

    def _lines(self) -> list[str]:
        try:
            with self._reading() as log:
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
        listening = [record for record in running.records(paths) if running.listens(record)]
        for record in listening:
            answer = running.ask_status(record, max(POLL_SECONDS, min(rest, PROGRESS_SECONDS)))
            if answer is not None and answer.get("pid") == record.pid:  # else a successor's, at the same path
                return record
        if starter is None:
            if not listening:
                raise _absent(paths)  # the one that was starting has not made it
        elif starter.starts == 0:
            if not listening and not running.is_just_starting(paths) and starter.has_turn():
                starter.start()
        elif starter.exit_code is not None:
            _check_ended(paths, starter)
        if rest <= 0:
            error = starter.error() if starter is not None else None
            if error is not None and not _is_in_the_way(error):
                raise error
            raise _not_ready(paths, starter, timeout)  # also where another one is in the way: it is the one to wait for
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
        other = next(running.records(paths, ended=True), None)
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


def _lives(found: Connection) -> bool:
    _reap()
    return running.is_alive(found)


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


def _ask_to_stop(found: Connection, *, force: bool, hold: bool, timeout: float) -> None:
    try:
        status, body = running.request(found, routes.STOP, routes.StopBody(force=force, hold=hold), timeout=timeout)
    except OSError as exc:
        if force:
            running.send_signal(found, signal.SIGKILL)
            return
        if not _lives(found):
            return  # it was on its way out already
        raise IpcError(
            kind="refused",
            problem=f"the daemon (pid {found.pid}) does not answer: {exc}",
            remedy="`tundra daemon stop --force` kills it.",
        ) from exc
    if status >= 400:
        raise from_wire(body)
