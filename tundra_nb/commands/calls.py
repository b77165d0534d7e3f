"""`tundra calls`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import options
from .command import command as _command
from .face import Face, pass_face

if TYPE_CHECKING:
    import pandas as pd


@_command("calls")
@options.window
@options.code
@options.profile("Only those of this profile.")
@options.by
@pass_face
def command(face: Face, window: options.Window, code: str | None, profile: str | None, by: str | None) -> pd.DataFrame:
    """The calls, one row each, whatever their attempts."""
    return face.client.calls(**window, code=code, profile=profile, by=by)
