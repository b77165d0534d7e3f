"""`tundra stat`: how much differs between two states of the history."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from . import options
from .command import command as _command
from .face import Face, pass_face

if TYPE_CHECKING:
    import pandas as pd


@_command("stat")
@click.argument("a", type=options.Ref())
@click.argument("b", default="HEAD", type=options.Ref())
@pass_face
def command(face: Face, a: str, b: str) -> pd.DataFrame:
    """How many rows were added, changed and removed between the states A and B, by table."""
    return face.client.versions.stat(a, b)
