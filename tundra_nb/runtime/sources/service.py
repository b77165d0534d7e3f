"""The daemon's face of the sources: lists them, has them made and read by a worker that lives while it is needed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from tundra_nb.errors import StoreUnavailable, from_wire
from tundra_nb.protocol.query import FrameQuery, checked
from tundra_nb.protocol.sources import ImportBody, Importing, Source
from tundra_nb.runtime.history.line import ArrowStream, asked, close, hand_over, lost
from tundra_nb.runtime.history.protocol import ERROR, JSON, PROGRESS, WorkerRequest, read_frame
from tundra_nb.runtime.history.service import ENVIRONMENT
from tundra_nb.runtime.history.story import StoredStory, WantedOperation
from tundra_nb.runtime.telemetry.redact import Redactor

from .place import SourcesFolder

log = logging.getLogger("tundra.history")

MODULE = "tundra_nb.runtime.sources.worker"
START_SECONDS = 20.0
STOP_SECONDS = 5.0


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
        return ArrowStream(self._sources, self._request("frame", query))

    async def rows(self, query: FrameQuery) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = await asked(self._sources, self._request("rows", query))
        return found

    async def story(self, wanted: WantedOperation) -> StoredStory:
        """All rows of one operation."""
        params = {"source": self._name, "wanted": msgspec.to_builtins(wanted)}
        return msgspec.convert(await asked(self._sources, WorkerRequest(method="story", params=params)), StoredStory)

    def sql(
        self, text: str, at: str | int | None = None, limit: int | None = None, wait: float | None = None
    ) -> ArrowStream:
        del wait
        params = {"source": self._name, "text": text, "at": at, "limit": limit}
        return ArrowStream(self._sources, WorkerRequest(method="sql", params=params))

    def _request(self, method: str, query: FrameQuery) -> WorkerRequest:
        return WorkerRequest(method=method, params={"source": self._name, "query": msgspec.to_builtins(checked(query))})


class Sources:
    """The sources of one daemon. Nothing starts before the first read; `aclose` ends the worker."""

    def __init__(self, folder: Path, redactor: Redactor, environ: Mapping[str, str]) -> None:
        self._place = SourcesFolder(folder)
        self._redactor = redactor
        self._environ = environ
        self._process: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None
        self._starting = asyncio.Lock()
        self.lives = 0

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
        reader, writer = await self.ask(WorkerRequest(method="import", params=params))
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
        await self._forget()

    # --- the worker's line ---

    async def ask(self, request: WorkerRequest) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Send one request to the worker, which is started when it is not there."""
        async with self._starting:
            if self._process is None or self._process.returncode is not None or self._control is None:
                await self._start()
            assert self._control is not None
            try:
                return await hand_over(self._control, request)
            except ConnectionResetError:
                await self._start()  # it was ending just then
                return await hand_over(self._control, request)

    async def notice_end(self, life: int) -> None:
        """After a request was lost: the next one gets another worker."""
        async with self._starting:
            if self.lives == life:
                await self._forget()

    async def _start(self) -> None:
        await self._forget()
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", MODULE, str(theirs.fileno()), str(self._place.folder)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=None,  # the daemon's log
                pass_fds=(theirs.fileno(),),
                env={name: self._environ[name] for name in ENVIRONMENT if name in self._environ},
                start_new_session=True,
            )
        except OSError as exc:
            ours.close()
            raise StoreUnavailable(problem=f"the worker of sources cannot be started: {exc}", kind="worker") from exc
        finally:
            theirs.close()
        self._control = ours
        self.lives += 1
        reader, writer = await asyncio.open_unix_connection(sock=ours.dup())
        try:
            async with asyncio.timeout(START_SECONDS):
                await read_frame(reader)  # its hello
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            await self._forget()
            raise StoreUnavailable(
                problem="the worker of sources does not start",
                remedy="`tundra logs` has its last words.",
                kind="worker",
            ) from None
        finally:
            await close(writer)

    async def _forget(self) -> None:
        """End a worker, or what is left of one."""
        control, self._control = self._control, None
        process, self._process = self._process, None
        if control is not None:
            with contextlib.suppress(OSError):
                control.shutdown(socket.SHUT_RDWR)
            control.close()
        if process is None:
            return
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except (TimeoutError, asyncio.CancelledError):
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
