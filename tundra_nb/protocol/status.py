"""`/api/status`."""

from __future__ import annotations

from typing import Any

import msgspec

from .endpoint import Endpoint
from .live import BreakerRow, LimitRow, ProviderRow
from .operations import CallUnderWay


class StatusQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What `GET /api/status` is asked for."""

    brief: bool = False
    """Without what must be asked of the store."""


class ProfileCard(ProviderRow, frozen=True, kw_only=True):
    """A profile, and what came of its last attempts."""

    key_rejected: bool
    answered_s_ago: float | None
    failed_s_ago: float | None
    failure: dict[str, str] | None
    """`code`, `reason`, `message` and `hint` of the last attempt, unless that was answered."""


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
    under_way: list[CallUnderWay]
    """The calls behind that number, the oldest first."""
    store: dict[str, Any]
    profiles: list[ProfileCard]
    breakers: list[BreakerRow]
    limits: list[LimitRow]
    faults: list[dict[str, Any]]
    certificates: dict[str, str] = {}
    """`SSL_CERT_FILE` and `SSL_CERT_DIR` as the daemon has them."""
    ptys: dict[str, Any]
    problems: list[dict[str, Any]] = []
    """What is wrong with the daemon itself: `what`, `message`, `hint`, `since` (seconds since the epoch)."""
    over: list[dict[str, Any]] = []
    """The last that are over, in the same form with `until` and `times`; and how the daemon before this one ended, if
    that was not in order."""
    last_errors: list[dict[str, Any]] | msgspec.UnsetType = msgspec.UNSET
    suggested: list[dict[str, str]] | msgspec.UnsetType = msgspec.UNSET
    next_step: str | msgspec.UnsetType = msgspec.UNSET
    next_steps: list[str] | msgspec.UnsetType = msgspec.UNSET
    """All there is to do, worst first."""


STATUS = Endpoint(
    method="GET",
    path="/api/status",
    summary="how everything is, and what to do next",
    query=StatusQuery,
    answer=StatusCard,
)
