"""What is there: the record of a daemon, and talking to its socket.

A daemon is found by the record in its lock file, or by its connection file. Neither is believed: only a socket that
answers is a daemon, so a stale file or a reused pid does no harm. The lock file comes first, because the connection
file of another Jupyter runtime directory may be an older daemon's, with the same socket path.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import struct
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from tundra_nb import descriptors
from tundra_nb._version import API
from tundra_nb.errors import IpcError
from tundra_nb.paths import Paths, read_at_once, unwaiting
from tundra_nb.protocol import record
from tundra_nb.protocol import status as routes
from tundra_nb.protocol.endpoint import Endpoint, params
from tundra_nb.protocol.record import DaemonRecord
from tundra_nb.protocol.words import JSON

from .place import Place, dial
from .wire import BadAnswer, Wire

CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 5.0
HUNG_SECONDS = 3.0
"""A daemon that does not tell its brief state, which asks nothing of anybody, within so long hangs."""
FEW_DESCRIPTORS = 10
"""A daemon that has no more than so many left lets callers wait."""
JUST_SECONDS = 3.0


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
    start: int = 0
    """When its process began, in clock ticks since boot; 0 where that is not known."""


def find(paths: Paths, *, environ: Mapping[str, str] | None = None) -> Connection | None:
    """The running daemon, None when there is none. It is not started and not asked for its version.

    `TUNDRA_URL` and `TUNDRA_TOKEN` in `environ` (default: the process's own) name a Jupyter server instead.
    """
    env = os.environ if environ is None else environ
    if url := env.get("TUNDRA_URL"):
        return Connection(url=url, token=env.get("TUNDRA_TOKEN"))
    return next((one for one in records(paths) if listens(one)), None)


def unreached(paths: Paths) -> Connection | None:
    """A daemon that lives and does not listen at its socket, as after somebody has deleted that. Ask after `find`."""
    if is_starting(paths):
        return None
    return next((one for one in records(paths) if is_the_process(one) and not listens(one)), None)


def recorded(file: Path) -> DaemonRecord | None:
    """The record that a lock file or a connection file holds.

    Raises:
        IpcError: this process has no descriptor left to read it.
    """
    try:
        return record.read(read_at_once(file))
    except OSError as exc:
        if (error := descriptors.exhausted_here(exc)) is not None:
            raise error from exc
        return None


def records(paths: Paths, *, ended: bool = False) -> Iterator[Connection]:
    for file in (paths.lock, paths.connection_file):
        found = recorded(file)
        if found is not None and (ended or found.state != "stopping"):
            yield Connection(
                socket=found.socket,
                pid=found.pid,
                host=found.host,
                version=found.version,
                api=found.api,
                start=found.start,
            )


def is_starting(paths: Paths) -> bool:
    found = recorded(paths.lock)
    return found is not None and found.state == "starting"


def holder_elsewhere(paths: Paths) -> str:
    """The other host whose daemon holds the data directory's lock; empty when none does."""
    try:
        import fcntl
    except ImportError:  # no daemon runs on this system
        return ""
    with contextlib.suppress(OSError), open(paths.lock, "rb", opener=unwaiting) as file:
        found = record.read(file.read())
        if found is None or found.host == socket.gethostname():
            return ""
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return found.host
    return ""


def is_just_starting(paths: Paths) -> bool:
    """Another client's daemon has the lock and does not listen yet. Only saves a process: a reused pid does no harm."""
    found = recorded(paths.lock)
    if found is None or found.state != "starting" or found.host != socket.gethostname():
        return False
    try:
        os.kill(found.pid, 0)
    except (OSError, OverflowError):
        return False
    return time.time() - found.started_at < JUST_SECONDS


def _dialled(connection: Connection) -> socket.socket:
    assert connection.socket is not None
    return dial(connection.socket, CONNECT_SECONDS)


def listens(connection: Connection) -> bool:
    """Whether somebody takes connections at its socket.

    Raises:
        IpcError: this process has no descriptor left to find out.
    """
    try:
        _dialled(connection).close()
    except (TimeoutError, BlockingIOError):
        return True  # its queue of connections is full
    except OSError as exc:
        if (error := descriptors.exhausted_here(exc)) is not None:
            raise error from exc
        return False
    return True


def request(
    to: Connection,
    endpoint: Endpoint,
    body: msgspec.Struct | dict[str, str] | None = None,
    *,
    query: msgspec.Struct | None = None,
    timeout: float = ANSWER_SECONDS,
) -> tuple[int, dict[str, Any]]:
    """Ask the daemon something small.

    Raises:
        OSError: it does not listen, does not answer in time, or not with HTTP and JSON.
    """
    wire = Wire(Place(socket=to.socket), connect_timeout=timeout)
    target = endpoint.path + (f"?{urllib.parse.urlencode(params(query))}" if query else "")
    payload = None if body is None else msgspec.json.encode(body)
    try:
        answer = wire.exchange(endpoint.method, target, {"Content-Type": JSON, "Connection": "close"}, payload)
        found = json.loads(answer.read())
    except ValueError as exc:
        raise BadAnswer(f"the answer is not JSON: {exc}") from exc
    finally:
        wire.close()
    return answer.status, found if isinstance(found, dict) else {}


def ask_status(connection: Connection, timeout: float) -> dict[str, Any] | None:
    try:
        code, body = request(connection, routes.STATUS, query=routes.StatusQuery(brief=True), timeout=timeout)
    except OSError:
        return None
    return body if code == 200 else None


def is_alive(connection: Connection) -> bool:
    if connection.host != socket.gethostname():
        return listens(connection)
    try:
        os.kill(connection.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return listens(connection)
    facts = _facts(connection.pid)
    if facts is None:
        return listens(connection)  # gone this moment, or a system without /proc
    return facts[0] not in _ENDED  # ended, and only not yet waited for by whoever started it


def is_the_process(connection: Connection) -> bool:
    """Whether the process of that pid is the very one that wrote the record. False where it cannot be proven."""
    if connection.host != socket.gethostname():
        return False
    facts = _facts(connection.pid)
    return facts is not None and facts[0] not in _ENDED and connection.start == facts[1]


def is_stopped(connection: Connection) -> bool:
    """Whether the process named in the record was stopped by a signal."""
    facts = _facts(connection.pid)
    return facts is not None and facts[0] in _STOPPED


def guard_left(found: DaemonRecord | None) -> Connection | None:
    """The guard of a daemon that is dead, if it lives on although it should have ended what that daemon left."""
    if found is None or not found.guard:
        return None
    daemon = Connection(pid=found.pid, host=found.host, start=found.start)
    guard = Connection(pid=found.guard, host=found.host, start=found.guard_start)
    return guard if is_the_process(guard) and not is_the_process(daemon) else None


def let_guard_go_on(found: DaemonRecord | None) -> bool:
    """Continue the guard of a dead daemon that a signal has stopped: it ends what that daemon left, then itself.

    False when none had been stopped.
    """
    guard = guard_left(found)
    return guard is not None and is_stopped(guard) and _signal_the_process(guard, signal.SIGCONT)


def hung(path: str, seconds: float) -> IpcError | None:
    """The error for a daemon that takes connections at its socket and does not answer; None when it does.

    A process that was stopped by a signal is recognised at once; for one whose loop stands still it takes `seconds`.
    """
    connection = Connection(socket=path, host=socket.gethostname())
    try:
        with dial(path, seconds) as connected:
            pid = peer_pid(connected)
            if (error := stopped_peer(connected)) is not None:
                return error
    except OSError:
        return None  # not there at all: that is another error
    try:
        request(connection, routes.STATUS, query=routes.StatusQuery(brief=True), timeout=seconds)
    except OSError:
        pass
    else:
        return None  # also one that refuses
    if pid and (most := _full_of_descriptors(pid)):
        return descriptors.refusal(most)
    return IpcError(
        kind="hung",
        problem=f"the daemon (pid {pid}) hangs: it takes connections and does not answer",
        remedy="`tundra daemon restart --force` replaces it; `tundra logs` shows its last words.",
    )


def stopped_peer(connected: socket.socket) -> IpcError | None:
    """The error for a daemon at the other end whose process was stopped by a signal; costs one small read."""
    pid = peer_pid(connected)
    facts = _facts(pid) if pid else None
    if facts is None or facts[0] not in _STOPPED:
        return None
    return IpcError(
        kind="hung",
        problem=f"the daemon (pid {pid}) hangs: its process was stopped by a signal",
        remedy=f"`kill -CONT {pid}` lets it go on; `tundra daemon restart --force` replaces it.",
    )


def _full_of_descriptors(pid: int) -> int:
    """The most descriptors that a process may have, when hardly any is left; otherwise, or where unknown, 0."""
    try:
        limits = Path(f"/proc/{pid}/limits").read_text()
        most = int(next(line for line in limits.splitlines() if line.startswith("Max open files")).split()[3])
        return most if len(os.listdir(f"/proc/{pid}/fd")) >= most - FEW_DESCRIPTORS else 0
    except (OSError, ValueError, StopIteration):
        return 0


def _facts(pid: int) -> tuple[bytes, int] | None:
    """State and start of a process; None without one, and on a system without /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return fields[0], int(fields[19])
    except (OSError, IndexError, ValueError):
        return None


_ENDED = (b"Z", b"X", b"x")
_STOPPED = (b"T", b"t")


def peer_pid(connected: socket.socket) -> int:
    """The process at the other end of a Unix socket, as the kernel knows it; 0 where it does not tell."""
    if not hasattr(socket, "SO_PEERCRED"):
        return 0
    return int(struct.unpack("3i", connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])


def send_signal(connection: Connection, number: signal.Signals) -> bool:
    """Send a signal to the daemon, and to nobody else: the kernel tells who listens at the socket; a daemon that has
    lost its socket is proven by its start.
    """
    try:
        with _dialled(connection) as connected:
            pid = peer_pid(connected)
        if pid:
            os.kill(pid, number)
    except OSError:
        return _signal_the_process(connection, number)
    return pid != 0


def _signal_the_process(connection: Connection, number: signal.Signals) -> bool:
    try:
        descriptor = os.pidfd_open(connection.pid)
    except (AttributeError, OSError):
        return False
    try:
        if not is_the_process(connection):  # looked at after the descriptor holds it, so it cannot change any more
            return False
        signal.pidfd_send_signal(descriptor, number)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
