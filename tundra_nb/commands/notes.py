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
def command(face: Face, window: options.WindowOptions, subject: str | None) -> pd.DataFrame:
    """The annotations; all of them, unless a window is given."""
    if not window["between"]:
        window["since"] = window["since"] or "all"
    return face.client.notes(**window, subject=subject)
