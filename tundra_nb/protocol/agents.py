"""`/api/agent-runs`: runs of agents, which are history like everything else."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from .endpoint import Endpoint
from .words import EVENTS


class RunBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /api/agent-runs`."""

    agent: str
    question: str
    ref: str | None = None
    """The commit that it reads at."""
    profile: str | None = None
    budget_usd: float | None = None
    caller: str = "python"


class StepBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /api/agent-runs/{id}/steps`."""

    kind: Literal["model", "tool", "approval", "finding"]
    outcome: Literal["ok", "error", "refused", "denied", "struck"]
    tool: str | None = None
    arguments: str | None = None
    operation_id: str | None = None
    answer_chars: Annotated[int, msgspec.Meta(ge=0, le=(1 << 31) - 1)] | None = None
    seconds: float | None = None
    message: str | None = None


class RunEnd(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /api/agent-runs/{id}/end`."""

    outcome: Literal["ok", "error", "cancelled"]
    stopped: str
    """done, budget, deadline, calls, no_model, error, cancelled."""
    model: str | None = None
    operations: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    findings: list[dict[str, Any]] = []
    message: str | None = None


class StepNumber(msgspec.Struct, frozen=True):
    """Which step of its run it became, from 1 on."""

    seq: int


BEGIN = Endpoint(
    method="POST",
    path="/api/agent-runs",
    summary="begin a run: `run` with its id; it lasts while the answer is held open, and is interrupted after that",
    body=RunBody,
    media=(EVENTS,),
)
STEP = Endpoint(
    method="POST",
    path="/api/agent-runs/{id}/steps",
    summary="write a step of a run down",
    body=StepBody,
    answer=StepNumber,
)
END = Endpoint(
    method="POST",
    path="/api/agent-runs/{id}/end",
    summary="write down how a run ended",
    body=RunEnd,
)
