"""The report of a triage."""

from __future__ import annotations

from collections.abc import Sequence

from tundra_nb.types.triage import Finding, Triage

from .blocks import Block, Cell, Facts, Heading, Para, Styled, Tone, money


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
        made += [Para(Styled(f"{place}. {finding.claim}", tone)), Facts(_facts(finding))]
    made.append(Para(Styled(_foot(found), "dim")))
    return made


def _facts(finding: Finding) -> list[tuple[str, Cell]]:
    when = finding.since if finding.since == finding.until else f"{finding.since} – {finding.until}"
    pairs: list[tuple[str, Cell]] = [
        ("when", f"{when} UTC" if when else ""),
        ("hit", ", ".join(finding.whom)),
        ("changed before", Styled("; ".join(finding.changed_before), "warn")),
        ("cause", finding.cause),
        ("next", Styled(finding.remedy.replace("`", ""), "strong")),
        ("evidence", ", ".join(finding.evidence)),
        ("found by", "the model" if finding.by == "model" else ""),
    ]
    return [(name, value) for name, value in pairs if (value.text if isinstance(value, Styled) else value)]


def _foot(found: Triage) -> str:
    told = [f"run {found.run_id}", f"as of {found.pin[:10]}", f"{len(found.steps)} steps"]
    if found.operations:
        told.append(f"{len(found.operations)} model calls")
        told.append(money(found.cost_usd) if found.cost_usd else "no cost known")
    return " · ".join([*told, f"ended: {found.stopped}"])
