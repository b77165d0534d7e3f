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
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tundra_nb._version import API
from tundra_nb.paths import Paths

from .place import Place, dial
from .wire import BadAnswer, Wire

CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 5.0
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


def find(paths: Paths, *, environ: Mapping[str, str] | None = None) -> Connection | None:
    """The running daemon, None when there is none. It is not started and not asked for its version.

    `TUNDRA_URL` and `TUNDRA_TOKEN` in `environ` (default: the process's own) name a Jupyter server instead.
    """
    env = os.environ if environ is None else environ
    if url := env.get("TUNDRA_URL"):
        return Connection(url=url, token=env.get("TUNDRA_TOKEN"))
    return next((record for record in records(paths) if listens(record)), None)


def read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def records(paths: Paths, *, ended: bool = False) -> Iterator[Connection]:
    for file in (paths.lock, paths.connection_file):
        record = read(file)
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


def is_starting(paths: Paths) -> bool:
    return read(paths.lock).get("state") == "starting"


def is_just_starting(paths: Paths) -> bool:
    """Another client's daemon has the lock and does not listen yet. Only saves a process: a reused pid does no harm."""
    record = read(paths.lock)
    if record.get("state") != "starting" or record.get("host") != socket.gethostname():
        return False
    try:
        os.kill(int(record["pid"]), 0)
        return bool(time.time() - float(record["started_at"]) < JUST_SECONDS)
    except (OSError, KeyError, TypeError, ValueError):
        return False


def _dialled(connection: Connection) -> socket.socket:
    assert connection.socket is not None
    return dial(connection.socket, CONNECT_SECONDS)


def listens(connection: Connection) -> bool:
    try:
        _dialled(connection).close()
    except (TimeoutError, BlockingIOError):
        return True  # its queue of connections is full
    except OSError:
        return False
    return True


def request(
    to: Connection, method: str, path: str, body: Any = None, timeout: float = ANSWER_SECONDS
) -> tuple[int, dict[str, Any]]:
    """Ask the daemon something small.

    Raises:
        OSError: it does not listen, does not answer in time, or not with HTTP and JSON.
    """
    wire = Wire(Place(socket=to.socket), connect_timeout=timeout)
    try:
        payload = None if body is None else json.dumps(body).encode()
        answer = wire.exchange(method, path, {"Content-Type": "application/json", "Connection": "close"}, payload)
        found = json.loads(answer.read())
    except ValueError as exc:
        raise BadAnswer(f"the answer is not JSON: {exc}") from exc
    finally:
        wire.close()
    return answer.status, found if isinstance(found, dict) else {}


def ask_status(connection: Connection, timeout: float) -> dict[str, Any] | None:
    try:
        code, body = request(connection, "GET", "/api/status?brief=1", timeout=timeout)
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
    try:
        state = Path(f"/proc/{connection.pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):
        return listens(connection)  # gone this moment, or a system without /proc
    return state not in (b"Z", b"X")  # ended, and only not yet waited for by whoever started it


def send_signal(connection: Connection, number: signal.Signals) -> bool:
    """Send a signal to the process that listens at the socket: the kernel tells its pid, so nobody else's is hit."""
    if not hasattr(socket, "SO_PEERCRED"):
        return False
    try:
        with _dialled(connection) as connected:
            pid = struct.unpack("3i", connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        os.kill(pid, number)
    except OSError:
        return False
    return True
