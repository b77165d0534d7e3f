"""`tundra models`: what each profile can reach."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import options
from .command import command as _command
from .face import Face, pass_face

if TYPE_CHECKING:
    import pandas as pd


@_command("models")
@options.profile("Only this profile.")
@pass_face
def command(face: Face, profile: str | None) -> pd.DataFrame:
    """The models that each profile can reach, with context length and price."""
    return face.client.models(profile)
