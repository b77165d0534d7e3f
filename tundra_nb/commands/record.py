"""`tundra record [on/off]`: whether what this notebook asks is recorded."""

from __future__ import annotations

import click

from tundra_nb.client.results import Document
from tundra_nb.errors import UsageError

from .command import command as _command
from .face import Face, pass_face


@_command("record")
@click.argument("switch", type=click.Choice(("on", "off")), required=False)
@pass_face
def command(face: Face, switch: str | None) -> Document:
    """Record what this notebook asks from now on, or no longer: request and answer, with the time of each piece.

    Recordings are masked, kept in files of the data directory and never pushed; `record.days` and `record.max_mb`
    bound them. `settings set record.content=all` records everything, calls through the gateway too; `ask --record`
    records one call.
    """
    if switch is not None:
        if face.name == "cli":
            raise UsageError(
                problem="each command line is a process of its own: there is no notebook to record",
                field="switch",
                remedy="`tundra ask --record` records one call, `tundra settings set record.content=all` all of them.",
            )
        face.client.records = switch == "on"
    settings = face.client.settings()
    told = {str(row.path): row.value for row in settings.itertuples() if str(row.path).startswith("record.")}
    if face.name != "cli":
        told = {"this notebook": "recorded" if face.client.records else "as the settings say", **told}
    return Document(told)
