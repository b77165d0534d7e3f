"""`tundra backup`."""

from __future__ import annotations

import click

from tundra_nb.client.results import Document

from .command import command as _command
from .face import Face, pass_face


@_command("backup")
@click.argument("folder", type=click.Path(file_okay=False), required=False)
@pass_face
def command(face: Face, folder: str | None) -> Document:
    """Copy the whole history to FOLDER, `backups` of the data directory by default; again later: only what is new."""
    return face.client.versions.backup(folder)
