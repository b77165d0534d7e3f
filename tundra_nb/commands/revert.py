"""`tundra revert`: take back a change of settings."""

from __future__ import annotations

import click

from tundra_nb.client.results import Document

from . import options
from .command import command as _command
from .face import Face, pass_face


@_command("revert")
@click.argument("ref", type=options.Ref(), metavar="COMMIT")
@pass_face
def command(face: Face, ref: str) -> Document:
    """Commit the opposite of a commit of settings, profiles, prices or notes; settings take effect."""
    return face.client.versions.revert(ref)
