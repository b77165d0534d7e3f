"""`tundra attempts`."""

from __future__ import annotations

from typing import Any

from . import options
from .command import command as _command
from .face import Face, pass_face


@_command("attempts")
@options.window
@options.code
@options.profile("Only those of this profile.")
@options.by
@options.plot
@pass_face
def command(
    face: Face, window: options.WindowOptions, code: str | None, profile: str | None, by: str | None, plot: bool
) -> Any:
    """Every try at a profile, also those that limiter or breaker refused."""
    return options.plotted(face.client.attempts(**window, code=code, profile=profile, by=by), plot, face)
