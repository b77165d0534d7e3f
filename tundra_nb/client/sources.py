"""`t.sources`: records of other programs and machines, read beside the own history; blocking and awaited."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tundra_nb.errors import from_wire
from tundra_nb.frames import frames
from tundra_nb.protocol import sources as routes
from tundra_nb.protocol.live import LIVE
from tundra_nb.protocol.words import EVENTS

from . import api
from .answer import Event, died
from .call import Call, HttpAnswer, Step, T, call
from .results import Document

if TYPE_CHECKING:
    import pandas as pd

IMPORT_TIMEOUT = 600.0
"""Seconds of silence on an import, which tells how far it is every few thousand lines."""
OnProgress = Callable[[Mapping[str, Any]], None]


class Source(Document):
    """What is known of a source: `name`, `kind`, `file`, `rows` by table, `lines`, `left`, `sample`, `about`."""


def list_() -> Call[pd.DataFrame]:
    """The sources, the oldest import first: `source, kind, at, since, until, rows, lines, left, size_bytes, file`."""
    return call(routes.SOURCES, decode=_frame)


def find(name: str) -> Call[Source]:
    """What is known of one source.

    Raises:
        UsageError: there is none of this name; names the nearest.
    """
    return call(routes.ONE, decode=_source, name=name)


def remove(name: str) -> Call[Document]:
    """Forget a source; the file that it was made of stays where it is."""
    return call(routes.REMOVE, decode=api.document, name=name)


def importing(
    path: str | os.PathLike[str], name: str | None, about: Mapping[str, Any], link: bool, origin: str | None = None
) -> Call[None]:
    """Import a file; how far it is comes as events."""
    whole = os.path.abspath(Path(path).expanduser())  # the daemon has another working directory
    body = routes.ImportBody(path=whole, name=name, about=dict(about), link=link, origin=origin)
    return call(routes.IMPORT, decode=lambda _: None, body=body, accept=EVENTS, timeout=IMPORT_TIMEOUT)


def taken(event: Event, end: str, on_progress: OnProgress | None) -> dict[str, Any] | None:
    """What came of long work, when an event says that it is done.

    Args:
        event: one of its stream.
        end: the name of the event that ends it.
        on_progress: told how far it is.

    Raises:
        TundraError: it failed.
    """
    told: dict[str, Any] = msgspec.json.decode(event.data)
    if event.name == "error":
        raise from_wire(told)
    if event.name == end:
        return told
    if event.name == "progress" and on_progress is not None:
        on_progress(told)
    return None


def _source(answer: HttpAnswer) -> Source:
    return Source(answer.json())


def _frame(answer: HttpAnswer) -> pd.DataFrame:
    rows = [{"source": row["name"], **row, "rows": sum(row["rows"].values())} for row in answer.json()["rows"]]
    names = [column.name for column in LIVE["sources"]]
    return frames.from_rows(
        [{name: row.get(name) for name in names} for row in rows], LIVE["sources"], meta={"query": "sources"}
    )


class Sources:
    """`t.sources` of a `Client`."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.name: str | None = None
        """What views of the history are of that name no source; None is the history itself."""

    def _do(self, step: Step[T]) -> T:
        found: T = self._client._do(step)  # noqa: SLF001 - a namespace of the client
        return found

    def __call__(self) -> pd.DataFrame:
        """The sources, the oldest import first."""
        return self._do(list_())

    def __getitem__(self, name: str) -> Source:
        return self._do(find(name))

    def import_(
        self,
        path: str | os.PathLike[str],
        name: str | None = None,
        *,
        about: Mapping[str, Any] | None = None,
        link: bool = False,
        origin: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> Source:
        """Read a file of another program or machine into a source.

        Args:
            path: a log of Auto-Tundra (text or JSON), OTLP JSON, LiteLLM's JSON, a bundle, or a zip or folder of
                Parquet tables of ours; also packed by gzip, bzip2, xz or zstd. It must be on the daemon's machine.
            name: how it is called; after the file when left out.
            about: kept with it.
            link: read a folder of Parquet tables where it is, instead of a copy.
            origin: the file that `path` was unpacked from; the source tells it as its `file`.
            on_progress: called with `doing`, `done_bytes`, `size_bytes`, `lines` and `rows` now and then.

        Returns:
            The source; with `again` True the one that was there already, when this file was imported before.

        Raises:
            UsageError: no such file, a name that is taken, or nothing in it is understood; nothing was made.
        """
        events: Generator[Event, None, None] = self._client._events(  # noqa: SLF001 - a namespace of the client
            importing(path, name, about or {}, link, origin)
        )
        try:
            for event in events:
                if (found := taken(event, "source", on_progress)) is not None:
                    return Source(found)
        finally:
            events.close()
        raise died()

    def remove(self, name: str) -> None:
        """Forget a source; the file that it was made of stays where it is."""
        self._do(remove(name))
        if self.name == name:
            self.name = None

    def look(self, name: str | None) -> None:
        """Have views of the history that name no source show this one from now on; None: the history again.

        Raises:
            UsageError: there is none of this name.
        """
        self.name = None if name is None else str(self[name]["name"])


class AsyncSources:
    """`t.sources` of an `AsyncClient`."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.name: str | None = None
        """What views of the history are of that name no source; None is the history itself."""

    async def _do(self, step: Step[T]) -> T:
        found: T = await self._client._do(step)  # noqa: SLF001 - a namespace of the client
        return found

    async def __call__(self) -> pd.DataFrame:
        """The sources, the oldest import first."""
        return await self._do(list_())

    async def find(self, name: str) -> Source:
        """What is known of one source."""
        return await self._do(find(name))

    async def import_(
        self,
        path: str | os.PathLike[str],
        name: str | None = None,
        *,
        about: Mapping[str, Any] | None = None,
        link: bool = False,
        origin: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> Source:
        """Read a file of another program or machine into a source; see `Sources.import_`."""
        events: AsyncGenerator[Event, None] = self._client._events(  # noqa: SLF001 - a namespace of the client
            importing(path, name, about or {}, link, origin)
        )
        try:
            async for event in events:
                if (found := taken(event, "source", on_progress)) is not None:
                    return Source(found)
        finally:
            await events.aclose()
        raise died()

    async def remove(self, name: str) -> None:
        """Forget a source."""
        await self._do(remove(name))
        if self.name == name:
            self.name = None

    async def look(self, name: str | None) -> None:
        """Have views of the history that name no source show this one from now on; None: the history again."""
        self.name = None if name is None else str((await self.find(name))["name"])
