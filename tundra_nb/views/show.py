"""Finds the view of a result."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tundra_nb.client.explain import Contents, Explanation
from tundra_nb.client.gateway import GatewayStatus, NewToken
from tundra_nb.client.live import Run
from tundra_nb.client.pty_story import PtyStory
from tundra_nb.client.results import DaemonStatus, Document, Last, Status, Why
from tundra_nb.client.versions import Merged
from tundra_nb.doctor.bundle import Bundle
from tundra_nb.doctor.check import Checkup
from tundra_nb.guide.pages import Page
from tundra_nb.protocol.ptys import Matched
from tundra_nb.terminal.screen import Screen
from tundra_nb.types import Reply
from tundra_nb.types.triage import Triage

from . import (
    Compared,
    Lines,
    Message,
    Transcript,
    bundle,
    checkup,
    exchange,
    explanation,
    frame,
    gateway,
    reply,
    status,
    terminal,
    triage,
    versions,
    why,
)
from .blocks import Block, Cell, Code, Facts, Output, Para
from .plots import Plotted

VIEWS: dict[type[Any], Callable[[Any], Sequence[Block]]] = {
    Status: status.blocks,
    DaemonStatus: status.daemon_blocks,
    Last: why.last_blocks,
    Why: why.blocks,
    Reply: reply.blocks,
    Run: terminal.run_blocks,
    Matched: terminal.matched_blocks,
    Screen: terminal.screen_blocks,
    PtyStory: terminal.story_blocks,
    Explanation: explanation.blocks,
    Contents: explanation.contents,
    Page: explanation.page,
    Checkup: checkup.blocks,
    GatewayStatus: gateway.blocks,
    NewToken: gateway.new_token,
    Bundle: bundle.blocks,
    Document: lambda found: [
        Facts([(name, _value(value)) for name, value in found.items() if value not in (None, "")])
    ],
    Merged: versions.merged,
    Triage: triage.blocks,
    Compared: lambda found: exchange.difference(found.one, found.other),
    Plotted: lambda found: found.blocks,
    Message: lambda found: [Para(found.text)],
    Transcript: lambda found: [Output(found.text)],
    Lines: lambda found: [Code("\n".join(found.lines))],
}
"""View by type of result; a subclass that is not named is shown as its base."""


def blocks_of(value: Any) -> Sequence[Block]:
    """The blocks that show a result."""
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(value, pandas.DataFrame):
        return frame.blocks(value)
    for kind in type(value).__mro__:
        if kind in VIEWS:
            return VIEWS[kind](value)
    return [Para(str(value))]


def _value(value: Any) -> Cell:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_value(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(str(_value(item)) for item in value)
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
