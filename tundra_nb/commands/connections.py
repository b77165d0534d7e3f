"""`tundra connections`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from . import options
from .command import command as _command
from .face import Face, pass_face

if TYPE_CHECKING:
    import pandas as pd


@_command("connections")
@click.option("--pty", "pty_id", metavar="ID", type=options.PtyId(), help="Only those of this terminal.")
@options.window
@pass_face
def command(face: Face, pty_id: str | None, window: options.WindowOptions) -> pd.DataFrame:
    """Viewers of terminals, and lines to the daemon: opened, lost, resumed, ended, why, and what they missed."""
    return face.client.connections(pty=pty_id, **window)
