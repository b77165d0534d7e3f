"""The connection record: who the daemon of a data directory is and where it listens.

Two copies exist. The lock file holds it from the first moment to the last, for diagnosis and for clients that look into
another Jupyter runtime directory; the connection file only while the daemon answers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

from tundra_nb.errors import ConfigError

State = Literal["starting", "ready", "stopping"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """What a client needs to know. The field names are part of the contract with clients of other versions."""

    pid: int
    socket: str
    host: str
    api: int
    version: str
    data_dir: str
    started_by: str
    started_at: float
    """Seconds since the epoch."""
    state: State = "starting"
    ended: str = ""
    """Why it stopped, when that was not asked of it."""
    start: int = 0
    """When the process began, in clock ticks since boot: with it a pid cannot be mistaken for a later process's."""

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    def in_state(self, state: State) -> Record:
        return dataclasses.replace(self, state=state)


def read(text: str) -> Record | None:
    """The record in a file's text; None when there is none, as in a lock file whose owner has only just opened it."""
    with contextlib.suppress(ValueError, TypeError):
        found: Any = json.loads(text)
        if not isinstance(found, dict):
            return None
        known = {field.name for field in dataclasses.fields(Record)}
        return Record(**{key: value for key, value in found.items() if key in known})
    return None


def write(file: Path, record: Record) -> None:
    """Put the record into place in one step, readable by its owner only.

    Raises:
        ConfigError: the folder cannot be written.
    """
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)  # mkstemp makes it 0600
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
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
        found = read(file.read_text(encoding="utf-8"))
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
