"""The story of a call: its causal chain, or in short what happened and the next step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tundra_nb.client import explain, times
from tundra_nb.client.results import Last, Step, Why
from tundra_nb.errors import UsageError

from . import waterfall
from .blocks import Block, Cell, Facts, Heading, Para, Picture, Styled, Table, Tone, duration, money, number

_TONES: dict[str, Tone] = {"ok": "good", "error": "bad", "refused": "warn", "cancelled": "warn", "interrupted": "warn"}


def blocks(why: Why) -> Sequence[Block]:
    """The causal chain as a picture, and step by step."""
    rows = [_row(step) for step in why.steps]
    head = ["after", "took", "what", "profile", "outcome", "detail", "cost"]
    made: list[Block] = [_heading(why), Picture(waterfall.draw(why), waterfall.summary(why))]
    made.append(Table(head, rows, right=frozenset({0, 1, 6})))
    if not isinstance(why, Last) and (remedy := _remedy(why)):
        made.append(Para(remedy))
    return made


def last_blocks(last: Last) -> Sequence[Block]:
    """What happened in short, and the next step."""
    op = last["operation"]
    facts: list[tuple[str, Cell]] = []
    if op.get("message"):
        facts.append(("cause", str(op["message"])))
    tried = [f"{row['profile']} ({row.get('reason') or row['outcome']})" for row in last.get("attempts") or ()]
    if tried:
        facts.append(("tried", " → ".join(tried)))
    if op.get("waited_ms"):
        facts.append(("waited", duration(op["waited_ms"] / 1000)))
    if op.get("output_tokens") is not None:
        facts.append(("tokens", f"{number(op.get('input_tokens'), 9)} in, {number(op['output_tokens'], 9)} out"))
    if op.get("cost_usd") is not None:
        facts.append(("cost", money(op["cost_usd"])))
    if remedy := _remedy(last):
        facts.append(("next", remedy))
    facts.append(("more", f"`%tundra why {str(op['operation_id'])[-5:]}` shows each step"))
    return [_heading(last), Facts(facts)]


def _heading(why: Why) -> Heading:
    op = why["operation"]
    outcome = str(op.get("outcome"))
    code = f" {op['code']}" if op.get("code") else ""
    who = f" by {op['profile']}" if op.get("profile") else ""
    when = _clock(op.get("at"))
    took = f", {duration(op['latency_ms'] / 1000)}" if op.get("latency_ms") is not None else ""
    attempts = int(op.get("attempts") or 0)
    count = f"{attempts} attempt{'s' if attempts != 1 else ''}"
    return Heading(
        Styled(f"call {why.operation_id}: {outcome}{code}{who}, {count}{took}, at {when}", _TONES.get(outcome))
    )


def _row(step: Step) -> list[Cell]:
    return [
        duration(step.after_ms / 1000),
        duration(None if step.took_ms is None else step.took_ms / 1000),
        step.what,
        step.profile or "",
        Styled(step.outcome, _step_tone(step)),
        step.detail,
        money(step.cost_usd),
    ]


def _step_tone(step: Step) -> Tone | None:
    if step.what in ("attempt", "answered") or step.what in _TONES:
        word = (
            "ok" if step.what == "answered" else step.outcome.partition(":")[0] if step.what == "attempt" else step.what
        )
        return _TONES.get(word)
    if step.what in ("breaker", "parked"):
        return "good" if step.outcome.endswith("closed") else "bad"
    return "warn" if step.what in ("wait", "limiter", "back-off", "failover") else "dim"


def _remedy(why: Why) -> str:
    """What to do next, for a call that failed."""
    op: dict[str, Any] = why["operation"]
    code = op.get("code")
    if not code:
        return ""
    if op.get("retry_after_s") is not None:
        return f"Again in {duration(op['retry_after_s'])}. `%tundra explain {code}` tells more."
    try:
        explain.find(str(code))
    except UsageError:
        return ""
    return f"`%tundra explain {code}` tells what to do."


def _clock(at: Any) -> str:
    import datetime as dt

    try:
        when = dt.datetime.fromisoformat(str(at))
    except ValueError:
        return str(at)
    return f"{times.local(when)} {times.zone(when)}"
