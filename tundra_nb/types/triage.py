"""What a triage found: findings, each with the ids of the rows that prove it."""

from __future__ import annotations

from typing import Literal

import msgspec

By = Literal["rules", "model"]


class TriageFinding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that went wrong.

    `evidence` are ids of rows: operations (`why` takes them), errors, breaker events. They prove that the rows exist
    and say what is claimed of them, not that they are the cause.
    """

    claim: str
    code: str = ""
    """As the history's rows have it."""
    kind: str = ""
    """The guide's page on it: where errors share a code, which of them it is."""
    profile: str = ""
    count: int = 0
    """Attempts, or errors, of this kind in the window."""
    calls_failed: int = 0
    """Calls that ended without an answer because of it; the others were answered by another profile."""
    since: str = ""
    until: str = ""
    """First and last time, ISO, UTC, to the second."""
    is_over: bool = False
    """Whether the same profile has answered since, or was taken out of use."""
    whom: list[str] = []
    changed_before: list[str] = []
    """What people changed in the hour before it began; what names its profile first, then the latest."""
    cause: str = ""
    remedy: str = ""
    evidence: list[str] = []
    by: By = "rules"


class TriageStep(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One step of a run."""

    seq: int
    kind: Literal["model", "tool", "approval", "finding"]
    outcome: Literal["ok", "error", "refused", "denied", "struck"]
    tool: str = ""
    arguments: str = ""
    """JSON object, as the model wrote it."""
    operation_id: str = ""
    answer_chars: int | None = None
    seconds: float | None = None
    message: str = ""


class Triage(msgspec.Struct, frozen=True, kw_only=True):
    """What a run found.

    `stopped` is why it ended: done, budget, deadline, calls, no_model, error; `note` says it in words where the model's
    part did not come to its end. `operations` are the ids of the model's calls.
    """

    run_id: str
    question: str
    pin: str
    findings: list[TriageFinding]
    steps: list[TriageStep]
    operations: list[str]
    stopped: str
    report: str
    cost_usd: float | None = None
    note: str = ""

    def __str__(self) -> str:
        return self.report
