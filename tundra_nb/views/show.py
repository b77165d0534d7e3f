"""Finds the view of a result."""

from __future__ import annotations

import datetime as dt
import importlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tundra_nb.client import times

from . import Compared, Lines, Message, Transcript
from .blocks import Block, Cell, Code, Facts, Output, Para

if TYPE_CHECKING:
    from tundra_nb.client.results import Document

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")
"""As the daemon writes times; people read their own."""

VIEWS = {
    "client.results.Status": "status.blocks",
    "client.results.DaemonStatus": "status.daemon_blocks",
    "client.results.Last": "why.last_blocks",
    "client.results.Why": "why.blocks",
    "client.results.Stories": "why.stories",
    "client.run_story.RunStory": "triage.story_blocks",
    "client.results.Document": "show.document",
    "client.live.Run": "terminal.run_blocks",
    "client.pty_story.PtyStory": "terminal.story_blocks",
    "client.archive.Archive": "archive.blocks",
    "client.explain.Explanation": "explanation.blocks",
    "client.explain.Contents": "explanation.contents",
    "client.gateway.GatewayStatus": "gateway.blocks",
    "client.gateway.NewToken": "gateway.new_token",
    "client.sources.Source": "source.blocks",
    "client.versions.Merged": "versions.merged",
    "doctor.bundle.Bundle": "bundle.blocks",
    "doctor.check.Checkup": "checkup.blocks",
    "guide.pages.Page": "explanation.page",
    "protocol.ptys.Matched": "terminal.matched_blocks",
    "terminal.screen.Screen": "terminal.screen_blocks",
    "types.calls.Reply": "reply.blocks",
    "types.triage.Triage": "triage.blocks",
    "views.Compared": "show.compared",
    "views.Lines": "show.lines",
    "views.Message": "show.message",
    "views.Transcript": "show.transcript",
    "views.plots.Plotted": "plots.blocks",
}
"""View by type of result, both by name: the command line imports what it shows, and no more. A subclass that is not
named is shown as its base."""


def blocks_of(value: Any) -> Sequence[Block]:
    """The blocks that show a result."""
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(value, pandas.DataFrame):
        from . import frame

        return frame.blocks(value)
    for kind in type(value).__mro__:
        if place := VIEWS.get(f"{kind.__module__.removeprefix('tundra_nb.')}.{kind.__qualname__}"):
            module, _, name = place.rpartition(".")
            view: Callable[[Any], Sequence[Block]] = getattr(importlib.import_module(f"{__package__}.{module}"), name)
            return view(value)
    return [Para(str(value))]


_FOR_PROGRAMS = frozenset({"digests", "frame_version"})
"""Fields that people do not read; `--json` and the object have them."""


def document(found: Document) -> list[Block]:
    told = {name: value for name, value in found.items() if name not in _FOR_PROGRAMS}
    return [Facts([(name, _value(value)) for name, value in told.items() if value not in (None, "", [], {})])]


def compared(found: Compared) -> Sequence[Block]:
    from . import exchange

    return exchange.difference(found.one, found.other)


def message(found: Message) -> list[Block]:
    return [Para(found.text)]


def transcript(found: Transcript) -> list[Block]:
    return [Output(found.text)]


def lines(found: Lines) -> list[Block]:
    return [Code("\n".join(found.lines))]


def _value(value: Any) -> Cell:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_value(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(str(_value(item)) for item in value)
    if isinstance(value, str) and _TIME.fullmatch(value):
        when = dt.datetime.fromisoformat(value)
        return f"{times.local(when)} {times.zone(when)}"
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
