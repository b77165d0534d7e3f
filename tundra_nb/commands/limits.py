"""`tundra limits`: the limiter's buckets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .command import command as _command
from .face import Face, pass_face

if TYPE_CHECKING:
    import pandas as pd


@_command("limits")
@pass_face
def command(face: Face) -> pd.DataFrame:
    """The limiter's buckets now, and beside them what each provider told of its own."""
    return face.client.limits()
