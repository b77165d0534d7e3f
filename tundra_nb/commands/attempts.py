"""`tundra attempts`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import options
from .command import command as _command
from .face import Face, pass_face

if TYPE_CHECKING:
    import pandas as pd


@_command("attempts")
@options.window
@options.code
@options.profile("Only those of this profile.")
@options.by
@pass_face
def command(face: Face, window: options.Window, code: str | None, profile: str | None, by: str | None) -> pd.DataFrame:
    """Every try at a profile, also those that limiter or breaker refused."""
    return face.client.attempts(**window, code=code, profile=profile, by=by)
