"""`tundra token new|list|revoke`: who may use the gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tundra_nb.client.gateway import NewToken
from tundra_nb.client.results import Document

from . import options
from .command import Command, Group
from .face import Face, pass_face

if TYPE_CHECKING:
    import pandas as pd


@click.group("token", cls=Group)
@click.pass_context
@pass_face
def command(face: Face, ctx: click.Context) -> pd.DataFrame | None:
    """Tokens for programs that come by the gateway; without a sub-command: the list."""
    return face.client.tokens.list() if ctx.invoked_subcommand is None else None


@command.command("new", cls=Command)
@click.argument("name")
@click.option(
    "--profile", "-p", "profiles", multiple=True, type=options.ProfileName(), help="May use; several allowed."
)
@click.option("--rpm", type=float, metavar="N", help="Requests per minute.")
@click.option("--tpm", type=float, metavar="N", help="Tokens per minute.")
@click.option("--usd-per-day", type=float, metavar="X", help="What its calls may cost per day (UTC), never more.")
@click.option("--expires", metavar="SPAN", help="Such as 30d or 12h, or a date; left out: never.")
@pass_face
def new(
    face: Face,
    name: str,
    profiles: tuple[str, ...],
    rpm: float | None,
    tpm: float | None,
    usd_per_day: float | None,
    expires: str | None,
) -> NewToken:
    """Make a token called NAME. It is shown this once."""
    return face.client.tokens.new(name, profiles=profiles, rpm=rpm, tpm=tpm, usd_per_day=usd_per_day, expires=expires)


@command.command("list", cls=Command)
@pass_face
def list_(face: Face) -> pd.DataFrame:
    """What each token may do, until when, and what it has spent today; never the token itself."""
    return face.client.tokens.list()


@command.command("revoke", cls=Command)
@click.argument("name")
@pass_face
def revoke(face: Face, name: str) -> Document:
    """Have token NAME serve no longer. Calls under way go on to their end; how many is told."""
    return face.client.tokens.revoke(name)
