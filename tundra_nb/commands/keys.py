"""`tundra keys [offer]`: which keys the daemon has, and handing it those it lacks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from tundra_nb.client.keys_here import keys_here
from tundra_nb.errors import NoProfile, UsageError
from tundra_nb.views import Message

from . import options
from .command import Command, Group
from .face import Face, pass_face

if TYPE_CHECKING:
    import pandas as pd


@click.group("keys", cls=Group)
@click.pass_context
@pass_face
def command(face: Face, ctx: click.Context) -> pd.DataFrame | None:
    """The key variables that profiles name, and whether the daemon has them; never a value."""
    return face.client.keys() if ctx.invoked_subcommand is None else None


@command.command("offer", cls=Command)
@click.argument("names", nargs=-1, type=options.Variable())
@pass_face
def offer(face: Face, names: tuple[str, ...]) -> Message:
    """Hand the daemon keys of this process's environment, held in its memory only.

    NAMES are variables; without any, those that profiles name and that are set here.
    """
    wanted = [str(name) for name in face.client.keys()["variable"]]
    chosen = names or tuple(name for name in wanted if os.environ.get(name))
    missing = [name for name in chosen if not os.environ.get(name)]
    if missing:
        raise UsageError(
            problem=f"{', '.join(missing)} is not set here",
            field="names",
            remedy=f"Set it in the environment of this process (pid {os.getpid()}) first.",
        )
    if not chosen:
        told = f"None of {', '.join(wanted)} is set here." if wanted else "No profile names a key variable."
        if not wanted:
            told = NoProfile(keys=keys_here()).restart or told
        raise UsageError(problem="there is no key to offer", field="names", remedy=told)
    face.client.offer_keys({name: os.environ[name] for name in chosen})
    return Message(f"The daemon holds {', '.join(chosen)} in memory, until it ends.")
