"""`tundra checkout`: look at the past."""

from __future__ import annotations

import click

from tundra_nb.errors import UsageError
from tundra_nb.views import Message

from . import options
from .command import command as _command
from .face import Face, pass_face


@_command("checkout")
@click.argument("ref", type=options.Ref())
@pass_face
def command(face: Face, ref: str) -> Message:
    """Show this notebook the history as of REF from now on; `main` is the present again.

    REF is a commit, branch, tag or time. Nothing is changed, and `--at` still names another state.
    """
    if face.name == "cli":
        raise UsageError(
            problem="each command line is a process of its own: there is nothing to check out for",
            field="checkout",
            remedy="Give the command `--at REF`.",
        )
    found = face.client.versions.checkout(ref)
    if ref == "main":
        return Message("This notebook shows the present again.")
    when = f"{found['commit'][:10]}, {found['at'][:19].replace('T', ' ')} UTC"
    return Message(
        f"This notebook now shows the history as of {ref} ({when}): {found['message'].splitlines()[0]}\n"
        "`%tundra checkout main` shows the present again."
    )
