"""`tundra commits`: the commits of the history."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .command import command as _command
from .face import Face, pass_face

if TYPE_CHECKING:
    import pandas as pd


@_command("commits")
@click.option("--at", metavar="REF", help="The commits that lead to this commit, branch, tag or time.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many, the newest.")
@pass_face
def command(face: Face, at: str | None, limit: int | None) -> pd.DataFrame:
    """The commits of the history, the newest first."""
    return face.client.versions.log(at=at, limit=limit)
