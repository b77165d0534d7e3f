"""`tundra breakers [reset NAME]`: the circuit breakers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from . import options
from .command import Command, Group
from .face import Face, pass_face

if TYPE_CHECKING:
    import pandas as pd

    from tundra_nb.client.results import Document


@click.group("breakers", cls=Group)
@click.pass_context
@pass_face
def command(face: Face, ctx: click.Context) -> pd.DataFrame | None:
    """The breaker of each profile, with the seconds until its next probe."""
    return face.client.breakers() if ctx.invoked_subcommand is None else None


@command.command("reset", cls=Command)
@click.argument("name", type=options.ProfileName())
@pass_face
def reset(face: Face, name: str) -> Document:
    """Close the breaker of profile NAME now."""
    return face.client.reset_breaker(name)
