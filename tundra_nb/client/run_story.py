"""Why an agent's run ended as it did: what it was asked, each step, what it found, and what it cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from tundra_nb.errors import UsageError

from . import api
from .call import Flow
from .results import Document, Row

if TYPE_CHECKING:
    import pandas as pd

MOST_RUNS = 10_000
"""Searched for the last digits of an id, the newest first."""


class RunStory(Document):
    """One run of an agent: `run`, `steps`, `findings`, and `calls` of its model: rows as mappings, ids as text."""

    @property
    def run_id(self) -> str:
        return str(self["run"]["run_id"])

    def __repr__(self) -> str:
        run = self["run"]
        return f"<run {self.run_id}: {run.get('outcome')}, {len(self['steps'])} steps>"


def why_run(run: str | int) -> Flow[RunStory]:
    """What an agent's run did and found, step by step.

    Args:
        run: its id, or the last digits of it.

    Raises:
        UsageError: no run that ended has this id.
    """
    wanted = str(run)
    runs = yield api.history("agent-runs", "all", limit=MOST_RUNS)
    is_it = runs["run_id"].astype(str).str.endswith(wanted) if wanted.isdigit() else runs["run_id"].isna()
    found = runs[is_it]
    if not len(found):
        raise UsageError(
            problem=f"no run with an id ending in {wanted[:40]}", field="id", remedy="`%tundra agent-runs` lists them."
        )
    row = _rows(found)[-1]
    steps = yield api.agent_steps("all", run_id=row["run_id"])
    calls = yield api.history("calls", "all", run_id=row["run_id"])
    findings = msgspec.json.decode(row.pop("findings", None) or "[]")
    return RunStory({"run": row, "steps": _rows(steps), "calls": _rows(calls), "findings": findings})


def _rows(frame: pd.DataFrame) -> list[Row]:
    """Rows without what is not there; ids are text, and times ISO 8601."""
    return [
        {str(name): _plain(str(name), value) for name, value in row.items() if value is not None}
        for row in frame.astype(object).where(frame.notna(), None).to_dict("records")
    ]


def _plain(name: str, value: Any) -> Any:
    if name.endswith("_id"):
        return str(value)
    return value.isoformat() if hasattr(value, "isoformat") else value
