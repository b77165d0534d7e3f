"""`tundra sources`: what was imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tundra_nb.client.sources import Source
from tundra_nb.views import Message

from . import options
from .command import Command, Group
from .face import Face, pass_face

if TYPE_CHECKING:
    import pandas as pd


@click.group("sources", cls=Group)
@click.pass_context
@pass_face
def command(face: Face, ctx: click.Context) -> pd.DataFrame | None:
    """What was imported: records of other programs and machines, which views show with `--in NAME`."""
    return face.client.sources() if ctx.invoked_subcommand is None else None


@command.command("show", cls=Command)
@click.argument("name", type=options.SourceName())
@pass_face
def show(face: Face, name: str) -> Source:
    """What is known of a source: its file, its rows, what was not understood."""
    return face.client.sources[name]


@command.command("remove", cls=Command)
@click.argument("name", type=options.SourceName())
@pass_face
def remove(face: Face, name: str) -> Message:
    """Forget a source; the file that it was made of stays where it is."""
    face.client.sources.remove(name)
    return Message(f"source {name!r} is forgotten")
