"""Where the files of one daemon are: everything follows from its data directory.

The socket does not live in the data directory, because a Unix socket's path must stay under 100 bytes. The connection
file lives in Jupyter's runtime directory, like those of kernels and servers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tundra_nb.errors import ConfigError, IpcError, UsageError

STOPPED_BY = "tundra daemon stop"
"""The command that mostly leaves the mark `Paths.held`."""
APP = "tundra-nb"
MAX_SOCKET_PATH_BYTES = 100
"""`sun_path` holds 108 bytes on Linux and 104 on macOS, with the closing NUL."""
PROBE_BYTES = 16384
"""What must fit on the disk for a daemon to start: its record, the first lines of its log, a segment of the spool."""
PERMISSION = "Correct its owner or mode, or those of the folders above it."
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclasses.dataclass(frozen=True)
class Paths:
    """The files of the daemon that owns `data_dir`."""

    data_dir: Path
    socket: Path
    connection_file: Path
    """JSON, 0600: pid, socket, host, api, version, data_dir, started_by."""

    @property
    def lock(self) -> Path:
        return self.data_dir / "daemon.lock"

    @property
    def turn(self) -> Path:
        """Locked by the client that is starting a daemon, while the others wait for it."""
        return self.data_dir / "daemon.starting"

    @property
    def held(self) -> Path:
        """Exists after `tundra daemon stop`: until somebody starts it explicitly, nothing starts the daemon."""
        return self.data_dir / "daemon.held"

    @property
    def is_held(self) -> bool:
        """Also False where nobody may look."""
        return os.path.exists(self.held)

    def held_error(self, kind: str = "stopped") -> IpcError:
        """Why nothing starts the daemon by itself, by the mark of whoever stopped it."""
        try:
            by = str(json.loads(read_at_once(self.held))["by"])
        except (OSError, ValueError, TypeError, KeyError):
            by = STOPPED_BY
        what = f"was stopped with `{by}`, and is not started by itself"
        remedy = "`tundra daemon start` brings it back."
        if by != STOPPED_BY:
            what = f"was stopped for `{by}`, which has not come to its end"
            remedy = f"Wait for it. After a break `{by}` begins again, and `tundra daemon start` goes on without."
        return IpcError(kind=kind, problem=f"the daemon {what}", remedy=remedy)

    @property
    def salt(self) -> Path:
        """16 random bytes, 0600, that make the fingerprints of keys comparable over restarts."""
        return self.data_dir / "redact.salt"

    @property
    def spool(self) -> Path:
        return self.data_dir / "spool"

    @property
    def store(self) -> Path:
        return self.data_dir / "history.db"

    @property
    def logs(self) -> Path:
        return self.data_dir / "logs"

    @property
    def log(self) -> Path:
        return self.logs / "daemon.log"

    @property
    def ptys(self) -> Path:
        return self.data_dir / "ptys"

    @property
    def recordings(self) -> Path:
        """Folder of recorded requests and answers, by day; never pushed."""
        return self.data_dir / "recordings"

    @property
    def sources(self) -> Path:
        """Folder of the sources: records of others, one folder each."""
        return self.data_dir / "sources"

    @property
    def archive(self) -> Path:
        """Folder of the archive: old days of the history as Parquet, with their manifest."""
        return self.data_dir / "archive"

    @property
    def gateway(self) -> Path:
        """Folder of the gateway: hashes of its tokens, and whether it listens."""
        return self.data_dir / "gateway"

    @property
    def dolt(self) -> Path:
        """Folder of the Dolt server that `tundra dolt start` manages: configuration, data, log, logins."""
        return self.data_dir / "dolt"

    @property
    def backups(self) -> Path:
        return self.data_dir / "backups"


def find(data_dir: str | os.PathLike[str] | None = None, environ: Mapping[str, str] | None = None) -> Paths:
    """Work out the paths; nothing is created.

    `data_dir` defaults to `TUNDRA_DATA_DIR`, else to the platform's data directory of the user.

    Raises:
        UsageError: it is a URL.
    """
    env = os.environ if environ is None else environ
    chosen = data_dir or env.get("TUNDRA_DATA_DIR") or _user_data_dir()
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", os.fsdecode(chosen)):
        raise UsageError(
            problem=f"{os.fsdecode(chosen)!r} is a URL, not a directory",
            field="data_dir",
            remedy="The variable TUNDRA_URL names the Jupyter server to connect through.",
        )
    folder = Path(os.path.realpath(Path(chosen).expanduser()))
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    return Paths(
        data_dir=folder,
        socket=_socket_folder(env) / f"{name}.sock",
        connection_file=_jupyter_runtime_dir() / f"tundra-{name}.json",
    )


def config_file(environ: Mapping[str, str] | None = None) -> Path:
    """The settings file: `TUNDRA_CONFIG`, else `tundra.toml` in the user's configuration directory."""
    env = os.environ if environ is None else environ
    if chosen := env.get("TUNDRA_CONFIG"):
        return Path(chosen).expanduser()
    import platformdirs  # 10 ms that only the default needs

    return Path(platformdirs.user_config_dir(APP)) / "tundra.toml"


def make_folder(folder: Path) -> None:
    """Create a folder that only its owner may enter, and so those above it that are missing.

    `Path.mkdir(parents=True)` makes those above it with whatever mode the umask leaves.
    """
    for above in (*reversed(folder.parents), folder):
        above.mkdir(mode=0o700, exist_ok=True)


def make_private(folder: Path) -> None:
    """Create a folder that only its owner may enter, and prove that files can be made in it.

    So are the folders above it that are missing; one that was there keeps its mode.

    Raises:
        ConfigError: it cannot be created or written; nothing is left behind.
    """
    try:
        make_folder(folder)
        handle, probe = tempfile.mkstemp(prefix=".probe-", dir=folder)
        try:
            os.write(handle, b"\0" * PROBE_BYTES)
        finally:
            os.close(handle)
            os.unlink(probe)
    except OSError as exc:
        raise unwritable(folder, exc) from exc


def refuse_pipes(paths: Paths) -> None:
    """Refuse a data directory in which a pipe stands where a file is expected: whoever opens it waits for ever.

    Raises:
        ConfigError: one does; names it.
    """
    for folder in (paths.data_dir, paths.spool, paths.logs, paths.ptys):
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_file() or entry.is_dir() or not stat.S_ISFIFO(os.stat(entry.path).st_mode):
                    continue
                raise ConfigError(
                    where=entry.path,
                    problem="this is a pipe, not a file: it cannot be read without waiting for ever",
                    remedy="Move it away; a file of that name is made anew.",
                )


def read_at_once(file: Path) -> bytes:
    """What is in a file; nothing, at once, of a pipe that nobody writes to."""
    with open(file, "rb", opener=unwaiting) as stream:
        return stream.read()


def unwaiting(file: str, flags: int) -> int:
    """For `open(…, opener=)`: a pipe is opened at once, or not at all. What is made is private."""
    return os.open(file, flags | getattr(os, "O_NONBLOCK", 0), 0o600)


def unwritable(place: Path, exc: OSError) -> ConfigError:
    """The error for a file or folder of ours that cannot be written, with the remedy for the reason."""
    if exc.errno in NO_SPACE:
        remedy = "Free disk space; `tundra clean` shows what of ours can go."
    elif exc.errno == errno.EROFS:
        remedy = "The file system is mounted read-only: mount it writable, or choose another TUNDRA_DATA_DIR."
    elif exc.errno in (errno.EMFILE, errno.ENFILE):
        remedy = "Raise the limit of open files (`ulimit -n 4096`), then `tundra daemon restart`."
    elif exc.errno == errno.EISDIR:
        remedy = "Move the folder that stands in its place away."
    elif exc.errno in (errno.ENOTDIR, errno.EEXIST):
        remedy = "Move the file that stands in its place away, or choose another data directory with TUNDRA_DATA_DIR."
    else:
        remedy = "Correct its owner and mode, or choose another data directory with TUNDRA_DATA_DIR."
    kind = "directory" if os.path.isdir(place) else "file"  # `Path` raises where nobody may look
    problem = f"this {kind} cannot be written: {exc.strerror or exc}"
    return ConfigError(where=str(place), problem=problem, remedy=remedy)


def close_to_others(folder: Path) -> list[Path]:
    """Close what is directly in one of our folders to other users: 0600 for files, 0700 for folders; what was open."""
    closed = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                mode = stat.S_IMODE(entry.stat(follow_symlinks=False).st_mode)
                if mode & 0o077 and not entry.is_symlink():
                    os.chmod(entry.path, mode & 0o700)
                    closed.append(Path(entry.path))
    return closed


def _user_data_dir() -> str:
    import platformdirs  # 10 ms that only the default needs

    return platformdirs.user_data_dir(APP)


def _socket_folder(env: Mapping[str, str]) -> Path:
    base = env.get("XDG_RUNTIME_DIR")
    if base and os.path.isdir(base) and os.access(base, os.W_OK):
        return Path(base) / APP
    return Path(tempfile.gettempdir()) / f"{APP}-{os.getuid()}"


def _jupyter_runtime_dir() -> Path:
    from jupyter_core.paths import jupyter_runtime_dir  # 30 ms unless Jupyter has it loaded already

    return Path(jupyter_runtime_dir())
