"""`tundra errors`."""

from __future__ import annotations

from typing import Any, get_args

import click

from tundra_nb.types import Severity

from . import options
from .command import command as _command
from .face import Face, pass_face


@_command("errors")
@options.window
@options.code
@options.profile("Only those of this profile.")
@click.option("--severity", type=click.Choice(get_args(Severity)), help="Only those of this severity.")
@options.plot
@pass_face
def command(
    face: Face, window: options.WindowOptions, code: str | None, profile: str | None, severity: str | None, plot: bool
) -> Any:
    """Errors that reached a caller, or that a background part met."""
    return options.plotted(face.client.errors(**window, code=code, profile=profile, severity=severity), plot, face)
