"""The connection file, by which clients find the daemon while it answers, and the mark that keeps it stopped."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from pathlib import Path

from tundra_nb.errors import ConfigError
from tundra_nb.protocol.record import DaemonRecord, read


def write(file: Path, record: DaemonRecord) -> None:
    """Put the record into place in one step, readable by its owner only.

    Raises:
        ConfigError: the folder cannot be written.
    """
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)  # mkstemp makes it 0600
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(record.to_json())
            os.replace(draft, file)
        except BaseException:
            os.unlink(draft)
            raise
    except OSError as exc:
        raise ConfigError(
            where=str(file),
            problem=f"the connection file cannot be written: {exc.strerror or exc}",
            remedy="Correct the directory's owner and mode, or choose another one with JUPYTER_RUNTIME_DIR.",
        ) from exc


def remove(file: Path, pid: int) -> None:
    """Remove the connection file, unless it already belongs to a successor."""
    with contextlib.suppress(OSError):
        found = read(file.read_bytes())
        if found is None or found.pid == pid:
            file.unlink()


def hold(marker: Path, by: str) -> bool:
    """Leave the mark that keeps a stopped daemon stopped; False where it cannot be left, as on a full disk."""
    try:
        with open(os.open(marker, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
            json.dump({"at": time.time(), "by": by}, file)
    except OSError:
        return marker.exists()  # an empty one says the same
    return True
