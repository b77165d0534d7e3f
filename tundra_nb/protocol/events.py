"""`/api/events`: the live feed; holding it open is what being attached means."""

from __future__ import annotations

import msgspec

from .endpoint import Endpoint
from .words import EVENTS


class FeedQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Who listens, and to what."""

    attach: str = ""
    """What holds it: kernel, cli, python …; empty: only looks."""
    owner: str = ""
    """Whose persistent shell lives on while it is open."""
    kinds: str = ""
    """Events wanted, with commas between them; all when empty."""


FEED = Endpoint(
    method="GET",
    path="/api/events",
    summary="`hello`, then events as they happen; `missed` tells a slow reader how many",
    query=FeedQuery,
    media=(EVENTS,),
)
