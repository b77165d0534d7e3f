"""Where log lines go: a private file that rotates, the systemd journal.

A sink that cannot be written is a problem that `status` shows, never an exception.

The file is looked at before each line: one that somebody has deleted or moved away is opened anew, so that a line is
never written to where nobody can read it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import socket
import struct
import time
from pathlib import Path

from tundra_nb.paths import unwritable

from .problems import Problems

ROTATE_BYTES = 10 * 2**20
KEEP_FILES = 5
"""Rotated files beside the current one: 60 MB of log at most."""
KEEP_DAYS = 30.0
"""Rotated files older than this are deleted at start and at each rotation."""
FILE_PROBLEM = "log"


class PrivateFile(logging.Handler):
    """A log file of mode 0600, rotated by size.

    Where the process's own stderr is that file (a daemon started in the background), a new file takes stderr along, so
    that a fatal signal's trace and what libraries print land in the current file.

    Args:
        file: its folder is made when it is not there, but none above it.
        rotate_bytes: size at which a new file is begun.
        keep: rotated files beside the current one.
        problems: told when lines are lost, and when they no longer are.
    """

    def __init__(
        self,
        file: Path,
        rotate_bytes: int = ROTATE_BYTES,
        keep: int = KEEP_FILES,
        problems: Problems | None = None,
    ) -> None:
        super().__init__()
        self._file = file
        self._rotate_bytes = rotate_bytes
        self._keep = keep
        self._problems = problems or Problems()
        self._fd = -1
        self._size = 0
        self._lost = 0
        self._takes_stderr: bool | None = None
        try:
            self._open()
        except OSError as exc:
            self._failed(exc, lost=0)
        self._drop_old()

    def __repr__(self) -> str:
        return f"<PrivateFile {self._file}: {self._size} bytes{f', {self._lost} lines lost' if self._lost else ''}>"

    @property
    def takes_stderr(self) -> bool:
        """The process's stderr was this file when it was first opened."""
        return bool(self._takes_stderr)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = f"{self.format(record)}\n".encode("utf-8", "backslashreplace")
        except Exception:  # noqa: BLE001 - a record that cannot be formatted is logging's own matter
            self.handleError(record)
            return
        try:
            self._check_place()
            if self._size and self._size + len(line) > self._rotate_bytes:
                self._rotate()
            self._write(self._after_loss() + line)
        except OSError as exc:
            self._failed(exc, lost=1)
        else:
            if self._lost or self._problems.has(FILE_PROBLEM):
                self._lost = 0
                self._problems.end(FILE_PROBLEM)

    def close(self) -> None:
        with self.lock or contextlib.nullcontext():
            self._close_file()
        super().close()

    def _check_place(self) -> None:
        try:
            found = os.stat(self._file)
        except FileNotFoundError:
            self._close_file()
        else:
            if self._fd >= 0 and not os.path.samestat(found, os.fstat(self._fd)):
                self._close_file()
        if self._fd < 0:
            self._open()

    def _open(self) -> None:
        self._file.parent.mkdir(mode=0o700, exist_ok=True)  # never the data directory, which somebody has deleted
        # non-blocking: a FIFO without a reader at the path must not hold up the daemon
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        self._fd = os.open(self._file, flags, 0o600)
        found = os.fstat(self._fd)
        self._size = found.st_size
        if self._takes_stderr is None:
            self._takes_stderr = _is_open(2) and os.path.samestat(os.fstat(2), found)
        elif self._takes_stderr:
            os.dup2(self._fd, 2)
            os.dup2(self._fd, 1)

    def _close_file(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _write(self, data: bytes) -> None:
        written = os.write(self._fd, data)
        self._size += written
        if written < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _after_loss(self) -> bytes:
        return f"    {self._lost} lines before this one were lost: they could not be written\n".encode() * bool(
            self._lost
        )

    def _failed(self, exc: OSError, *, lost: int) -> None:
        self._lost += lost
        self._problems.lost["log_lines"] += lost
        error = unwritable(self._file, exc)
        self._problems.tell(FILE_PROBLEM, f"the log is not written: {exc.strerror} ({self._file})", error.hint)

    def _rotate(self) -> None:
        self._close_file()
        for number in range(self._keep, 0, -1):
            older = self._file.with_name(f"{self._file.name}.{number}")
            newer = self._file if number == 1 else self._file.with_name(f"{self._file.name}.{number - 1}")
            with contextlib.suppress(FileNotFoundError):
                os.replace(newer, older)
        if self._keep == 0:
            self._file.unlink(missing_ok=True)
        self._open()
        self._drop_old()

    def _drop_old(self) -> None:
        with contextlib.suppress(OSError):
            for old in self._file.parent.glob(f"{self._file.name}.*"):
                number = old.name.rpartition(".")[2]
                too_many = number.isdigit() and int(number) > self._keep
                if too_many or old.stat().st_mtime < time.time() - KEEP_DAYS * 86400:
                    old.unlink()


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


JOURNAL_SOCKET = "/run/systemd/journal/socket"
JOURNAL_PROBLEM = "journald"
MESSAGE_BYTES = 64 * 1024
"""A datagram may have about 200 kB in all; a longer message is cut."""
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (0, 7))


class Journald(logging.Handler):
    """The systemd journal, by its native protocol: each field of a line is a field there, so that
    `journalctl TUNDRA_OPERATION_ID=…` finds the lines of a call.

    A journal that does not take a line at once does not get it: the daemon waits for nobody's log.
    """

    def __init__(self, problems: Problems | None = None, path: str = JOURNAL_SOCKET) -> None:
        super().__init__()
        self._path = path
        self._problems = problems or Problems()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            data = b"".join(_journal_field(name, value) for name, value in self._fields(record).items())
        except Exception:  # noqa: BLE001 - a record that cannot be formatted is logging's own matter
            self.handleError(record)
            return
        try:
            self._socket.sendto(data, self._path)
        except OSError as exc:
            self._problems.lost["journal_lines"] += 1
            told = f"the journal takes no lines at {self._path}: {exc.strerror or exc}"
            self._problems.tell(
                JOURNAL_PROBLEM, told, "Is systemd-journald running? `[log] journald = false` ends this."
            )
        else:
            if self._problems.has(JOURNAL_PROBLEM):
                self._problems.end(JOURNAL_PROBLEM)

    def close(self) -> None:
        self._socket.close()
        super().close()

    def _fields(self, record: logging.LogRecord) -> dict[str, str]:
        told = json.loads(self.format(record))  # masked already
        message = "\n".join(filter(None, (told.pop("message", ""), told.pop("traceback", ""))))
        priority = next(number for level, number in _PRIORITIES if record.levelno >= level)
        fields = {
            "MESSAGE": message[:MESSAGE_BYTES],
            "PRIORITY": str(priority),
            "SYSLOG_IDENTIFIER": "tundra",
            "TUNDRA_LOGGER": told.pop("logger", record.name),
        }
        for name, value in told.items():
            if name not in ("at", "level"):
                key = "TUNDRA_" + "".join(c if c.isascii() and c.isalnum() else "_" for c in name.upper())
                fields[key[:64]] = value if isinstance(value, str) else json.dumps(value)
        return fields


def _journal_field(name: str, value: str) -> bytes:
    raw = value.encode("utf-8", "backslashreplace")
    if b"\n" not in raw:
        return name.encode() + b"=" + raw + b"\n"
    return name.encode() + b"\n" + struct.pack("<Q", len(raw)) + raw + b"\n"
