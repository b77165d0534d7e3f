"""`/api/daemon`: the end of the daemon, and what only it can tell of its process."""

from __future__ import annotations

from typing import Any

import msgspec

from .endpoint import Endpoint


class StopBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`force`: also while somebody is attached or a PTY lives. `hold`: only an explicit start brings it back.
    `session`: what the user left running (terminals, the gateway) keeps it no longer, only clients and calls do.
    """

    force: bool = False
    hold: bool = False
    session: bool = False


class Stopping(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon is on its way out; `found`: what was in use."""

    stopping: bool
    pid: int
    found: dict[str, Any]


STOP = Endpoint(
    method="POST", path="/api/daemon/stop", summary="stop; 409 while it is in use", body=StopBody, answer=Stopping
)


class Descriptors(msgspec.Struct, frozen=True, kw_only=True):
    """File descriptors of the daemon. Its process lets nobody else count them."""

    open: int
    """0 where the system does not tell."""
    limit: int


DESCRIPTORS = Endpoint(
    method="GET", path="/api/daemon/descriptors", summary="file descriptors: open, and allowed", answer=Descriptors
)


class LogLevel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which log lines are kept: `info,tundra.daemon=debug`."""

    filter: str


LOG_LEVEL = Endpoint(method="GET", path="/api/log-level", summary="which log lines are kept", answer=LogLevel)
SET_LOG_LEVEL = Endpoint(
    method="PUT",
    path="/api/log-level",
    summary="keep other log lines from now on, until the daemon ends",
    body=LogLevel,
    answer=LogLevel,
)
