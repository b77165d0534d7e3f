"""`tundra pull`: take over a shared history."""

from __future__ import annotations

import click

from tundra_nb.client.results import Document

from .command import command as _command
from .face import Face, pass_face


@_command("pull")
@click.argument("remote")
@pass_face
def command(face: Face, remote: str) -> Document:
    """Merge REMOTE's main into ours; this machine's settings stay in force."""
    return face.client.versions.pull(remote)
