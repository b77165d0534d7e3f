"""The daemon's face of the sources: lists them, has them made and read by a worker that lives while it is needed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from tundra_nb.errors import from_wire
from tundra_nb.protocol.query import FrameQuery, checked
from tundra_nb.protocol.sources import ImportBody, Importing, Source
from tundra_nb.runtime.history.line import ArrowStream, asked, close, lost
from tundra_nb.runtime.history.on_demand import OnDemand
from tundra_nb.runtime.history.protocol import ERROR, JSON, PROGRESS, WorkerRequest, read_frame
from tundra_nb.runtime.history.story import StoredStory, WantedOperation
from tundra_nb.runtime.telemetry.redact import Redactor

from .place import SourcesFolder

MODULE = "tundra_nb.runtime.sources.worker"


class Reads(Protocol):
    """What rows are read from: the history, or a source."""

    def query(self, query: FrameQuery, wait: float | None = None) -> ArrowStream:
        """Rows of one table, or groups of them."""

    async def rows(self, query: FrameQuery) -> list[dict[str, Any]]:
        """The same rows as plain values."""

    def sql(
        self, text: str, at: str | int | None = None, limit: int | None = None, wait: float | None = None
    ) -> ArrowStream:
        """One read-only statement."""


class SourceReader:
    """Reads of one source, like those of the history."""

    def __init__(self, sources: Sources, name: str) -> None:
        self._sources = sources
        self._name = name

    def query(self, query: FrameQuery, wait: float | None = None) -> ArrowStream:
        del wait  # a source is never behind
        return ArrowStream(self._sources.worker, self._request("frame", query))

    async def rows(self, query: FrameQuery) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = await asked(self._sources.worker, self._request("rows", query))
        return found

    async def story(self, wanted: WantedOperation) -> StoredStory:
        """All rows of one operation."""
        params = {"source": self._name, "wanted": msgspec.to_builtins(wanted)}
        return msgspec.convert(
            await asked(self._sources.worker, WorkerRequest(method="story", params=params)), StoredStory
        )

    def sql(
        self, text: str, at: str | int | None = None, limit: int | None = None, wait: float | None = None
    ) -> ArrowStream:
        del wait
        params = {"source": self._name, "text": text, "at": at, "limit": limit}
        return ArrowStream(self._sources.worker, WorkerRequest(method="sql", params=params))

    def _request(self, method: str, query: FrameQuery) -> WorkerRequest:
        return WorkerRequest(method=method, params={"source": self._name, "query": msgspec.to_builtins(checked(query))})


class Sources:
    """The sources of one daemon. Nothing starts before the first read; `aclose` ends the worker."""

    def __init__(self, folder: Path, redactor: Redactor, environ: Mapping[str, str]) -> None:
        self._place = SourcesFolder(folder)
        self._redactor = redactor
        self.worker = OnDemand(MODULE, [str(folder)], environ, "sources")

    def all(self) -> list[Source]:
        """Every source, the oldest import first."""
        return self._place.all()

    def find(self, name: str) -> Source:
        """What is known of one. Raises `UsageError` when there is none."""
        return self._place.find(name)

    def remove(self, name: str) -> None:
        """Forget one. Raises `UsageError` when there is none."""
        self._place.remove(name)

    def reader(self, name: str) -> SourceReader:
        """Reads of one. Raises `UsageError` when there is none."""
        self._place.find(name)
        return SourceReader(self, name)

    async def import_(self, body: ImportBody) -> AsyncIterator[Importing | Source]:
        """Make a source: how far it is, again and again, and then the source. Closing the iterator ends the import.

        Raises:
            UsageError: see `importing.import_`.
        """
        params = msgspec.structs.asdict(body) | {
            "salt": self._redactor.salt.hex(),
            "secrets": self._redactor.handed_over(),
        }
        reader, writer = await self.worker.ask(WorkerRequest(method="import", params=params))
        try:
            while True:
                kind, payload = await read_frame(reader)
                if kind == PROGRESS:
                    yield msgspec.json.decode(payload, type=Importing)
                elif kind == JSON:
                    yield msgspec.json.decode(payload, type=Source)
                    return
                elif kind == ERROR:
                    raise from_wire(msgspec.json.decode(payload))
        except (asyncio.IncompleteReadError, ConnectionError):
            raise lost() from None
        finally:
            await close(writer)

    async def aclose(self) -> None:
        """End the worker. May be called twice."""
        await self.worker.aclose()
