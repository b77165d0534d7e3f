"""`tundra limits`: the limiter's buckets."""

from __future__ import annotations

from typing import Any

import click

from . import options
from .command import command as _command
from .face import Face, pass_face


@_command("limits")
@click.option("--plot", is_flag=True, help="A picture over time: what the provider told it had left, against ours.")
@click.option("--since", type=options.Time(), help="With --plot: from when on.  [default: 24h]")
@options.profile("With --plot: only of this profile.")
@pass_face
def command(face: Face, plot: bool, since: str | None, profile: str | None) -> Any:
    """The limiter's buckets now, and beside them what each provider told of its own."""
    if not plot:
        return face.client.limits()
    return options.plotted(face.client.attempts(since=since, profile=profile), True, face, buckets=True)
