"""`/api/faults`: faults injected into profiles, for drills."""

from __future__ import annotations

from typing import Any

import msgspec

from .endpoint import Endpoint, Rows


class DrillBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose requests go through a fault proxy from now on."""

    profile: str


class FaultQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which fault; all when left out."""

    fault: str | None = None


class DrillRow(msgspec.Struct, frozen=True, kw_only=True):
    """A fault proxy with its rules, and how many requests each fault met."""

    profile: str
    url: str
    rules: list[dict[str, Any]]
    requests: dict[str, int]


class DrillEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The proxy of a profile is gone."""

    profile: str
    stopped: bool = True


FAULTS = Endpoint(method="GET", path="/api/faults", summary="the fault proxies with their rules", answer=Rows[DrillRow])
START_FAULTS = Endpoint(
    method="POST",
    path="/api/faults",
    summary="put a fault proxy in front of a profile",
    body=DrillBody,
    answer=DrillRow,
    status=201,
)
STOP_FAULTS = Endpoint(
    method="DELETE", path="/api/faults/{name}", summary="take the fault proxy of a profile away", answer=DrillEnd
)
SET_FAULT = Endpoint(
    method="POST",
    path="/api/faults/{name}/rules",
    summary="have a fault happen from now on",
    body=dict[str, Any],
    answer=DrillRow,
)
CLEAR_FAULTS = Endpoint(
    method="DELETE",
    path="/api/faults/{name}/rules",
    summary="have one fault, or all, happen no longer",
    query=FaultQuery,
    answer=DrillRow,
)
