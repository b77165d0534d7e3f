"""`tundra providers [add/recheck/park]`: the profiles."""

from __future__ import annotations

from typing import Any, get_args

import click

from tundra_nb.client.results import Document
from tundra_nb.types import ProviderKind

from . import options
from .command import Command, Group
from .face import Face, pass_face


@click.group("providers", cls=Group)
@click.option("--widget", is_flag=True, help="Notebook: a live view, with breakers and buckets.")
@click.pass_context
@pass_face
def command(face: Face, ctx: click.Context, widget: bool) -> Any:
    """The profiles by priority: ready, cooling, parked, and why."""
    if ctx.invoked_subcommand is not None:
        return None
    return face.widget("providers") if widget else face.client.providers()


@command.command("add", cls=Command)
@click.argument("name")
@click.option("--kind", type=click.Choice(get_args(ProviderKind)), required=True, help="What API it speaks.")
@click.option("--base-url", help="Where it is; left out: the vendor's own host.")
@click.option("--model", help="Left out: chosen from the provider's own list.")
@click.option(
    "--api-key-env",
    type=options.Variable(),
    metavar="VARIABLE",
    help="Name of the variable that holds the key, never the key.",
)
@click.option("--priority", type=int, help="Lower is asked first.  [default: 0]")
@pass_face
def add(
    face: Face,
    name: str,
    kind: str,
    base_url: str | None,
    model: str | None,
    api_key_env: str | None,
    priority: int | None,
) -> Document:
    """Write a profile called NAME into the settings file and use it from now on."""
    return face.client.add_provider(
        name, kind, base_url=base_url, model=model, api_key_env=api_key_env, priority=priority
    )


@command.command("recheck", cls=Command)
@click.argument("name", type=options.Profile())
@pass_face
def recheck(face: Face, name: str) -> Document:
    """Ask whether profile NAME can be used again, and take it back in when it can."""
    return face.client.recheck_provider(name)


@command.command("park", cls=Command)
@click.argument("name", type=options.Profile())
@pass_face
def park(face: Face, name: str) -> Document:
    """Take profile NAME out of use until it is rechecked."""
    return face.client.park_provider(name)
