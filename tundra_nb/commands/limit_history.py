"""`tundra limit-history`."""

from __future__ import annotations

from typing import Any, get_args

import click

from tundra_nb.types import Decision, Tier

from . import options
from .command import command as _command
from .face import Face, pass_face


@_command("limit-history")
@options.window
@click.option("--tier", type=click.Choice(get_args(Tier)), help="Only this tier.")
@click.option("--decision", type=click.Choice(get_args(Decision)), help="Only this decision.")
@options.plot
@pass_face
def command(face: Face, window: options.WindowOptions, tier: str | None, decision: str | None, plot: bool) -> Any:
    """Waits, refusals, penalties and corrections of the limiter."""
    return options.plotted(face.client.limit_history(**window, tier=tier, decision=decision), plot, face)
