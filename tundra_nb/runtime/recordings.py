"""Recordings: request and answer of an attempt, masked, with the time of each piece; one file each.

Content never enters the history: a row of `exchange` names the file, its SHA-256 and the sizes. So a push takes no
prompt along, and old content goes by deleting files. Files are `recordings/DAY/OPERATION-ATTEMPT.json`, 0600; those of
an incident's window stay while the incident stands in the history, all others go after `record.days`, or earlier,
oldest first, when all together are larger than `record.max_mb`.
"""

from __future__ import annotations

import codecs
import concurrent.futures
import contextlib
import datetime as dt
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tundra_nb.paths import make_folder
from tundra_nb.runtime.clock import Clock
from tundra_nb.settings import RecordSettings

FORMAT = 1
SWEEP_FILES = 200
"""So many files later the folder is looked through for what is too old or too much."""
DAY_US = 86_400_000_000

_log = logging.getLogger("tundra.providers")


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt as it went over the wire."""

    format: int = FORMAT
    operation_id: str
    attempt_id: str
    at: int
    """Microseconds since 1970."""
    profile: str
    kind: str
    model: str | None = None
    outcome: str
    code: str | None = None
    status: int | None = None
    request: str
    frames: list[tuple[float, str]]
    """Pieces of the answer's body as they came: milliseconds since the request was sent, and text."""
    first_byte_ms: float | None = None
    latency_ms: float | None = None
    is_whole: bool = True
    """False: masking has changed more than single pieces, so that the answer's text stands for the wire's."""


class KeptRecording(msgspec.Struct, frozen=True):
    """A recording that has been given a file."""

    name: str
    """Below `recordings/`."""
    sha256: str


def frames_of(
    arrivals: Sequence[tuple[float, bytes]], redact: Callable[[str], str]
) -> tuple[list[tuple[float, str]], bool]:
    """Pieces as masked text with their times in ms, and whether they still are what came, but for masked words.

    A secret that lies across two pieces is masked all the same: then all is one piece, at the time of the last.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    if not arrivals:
        return [], True
    pieces = [(when * 1000, decoder.decode(data)) for when, data in arrivals]
    if rest := decoder.decode(b"", final=True):
        pieces.append((pieces[-1][0], rest))
    whole = redact("".join(text for _, text in pieces))
    masked = [(round(when, 3), redact(text)) for when, text in pieces]
    if "".join(text for _, text in masked) == whole:
        return masked, True
    return [(masked[-1][0], whole)], False


class Recordings:
    """The folder of recordings. Files are written by one thread of its own, so that no answer waits for a disk.

    Args:
        folder: of the recordings; made when it is needed.
        settings: `[record]` as it is in force.
        reserve_bytes: what is to stay free on the disk now.
        clock: for ages.
    """

    def __init__(
        self,
        folder: Path,
        settings: Callable[[], RecordSettings],
        reserve_bytes: Callable[[], int],
        clock: Clock,
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._reserve = reserve_bytes
        self._clock = clock
        self._writer = concurrent.futures.ThreadPoolExecutor(1, "recordings")
        self._until_sweep = 0
        self._is_short = False
        self.windows: Sequence[tuple[int, int]] | None = None
        """Windows of the incidents in the history, in microseconds; None: not known yet, so nothing is deleted."""

    def __repr__(self) -> str:
        return f"<Recordings in {self._folder}>"

    def keep(self, recording: Recording) -> KeptRecording:
        """Have a recording written soon; its name and hash are known at once."""
        data = msgspec.json.encode(recording)
        day = dt.datetime.fromtimestamp(recording.at / 1e6, dt.UTC).strftime("%Y-%m-%d")
        name = f"{day}/{recording.operation_id}-{recording.attempt_id}.json"
        self._writer.submit(self._write, name, data)
        return KeptRecording(name, hashlib.sha256(data).hexdigest())

    def read(self, name: str) -> Recording | None:
        """A recording; None when it has gone, or is not to be read. Waits for the writer: not for an event loop."""
        with contextlib.suppress(RuntimeError):  # closed: all is written
            self._writer.submit(lambda: None).result()
        return read(self._folder, name)

    def close(self) -> None:
        """Write what is waiting, and end. Not for an event loop."""
        self._writer.shutdown()

    def _write(self, name: str, data: bytes) -> None:
        try:
            if self._until_sweep <= 0:
                self.sweep()
                self._until_sweep = SWEEP_FILES
            self._until_sweep -= 1
            file = self._folder / name
            make_folder(file.parent)
            if shutil.disk_usage(file.parent).free - len(data) < self._reserve():
                self._tell_short("the disk has less left than `store.reserve_mb`")
                return
            draft = file.with_suffix(".new")
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
                out.write(data)
            draft.replace(file)
            self._is_short = False
        except OSError as exc:
            self._tell_short(exc.strerror or str(exc))

    def _tell_short(self, why: str) -> None:
        if not self._is_short:
            _log.warning("recordings are not kept at the moment: %s", why)
        self._is_short = True

    def sweep(self) -> int:
        """Delete what is too old or too much; how many files went. Reads the folder: not for an event loop."""
        settings, windows = self._settings(), self.windows
        if windows is None:
            return 0
        files = sorted(self._folder.glob("*/*.json"))
        sizes = {file: _size(file) for file in files}
        total = sum(sizes.values())
        oldest = self._clock.now_us() - settings.days * DAY_US
        gone = 0
        for file in files:
            at = _at(file)
            if at >= oldest and total <= settings.max_mb * 1e6:
                continue
            if any(begin <= at <= end for begin, end in windows):
                continue
            with contextlib.suppress(OSError):
                file.unlink()
                gone += 1
                total -= sizes[file]
        for day in self._folder.glob("*"):
            with contextlib.suppress(OSError):
                day.rmdir()  # only when it is empty
        return gone


def read(folder: Path, name: str) -> Recording | None:
    """A recording of a folder; None when it is not there, or is none. Not for an event loop."""
    file = inside(folder, name)
    if file is None:
        return None
    try:
        return msgspec.json.decode(file.read_bytes(), type=Recording)
    except (OSError, msgspec.DecodeError):
        return None


def inside(folder: Path, name: str) -> Path | None:
    """The file of a recording by the name in a row; None when the name leads elsewhere: rows come from remotes too."""
    parts = name.split("/")
    if len(parts) != 2 or any(part in ("", ".", "..") or "\0" in part for part in parts):
        return None
    file = folder / parts[0] / parts[1]
    return None if file.is_symlink() or file.parent.is_symlink() else file


def texts(recording: Recording | None) -> dict[str, Any]:
    """Request and answer for whoever reads them; empty when the recording has gone."""
    if recording is None:
        return {"request": "", "response": ""}
    return {"request": recording.request, "response": "".join(text for _, text in recording.frames)}


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _at(file: Path) -> int:
    """When it was recorded, by the time in the operation's id; now for a file of another name, which then stays."""
    first = file.name.partition("-")[0]
    return (int(first) >> 22) * 1000 if first.isdecimal() else 1 << 62
