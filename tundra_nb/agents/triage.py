"""`triage`: what broke, since when, whom it hits, what was changed before, and what to do.

Two parts over one reading at one pin, which is taken before the first call, so that a run never reads itself:

1. The rules (`rules`) name what failed. They need no model.
2. A model (`loop`) is shown their report and may read further with the tools; each claim that it adds names the rows
   that prove it, and code checks that.

The window ends at the newest row of the pin: the same pin gives the same report whenever and wherever it is read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from tundra_nb.client import times
from tundra_nb.client.agent_runs import HeldRun
from tundra_nb.client.incidents import EPOCH, window_us
from tundra_nb.client.results import Document
from tundra_nb.client.sync import Client
from tundra_nb.errors import UsageError
from tundra_nb.types.triage import Triage, TriageFinding, TriageStep

from . import answers, rules
from .loop import Approve, Limits, Loop, TokenPrice
from .report import report

WINDOW = dt.timedelta(hours=24)
AROUND = dt.timedelta(hours=1)
"""Looked at before and after a call that is asked about."""
_PRICES = ("input_usd_per_mtok", "output_usd_per_mtok")
OnStep = Callable[[TriageStep], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scope:
    """What a run looks at."""

    question: str
    pin: str
    since: dt.datetime
    until: dt.datetime
    operation_id: str | None = None

    @property
    def window(self) -> str:
        return f"{self.since:%Y-%m-%dT%H:%M:%S} – {self.until:%Y-%m-%dT%H:%M:%S} UTC"


def triage(
    client: Client,
    target: str = "last",
    *,
    profile: str | None = None,
    since: times.When | None = None,
    at: str | None = None,
    budget_usd: float | None = Limits.budget_usd,
    deadline: float = Limits.deadline,
    calls: int = Limits.calls,
    act: bool = False,
    model: bool = True,
    on_step: OnStep | None = None,
    approve: Approve | None = None,
) -> Triage:
    """Find out what failed.

    Args:
        client: reads and asks.
        target: `last`; the id of a call or its last digits; an incident by its id, title or tag, which is read at its
            pin and in its window; or a question in words.
        profile: asked, and no other.
        since: beginning of the window; 24 h before the newest row by default.
        at: read as of this ref; a commit made now by default.
        budget_usd: most that the model's calls may cost; None keeps no budget.
        deadline: seconds that the run may take.
        calls: of the model, at most.
        act: offer the tools that act; each use is asked for with its exact command.
        model: False: only the rules.
        on_step: called with each step as it happens.
        approve: asks a person; without it every acting command is denied.

    Raises:
        UsageError: no such call, or a budget that cannot be kept because a model has no known price.
    """
    chosen = Limits(budget_usd=budget_usd, deadline=deadline, calls=calls)
    scope = _scope(client, target, at, since)
    pin = scope.pin
    nobody = "no profile is set up, so no model was asked" if model and not client.profile_names() else ""
    model = model and not nobody  # asking would only write one more error into what is looked at
    price = _price(client, profile, chosen) if model else None
    steps: list[TriageStep] = []
    with client.agent_run(
        "triage", scope.question, ref=pin, profile=profile, budget_usd=chosen.budget_usd if model else None
    ) as run:

        def stepped(**fields: Any) -> None:
            step = TriageStep(seq=len(steps) + 1, **fields)
            steps.append(step)
            told = {name: value for name, value in msgspec.structs.asdict(step).items() if value not in ("", None)}
            run.step({name: value for name, value in told.items() if name != "seq"})
            if on_step is not None:
                on_step(step)

        begun = time.monotonic()
        reading = rules.read(client, at=pin, since=scope.since.isoformat(), until=scope.until.isoformat())
        found = rules.findings(reading, operation_id=scope.operation_id)
        stepped(kind="tool", outcome="ok", tool="rules", seconds=time.monotonic() - begun)
        text = report(found, question=scope.question, window=scope.window, notes=[nobody] if nobody else [])
        if not model:
            _end(run, found, stopped="no_model", note=nobody)
            return Triage(
                run_id=run.run_id,
                question=scope.question,
                pin=pin,
                findings=found,
                steps=steps,
                operations=[],
                stopped="no_model",
                report=text,
                note=nobody,
            )
        loop = Loop(client, run.run_id, chosen, price, stepped, approve, begun=begun)
        try:
            stop = loop.carry_out(scope.question, text, scope, found, profile=profile, act=act)
        except KeyboardInterrupt:
            run.end({"outcome": "cancelled", "stopped": "cancelled", **loop.totals()})
            raise
        found += loop.findings
        text = report(found, question=scope.question, window=scope.window, notes=[stop.note] if stop.note else [])
        _end(run, found, stopped=stop.why, note=stop.note, totals=loop.totals())
        return Triage(
            run_id=run.run_id,
            question=scope.question,
            pin=pin,
            findings=found,
            steps=steps,
            operations=loop.operations,
            stopped=stop.why,
            report=text,
            cost_usd=loop.cost_usd,
            note=stop.note,
        )


def _end(
    run: HeldRun, found: list[TriageFinding], *, stopped: str, note: str = "", totals: dict[str, Any] | None = None
) -> None:
    run.end(
        {
            "outcome": "error" if stopped == "error" else "ok",
            "stopped": stopped,
            "findings": msgspec.to_builtins(found),
            "message": note or None,
            **(totals or {}),
        }
    )


def _scope(client: Client, target: str, at: str | None, since: times.When | None) -> Scope:
    word = target.strip() or "last"
    operation, incident = _meant(client, word)
    if incident is not None:
        begin, end = window_us(incident)
        return Scope(
            question=f"What broke in the incident {incident['title']}?",
            pin=at or str(incident["ref"]),
            since=EPOCH + dt.timedelta(microseconds=begin),
            until=EPOCH + dt.timedelta(microseconds=end),
        )
    pin = at or client.versions.commit("pinned for a triage")
    if operation is not None:
        when = dt.datetime.fromisoformat(str(operation["at"])).astimezone(dt.UTC)
        identity = str(operation["operation_id"])
        return Scope(
            question=f"Why did call {identity} go as it did?",
            pin=pin,
            since=when - AROUND,
            until=when + AROUND,
            operation_id=identity,
        )
    until = _newest(client, pin) + dt.timedelta(microseconds=1)
    begin_at = until - WINDOW
    if since is not None:
        moment = times.from_word(since, now=until) if isinstance(since, str) else since
        begin_at = moment if isinstance(moment, dt.datetime) else dt.datetime.fromtimestamp(0, dt.UTC)
    question = "What failed?" if word == "last" else answers.plain(word)
    return Scope(question=question, pin=pin, since=begin_at, until=until)


def _meant(client: Client, word: str) -> tuple[Mapping[str, Any] | None, Document | None]:
    """The call or the incident that a target names; neither for `last` and a question.

    Raises:
        UsageError: it is a number, and no call or incident has it.
    """
    if word == "last":
        return None, None
    is_number = word.isdigit() or re.fullmatch(r"-\d+", word) is not None
    try:
        if is_number:
            return client.why(word)["operation"], None
    except UsageError:
        with contextlib.suppress(UsageError):
            return None, client.incidents.find(word)
        raise
    with contextlib.suppress(UsageError):
        return None, client.incidents.find(word)
    return None, None


def _newest(client: Client, pin: str) -> dt.datetime:
    """When the newest row of the pin was written; now, where it has none."""
    found = [
        frame["at"].iloc[-1]
        for frame in (
            client.calls("all", at=pin, limit=1),
            client.attempts("all", at=pin, limit=1),
            client.errors("all", at=pin, limit=1),
            client.breaker_history("all", at=pin, limit=1),
        )
        if len(frame)
    ]
    newest = max(found, default=None)
    return dt.datetime.now(dt.UTC) if newest is None else newest.to_pydatetime()


def _price(client: Client, profile: str | None, limits: Limits) -> TokenPrice | None:
    """What the dearest model that may answer costs; None where no budget is kept.

    Raises:
        UsageError: a budget was set, and the price of a model is not known.
    """
    if limits.budget_usd is None:
        return None
    providers = client.providers()
    rows = providers if profile is None else providers[providers["profile"].astype(str) == profile]
    dearest = TokenPrice(input_usd=0.0, output_usd=0.0)
    for row in rows.itertuples(index=False):
        if str(row.kind) == "local":
            continue
        models = client.models(str(row.profile))
        known = models.loc[models["model"].astype(str) == str(row.model), list(_PRICES)].dropna()
        if not len(known):
            raise UsageError(
                problem=f"the price of {row.model} of profile {row.profile} is not known, so no budget can be kept",
                field="--budget",
                remedy="`--budget none` keeps none; `-p` names a profile whose price is known.",
            )
        dearest = TokenPrice(
            input_usd=max(dearest.input_usd, float(known[_PRICES[0]].iloc[0])),
            output_usd=max(dearest.output_usd, float(known[_PRICES[1]].iloc[0])),
        )
    return dearest
