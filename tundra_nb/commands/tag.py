"""`tundra tag`: names of states that will not move."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tundra_nb.client.results import Document

from . import options
from .command import command as _command
from .face import Face, pass_face

if TYPE_CHECKING:
    import pandas as pd


@_command("tag")
@click.argument("name", required=False)
@click.option("--at", type=options.Ref(), metavar="REF", help="What it names; HEAD by default.")
@click.option("-m", "--message", help="Why.")
@click.option("-d", "--delete", is_flag=True, help="Delete it instead.")
@pass_face
def command(face: Face, name: str | None, at: str | None, message: str | None, delete: bool) -> pd.DataFrame | Document:
    """Give a state the name NAME for good, or list the tags."""
    versions = face.client.versions
    if name is None:
        return versions.tags()
    return versions.delete_tag(name) if delete else versions.tag(name, at, message)
