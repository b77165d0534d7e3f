"""`tundra why`: the causal chain of one call."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click

from tundra_nb.errors import UsageError
from tundra_nb.views import Compared

from . import options
from .command import NumberCommand
from .command import command as _command
from .face import Face, pass_face

if TYPE_CHECKING:
    from tundra_nb.client.results import Why
    from tundra_nb.client.run_story import RunStory


@_command("why", cls=NumberCommand)
@click.argument("operation", default="last", type=options.OperationId())
@click.option(
    "--diff", "other", type=options.OperationId(), help="What differs from the prompt and answer of this call."
)
@options.all_
@options.source
@pass_face
def command(
    face: Face, operation: str, other: str | None, source: str | None, is_all: bool
) -> Why | RunStory | Compared:
    """The causal chain of one call: waits, refusals, attempts, breaker moves, failover, cost.

    OPERATION is an id, the last digits of one, `last`, or `-2` for the call before the last. The id of an agent's run
    tells that run's story.
    """
    try:
        why = face.client.why(operation, source, all=is_all)
    except UsageError:
        if other is not None or source is not None or not operation.isdigit():
            raise
        with contextlib.suppress(UsageError):
            return face.client.why_run(operation)
        raise
    return why if other is None else Compared(why, face.client.why(other, source, all=is_all))
