"""`tundra commit`: a pin."""

from __future__ import annotations

import click

from .command import command as _command
from .face import Face, pass_face


@_command("commit")
@click.option("-m", "--message", default="", help="Why, for those who read the history.")
@pass_face
def command(face: Face, message: str) -> str:
    """Commit what has been written since the last commit; the hash pins this state for good."""
    return face.client.versions.commit(message)
