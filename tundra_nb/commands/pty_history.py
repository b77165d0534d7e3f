"""`tundra pty-history`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import options
from .command import command as _command
from .face import Face, pass_face

if TYPE_CHECKING:
    import pandas as pd


@_command("pty-history")
@options.window
@pass_face
def command(face: Face, window: options.WindowOptions) -> pd.DataFrame:
    """What happened to PTYs: starts, refusals, resizes, exits, kills, orphan ends."""
    return face.client.ptys.history(**window)
