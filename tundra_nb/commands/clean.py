"""`tundra clean`: remove what earlier daemons left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tundra_nb.views import Message

from .command import command as _command
from .face import Face, pass_face

if TYPE_CHECKING:
    import pandas as pd


@_command("clean")
@click.option("--yes", is_flag=True, help="Remove them; without it they are only shown.")
@pass_face
def command(face: Face, yes: bool) -> pd.DataFrame | Message:
    """Show, and with --yes remove, what earlier daemons left: stray processes, dead sockets, old transcripts."""
    found = face.client.ptys.clean(dry=not yes)
    if not len(found):
        return Message("Nothing is left over.")
    if not yes and not face.wants_json:
        face.write(face.words("Nothing was removed yet: `%tundra clean --yes` does that.\n"))
    return found
