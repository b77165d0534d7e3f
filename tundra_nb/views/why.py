"""The story of a call: its causal chain, or in short what happened and the next step."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from tundra_nb.client import times
from tundra_nb.client.results import Last, Step, Stories, Why
from tundra_nb.errors.spelling import inside
from tundra_nb.guide import lookup

from . import exchange, waterfall
from .blocks import Block, Cell, Details, Facts, Heading, Para, Picture, Styled, Table, Tone, duration, money, number

_WAYS = {
    "relayed": "relayed: the body as it came, but for the model's name",
    "translated": "translated into the form of the profile that answered",
}
_TONES: dict[str, Tone] = {"ok": "good", "error": "bad", "refused": "warn", "cancelled": "warn", "interrupted": "warn"}


def blocks(why: Why) -> Sequence[Block]:
    """The causal chain as a picture, and step by step."""
    rows = [_row(step) for step in why.steps]
    head = ["after", "took", "what", "profile", "outcome", "detail", "cost"]
    right = frozenset({0, 1, 6})
    if not any(row[-1] for row in rows):  # nothing was paid
        head, rows, right = head[:-1], [row[:-1] for row in rows], frozenset({0, 1})
    made: list[Block] = [_heading(why)]
    if cause := _cause(why):
        made.append(Para(Styled(cause, "bad")))
    if remedy := _remedy(why):
        made.append(Para(f"next: {remedy}"))
    if page := _page(why):
        made.append(Para(f"more: {page}"))
    if program := _program(why["operation"]):
        made.append(Facts(program))
    made.append(Picture(waterfall.draw(why), waterfall.summary(why), waterfall.draw_narrow(why)))
    made.append(Table(head, rows, right=right, long=head.index("detail"), below=True))
    return [*made, *exchange.blocks(why), *_under_way(why)]


def stories(found: Stories) -> Sequence[Block]:
    """Several calls, one below the other: what happened, the cause, the picture and its steps."""
    made: list[Block] = []
    for why in found.values():
        made += [part for part in blocks(why) if not isinstance(part, Details)]
    return made or [Para("no call in this window")]


def last_blocks(last: Last) -> Sequence[Block]:
    """What happened in short, and the next step."""
    op = last["operation"]
    facts: list[tuple[str, Cell]] = []
    if cause := _cause(last) or str(op.get("message") or ""):
        facts.append(("cause", Styled(cause, "bad") if op.get("code") else cause))
    tried = [f"{row['profile']} ({_met(row)})" for row in last.get("attempts") or ()]
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
    if page := _page(last):
        facts.append(("meaning", page))
    facts.append(("more", inside(f"`%tundra why {str(op['operation_id'])[-5:]}` shows each step", last.source)))
    return [_heading(last), Facts(facts), *_under_way(last)]


def _met(row: Mapping[str, Any]) -> str:
    """What an attempt met; one that is refused was never sent."""
    reason = str(row.get("reason") or row["outcome"])
    return f"not asked: {reason}" if row["outcome"] == "refused" else reason


def _heading(why: Why) -> Heading:
    op = why["operation"]
    outcome = str(op.get("outcome")).replace("_", " ")
    code = f" {op['code']}" if op.get("code") else ""
    who = f" by {op['profile']}" if op.get("profile") else ""
    when = times.clock(op.get("at"))
    took = f", {duration(op['latency_ms'] / 1000)}" if op.get("latency_ms") is not None else ""
    attempts = int(op.get("attempts") or 0)
    count = f"{attempts} attempt{'s' if attempts != 1 else ''}"
    return Heading(
        Styled(f"call {why.operation_id}: {outcome}{code}{who}, {count}{took}, at {when}", _TONES.get(outcome))
    )


def _program(op: Mapping[str, Any]) -> list[tuple[str, Cell]]:
    """Who called the gateway and how its words went on; nothing for a call of our own client."""
    if not op.get("dialect"):
        return []
    form = f"{op['dialect']}, streamed" if op.get("streamed") else str(op["dialect"])
    facts: list[tuple[str, Cell]] = [("token or user", str(op.get("user_name") or "?"))]
    if client := op.get("client"):
        facts.append(("program", str(client)))
    facts.append(("form", form))
    if way := op.get("way"):
        facts.append(("sent on", _WAYS.get(str(way), str(way))))
    if dropped := op.get("dropped"):
        facts.append(("left out", Styled(str(dropped).replace(",", ", "), "warn")))
    if tries := op.get("retry_count"):
        facts.append(("tries", f"the program has sent this call {number(tries)} time{'s' * (tries != 1)} before"))
    if trace := op.get("trace_id"):
        facts.append(("trace", str(trace)))
    return facts


def _row(step: Step) -> list[Cell]:
    return [
        duration(step.after_ms / 1000),
        duration(None if step.took_ms is None else step.took_ms / 1000),
        step.what,
        step.profile or "",
        Styled(step.outcome, _step_tone(step)),
        times.in_text(step.detail),
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


def _cause(why: Why) -> str:
    """Why a call failed: what the last attempt that failed met."""
    op: dict[str, Any] = why["operation"]
    if not op.get("code"):
        return ""
    failed = _failed(why)
    if failed is None:
        return times.in_text(str(op.get("message") or op["code"]))
    message = str(failed.get("message") or failed.get("code"))
    whom = f"{failed['profile']}: "
    return times.in_text(message if message.startswith(whom) else whom + message)


def _failed(why: Why) -> dict[str, Any] | None:
    """The attempt to begin with: the last that failed, one that was sent before one that was refused."""
    failed: list[dict[str, Any]] = [row for row in why.get("attempts") or () if row.get("code")]
    sent = [row for row in failed if row.get("outcome") == "error"]
    return next(reversed(sent or failed), None)


def _remedy(why: Why) -> str:
    """What to do next, for a call that failed: about its cause, where that is known."""
    op: dict[str, Any] = why["operation"]
    code = op.get("code")
    if not code:
        return ""
    told = []
    if (after := op.get("retry_after_s")) is not None and (ended := _ended(op)) is not None:
        told.append(f"It may be asked again from {times.clock(ended + dt.timedelta(seconds=after))} on.")
    failed = _failed(why)
    cause = str(failed["code"]) if failed else str(code)
    reason, profile = (failed.get("reason"), failed.get("profile")) if failed else (None, None)
    message = str((failed or op).get("message") or "")
    page = lookup.for_error(cause, reason, message)
    for remedy in page.remedies_for(message) if page is not None else ():
        if "%tundra why" not in remedy and "%tundra last" not in remedy:  # this is what is being looked at
            first = (remedy.replace("NAME", profile) if profile else remedy).rstrip(".") + "."
            told.append(first[0].upper() + first[1:])
            break
    return inside(" ".join(told), why.source)


def _page(why: Why) -> str:
    """Where the meaning of a failure is told."""
    failed = _failed(why)
    code = (failed or why["operation"]).get("code") if why["operation"].get("code") else None
    return inside(f"`%tundra explain {code}`", why.source) if code else ""


def _ended(op: dict[str, Any]) -> dt.datetime | None:
    try:
        return dt.datetime.fromisoformat(str(op.get("at"))) + dt.timedelta(milliseconds=op.get("latency_ms") or 0.0)
    except ValueError:
        return None


def _under_way(why: Why) -> list[Block]:
    """The calls that have no end yet."""
    rows: list[list[Cell]] = [
        [f"…{str(call['operation_id'])[-5:]}", str(call["profile"] or ""), str(call["doing"]), duration(call["age_s"])]
        for call in why.get("under_way") or ()
        if str(call["operation_id"]) != why.operation_id
    ]
    return [Table(["id", "profile", "does", "for"], rows, frozenset({3}), title="under way")] if rows else []
