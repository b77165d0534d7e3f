"""`tundra branch`: lines of proposals beside main."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tundra_nb.client.results import Document

from . import options
from .command import command as _command
from .face import Face, pass_face

if TYPE_CHECKING:
    import pandas as pd


@_command("branch")
@click.argument("name", required=False)
@click.option("--at", type=options.Ref(), metavar="REF", help="Where it begins; HEAD by default.")
@click.option("-d", "--delete", is_flag=True, help="Delete it instead.")
@pass_face
def command(face: Face, name: str | None, at: str | None, delete: bool) -> pd.DataFrame | Document:
    """Make the branch NAME, or list the branches."""
    versions = face.client.versions
    if name is None:
        return versions.branches()
    return versions.delete_branch(name) if delete else versions.branch(name, at)
