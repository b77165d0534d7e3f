"""`tundra log-level`: which log lines the daemon keeps."""

from __future__ import annotations

import click

from tundra_nb.errors import UsageError
from tundra_nb.views import Message

from .command import command as _command
from .face import Face, pass_face


@_command("log-level")
@click.argument("directives", required=False)
@pass_face
def command(face: Face, directives: str | None) -> Message:
    """Which log lines are kept; with DIRECTIVES such as info,tundra.ptys=debug, from now on until the daemon ends."""
    if directives is not None and not directives.strip(" ,"):
        raise UsageError(
            problem="no level is given", field="directives", remedy="Write one, such as info,tundra.router=debug."
        )
    told = face.client.log_level(directives)
    return Message(f"The daemon's log keeps {told.filter}.")
