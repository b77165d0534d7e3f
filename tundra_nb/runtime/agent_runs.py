"""Runs of agents: what an agent did is history like everything else.

The agent itself lives in a client. Here a run is opened, its steps are written as they happen, and its end is written
by whoever comes first: the agent, or the loss of the connection that it holds while it runs (`interrupted`). A run that
the daemon's own death cuts short is ended at the next start, from its mark in the spool.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from tundra_nb.errors import UsageError
from tundra_nb.protocol.agents import RunBody, RunEnd, StepBody
from tundra_nb.runtime.clock import Clock, Ids
from tundra_nb.runtime.telemetry.redact import Redactor
from tundra_nb.types import AgentRun, AgentRunOpened, AgentStep, Event


class _Open(msgspec.Struct):
    mark: AgentRunOpened
    began: float
    steps: int = 0


class AgentRuns:
    """The runs that are under way."""

    def __init__(self, record: Callable[..., None], ids: Ids, clock: Clock, redactor: Redactor) -> None:
        self._record = record
        self._ids = ids
        self._clock = clock
        self._redactor = redactor
        self._open: dict[int, _Open] = {}

    def __repr__(self) -> str:
        return f"<AgentRuns: {len(self._open)} under way>"

    def open(self, ask: RunBody, user: str) -> int:
        """Begin a run; its id."""
        mark = AgentRunOpened(
            run_id=self._ids.next(),
            at=self._clock.now_us(),
            agent=ask.agent,
            question=self._redactor.text(ask.question),
            ref=ask.ref,
            profile=ask.profile,
            budget_usd=ask.budget_usd,
            user_name=user,
            caller=ask.caller,
        )
        self._record(mark)
        self._open[mark.run_id] = _Open(mark, self._clock.monotonic())
        return mark.run_id

    def step(self, run_id: str, body: StepBody) -> int:
        """Write a step down; its number in the run.

        Raises:
            UsageError: no such run is under way.
        """
        run = self._run(run_id)
        run.steps += 1
        written: Event = AgentStep(
            agent_step_id=self._ids.next(),
            at=self._clock.now_us(),
            run_id=run.mark.run_id,
            seq=run.steps,
            kind=body.kind,
            tool=body.tool or None,
            arguments=self._masked(body.arguments),
            outcome=body.outcome,
            operation_id=int(body.operation_id) if body.operation_id and body.operation_id.isdecimal() else None,
            answer_chars=body.answer_chars,
            seconds=body.seconds,
            message=self._masked(body.message),
        )
        self._record(written)
        return run.steps

    def end(self, run_id: str, body: RunEnd) -> None:
        """Write how a run ended.

        Raises:
            UsageError: no such run is under way.
        """
        run = self._run(run_id)
        findings = msgspec.json.encode(body.findings).decode()
        fields = {name: value for name, value in msgspec.structs.asdict(body).items() if name != "findings"}
        fields["message"] = self._masked(body.message)
        self._finish(run, **fields, findings=self._redactor.text(findings))

    def lost(self, run_id: int) -> None:
        """The agent has gone; a run that it has not ended is interrupted."""
        if (run := self._open.get(run_id)) is not None:
            self._finish(run, outcome="interrupted", message="the agent went away in the middle")

    def _finish(self, run: _Open, **end: Any) -> None:
        seconds = self._clock.monotonic() - run.began
        self._record(AgentRun(**msgspec.structs.asdict(run.mark), steps=run.steps, seconds=seconds, **end))
        del self._open[run.mark.run_id]

    def _run(self, run_id: str) -> _Open:
        found = self._open.get(int(run_id)) if run_id.isdecimal() and len(run_id) < 20 else None
        if found is None:
            raise UsageError(
                problem=f"no run {run_id} is under way",
                field="id",
                remedy="`%tundra agent-runs` lists those that ended.",
            )
        return found

    def _masked(self, text: str | None) -> str | None:
        return None if text is None else self._redactor.text(text)
