"""The versions widget: pick two commits of the history, see what changed between them."""

from __future__ import annotations

import datetime as dt
import logging
import threading
from typing import Any

import msgspec

from tundra_nb.client import times
from tundra_nb.client.sync import Client
from tundra_nb.client.versions import people_first
from tundra_nb.errors import TundraError
from tundra_nb.views import comparison, html, text
from tundra_nb.views.blocks import clean, tone, words
from tundra_nb.views.comparison import Comparison, Counts, Side
from tundra_nb.views.versions import HASH_DIGITS, changes, first_line

from . import messages
from .live import Latest
from .view import LiveView, part, problem

_log = logging.getLogger("tundra.kernel")

COMMITS = 30
"""In the list at first, and more with each step."""
MAX_ROWS = 200
"""Rows shown of one table; the frame has all."""
NOW = "now"
"""B: what is not committed yet included."""


class VersionsWidget(LiveView):
    """Two commits side by side, picked from a list of all.

        VersionsWidget(client, a, b)    # `%tundra versions --widget`, `%tundra diff A B --widget`

    Constructing it does no I/O. What is picked is looked up in a thread, which is there only until the answer is.

    Args:
        client: whose daemon it looks at.
        a: commit, branch, tag or time; the last commit but one by default.
        b: the same, or `now`; the last commit by default.
        table: whose rows to show first.
    """

    _esm = part("versions.js")
    _css = part("versions.css")
    from_script = messages.FromVersions
    without_kernel = "comparing versions needs a kernel; above stands what was picked last"

    def __init__(self, client: Client, a: str = "", b: str = "", table: str = "") -> None:
        super().__init__(client)
        self._latest = Latest("tundra-versions-widget")
        self._telling = threading.Lock()
        self._now = messages.VersionsState(
            asked=messages.VersionsAsked(id="first", a=a, b=b, table=table, limit=COMMITS), is_busy=True
        )
        self._comparison = Comparison()
        self._tell(self._now)

    def look(self) -> None:
        """Look up what is picked, now."""
        self._answer(self._now.asked)

    def _shown(self) -> None:
        if self._now.is_busy:  # it was hidden before the answer came
            self._latest.ask(self.look)

    def _hidden(self) -> None:
        self._latest.close()

    def _act(self, told: messages.VersionsAsked) -> None:
        with self._telling:
            self._now = msgspec.structs.replace(self._now, asked=told, is_busy=True)
            self._tell(self._now)
        self._latest.ask(lambda: self._answer(told))

    def _answer(self, asked: messages.VersionsAsked) -> None:
        picked, listed = asked, {}
        try:
            listed = self._listed(asked)
            picked = _with_defaults(asked, listed["commits"])
            found = self._compared(picked)
        except TundraError as error:
            found = Comparison(problem=problem(error))
        except Exception as error:  # noqa: BLE001 - top of the thread; shown, for nobody sees what it raises
            _log.exception("the versions widget failed")
            found = Comparison(problem=f"{type(error).__name__}: {error}")
        with self._telling:
            if self._now.asked != asked:
                return  # something else is picked by now
            self._comparison = found
            self._now = msgspec.structs.replace(self._now, asked=picked, is_busy=False, **listed, **_told(found))
            self._tell(self._now)
        self._update_stills()

    def _listed(self, asked: messages.VersionsAsked) -> dict[str, Any]:
        """The commits to pick from, and the names that stand for some."""
        versions = self._client.versions
        log = versions.log(at=asked.at or None, limit=asked.limit + 1)
        branches, tags = versions.branches(), versions.tags()
        names: dict[str, list[str]] = {}
        for name, commit in [*branches.itertuples(index=False), *tags.itertuples(index=False)]:
            names.setdefault(str(commit), []).append(str(name))
        commits = [
            messages.ShownCommit(
                commit=row["commit"],
                at=times.local(row["at"]),
                author=clean(str(row["author"])),
                message=clean(first_line(row["message"])),
                names=names.get(row["commit"], []),
            )
            for row in log.head(asked.limit).to_dict("records")
        ]
        return {
            "commits": commits,
            "has_older": len(log) > asked.limit,
            "branches": [str(name) for name in branches["name"]],
            "tags": [str(name) for name in tags["name"]],
        }

    def _compared(self, picked: messages.VersionsAsked) -> Comparison:
        versions = self._client.versions
        sides = self._side(picked.a), self._side(picked.b, may_be_now=True)
        a, b = (side.commit or side.ref for side in sides)
        tables = [
            Counts(row["table"], row["rows_added"], row["rows_removed"], row["rows_modified"])
            for row in versions.stat(a, b).to_dict("records")
        ]
        tables.sort(key=lambda one: people_first(one.table))
        if not tables:
            return Comparison(*sides)
        chosen = next((one for one in tables if one.table == picked.table), tables[0])
        rows = changes(chosen.table, versions.diff(a, b, chosen.table, limit=MAX_ROWS), MAX_ROWS)
        more = max(chosen.added + chosen.removed + chosen.modified - len(rows), 0)
        return Comparison(*sides, tables, chosen.table, rows, more)

    def _side(self, ref: str, *, may_be_now: bool = False) -> Side:
        if may_be_now and ref == NOW:
            return Side(ref, told="now, with what is not committed yet")
        found = self._client.versions.resolve(ref)
        at = times.local(dt.datetime.fromisoformat(found["at"]))
        told = f"{found['commit'][:HASH_DIGITS]} · {at} · {found['author']} · {first_line(found['message'])}"
        return Side(ref, found["commit"], clean(told if found["kind"] == "commit" else f"{ref} · {told}"))

    def _picture(self) -> tuple[str, str]:
        blocks = comparison.blocks(self._comparison)
        return html.render(blocks), text.plain(blocks)


def _with_defaults(asked: messages.VersionsAsked, commits: list[messages.ShownCommit]) -> messages.VersionsAsked:
    """By default, what the last commit changed."""
    last, *before = [one.commit for one in commits[:2]]
    return msgspec.structs.replace(asked, a=asked.a or (before[0] if before else last), b=asked.b or last)


def _told(found: Comparison) -> dict[str, Any]:
    """A comparison as fields of `messages.VersionsState`."""
    return {
        "a": found.a,
        "b": found.b,
        "tables": found.tables,
        "table": found.table,
        "rows": [[(clean(words(cell)), tone(cell) or "") for cell in row] for row in found.rows],
        "more": found.more,
        "command": found.command,
        "problem": found.problem,
    }
