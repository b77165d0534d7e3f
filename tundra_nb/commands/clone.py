"""`tundra clone`: a new history from a remote."""

from __future__ import annotations

import click

from tundra_nb.client.results import Document

from .command import command as _command
from .face import Face, pass_face


@_command("clone")
@click.argument("remote")
@click.argument("into")
@pass_face
def command(face: Face, remote: str, into: str) -> Document:
    """Make a new history from REMOTE.

    INTO is a new data directory, for TUNDRA_DATA_DIR or `connect(data_dir=…)`; with Dolt, a new database's name.
    """
    return face.client.versions.clone(remote, into)
