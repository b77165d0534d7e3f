"""The settings in force: applied, followed, and written down as rows of the versioned tables.

The settings file is the source; the tables hold what was in force when, committed at each change with author and
reason, so that `diff yesterday now` names the setting that changed beside the errors that followed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from tundra_nb import errors, settings
from tundra_nb.environment import account
from tundra_nb.runtime.history.query import FrameQuery
from tundra_nb.runtime.history.service import History
from tundra_nb.runtime.rows import Journal
from tundra_nb.runtime.telemetry.problems import Problems
from tundra_nb.settings import Loaded, lines
from tundra_nb.types import TABLE_OF, Price, ProfileRow, Setting, stable_id

POLL_SECONDS = 1.0
"""How often the settings file is looked at; an edit by hand is in force about so soon."""

VersionedRow = Setting | ProfileRow | Price
_IGNORED = frozenset({"at", "author", "reason", "source", "writer_id", "setting_id", "profile_id"})
"""Columns that do not make a row different."""

_log = logging.getLogger("tundra.router")


class InForce:
    """The settings in force. Whoever must hear of a change is in `parts`, in the order in which they are told.

    `lock` is held by whoever changes settings: one at a time, because each compares what is in force with what was.
    The first is `begin`, so that nobody's change comes before the settings at the start.
    """

    def __init__(self, loaded: Loaded, environ: Mapping[str, str], history: History, journal: Journal) -> None:
        self.loaded = loaded
        self.environ = environ
        self.parts: list[Callable[[Loaded], None]] = []
        self.lock = asyncio.Lock()
        self.problems = Problems()
        """`settings_file`: why the file as it stands is not in force."""
        self._history = history
        self._journal = journal
        self._seen: tuple[int, int] | None = None
        """The file as it was read last; None before the first look, which takes up an edit made during the start."""
        self.is_start_due = True
        """What is in force at the start is not in the history yet."""

    def apply(self, loaded: Loaded) -> None:
        """Put settings in force. Calls under way keep the ones they began with; what did not change is left alone.

        `store`, `log` and `daemon` need a restart; everything else is live.
        """
        self._seen = _stamp(loaded.file)  # a write of our own is no edit by somebody
        self.problems.end("settings_file")
        before, self.loaded = self.loaded, loaded
        if loaded.settings != before.settings:
            for part in self.parts:
                part(loaded)

    async def write_down(self, author: str, reason: str, message: str) -> str | None:
        """Commit the settings and profiles in force, if they differ from what the history holds."""
        rows = rows_of(self.loaded, self._journal.clock.now_us(), author, reason)
        differing = await changed(self._history, rows)
        if not differing:
            return None
        self._journal.record(*differing)
        return await self._history.versions.commit(message, signature(author))

    @contextlib.asynccontextmanager
    async def changing(self) -> AsyncIterator[None]:
        """Hold `lock`; the settings at the start are in the history then, unless the store is away."""
        async with self.lock:
            await self._write_down_start()
            yield

    async def begin(self) -> None:
        """Take `lock` for `follow`, before anybody can ask for a change."""
        await self.lock.acquire()

    async def follow(self) -> None:
        """After `begin`: write down what is in force; then put the file in force whenever somebody edits it."""
        try:
            await self._write_down_start()
        finally:
            self.lock.release()
        user = account(self.environ)
        while True:
            await self._journal.clock.sleep(POLL_SECONDS)
            async with self.changing():
                if (now := _stamp(self.loaded.file)) == self._seen:
                    continue
                self._seen = now
                try:
                    loaded = self._read()
                    if loaded.settings == self.loaded.settings:
                        continue
                    self.apply(loaded)
                    _log.info("settings of %s are in force", self.loaded.file)
                    await self.write_down(user, "edited", message=f"{self.loaded.file.name} edited")
                except errors.TundraError as error:
                    _log.error("settings stay as they were: %s", error)
                    self._journal.error("daemon", error)

    def _read(self) -> Loaded:
        try:
            loaded = settings.load(self.loaded.file, self.environ)
        except errors.ConfigError as error:
            self.problems.tell("settings_file", f"settings stay as they were: {error}", error.hint)
            raise
        self.problems.end("settings_file")
        return loaded

    async def _write_down_start(self) -> None:
        """Once: what is in force at the start. When the store is away, the next change tries again."""
        if not self.is_start_due or self._history.problem is not None:
            return
        with contextlib.suppress(errors.TundraError):
            await self.write_down(account(self.environ), "start", message="settings at start")
            self.is_start_due = False


def signature(user: str) -> str:
    """A user's name as the author of a commit."""
    name = "".join(character for character in user if character.isprintable() and character not in "<>") or "unknown"
    return f"{name} <{name if '@' in name else name.replace(' ', '.') + '@localhost'}>"


def _stamp(file: Path) -> tuple[int, int] | None:
    """Differs whenever the file has been written."""
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino


def rows_of(loaded: Loaded, now_us: int, author: str, reason: str) -> list[VersionedRow]:
    """All settings and profiles in force."""
    rows: list[VersionedRow] = [
        Setting(
            setting_id=stable_id("setting", line.path),
            path=line.path,
            value=json.dumps(line.value),
            source=line.source,
            at=now_us,
            author=author,
            reason=reason,
        )
        for line in lines(loaded)
    ]
    rows += [
        ProfileRow(
            profile_id=stable_id("profile", profile.name),
            name=profile.name,
            kind=profile.kind,
            base_url=profile.base_url,
            model=profile.model or None,
            priority=profile.priority,
            enabled=profile.enabled,
            api_key_env=profile.api_key_env,
            rpm=profile.rpm,
            tpm=profile.tpm,
            at=now_us,
        )
        for profile in loaded.settings.profile
    ]
    return rows


def differing(before: Loaded, after: Loaded, now_us: int, author: str, reason: str) -> dict[str, list[tuple[Any, ...]]]:
    """What is new or different in `after`, by table: rows of a proposal."""
    old = {(type(row), _name(row)): _content(msgspec.structs.asdict(row)) for row in rows_of(before, now_us, "", "")}
    found: dict[str, list[tuple[Any, ...]]] = {}
    for row in rows_of(after, now_us, author, reason):
        if old.get((type(row), _name(row))) != _content(msgspec.structs.asdict(row)):
            found.setdefault(TABLE_OF[type(row)], []).append(msgspec.structs.astuple(row))
    return found


async def changed(history: History, rows: Iterable[VersionedRow]) -> list[VersionedRow]:
    """Those that differ from this daemon's rows in the history; a profile that is gone comes back disabled."""
    wanted = {(type(row), _name(row)): row for row in rows}
    found: list[VersionedRow] = []
    stored: dict[tuple[type[Any], str], dict[str, Any]] = {}
    for table, form, name in (("setting", Setting, "path"), ("profile", ProfileRow, "name")):
        for stored_row in await history.rows(FrameQuery(table=table, where=history.own)):
            stored[form, stored_row[name]] = stored_row
    for key, row in wanted.items():
        if _content(stored.get(key)) != _content(msgspec.structs.asdict(row)):
            found.append(row)
    now = max((row.at for row in wanted.values()), default=0)
    for key, old in stored.items():
        if key[0] is ProfileRow and key not in wanted and old["enabled"]:
            found.append(msgspec.convert({**old, "enabled": False, "at": now, "type": "Profile"}, ProfileRow))
    return found


def _name(row: VersionedRow) -> str:
    if isinstance(row, Setting):
        return row.path
    return row.name if isinstance(row, ProfileRow) else row.model


def _content(row: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if row is None:
        return None
    return {name: value for name, value in row.items() if name not in _IGNORED}
