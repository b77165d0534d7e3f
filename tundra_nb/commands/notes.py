"""`tundra notes`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from . import options
from .command import command as _command
from .face import Face, pass_face

if TYPE_CHECKING:
    import pandas as pd


@_command("notes")
@options.window
@click.option("--on", "subject", metavar="SUBJECT", help="Only those about this.")
@pass_face
def command(
    face: Face,
    since: str | None,
    between: tuple[str, str] | None,
    at: str | None,
    limit: int | None,
    subject: str | None,
) -> pd.DataFrame:
    """The annotations; all of them, unless a window is given."""
    when = since or (None if between else "all")
    return face.client.notes(when, between=between, at=at, limit=limit, subject=subject)
