"""`tundra why`: the causal chain of one call."""

from __future__ import annotations

import click

from tundra_nb.client.results import Why

from .command import NumberCommand
from .command import command as _command
from .face import Face, pass_face


@_command("why", cls=NumberCommand)
@click.argument("operation", default="last")
@pass_face
def command(face: Face, operation: str) -> Why:
    """The causal chain of one call: waits, refusals, attempts, breaker moves, failover, cost.

    OPERATION is an id, the last digits of one, `last`, or `-2` for the call before the last.
    """
    return face.client.why(operation)
