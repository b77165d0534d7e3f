"""A checkup: what is wrong and what to do about it first, the rest in a few lines."""

from __future__ import annotations

from collections.abc import Sequence

from tundra_nb.client import times
from tundra_nb.doctor.check import Checkup, Finding

from .blocks import Block, Cell, Facts, Heading, Para, Styled, Table, Tone

MARKS: dict[str, tuple[str, Tone]] = {
    "ok": ("✓", "good"),
    "warn": ("!", "warn"),
    "fail": ("✗", "bad"),
    "skipped": ("–", "dim"),
}


def blocks(checkup: Checkup) -> Sequence[Block]:
    """The verdict, what is wrong with its remedy, and one line per group of what is well."""
    wrong = [c for c in checkup.checks if c.state == "fail"] + [c for c in checkup.checks if c.state == "warn"]
    fails = sum(c.state == "fail" for c in wrong)
    made: list[Block] = [Heading(Styled(_verdict(checkup, fails, len(wrong) - fails), _tone(fails, wrong)))]
    if checkup.fixed:
        made.append(Para(f"done: {', '.join(name.replace('_', ' ') for name in checkup.fixed)}"))
    if wrong:
        for finding in wrong:
            made += _told(finding)
    if checkup.symptom == "everything":
        made.append(Facts([(group, _row(found)) for group, found in _groups(checkup.checks)]))
    else:
        well = [c for c in checkup.checks if c not in wrong]
        made.append(
            Table(["", "check", "what was found"], [[_mark(c), c.title, times.in_text(c.evidence)] for c in well])
        )
    if any(c.fix for c in wrong):
        made.append(Para(Styled("`%tundra doctor --fix` carries out what is safe, after asking.", "dim")))
    return made


def _verdict(checkup: Checkup, fails: int, warns: int) -> str:
    what = "" if checkup.symptom == "everything" else f" for {checkup.symptom}"
    count = f"{len(checkup.checks)} checks in {checkup.seconds:.1f} s"
    if fails:
        told = f"{fails} {'thing is' if fails == 1 else 'things are'} wrong{what}"
        return told + (f", {warns} to look at" if warns else "") + f" ({count})"
    if warns:
        return f"nothing fails{what}, {warns} to look at ({count})"
    return f"all is well{what} ({count})"


def _tone(fails: int, wrong: Sequence[Finding]) -> Tone:
    return "bad" if fails else "warn" if wrong else "good"


def _told(finding: Finding) -> list[Block]:
    """One finding, with room for its remedy also where the width is short."""
    mark, tone = MARKS[finding.state]
    more = f"`%tundra guide {finding.page}`" if finding.page else ""
    facts: list[tuple[str, Cell]] = [
        ("found", times.in_text(finding.evidence)),
        ("do", _remedy(finding)),
        ("more", more),
    ]
    return [Heading(Styled(f"{mark} {finding.title}", tone)), Facts([(name, told) for name, told in facts if told])]


def _mark(finding: Finding) -> Cell:
    mark, tone = MARKS[finding.state]
    return Styled(mark, tone)


def _remedy(finding: Finding) -> str:
    """Commands as a notebook takes them; the command line turns them back."""
    return finding.remedy.replace("`tundra ", "`%tundra ")


def _row(found: Sequence[Finding]) -> str:
    """The checks of a group with a mark each; what is well needs no evidence here."""
    return " · ".join(f"{MARKS[finding.state][0]} {finding.title}" for finding in found)


def _groups(found: Sequence[Finding]) -> list[tuple[str, list[Finding]]]:
    groups: dict[str, list[Finding]] = {}
    for finding in found:
        groups.setdefault(finding.group, []).append(finding)
    return list(groups.items())
