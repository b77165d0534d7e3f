"""Incidents in the history: the pin, and the row of the versioned table that tells of it."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from tundra_nb.errors import UsageError
from tundra_nb.nearest import nearest
from tundra_nb.protocol.incidents import FRAMES
from tundra_nb.protocol.query import FrameQuery
from tundra_nb.types import FRAME_VERSION, IncidentRow

from .in_force import signature

if TYPE_CHECKING:
    from tundra_nb.runtime.runtime import Runtime

TITLE_CHARACTERS = 200
SLUG_CHARACTERS = 40
ID_DIGITS = 5
MOST_TOLD = 5
"""Ids that an error names."""


class Incidents:
    """Makes, finds and changes them. Each change is a commit with its author."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._making = asyncio.Lock()
        """Incidents are made one after the other: the second of the same title finds the first."""

    async def new(self, title: str, since_us: int, until_us: int, author: str) -> dict[str, Any]:
        """Commit and tag the history, and write the incident down.

        Raises:
            UsageError: the title is empty or taken, or nothing happened in the window; nothing was made.
            StoreBusy: not all events are stored yet; nothing was made.
        """
        runtime = self._runtime
        title = " ".join(runtime.redactor.text(title).split())
        if not title or len(title) > TITLE_CHARACTERS:
            raise UsageError(
                problem=f"a title has 1 to {TITLE_CHARACTERS} characters", field="title", remedy="Say what broke."
            )
        if until_us <= since_us:
            raise UsageError(problem="the window ends before it begins", field="until")
        async with self._making:
            return await self._new(title, since_us, until_us, author)

    async def _new(self, title: str, since_us: int, until_us: int, author: str) -> dict[str, Any]:
        runtime = self._runtime
        if any(row["title"] == title for row in await self._rows()):
            raise UsageError(
                problem=f"there is an incident {title!r} already",
                field="title",
                remedy=f'`%tundra incident open "{title}"` opens it; choose another title for a new one.',
            )
        counts = await runtime.history.versions.digests(list(FRAMES), since_us=since_us, until_us=until_us)
        if not any(found["rows"] for found in counts.values()):
            raise UsageError(
                problem="nothing happened in this window: no call, error, terminal or note",
                field="since",
                remedy="Take a wider one; `%tundra calls --since all` shows what there is.",
            )
        key = runtime.ids.next()
        slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:SLUG_CHARACTERS] or "untitled"
        row = IncidentRow(
            incident_id=key,
            at=runtime.clock.now_us(),
            title=title,
            since=since_us,
            until=until_us,
            ref=f"incident/{slug}-{str(key)[-ID_DIGITS:]}",
            author=author,
        )
        row = await self._pinned(row, f"Pin of the incident {title!r}")
        return await self._write(row, f"incident {title!r} opened")

    async def find(self, wanted: str) -> dict[str, Any]:
        """One incident.

        Raises:
            UsageError: there is none (names the nearest title), or there are several (names their ids).
        """
        rows = await self._rows()
        if wanted == "last" and rows:
            return max(rows, key=lambda row: int(row["incident_id"]))
        several: list[dict[str, Any]] = []
        for test in (
            lambda row: wanted in (str(row["incident_id"]), row["title"], row["ref"]),
            lambda row: wanted.isascii() and wanted.isdigit() and str(row["incident_id"]).endswith(wanted),
            lambda row: row["title"].lower().startswith(wanted.lower()),
        ):
            found = [row for row in rows if test(row)]
            if len(found) == 1:
                return found[0]
            several = several or found
        if several:
            ids = ", ".join(str(row["incident_id"]) for row in several[:MOST_TOLD])
            raise UsageError(
                problem=f"{wanted[:60]!r} may be any of {len(several)} incidents: {ids}"
                + (" …" if len(several) > MOST_TOLD else ""),
                field="id",
                remedy="Give the id of one, or its last digits; `%tundra incident list` shows them.",
            )
        raise UsageError(
            problem=f"there is no incident {wanted[:60]!r}",
            field="id",
            nearest=nearest(wanted, [row["title"] for row in rows]),
            remedy="`%tundra incident list` shows them; one from another machine comes with `%tundra pull REMOTE`.",
        )

    async def refuse_pin(self, tag: str) -> None:
        """Refuse to take the name from a state that an incident is read at.

        Raises:
            UsageError: it is the pin of one.
        """
        for row in await self._rows():
            if row["ref"] == tag:
                raise UsageError(
                    problem=f"{tag} is the pin of the incident {row['title']!r}, whose notebook is read there",
                    field="name",
                    remedy="`%tundra incident close` closes an incident; its pin stays.",
                )

    async def change(
        self,
        wanted: str,
        *,
        author: str,
        state: Literal["open", "closed"] | None,
        notebook: str | None,
        pin: bool,
        reason: str,
    ) -> dict[str, Any]:
        """Close or reopen it, pin the present history for it, or keep where its notebook is."""
        found = await self.find(wanted)
        row = msgspec.convert({**found, "type": "Incident", "author": author, "writer_id": None}, IncidentRow)
        told = []
        if pin:
            first = re.sub(r"(-again-\d*)+$", "", row.ref)
            row = msgspec.structs.replace(row, ref=f"{first}-again-{self._runtime.ids.next()}")
            row = await self._pinned(row, f"New pin of the incident {row.title!r}")
            told.append("pinned anew")
        if state is not None and state != row.state:
            row = msgspec.structs.replace(row, state=state)
            told.append("closed" if state == "closed" else "opened again")
        if notebook is not None:
            row = msgspec.structs.replace(row, notebook=self._runtime.redactor.text(notebook))
            told.append("its notebook written")
        if reason:
            row = msgspec.structs.replace(row, reason=self._runtime.redactor.text(reason))
        if not told:
            return found
        return await self._write(row, f"incident {row.title!r} {', '.join(told)}" + (f": {reason}" if reason else ""))

    async def _pinned(self, row: IncidentRow, message: str) -> IncidentRow:
        """The row with the tag made, and the digests of its window at that state."""
        versions = self._runtime.history.versions
        commit = await versions.commit(message, signature(row.author))
        await versions.tag(row.ref, commit, row.title)
        found = await versions.digests(list(FRAMES), since_us=row.since, until_us=row.until, at=commit)
        digests = {frame: told["sha256"] for frame, told in found.items()}
        return msgspec.structs.replace(row, frame_version=FRAME_VERSION, digests=json.dumps(digests, sort_keys=True))

    async def _write(self, row: IncidentRow, message: str) -> dict[str, Any]:
        runtime = self._runtime
        runtime.record(row)
        await runtime.history.versions.commit(message, signature(row.author))
        await runtime.learn_incidents()
        return msgspec.structs.asdict(row)

    async def _rows(self) -> list[dict[str, Any]]:
        return await self._runtime.history.rows(FrameQuery(table="incident"))
