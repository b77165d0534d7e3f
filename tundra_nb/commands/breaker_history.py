"""`tundra breaker-history`."""

from __future__ import annotations

from typing import Any

from . import options
from .command import command as _command
from .face import Face, pass_face


@_command("breaker-history")
@options.window
@options.profile("Only this profile.")
@options.plot
@pass_face
def command(face: Face, window: options.WindowOptions, profile: str | None, plot: bool) -> Any:
    """Transitions of the breakers, and profiles parked and taken back in."""
    return options.plotted(face.client.breaker_history(**window, profile=profile), plot, face)
