"""`tundra breaker-history`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import options
from .command import command as _command
from .face import Face, pass_face

if TYPE_CHECKING:
    import pandas as pd


@_command("breaker-history")
@options.window
@options.profile("Only this profile.")
@pass_face
def command(face: Face, window: options.Window, profile: str | None) -> pd.DataFrame:
    """Transitions of the breakers, and profiles parked and taken back in."""
    return face.client.breaker_history(**window, profile=profile)
