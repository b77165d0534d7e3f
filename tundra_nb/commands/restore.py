"""`tundra restore`."""

from __future__ import annotations

import click

from tundra_nb.client.results import Document

from .command import command as _command
from .face import Face, pass_face


@_command("restore")
@click.argument("folder", type=click.Path(file_okay=False), required=False)
@pass_face
def command(face: Face, folder: str | None) -> Document:
    """Replace the history by the backup in FOLDER; what was there is kept aside."""
    return face.client.versions.restore(folder)
