"""The report of a triage."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import msgspec

from tundra_nb.client import times
from tundra_nb.client.results import Row
from tundra_nb.client.run_story import RunStory
from tundra_nb.types.triage import Triage, TriageFinding

from .blocks import Block, Cell, Facts, Heading, Para, Styled, Table, Tone, duration, money, number

DETAIL_CHARACTERS = 120
"""How much is shown of a step's message or arguments; `agent-steps` has all of them."""


def blocks(found: Triage) -> Sequence[Block]:
    going = sum(not finding.is_over for finding in found.findings)
    made: list[Block] = []
    if not found.findings:
        made.append(Heading(Styled("Nothing failed in this window", "good")))
    else:
        more = "" if going == len(found.findings) else f", {going} of them still so"
        count = len(found.findings)
        made.append(Heading(Styled(f"{count} finding{'s' if count != 1 else ''}{more}", "bad" if going else "warn")))
    if found.note:
        made.append(Para(Styled(found.note, "warn")))
    for place, finding in enumerate(found.findings, 1):
        tone: Tone = "dim" if finding.is_over else "strong"
        made += [Para(Styled(f"{place}. {times.in_text(finding.claim)}", tone)), Facts(_facts(finding))]
    made.append(Para(Styled(_foot(found), "dim")))
    return made


def story_blocks(story: RunStory) -> Sequence[Block]:
    """A run as the history has it: what was asked, each step, what it found."""
    run = story["run"]
    outcome = str(run["outcome"])
    count = len(story["steps"])
    head = f"run {story.run_id}: {outcome}, {count} step{'s' if count != 1 else ''}"
    if run.get("seconds") is not None:
        head += f", {duration(run['seconds'])}"
    facts: list[tuple[str, Cell]] = [
        ("asked", f"{run['question']} ({run['agent']})"),
        ("when", times.local(dt.datetime.fromisoformat(run["at"]))),
        ("by", str(run.get("user_name") or "")),
        ("as of", str(run.get("ref") or "")[:10]),
        ("model", " of ".join(str(run[name]) for name in ("model", "profile") if run.get(name))),
        (
            "tokens",
            f"{number(run['input_tokens'])} in, {number(run.get('output_tokens'))} out"
            if run.get("input_tokens")
            else "",
        ),
        ("cost", _paid(run)),
        ("ended", str(run.get("stopped") or outcome)),
        ("because", Styled(str(run.get("message") or ""), "warn")),
    ]
    rows: list[list[Cell]] = [
        [
            str(step["seq"]),
            str(step["kind"]),
            str(step.get("tool") or "").removeprefix("tundra_").replace("_", " "),
            Styled(str(step["outcome"]), None if step["outcome"] == "ok" else "warn"),
            duration(step.get("seconds")),
            f"…{step['operation_id'][-5:]}" if step.get("operation_id") else "",
            _short(step.get("message") or step.get("arguments") or ""),
        ]
        for step in story["steps"]
    ]
    tone: Tone = "good" if outcome == "ok" else "bad" if outcome == "error" else "warn"
    made: list[Block] = [
        Heading(Styled(head, tone)),
        Facts([(name, value) for name, value in facts if (value.text if isinstance(value, Styled) else value)]),
        Table(["", "kind", "tool", "outcome", "took", "call", "detail"], rows, right=frozenset({0, 4})),
    ]
    for place, finding in enumerate(story["findings"], 1):
        found = msgspec.convert(finding, TriageFinding)
        made += [Para(Styled(f"{place}. {times.in_text(found.claim)}", "strong")), Facts(_facts(found))]
    return made


def _paid(run: Row) -> str:
    if run.get("cost_usd") is None:
        return ""
    return money(run["cost_usd"]) + (f" of {money(run['budget_usd'])}" if run.get("budget_usd") is not None else "")


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= DETAIL_CHARACTERS else words[: DETAIL_CHARACTERS - 1] + "…"


def _local(at: str) -> str:
    if not at:
        return ""
    when = dt.datetime.fromisoformat(at)
    return times.local(when if when.tzinfo else when.replace(tzinfo=dt.UTC))


def _facts(finding: TriageFinding) -> list[tuple[str, Cell]]:
    since, until = _local(finding.since), _local(finding.until)
    pairs: list[tuple[str, Cell]] = [
        ("when", f"{since if since == until else f'{since} – {until}'} {times.zone()}" if since else ""),
        ("hit", ", ".join(finding.whom)),
        ("changed before", Styled(times.in_text("; ".join(finding.changed_before)), "warn")),
        ("cause", times.in_text(finding.cause)),
        ("next", Styled(finding.remedy.replace("`", ""), "strong")),
        ("evidence", ", ".join(finding.evidence)),
        ("found by", "the model" if finding.by == "model" else ""),
    ]
    return [(name, value) for name, value in pairs if (value.text if isinstance(value, Styled) else value)]


def _foot(found: Triage) -> str:
    told = [
        f"run {found.run_id}",
        f"as of {found.pin[:10]}",
        f"{len(found.steps)} step{'s' if len(found.steps) != 1 else ''}",
    ]
    if found.operations:
        told.append(f"{len(found.operations)} model calls")
        told.append(money(found.cost_usd) if found.cost_usd is not None else "no cost known")
    return " · ".join([*told, f"ended: {found.stopped}"])
