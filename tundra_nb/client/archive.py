"""`t.archive`: old days of the history as Parquet, read together with it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Generator
from typing import Any

from tundra_nb.errors import UsageError
from tundra_nb.protocol import archive as routes
from tundra_nb.protocol.words import EVENTS

from . import times
from .answer import Event, died
from .call import Call, HttpAnswer, call
from .results import Document
from .sources import OnProgress, taken

SILENCE = 600.0
"""Seconds without a word on how far it is, which is told for every day and file."""
END = "archive"


class Archive(Document):
    """What the archive holds: `folder`, `since`, `until`, `files`, `rows`, `size_bytes`, `tables`, `late`, and what a
    run did: `copied_rows`, `copied_files`, `verified_files`, `repaired`.
    """


def state() -> Call[Archive]:
    """What is archived."""
    return call(routes.STATE, decode=_archive)


def running(older_than: times.When | None, verify: bool) -> Call[None]:
    """Copy, prove; how far it is comes as events.

    Raises:
        UsageError: `older_than` is no time in the past.
    """
    before = None
    if older_than is not None:
        begin = times.to_us(older_than, field="older_than")
        if begin == "all":
            raise UsageError(problem="`all` is no age", field="older_than", remedy="For example `30d`.")
        moment = dt.datetime.fromtimestamp(begin / 1e6, dt.UTC)
        before = moment.replace(hour=0, minute=0, second=0, microsecond=0).isoformat()
    body = routes.ArchiveBody(before=before, verify=verify)
    return call(routes.ARCHIVE, decode=lambda _: None, body=body, accept=EVENTS, timeout=SILENCE)


def archive(client: Any, older_than: times.When | None, verify: bool, on_progress: OnProgress | None) -> Archive:
    """See `Client.archive`."""
    if older_than is None and not verify:
        found: Archive = client._do(state())  # noqa: SLF001 - a part of the client
        return found
    events: Generator[Event, None, None] = client._events(running(older_than, verify))  # noqa: SLF001
    try:
        for event in events:
            if (told := taken(event, END, on_progress)) is not None:
                return Archive(told)
    finally:
        events.close()
    raise died()


async def archive_later(
    client: Any, older_than: times.When | None, verify: bool, on_progress: OnProgress | None
) -> Archive:
    """See `AsyncClient.archive`."""
    if older_than is None and not verify:
        found: Archive = await client._do(state())  # noqa: SLF001 - a part of the client
        return found
    events = client._events(running(older_than, verify))  # noqa: SLF001
    try:
        async for event in events:
            if (told := taken(event, END, on_progress)) is not None:
                return Archive(told)
    finally:
        await events.aclose()
    raise died()


def _archive(answer: HttpAnswer) -> Archive:
    return Archive(answer.json())
