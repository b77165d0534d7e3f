"""`tundra doctor`: checks with remedies, also when the daemon is dead."""

from __future__ import annotations

import click

from tundra_nb.doctor.check import SYMPTOMS, Finding

from .command import Command, Result
from .command import command as _command
from .face import Face, pass_face


@_command("doctor", cls=Command)
@click.option(
    "--for",
    "symptom",
    type=click.Choice(SYMPTOMS),
    default="everything",
    show_default=True,
    help="Only what answers this symptom, each line with what was found.",
)
@click.option("--fix", is_flag=True, help="Carry out the remedies that are safe, each after asking.")
@click.option("--yes", is_flag=True, help="With --fix: do not ask.")
@pass_face
def command(face: Face, symptom: str, fix: bool, yes: bool) -> Result:
    """Check everything that tundra stands on, and say what to do about what is wrong.

    Works with the daemon dead, and changes nothing without --fix. Exit code 1 when a check fails.
    """

    def progress(done: int, of: int, title: str) -> None:
        face.progress(f"{done} of {of} looked at: {title}")

    def ask(finding: Finding, told: str) -> bool:
        return yes or face.confirm(f"{finding.title}: {finding.evidence}\n  Shall I {told}?")

    checkup = face.client.doctor(symptom, fix=fix, on_progress=progress, may_fix=ask)
    face.progress("")
    return Result(checkup, exit_code=0 if checkup.ok else 1)
