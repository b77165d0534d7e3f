"""Findings as text, the same for the same findings."""

from __future__ import annotations

from collections.abc import Sequence

from tundra_nb.types.triage import TriageFinding


def report(findings: Sequence[TriageFinding], *, question: str, window: str, notes: Sequence[str] = ()) -> str:
    """The findings as text, the same for the same findings."""
    lines = [f"Triage: {question}", f"Window: {window}", ""]
    lines += [f"Note: {note}" for note in notes] + ([""] if notes else [])
    if not findings:
        return "\n".join([*lines, "Nothing failed in this window."])
    for place, finding in enumerate(findings, 1):
        lines += [f"{place}. {finding.claim}", *(f"   {name}: {value}" for name, value in _facts(finding)), ""]
    return "\n".join(lines).rstrip()


def _facts(finding: TriageFinding) -> list[tuple[str, str]]:
    told = [
        ("when", f"{finding.since} – {finding.until} UTC" if finding.since != finding.until else finding.since),
        ("whom it hit", ", ".join(finding.whom)),
        ("changed before", "; ".join(finding.changed_before)),
        ("cause", finding.cause),
        ("remedy", finding.remedy),
        ("evidence", ", ".join(finding.evidence)),
        ("found by", "the model" if finding.by == "model" else ""),
    ]
    return [(name, value) for name, value in told if value]
