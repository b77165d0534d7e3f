"""`tundra blame`: who last changed what is in force."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from . import options
from .command import command as _command
from .face import Face, pass_face

if TYPE_CHECKING:
    import pandas as pd


@_command("blame")
@click.argument("table", type=options.ChangingTable(), default="setting")
@options.all_
@pass_face
def command(face: Face, table: str, is_all: bool) -> pd.DataFrame:
    """Who last changed each row of TABLE (setting by default), in which commit, and why."""
    return face.client.versions.blame(table, all=is_all)
