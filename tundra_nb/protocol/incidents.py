"""Incidents: a title, a window, a pin and a notebook."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from .endpoint import Endpoint

FRAMES = ("calls", "attempts", "errors", "limit-history", "breaker-history", "pty-history", "notes")
"""The frames over which a pin has digests."""


class NewIncident(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Times are ISO 8601 or microseconds since 1970; `until` is now when it is left out."""

    title: str
    since: str
    until: str | None = None


class IncidentChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What to change; `pin`: pin the present history anew."""

    state: Literal["open", "closed"] | None = None
    notebook: str | None = None
    pin: bool = False
    reason: str = ""


NEW = Endpoint(
    method="POST",
    path="/api/incidents",
    summary="commit and tag the history, and keep the window under a title",
    body=NewIncident,
    answer=dict[str, Any],
    status=201,
)
ONE = Endpoint(
    method="GET",
    path="/api/incidents/{id:path}",
    summary="one incident, by its id, the last digits of it, its title, its tag or `last`",
    answer=dict[str, Any],
)
CHANGE = Endpoint(
    method="POST",
    path="/api/incidents/{id:path}",
    summary="close or reopen it, pin it anew, or say where its notebook is",
    body=IncidentChange,
    answer=dict[str, Any],
)
