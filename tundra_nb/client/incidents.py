"""`t.incidents`: a bad hour under a title, pinned, with a notebook that tells its story; blocking and awaited."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tundra_nb.errors import UsageError
from tundra_nb.protocol import incidents as routes

from . import api, times
from .above import above
from .call import Call, Step, T, call
from .results import Document, Stories

if TYPE_CHECKING:
    import pandas as pd


EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
DEFAULT_SINCE = "1h"
"""The window of an incident that names none: what the dashboard shows."""
_AGAIN = re.compile(r"(-again-\d*)+$")
"""What a new pin adds to the name of the first."""


def new(title: str, since: times.When = DEFAULT_SINCE, until: times.When | None = None) -> Call[Document]:
    """Commit and tag the history, and keep the window under a title; `%tundra incident new` also writes a notebook."""
    begin, end = times.to_us(since), None if until is None else times.to_us(until, field="until")
    if not isinstance(begin, int) or isinstance(end, str):
        raise UsageError(problem="an incident has a window", field="since", remedy="For example since `2h`.")
    body = routes.NewIncident(title, str(begin), None if end is None else str(end))
    return call(routes.NEW, body=body, decode=api.document, timeout=api.STORE_TIMEOUT)


def find(wanted: str) -> Call[Document]:
    """One incident, by its id, the last digits of it, its title, its tag or `last`."""
    return call(routes.ONE, decode=api.document, id=wanted)


def change(
    wanted: str, *, state: str | None = None, notebook: str | None = None, pin: bool = False, reason: str = ""
) -> Call[Document]:
    """Close (`closed`) or reopen (`open`) it, pin the present history for it, or say where its notebook is."""
    body = routes.IncidentChange(state, notebook, pin, reason)  # type: ignore[arg-type]  # the daemon checks the word
    return call(routes.CHANGE, body=body, decode=api.document, timeout=api.STORE_TIMEOUT, id=wanted)


def list_(limit: int | None = None) -> Call[pd.DataFrame]:
    """The incidents, the oldest first."""
    return api.history("incidents", "all", limit=limit)


def window_us(found: Document) -> tuple[int, int]:
    """The window of an incident in microseconds."""
    begin, end = (dt.datetime.fromisoformat(found[name]) for name in ("since", "until"))
    return tuple((when - EPOCH) // dt.timedelta(microseconds=1) for when in (begin, end))  # type: ignore[return-value]


def _is_pin(ref: str, pin: str) -> bool:
    """Whether a name is that of an incident's pin, as it is now or was before: they differ in their last number."""
    return _AGAIN.sub("", ref) == _AGAIN.sub("", pin)


def opened(found: Document, ref: str | None, between: tuple[str, str] | None) -> tuple[str, tuple[int, int], str, str]:
    """At which state and in which window an incident is looked at, what that is called, and the banner that says so."""
    own = window_us(found)
    window = own
    if between is not None:
        window = window_us(Document({"since": between[0], "until": between[1]}))
    at = ref or found["ref"]
    is_new = window != own or not _is_pin(at, found["ref"])
    name = f"incident {found['title']!r}" + (f" at {at}" if is_new else "")
    moments = [EPOCH + dt.timedelta(microseconds=when) for when in window]
    begin, end = map(times.local, moments)
    # nothing of how the incident stands today, closed or pinned anew: the banner of then has to stay the same
    banner = f"{found['title']} · pinned as {at} · {begin} – {end} ({times.zone(moments[0])})"
    if is_new:
        banner += f"\nRe-pinned on purpose: the incident itself is pinned as {found['ref']}."
    return at, window, name, banner


class Incidents:
    """`t.incidents` of a `Client`."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def _do(self, step: Step[T]) -> T:
        found: T = self._client._do(step)  # noqa: SLF001 - a namespace of the client
        return found

    def __call__(self, limit: int | None = None) -> pd.DataFrame:
        """The incidents, the oldest first."""
        return self._do(list_(limit))

    def new(
        self,
        title: str,
        since: times.When = DEFAULT_SINCE,
        until: times.When | None = None,
        *,
        out: str | None = None,
        run: bool = True,
        on_progress: Callable[[str], None] | None = None,
    ) -> Document:
        """Pin a window under a title, and write the notebook that tells its story.

        Args:
            title: what broke.
            since: from when on: `2h`, `14:00`, ISO; the last hour when left out, as `dash` shows it.
            until: until when; now when left out.
            out: the notebook's file; in the current folder, named after the title, when left out.
            run: execute it once, so that it reads as a report.
            on_progress: told which cell runs; at last an empty text.

        Raises:
            UsageError: the title is taken, nothing happened in the window, or the file exists.
        """
        made: Document = above("tundra_nb.incidents.notebook", "new")(
            self._client, title, since, until, out=out, run=run, on_progress=on_progress
        )
        return made

    def find(self, wanted: str) -> Document:
        """One incident, by its id, the last digits of it, its title, its tag or `last`.

        An imported one too: it then has `source`, where its rows are.
        """
        try:
            return self._do(find(wanted))
        except UsageError:
            if (imported := self._imported(wanted)) is None:
                raise
            return imported

    def _imported(self, wanted: str) -> Document | None:
        """The incident of a source."""
        for name in self._client.sources()["source"]:
            about = self._client.sources[str(name)].get("about") or {}
            told = about.get("incident")
            if not isinstance(told, dict):
                continue
            key = str(told.get("incident_id"))
            if wanted in (key, told.get("title"), told.get("ref"), name) or (
                wanted.isascii() and wanted.isdigit() and key.endswith(wanted)
            ):
                changes = {when: about.get(when, "") for when in ("changed_before", "changed_meanwhile")}
                return Document(told | {"source": str(name)} | changes)
        return None

    def open(self, wanted: str, *, ref: str | None = None, between: tuple[str, str] | None = None) -> str:
        """Have views of the history that name no state show this incident from now on: at its pin and in its window.

        Args:
            wanted: which one.
            ref: another state than its pin.
            between: another window than its own.

        Returns:
            A banner that says so.
        """
        found = self.find(wanted)
        at, window, name, banner = opened(found, ref, between)
        if (source := found.get("source")) is None:
            self._client.sources.look(None)
            self._client.versions.resolve(at)
        elif _is_pin(at, found["ref"]):
            at = found["ref"]  # its rows are those of its last pin; a notebook may name one of before
            self._client.sources.look(source)
        else:
            raise UsageError(
                problem=f"an imported incident has one state, {found['ref']}, and not {at}",
                field="ref",
                remedy="Leave the ref out, or open it where it was made.",
            )
        self._client.versions.look(at, name, window)
        return banner

    def story(self, wanted: str) -> Document:
        """What happened, in figures from the rows: what failed, since when, whom it hit, what was changed before."""
        told: Document = above("tundra_nb.incidents.story", "story")(self._client, wanted)
        return told

    def worst(self, wanted: str, limit: int = 5) -> Stories:
        """The calls that went worst, each with its causal chain: those without an answer first, the longest first."""
        told: Stories = above("tundra_nb.incidents.story", "worst")(self._client, wanted, limit)
        return told

    def leave(self) -> None:
        """Views of the history show the present again."""
        self._client.sources.look(None)
        self._client.versions.look(None, "", None)

    def export(
        self,
        wanted: str,
        out: str | None = None,
        *,
        whole: bool = False,
        force: bool = False,
        on_progress: Callable[[str], None] | None = None,
    ) -> Document:
        """Write an incident as one zip: notebook, HTML, rows of its window, recordings, hashes; masked.

        Args:
            wanted: which one, or the file of its notebook.
            out: the zip; in the current folder, named after the title, when left out.
            whole: all rows of the history at its pin, not those of its window.
            force: also over a file that is there.
            on_progress: told what is done; at last an empty text.

        Raises:
            UsageError: no such incident, its notebook is elsewhere, the file is there, or a known secret would be in
                it; nothing was written.
        """
        told: Document = above("tundra_nb.incidents.archive", "export")(
            self._client, wanted, out, whole=whole, force=force, on_progress=on_progress
        )
        return told

    def import_(self, path: str, *, name: str | None = None, out: str | None = None) -> Document:
        """Prove the zip of an incident, and take its rows as a source and its notebook into the current folder.

        Args:
            path: the zip.
            name: of the source; after the title when left out.
            out: the notebook's file.

        Returns:
            Among others `source` and `notebook`, which is not trusted.

        Raises:
            UsageError: it was changed (names the member, and the row), is damaged, or newer; nothing was imported.
        """
        told: Document = above("tundra_nb.incidents.archive", "import_")(self._client, path, name=name, out=out)
        return told

    def close(self, wanted: str, reason: str = "") -> Document:
        """Close an incident; its pin and its notebook stay."""
        return self._do(change(wanted, state="closed", reason=reason))

    def pin(self, wanted: str, reason: str = "") -> Document:
        """Pin the present history for it: what was noted or pulled since then belongs to it."""
        return self._do(change(wanted, pin=True, reason=reason))

    def written(self, wanted: str, notebook: str) -> Document:
        """Keep where its notebook is."""
        return self._do(change(wanted, notebook=notebook))


class AsyncIncidents:
    """`t.incidents` of an `AsyncClient`; notebooks are made by the blocking one."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def _do(self, step: Step[T]) -> T:
        found: T = await self._client._do(step)  # noqa: SLF001 - a namespace of the client
        return found

    async def __call__(self, limit: int | None = None) -> pd.DataFrame:
        """The incidents, the oldest first."""
        return await self._do(list_(limit))

    async def new(self, title: str, since: times.When = DEFAULT_SINCE, until: times.When | None = None) -> Document:
        """Pin a window under a title."""
        return await self._do(new(title, since, until))

    async def find(self, wanted: str) -> Document:
        """One incident, by its id, the last digits of it, its title, its tag or `last`."""
        return await self._do(find(wanted))

    async def open(self, wanted: str, *, ref: str | None = None, between: tuple[str, str] | None = None) -> str:
        """Have views of the history that name no state show this incident from now on: at its pin and in its window."""
        found = await self.find(wanted)
        at, window, name, banner = opened(found, ref, between)
        await self._client.versions.resolve(at)
        self._client.versions.look(at, name, window)
        return banner

    async def leave(self) -> None:
        """Views of the history show the present again."""
        self._client.versions.look(None, "", None)

    async def close(self, wanted: str, reason: str = "") -> Document:
        """Close an incident; its pin and its notebook stay."""
        return await self._do(change(wanted, state="closed", reason=reason))

    async def pin(self, wanted: str, reason: str = "") -> Document:
        """Pin the present history for it."""
        return await self._do(change(wanted, pin=True, reason=reason))

    async def written(self, wanted: str, notebook: str) -> Document:
        """Keep where its notebook is."""
        return await self._do(change(wanted, notebook=notebook))
