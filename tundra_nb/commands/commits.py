"""`tundra commits`: the commits of the history."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from . import options
from .command import command as _command
from .face import Face, pass_face

if TYPE_CHECKING:
    import pandas as pd


AUTOMATIC = ("tundra_nb", "doltlite", "dolt")
"""Who commits events, and makes the database."""


@_command("commits")
@click.option(
    "--at", type=options.Ref(), metavar="REF", help="The commits that lead to this commit, branch, tag or time."
)
@click.option("--people", is_flag=True, help="Only what people have changed, not the daemon's own commits.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many, the newest.")
@pass_face
def command(face: Face, at: str | None, people: bool, limit: int | None) -> pd.DataFrame:
    """The commits of the history, the newest first."""
    if not people:
        return face.client.versions.log(at=at, limit=limit)
    log = face.client.versions.log(at=at)
    kept = log[~log["author"].isin(AUTOMATIC)].head(limit or len(log)).reset_index(drop=True)
    kept.attrs.update(log.attrs)
    return kept
