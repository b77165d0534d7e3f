"""The daemon's face of the archive: has days copied and proven, and questions answered out of archive and store."""

from __future__ import annotations

import asyncio
import datetime as dt
import importlib.util
import shutil
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from tundra_nb.errors import ConfigError, StoreBusy, UsageError
from tundra_nb.protocol.archive import LEAST_DAYS, Archive, Archiving
from tundra_nb.protocol.query import LATENCY_BAND, FrameQuery, checked
from tundra_nb.runtime.clock import Clock
from tundra_nb.runtime.history.line import ArrowStream, asked
from tundra_nb.runtime.history.on_demand import OnDemand
from tundra_nb.runtime.history.protocol import WorkerRequest
from tundra_nb.runtime.history.query import ungrouped
from tundra_nb.runtime.history.service import History
from tundra_nb.runtime.id_layout import id_floor
from tundra_nb.types import FRAME_VERSION, KEY_OF

from .place import (
    ARCHIVED,
    DAY_US,
    KEY_SLACK_US,
    ArchivedDay,
    ArchivedPart,
    ArchiveFolder,
    ArchiveManifest,
    TableArchive,
    begin_us,
    day_of,
)

MODULE = "tundra_nb.runtime.archive.worker"
SAVE_SECONDS = 2.0
"""Between two saves of the manifest: so much of the work a killed run loses."""


class Archives:
    """The archive of one daemon. Nothing starts before it is used; `aclose` ends the worker."""

    def __init__(
        self, folder: Path, history: History, environ: Mapping[str, str], clock: Clock, reserve_mb: Callable[[], float]
    ) -> None:
        self._place = ArchiveFolder(folder)
        self._history = history
        self._clock = clock
        self._reserve_mb = reserve_mb
        self._copying = asyncio.Lock()
        self.worker = OnDemand(MODULE, [str(folder)], environ, "the archive")
        self.reads = Together(self, history)

    @property
    def is_readable(self) -> bool:
        """Whether DuckDB is installed."""
        return importlib.util.find_spec("duckdb") is not None

    @property
    def exists(self) -> bool:
        return self._place.exists

    async def manifest(self) -> ArchiveManifest:
        """What is archived. Raises `ArchiveDamaged` when that cannot be read."""
        return await asyncio.to_thread(self._place.load)

    async def state(self) -> Archive:
        """What there is, for people; with how many rows came late into archived days."""
        manifest = await self.manifest()
        late = {}
        rows = await rows_of(self._history) if manifest.tables else {}
        for table, archived in manifest.tables.items():
            if not archived.until or not rows.get(table):
                continue
            below = await self._history.call("below", table=table, key=archived.key)
            if below > archived.below:
                late[table] = below - archived.below
        told = self._place.state(manifest)
        return msgspec.structs.replace(told, readable=self.is_readable, late=late)

    async def aclose(self) -> None:
        """End the worker. May be called twice."""
        await self.worker.aclose()

    # --- copying ---

    async def run(self, before_us: int | None, *, verify: bool) -> AsyncIterator[Archiving | Archive]:
        """Copy whole days that end by `before_us`, prove what is there; how far it is, and then what there is.

        A day that is archived already is copied again only when the history has more rows of it. Closing the iterator
        ends the run: what is copied stays.

        Raises:
            UsageError: the days are not over yet.
            StoreBusy: another run is under way.
            ConfigError: the disk is full, or cannot be written.
            ArchiveDamaged: a file is damaged, and the history has not the rows to copy it anew.
        """
        if before_us is not None and before_us > self._clock.now_us() - LEAST_DAYS * DAY_US:
            raise UsageError(
                problem="a day is archived when it has been over for a day",
                field="older-than",
                remedy="`--older-than 1d` is the least.",
            )
        if self._copying.locked():
            raise StoreBusy(problem="the archive is being made already", remedy="Wait until it is.", kind="archive")
        async with self._copying:
            run = _Run(self._place, self._history, self.worker, self._clock, self._free)
            try:
                await run.begin()
                if verify:
                    async for step in run.verify():
                        yield step
                if before_us is not None or run.damaged:
                    async for step in run.copy(None if before_us is None else day_of(before_us), self._now):
                        yield step
                await run.save()
                await asyncio.to_thread(self._place.sweep, run.manifest)
            finally:
                run.save_what_is_new()
            run.refuse_unrepaired()
            told = await self.state()
            yield msgspec.structs.replace(
                told,
                copied_rows=run.copied_rows,
                copied_files=run.copied_files,
                verified_files=run.verified_files + run.copied_files,
                repaired=run.repaired,
            )

    def _now(self) -> str:
        return dt.datetime.fromtimestamp(self._clock.now_us() / 1e6, dt.UTC).isoformat(timespec="seconds")

    def _free(self) -> None:
        """Refuse to go on where the disk has no more than what is kept for the spool.

        Raises:
            ConfigError: it is so.
        """
        folder = self._place.folder
        with self._place.writing():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            free = shutil.disk_usage(folder).free
        if free < self._reserve_mb() * 1e6:
            raise ConfigError(
                where=str(folder),
                problem=f"the disk has {free / 1e6:,.0f} MB left, and `store.reserve_mb` keeps"
                f" {self._reserve_mb():,.0f} free for the history itself",
                remedy="Free disk space and run it again: what is archived stays.",
            )

    # --- reading ---

    async def tables(self, text: str) -> list[str]:
        """The tables that a statement reads. Raises `QueryRefused` when it is none that may be run."""
        found: list[str] = await asked(self.worker, WorkerRequest(method="tables", params={"text": text}))
        return found

    def is_late(self, archived: TableArchive, below: int) -> bool:
        """Whether the history has rows of archived days that the archive has not.

        A history that has none at all is a new one, beside the archive of an older.
        """
        return below not in (archived.below, 0)

    async def piece(
        self,
        manifest: ArchiveManifest,
        table: str,
        query: FrameQuery | None,
        wait: float | None,
        inputs: list[socket.socket],
    ) -> dict[str, Any] | None:
        """What a question reads of a table: files of the archive, and an answer of the store, added to `inputs`.

        None where the archive has nothing for it.
        """
        archived = manifest.tables.get(table)
        if archived is not None and not archived.until:
            archived = None  # the first run over it has not ended
        if archived is not None and self.is_late(
            archived, await self._history.call("below", table=table, key=archived.key)
        ):
            archived = None
        since_us = query.since_us if query else None
        until_us = query.until_us if query else None
        if query is not None and (archived is None or (since_us or 0) >= begin_us(archived.until)):
            return None
        days: list[ArchivedDay] = []
        if archived is not None:
            first = day_of(since_us) if since_us is not None else ""
            last = day_of(until_us - 1) if until_us is not None else "9999-12-31"
            days = [entry for day, entry in archived.days.items() if first <= day <= last and day < archived.until]
            begin = begin_us(archived.until)
            since_us = begin if since_us is None else max(begin, since_us)
        told: dict[str, Any] = {
            "parts": msgspec.to_builtins([part for entry in days for part in entry.parts]),
            "frame_version": max((entry.frame_version for entry in days), default=FRAME_VERSION),
            "input": None,
        }
        if until_us is None or since_us is None or since_us < until_us:
            rest = FrameQuery(table=table, since_us=since_us, until_us=until_us, where=query.where if query else [])
            if query is not None:
                rest = msgspec.structs.replace(rest, columns=_columns(query))
            told["input"] = len(inputs)
            inputs.append(await self._history.socket_of(rest, wait))
        return told


async def rows_of(history: History) -> dict[str, int]:
    """How many rows each table of the history has, which the engines know."""
    return {str(info["table"]): int(info["rows"]) for info in await history.call("tables")}


def _columns(query: FrameQuery) -> list[str]:
    """What a grouped question needs of the store's rows: what it groups by, and what its conditions look at."""
    looked_at = {condition.column for condition in query.where}
    if "profile" in looked_at and query.table == "operation":
        looked_at.add("asked")
    return [*{*(ungrouped(query).columns or ()), *looked_at}]


class _Run:
    """One run of the copying."""

    def __init__(
        self, place: ArchiveFolder, history: History, worker: OnDemand, clock: Clock, free: Callable[[], None]
    ) -> None:
        self._place = place
        self._history = history
        self._worker = worker
        self._clock = clock
        self._free = free
        self._is_new = False
        self._saved = self._clock.monotonic()
        self.manifest = ArchiveManifest()
        self.damaged: dict[tuple[str, str], str] = {}
        """File by table and day."""
        self.repaired: list[str] = []
        self.copied_rows = self.copied_files = self.verified_files = 0

    async def begin(self) -> None:
        self.manifest = await asyncio.to_thread(self._place.load)
        await asyncio.to_thread(self._place.sweep, self.manifest)

    async def verify(self) -> AsyncIterator[Archiving]:
        """Read every file, and compare its rows with those of the history where that has all of them."""
        commit = await self._commit()
        whole, done = sum(part.rows for _, _, part in self.manifest.parts()), 0
        for table, archived in self.manifest.tables.items():
            for day, entry in archived.days.items():
                yield Archiving(doing="verifying", table=table, day=day, done_rows=done, rows=whole)
                if damage := await self._damage(table, day, entry, commit):
                    self.damaged[table, day] = damage
                else:
                    self.verified_files += len(entry.parts)
                done += entry.rows

    async def _damage(self, table: str, day: str, entry: ArchivedDay, commit: str) -> str:
        """Which file of a day is damaged, and how; empty for none."""
        for part in entry.parts:
            request = WorkerRequest(method="verify", params={"part": msgspec.to_builtins(part)})
            if damage := await asked(self._worker, request):
                return f"{part.file}: it {damage}"
        params = {"table": table, "day": msgspec.to_builtins(entry)}
        differing = await self._asked("compare", params, _of_day(table, day, commit))
        return f"{differing[0]}: it has other rows than the history" if differing else ""

    async def _commit(self) -> str:
        """The state of the history as it is now."""
        await self._history.call("commit_events")
        return str(await self._history.call("resolve", ref="HEAD"))

    async def copy(self, before: str | None, now: Callable[[], str]) -> AsyncIterator[Archiving]:
        """Copy the days of all tables before this one, or only the damaged ones."""
        commit = await self._commit()
        rows = await rows_of(self._history)
        tables = [
            table for table in ARCHIVED if before is not None or any(damaged == table for damaged, _ in self.damaged)
        ]
        wanted: list[tuple[str, str, list[int]]] = []
        state: dict[str, tuple[str, int, int]] = {}
        for table in tables:
            yield Archiving(doing="counting", table=table)
            there = self.manifest.tables.get(table)
            until = max(before or "", there.until if there else "")
            key = id_floor(max(0, begin_us(until) - KEY_SLACK_US))
            if not rows.get(table):
                state[table] = until, key, 0
                continue
            state[table] = until, key, await self._history.call("below", table=table, key=key, at=commit)
            for day, counted in (await self._days(table, until, commit)).items():
                entry = there.days.get(day) if there else None
                is_new = entry is None or [entry.rows, entry.keys] != counted or (table, day) in self.damaged
                if is_new and (entry is None or counted[0] >= entry.rows):
                    wanted.append((table, day, counted))
        whole = sum(counted[0] for _, _, counted in wanted)
        for table in tables:
            for _, day, counted in (one for one in wanted if one[0] == table):
                yield Archiving(doing="copying", table=table, day=day, done_rows=self.copied_rows, rows=whole)
                await self._day(table, day, counted, commit, now())
            until, key, below = state[table]
            there = self.manifest.tables.get(table)
            if there is not None:
                there.until, there.key, there.below = until, key, below
            elif before is not None:
                self.manifest.tables[table] = TableArchive(until=until, key=key, below=below)
            self._is_new = True

    async def _days(self, table: str, until: str, commit: str) -> dict[str, list[int]]:
        """Rows and sum of keys of each day before this one, in the history."""
        key = KEY_OF[table]
        query = FrameQuery(table=table, until_us=begin_us(until), at=commit, columns=[key, "at"])
        found: dict[str, list[int]] = await self._asked("days", {"key": key}, query)
        return found

    async def _day(self, table: str, day: str, counted: list[int], commit: str, now: str) -> None:
        await asyncio.to_thread(self._free)
        params = {"table": table, "day": day, "frame_version": FRAME_VERSION}
        parts = msgspec.convert(await self._asked("copy", params, _of_day(table, day, commit)), list[ArchivedPart])
        if sum(part.rows for part in parts) != counted[0]:
            raise self._place.damaged(f"{table}/{day}", f"got other rows than the {counted[0]:,} that were counted")
        archived = self.manifest.tables.setdefault(table, TableArchive(until="", key=0, below=0))
        archived.days[day] = ArchivedDay(
            rows=counted[0], keys=counted[1], commit=commit, frame_version=FRAME_VERSION, at=now, parts=parts
        )
        archived.days = dict(sorted(archived.days.items()))
        self.copied_rows += counted[0]
        self.copied_files += len(parts)
        if (damaged := self.damaged.pop((table, day), None)) is not None:
            self.repaired.append(damaged)
        self._is_new = True
        if self._clock.monotonic() - self._saved > SAVE_SECONDS:
            await self.save()

    async def _asked(self, method: str, params: dict[str, Any], query: FrameQuery) -> Any:
        """Have the archive's worker work on an answer of the store's."""
        rows = await self._history.socket_of(query)
        try:
            return await asked(_With(self._worker, rows), WorkerRequest(method=method, params=params), 1)
        finally:
            rows.close()

    async def save(self) -> None:
        await asyncio.to_thread(self.save_what_is_new)

    def save_what_is_new(self) -> None:
        if self._is_new:
            self._place.save(self.manifest)
            self._is_new, self._saved = False, self._clock.monotonic()

    def refuse_unrepaired(self) -> None:
        """Raise for what is damaged and could not be copied anew."""
        for damaged in self.damaged.values():
            file, _, how = damaged.partition(": it ")
            raise self._place.damaged(file, f"{how}, and the history has not its rows any more")


def _of_day(table: str, day: str, commit: str) -> FrameQuery:
    """The history's rows of a day, as of a commit."""
    begin = begin_us(day)
    return FrameQuery(table=table, since_us=begin, until_us=begin + DAY_US, at=commit)


class _With:
    """The way to a worker (`line.WorkerLine`), with what it is to read."""

    def __init__(self, worker: OnDemand, *inputs: socket.socket) -> None:
        self._worker = worker
        self._inputs = inputs

    @property
    def lives(self) -> int:
        return self._worker.lives

    async def ask(self, request: WorkerRequest) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await self._worker.ask(request, *self._inputs)

    async def notice_end(self, life: int) -> None:
        await self._worker.notice_end(life)


class Together:
    """Reads of the history, which take old days from the archive where that is possible (`sources.service.Reads`)."""

    def __init__(self, archive: Archives, history: History) -> None:
        self._archive = archive
        self._history = history

    def query(self, query: FrameQuery, wait: float | None = None) -> ArrowStream:
        """Rows of one table, or groups of them."""
        if not self._is_for(query):
            return self._history.query(query, wait)
        return ArrowStream(_Grouped(self._archive, self._history, query, wait), WorkerRequest(method="frame"))

    async def rows(self, query: FrameQuery) -> list[dict[str, Any]]:
        """The same rows as plain values."""
        if not self._is_for(query):
            return await self._history.rows(query)
        line = _Grouped(self._archive, self._history, query, None)
        found: list[dict[str, Any]] = await asked(line, WorkerRequest(method="rows"))
        return found

    def sql(
        self, text: str, at: str | int | None = None, limit: int | None = None, wait: float | None = None
    ) -> ArrowStream:
        """One read-only statement in the store's own dialect, over the store."""
        return self._history.sql(text, at, limit, wait)

    def archive_sql(self, text: str, limit: int | None = None, wait: float | None = None) -> ArrowStream:
        """One SELECT in DuckDB's dialect, over store and archive together.

        Raises:
            UsageError: DuckDB is not installed.
        """
        if not self._archive.is_readable:
            raise UsageError(
                problem="DuckDB, which reads the archive, is not installed where the daemon runs",
                field="archive",
                remedy="`pip install 'tundra-nb[archive]'`; without `--archive` the statement goes to the store alone.",
            )
        return ArrowStream(_Statement(self._archive, self._history, text, limit, wait), WorkerRequest(method="sql"), 1)

    def _is_for(self, query: FrameQuery) -> bool:
        """Groups of all there is now: a state of the history is the history's alone, and so are single rows."""
        return (
            query.is_grouped
            and query.at is None
            and query.limit is None
            and LATENCY_BAND not in query.by
            and checked(query).table in ARCHIVED
            and self._archive.exists
            and self._archive.is_readable
        )


class _Grouped:
    """The way of a grouped question (`line.WorkerLine`): to the archive's worker, else to the store's."""

    def __init__(self, archive: Archives, history: History, query: FrameQuery, wait: float | None) -> None:
        self._archive = archive
        self._history = history
        self._query = checked(query)
        self._wait = wait

    @property
    def lives(self) -> int:
        return self._archive.worker.lives + self._history.lives

    async def ask(self, request: WorkerRequest) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        query, inputs = self._query, list[socket.socket]()
        try:
            piece = await self._archive.piece(await self._archive.manifest(), query.table, query, self._wait, inputs)
            if piece is None:
                return await self._history.ask(self._history.request(request.method, query, self._wait))
            params = {
                "query": msgspec.to_builtins(query),
                "engine": self._history.engine,
                "tables": {query.table: piece},
            }
            return await self._archive.worker.ask(WorkerRequest(method=request.method, params=params), *inputs)
        finally:
            for one in inputs:
                one.close()

    async def notice_end(self, life: int) -> None:
        worker = self._archive.worker
        await worker.notice_end(worker.lives)
        await self._history.notice_end(life - worker.lives)


class _Statement:
    """The way of free SQL (`line.WorkerLine`)."""

    def __init__(self, archive: Archives, history: History, text: str, limit: int | None, wait: float | None) -> None:
        self._archive = archive
        self._history = history
        self._text = text
        self._limit = limit
        self._wait = wait

    @property
    def lives(self) -> int:
        return self._archive.worker.lives

    async def ask(self, request: WorkerRequest) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        tables = await self._archive.tables(self._text)
        manifest = await self._archive.manifest()
        inputs: list[socket.socket] = []
        try:
            pieces = {table: await self._archive.piece(manifest, table, None, self._wait, inputs) for table in tables}
            params = {"text": self._text, "limit": self._limit, "engine": self._history.engine, "tables": pieces}
            return await self._archive.worker.ask(WorkerRequest(method=request.method, params=params), *inputs)
        finally:
            for one in inputs:
                one.close()

    async def notice_end(self, life: int) -> None:
        await self._archive.worker.notice_end(life)
