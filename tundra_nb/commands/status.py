"""`tundra status`: one card that tells how everything is, and what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .command import command as _command
from .face import Face, pass_face

if TYPE_CHECKING:
    from tundra_nb.client.results import Status


@_command("status")
@pass_face
def command(face: Face) -> Status:
    """One card: daemon, store, providers, breakers, limits, PTYs, last errors, next step."""
    return face.client.status()
