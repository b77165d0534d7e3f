"""`tundra agent-steps`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from . import options
from .command import command as _command
from .face import Face, pass_face

if TYPE_CHECKING:
    import pandas as pd


@_command("agent-steps")
@options.window
@click.option("--run", metavar="ID", help="Only those of this run.")
@pass_face
def command(face: Face, window: options.WindowOptions, run: str | None) -> pd.DataFrame:
    """Steps of agents' runs: calls of the model, tools, questions to a person, findings."""
    return face.client.agent_steps(**window, run_id=run)
