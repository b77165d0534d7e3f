"""The daemon's Unix socket: bound by us, for our own user only.

Three walls, because each has been seen to fail alone: the folder is 0700 and ours, the socket is born 0600 (uvicorn's
own `uds=` makes it 0666), and the peer's uid is asked for at each connection (`http.PeerChecked`).
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tundra_nb.errors import ConfigError
from tundra_nb.paths import MAX_SOCKET_PATH_BYTES

BACKLOG = 2048
_LOCAL_PEERCRED = 1
"""macOS's `LOCAL_PEERCRED`, which the socket module does not name; it answers a `struct xucred`."""


class Door:
    """A listening Unix socket at `path`, for whoever holds the data directory's lock. A context manager.

    Cleaners of temporary folders, and logouts that take the runtime folder away, delete sockets that are in use:
    `is_there` tells, and `renew` binds a new one. The old one stays open, for what is already in its queue.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._listeners: list[socket.socket] = []
        self._born: tuple[int, int] | None = None

    def __repr__(self) -> str:
        return f"<Door {self._path} {'there' if self.is_there else 'gone'}, bound {len(self._listeners)} times>"

    def __enter__(self) -> Self:
        """Bind.

        Raises:
            ConfigError: the path is too long, or its folder is somebody else's or cannot be made.
        """
        check_length(self._path)
        self.renew()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        was_there = self.is_there
        while self._listeners:
            self._listeners.pop().close()
        if was_there:
            with contextlib.suppress(OSError):
                self._path.unlink()

    @property
    def listener(self) -> socket.socket:
        """The socket that was bound last."""
        return self._listeners[-1]

    @property
    def is_there(self) -> bool:
        """Whether the file at the path is the socket that was bound last, and ours to connect to."""
        try:
            found = self._path.lstat()
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._born and stat.S_IMODE(found.st_mode) == 0o600

    def renew(self) -> socket.socket:
        """Bind a new socket at the path, whatever is there: the lock proves that nobody else listens at it.

        Raises:
            ConfigError: it cannot be bound.
        """
        _private_folder(self._path.parent)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()
            listener.bind(os.fspath(self._path))
            born = self._path.lstat()
            listener.listen(BACKLOG)
            listener.setblocking(False)
        except OSError as exc:
            listener.close()
            raise ConfigError(
                where=str(self._path), problem=f"the socket cannot be bound: {exc.strerror or exc}"
            ) from exc
        finally:
            os.umask(before)
        self._born = (born.st_dev, born.st_ino)
        self._listeners.append(listener)
        return listener


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
