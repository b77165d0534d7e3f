"""The daemon's Unix socket: bound by us, for our own user only.

Three walls, because each has been seen to fail alone: the folder is 0700 and ours, the socket is born 0600 (uvicorn's
own `uds=` makes it 0666), and the peer's uid is asked for at each connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import stat
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tundra_nb.errors import ConfigError
from tundra_nb.paths import MAX_SOCKET_PATH_BYTES

BACKLOG = 2048
_LOCAL_PEERCRED = 1
"""macOS's `LOCAL_PEERCRED`, which the socket module does not name; it answers a `struct xucred`."""

_log = logging.getLogger("tundra.daemon")


@contextlib.contextmanager
def bound(path: Path) -> Iterator[socket.socket]:
    """A listening Unix socket at `path`, removed afterwards. The caller holds the data directory's lock.

    Raises:
        ConfigError: the path is too long, or its folder is somebody else's or cannot be made.
    """
    check_length(path)
    _private_folder(path.parent)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()  # of a predecessor that was killed: the lock proves that nobody listens there
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        before = os.umask(0o177)
        try:
            listener.bind(os.fspath(path))
        except OSError as exc:
            raise ConfigError(where=str(path), problem=f"the socket cannot be bound: {exc.strerror or exc}") from exc
        finally:
            os.umask(before)
        listener.listen(BACKLOG)
        listener.setblocking(False)
        yield listener
    finally:
        listener.close()
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def check_length(path: Path) -> None:
    """Refuse a path that does not fit into a socket address.

    Raises:
        ConfigError: it does not.
    """
    length = len(os.fsencode(path))
    if length >= MAX_SOCKET_PATH_BYTES:
        raise ConfigError(
            where=str(path),
            problem=f"the socket's path has {length} bytes, {MAX_SOCKET_PATH_BYTES - 1} are allowed",
            remedy="Set XDG_RUNTIME_DIR or TMPDIR to a directory with a shorter path.",
        )


def peer_uid(connection: Any) -> int:
    """The user at the other end of a connected Unix socket, as the kernel knows it."""
    if sys.platform == "darwin":
        return int(struct.unpack("II", connection.getsockopt(0, _LOCAL_PEERCRED, 8))[1])
    return int(struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1])


class PeerChecked(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which hangs up on every user but our own before a byte is read."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        uid = peer_uid(transport.get_extra_info("socket"))
        if uid != os.geteuid():
            _log.warning("refused a connection of uid %d", uid)
            self.transport = transport  # the base class closes it in connection_lost
            transport.abort()
            return
        super().connection_made(transport)


def _private_folder(folder: Path) -> None:
    remedy = "Remove it, or set XDG_RUNTIME_DIR or TMPDIR to a directory of your own."
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise ConfigError(
                where=str(folder), problem=f"not a directory of uid {os.geteuid()}; it may be a trap", remedy=remedy
            )
        if stat.S_IMODE(found.st_mode) != 0o700:
            folder.chmod(0o700)
    except OSError as exc:
        raise ConfigError(where=str(folder), problem=f"cannot be made: {exc.strerror or exc}", remedy=remedy) from exc
