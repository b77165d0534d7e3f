"""`/api/daemon`: the end of the daemon."""

from __future__ import annotations

from typing import Any

import msgspec

from .endpoint import Endpoint


class StopBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`force`: also while somebody is attached or a PTY lives. `hold`: only an explicit start brings it back."""

    force: bool = False
    hold: bool = False


class Stopping(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon is on its way out; `found`: what was in use."""

    stopping: bool
    pid: int
    found: dict[str, Any]


STOP = Endpoint(
    method="POST", path="/api/daemon/stop", summary="stop; 409 while it is in use", body=StopBody, answer=Stopping
)
