"""`/api/operations`: asking, and why a call went as it did."""

from __future__ import annotations

from typing import Any

import msgspec

from tundra_nb.types import Ask, Reply

from .endpoint import Endpoint
from .words import EVENTS, JSON


class CallUnderWay(msgspec.Struct, frozen=True, kw_only=True):
    """A call that has no end yet: whom it asks now, what it waits for, and for how long."""

    operation_id: str
    at: str
    kind: str
    profile: str | None
    doing: str
    age_s: float
    user_name: str
    requested_model: str | None
    tried: list[str]


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """One operation with everything that happened in it: rows of the history, ids as text, times as ISO 8601."""

    operation: dict[str, Any]
    attempts: list[dict[str, Any]]
    limit_events: list[dict[str, Any]]
    breaker_events: list[dict[str, Any]]
    errors: list[dict[str, Any]]
    exchanges: list[dict[str, Any]]
    """Prompt and answer, where recording kept them."""
    under_way: list[CallUnderWay]
    """Calls that have no end yet."""
    record: str
    """The setting `record.content`."""


class WhyQuery(msgspec.Struct, frozen=True, kw_only=True):
    """`source`: of this source instead of the history. `all`: of all daemons that write to it."""

    source: str | None = None
    all: bool = False


ASK = Endpoint(
    method="POST",
    path="/api/operations",
    summary="ask a model; with `stream` events `text`, `reasoning`, `tool_call`, `notice`, then `reply` or `error`",
    body=Ask,
    answer=Reply,
    media=(JSON, EVENTS),
)
WHY = Endpoint(
    method="GET",
    path="/api/operations/{id}",
    summary="the causal chain of one call: its id, the last digits of it, `last`, or `-2` for the one before",
    query=WhyQuery,
    answer=Story,
)
