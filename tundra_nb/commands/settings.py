"""`tundra settings`: every setting, its value and where that came from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .command import command as _command
from .face import Face, pass_face

if TYPE_CHECKING:
    import pandas as pd


@_command("settings")
@click.option("--changed", is_flag=True, help="Only those that are not at their default.")
@pass_face
def command(face: Face, changed: bool) -> pd.DataFrame:
    """Every setting in force with its default and where its value came from."""
    return face.client.settings(changed)
