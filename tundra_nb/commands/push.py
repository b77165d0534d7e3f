"""`tundra push`: share the history."""

from __future__ import annotations

import click

from tundra_nb.client.results import Document

from .command import command as _command
from .face import Face, pass_face


@_command("push")
@click.argument("remote")
@pass_face
def command(face: Face, remote: str) -> Document:
    """Send main, branches and tags to REMOTE: a path, `file:///…`, or what the engine knows."""
    return face.client.versions.push(remote)
