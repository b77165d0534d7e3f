"""`tundra explain`: what an error code means."""

from __future__ import annotations

import click

from tundra_nb.client.explain import Explanation

from . import options
from .command import command as _command
from .face import Face, pass_face


@_command("explain")
@click.argument("code", default="last", type=options.CodeOrLast())
@pass_face
def command(face: Face, code: str) -> Explanation:
    """What an error code means, what to do, and what happened here.

    CODE is an error code, or `last` for the latest error.
    """
    return face.client.explain(code)
