"""`tundra agent-runs`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from . import options
from .command import command as _command
from .face import Face, pass_face

if TYPE_CHECKING:
    import pandas as pd


@_command("agent-runs")
@options.window
@click.option(
    "--outcome", type=click.Choice(["ok", "error", "cancelled", "interrupted"]), help="Only those that ended so."
)
@pass_face
def command(face: Face, window: options.WindowOptions, outcome: str | None) -> pd.DataFrame:
    """Runs of agents: what was asked, how it ended, what it cost."""
    return face.client.agent_runs(**window, outcome=outcome)
