"""The lock that makes a daemon the only one of its data directory.

An flock, held for life: the kernel frees it at the process's end however that comes, so there is no stale lock to
recognise and a restart after `kill -9` works at once. The file itself is never removed, because a successor may have
opened it already.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tundra_nb.errors import ConfigError, IpcError
from tundra_nb.paths import unwritable
from tundra_nb.protocol.record import DaemonRecord, read

PREDECESSOR_SECONDS = 12.0
"""How long to wait for a daemon that is on its way out: all its time limits for stopping, and a little."""
UNNAMED_SECONDS = 0.5
"""How long the owner of a lock may take from opening the file to writing its name into it."""
POLL_SECONDS = 0.02


class Lock:
    """Exclusive ownership of a data directory. A context manager; entering takes the lock."""

    def __init__(self, file: Path, patience: float = PREDECESSOR_SECONDS) -> None:
        self._file = file
        self._patience = patience
        self._fd = -1
        self.predecessor: DaemonRecord | None = None
        """The last owner, if it did not stop in order; known once the lock is taken."""

    def __repr__(self) -> str:
        return f"<Lock {self._file} {'held' if self._fd >= 0 else 'free'}>"

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            IpcError: a daemon that is not stopping holds it; names its pid.
            ConfigError: the file cannot be opened, or the file system has no locks.
        """
        try:
            fd = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise unwritable(self._file, exc) from exc
        try:
            self._take(fd)
            self.predecessor = read(os.pread(fd, 65536, 0))
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    @property
    def is_there(self) -> bool:
        """Whether the file at its path is still the one that is locked."""
        try:
            return os.path.samestat(os.fstat(self._fd), os.stat(self._file))
        except OSError:
            return False

    def write(self, record: DaemonRecord) -> None:
        """Say in the file who holds it.

        Raises:
            ConfigError: the disk is full.
        """
        text = record.to_json()
        try:
            os.pwrite(self._fd, text, 0)
            os.ftruncate(self._fd, len(text))
        except OSError as exc:
            raise unwritable(self._file, exc) from exc

    def release(self) -> None:
        """Give the lock up; again does nothing. A record that says why it `ended` stays, for the next owner."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):  # a disk that has failed meanwhile
                last = read(os.pread(fd, 65536, 0))
                if last is None or not last.ended:
                    os.ftruncate(fd, 0)
            os.close(fd)

    def _take(self, fd: int) -> None:
        started = time.monotonic()
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = read(os.pread(fd, 65536, 0))
            except OSError as exc:
                raise ConfigError(
                    where=str(self._file),
                    problem=f"this file system has no file locks: {exc.strerror}",
                    remedy="Choose a data directory on a local disk with TUNDRA_DATA_DIR.",
                ) from exc
            else:
                return
            waited = time.monotonic() - started
            if owner is None:
                patience = min(self._patience, UNNAMED_SECONDS)
            else:
                patience = self._patience if owner.state == "stopping" else 0.0
            if waited >= patience:
                raise _taken(self._file, owner)
            time.sleep(POLL_SECONDS)


def _taken(file: Path, owner: DaemonRecord | None) -> IpcError:
    if owner is None:
        return IpcError(
            kind="refused",
            problem=f"another process holds the lock of {file.parent}",
            remedy=f"`fuser {file}` names it.",
        )
    return IpcError(
        kind="refused",
        problem=f"another daemon (pid {owner.pid} on {owner.host}) serves {owner.data_dir}",
        remedy="Use that one, end it with `tundra daemon stop`, or choose another TUNDRA_DATA_DIR.",
    )
