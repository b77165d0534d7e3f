"""`tundra last`: what happened in the latest call."""

from __future__ import annotations

from tundra_nb.client.results import Last

from . import options
from .command import command as _command
from .face import Face, pass_face


@_command("last")
@options.all_
@options.source
@pass_face
def command(face: Face, source: str | None, is_all: bool) -> Last:
    """What happened in the latest call, and the next step."""
    return face.client.last(source, all=is_all)
