"""The archive's folder: its files, and the manifest that says which they are.

A file is there when the manifest says so, and not before: it is written under another name, read back, compared and
renamed, and the manifest is replaced as a whole. A run that is killed anywhere leaves at most files that nobody reads,
which the next one removes.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tundra_nb.errors import ArchiveDamaged
from tundra_nb.paths import unwritable
from tundra_nb.protocol.archive import Archive
from tundra_nb.types import REPLACED_TABLES, TABLES, VERSIONED_TABLES

MANIFEST = "manifest.json"
FORMAT = 1
ARCHIVED = tuple(
    table
    for table in TABLES
    if table not in VERSIONED_TABLES and table not in REPLACED_TABLES and table != "imported_log"
)
"""Tables whose rows never change. The others are small, and wholly in the history."""
UNFINISHED = ".part-"
"""Begins the name of a file that is being written."""
DAY_US = 86_400_000_000
KEY_SLACK_US = 300_000_000
"""Rows may be so much older than their keys."""
_FILE = re.compile(r"([a-z_]+)/(\d{4}-\d{2}-\d{2})-\d{3,}-[0-9a-f]{16}\.parquet")


class ArchivedPart(msgspec.Struct, frozen=True, kw_only=True):
    """One file."""

    file: str
    """Below the archive's folder."""
    rows: int
    size_bytes: int
    sha256: str
    """Of the file."""
    digest: str
    """Of the rows (`protocol.digest`), over the columns of the frame version: the same on any engine."""


class ArchivedDay(msgspec.Struct, frozen=True, kw_only=True):
    """One UTC day of one table."""

    rows: int
    keys: int
    """Sum of the keys, modulo 2**63: a day that has the same rows in the history has the same."""
    commit: str
    """The state of the history that it was copied from."""
    frame_version: int
    at: str
    """When it was copied."""
    parts: list[ArchivedPart]


class TableArchive(msgspec.Struct, kw_only=True):
    """What is archived of a table."""

    until: str
    """Days before this one are in the archive, all of them: those without an entry had no rows. Empty until the first
    run over the table has ended."""
    below: int
    """So many rows below `key` the history had when they were copied. If it has more now, some came late."""
    key: int
    days: dict[str, ArchivedDay] = {}


class _Sealed(msgspec.Struct, kw_only=True):
    """The manifest as it stands in its file."""

    format: int = FORMAT
    sha256: str = ""
    """Of `tables` without the space between. Empty: written before it was kept."""
    tables: msgspec.Raw


class ArchiveManifest(msgspec.Struct, kw_only=True):
    """What the archive holds."""

    tables: dict[str, TableArchive] = {}

    def parts(self) -> Iterator[tuple[str, str, ArchivedPart]]:
        """Every file, with its table and day."""
        for table, archived in self.tables.items():
            for day, entry in archived.days.items():
                for part in entry.parts:
                    yield table, day, part


class ArchiveFolder:
    """The folder of one daemon's archive."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def exists(self) -> bool:
        return (self.folder / MANIFEST).exists()

    def load(self) -> ArchiveManifest:
        """The manifest; an empty one where there is no archive.

        Raises:
            ArchiveDamaged: it cannot be read, or names what is no file of the archive.
        """
        try:
            sealed = msgspec.json.decode((self.folder / MANIFEST).read_bytes(), type=_Sealed)
            if sealed.format != FORMAT:
                raise self.damaged(MANIFEST, f"is of format {sealed.format}, and this version reads {FORMAT}")
            if sealed.sha256 and sealed.sha256 != _sha256(sealed.tables):
                raise self.damaged(MANIFEST, "is not what was written: somebody edited it")
            manifest = ArchiveManifest(tables=msgspec.json.decode(sealed.tables, type=dict[str, TableArchive]))
        except FileNotFoundError:
            return ArchiveManifest()
        except OSError as exc:
            raise self.damaged(MANIFEST, f"cannot be read: {exc.strerror}") from exc
        except (msgspec.MsgspecError, UnicodeError) as exc:
            raise self.damaged(MANIFEST, f"cannot be read: {exc}") from exc
        for table, day, part in manifest.parts():
            match = _FILE.fullmatch(part.file)
            if table not in ARCHIVED or match is None or match.groups() != (table, day):
                raise self.damaged(MANIFEST, f"names what is no file of an archive: {part.file[:80]!r}")
        return manifest

    def save(self, manifest: ArchiveManifest) -> None:
        """Replace the manifest, durably.

        Raises:
            ConfigError: the disk is full, or cannot be written.
        """
        tables = msgspec.Raw(msgspec.json.encode(manifest.tables))
        text = msgspec.json.format(msgspec.json.encode(_Sealed(sha256=_sha256(tables), tables=tables)), indent=1)
        with self.writing():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=UNFINISHED, dir=self.folder)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(name, self.folder / MANIFEST)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(name)
                raise
            sync_folder(self.folder)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Where a failure of the disk becomes an error of ours.

        Raises:
            ConfigError: the disk is full, or cannot be written.
        """
        try:
            yield
        except OSError as exc:
            if isinstance(exc, ConnectionError | TimeoutError):
                raise
            raise unwritable(self.folder, exc) from exc

    def sweep(self, manifest: ArchiveManifest) -> None:
        """Remove files of ours that the manifest does not have: what runs that were cut short, and repairs, left."""
        known = {part.file for _, _, part in manifest.parts()}
        for folder, _, names in os.walk(self.folder):
            for name in names:
                path = Path(folder, name)
                inside = path.relative_to(self.folder).as_posix()
                if name.startswith(UNFINISHED) or (_FILE.fullmatch(inside) and inside not in known):
                    with contextlib.suppress(OSError):
                        path.unlink()

    def state(self, manifest: ArchiveManifest) -> Archive:
        """What there is, for people."""
        parts = list(manifest.parts())
        days = [day for archived in manifest.tables.values() for day in archived.days.values()]
        newest = max(days, key=lambda day: day.at, default=None)
        untils = [archived.until for archived in manifest.tables.values() if archived.until]
        return Archive(
            folder=str(self.folder),
            since=min((day for _, day, _ in parts), default=None),
            until=min(untils, default=None),
            files=len(parts),
            rows=sum(part.rows for _, _, part in parts),
            size_bytes=sum(part.size_bytes for _, _, part in parts),
            tables={
                table: rows
                for table, archived in manifest.tables.items()
                if (rows := sum(day.rows for day in archived.days.values()))
            },
            commit=newest.commit if newest else None,
            at=newest.at if newest else None,
        )

    def damaged(self, file: str, how: str) -> ArchiveDamaged:
        """The error for a file of the archive that is not what it was."""
        remedy = (
            "Move the archive's folder away: reads go on without it, and `%tundra archive --older-than AGE`"
            " makes it anew."
            if file == MANIFEST
            else "`%tundra archive --verify` copies what is damaged anew from the history; reads without the archive go"
            " on once its folder is moved away."
        )
        return ArchiveDamaged(problem=f"{self.folder / file} of the archive {how}", remedy=remedy)


def _sha256(tables: msgspec.Raw) -> str:
    return hashlib.sha256(msgspec.json.format(bytes(tables), indent=-1)).hexdigest()


def day_of(at_us: int) -> str:
    """The UTC day that a time is in, ISO."""
    return (dt.date(1970, 1, 1) + dt.timedelta(days=at_us // DAY_US)).isoformat()


def begin_us(day: str) -> int:
    """When a UTC day begins."""
    return (dt.date.fromisoformat(day) - dt.date(1970, 1, 1)).days * DAY_US


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
