"""`/api/status`."""

from __future__ import annotations

from typing import Any

import msgspec

from .endpoint import Endpoint
from .live import BreakerRow, LimitRow, ProviderRow


class StatusQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What `GET /api/status` is asked for."""

    brief: bool = False
    """Without what must be asked of the store."""


class StatusCard(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the status tells. With `brief` the last fields are left out."""

    version: str
    api: int
    pid: int
    uptime_s: float
    started_by: str
    data_dir: str
    config_file: str
    engine: str
    attached: list[str] | dict[str, int]
    running: int
    """Calls in flight."""
    store: dict[str, Any]
    profiles: list[ProviderRow]
    breakers: list[BreakerRow]
    limits: list[LimitRow]
    faults: list[dict[str, Any]]
    ptys: dict[str, Any]
    problems: list[dict[str, Any]] = []
    """What is wrong with the daemon itself: `what`, `message`, `hint`, `since` (seconds since the epoch)."""
    last_errors: list[dict[str, Any]] | msgspec.UnsetType = msgspec.UNSET
    suggested: list[dict[str, str]] | msgspec.UnsetType = msgspec.UNSET
    next_step: str | msgspec.UnsetType = msgspec.UNSET


STATUS = Endpoint(
    method="GET",
    path="/api/status",
    summary="how everything is, and what to do next",
    query=StatusQuery,
    answer=StatusCard,
)
