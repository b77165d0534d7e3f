"""`tundra guide`: the pages of the guide."""

from __future__ import annotations

import click

from tundra_nb.client import explain
from tundra_nb.errors import UsageError

from . import options
from .command import Result
from .command import command as _command
from .explain import TopicCommand, unknown
from .face import Face, pass_face


@_command("guide", cls=TopicCommand)
@click.argument("topic", nargs=-1, type=options.TopicName())
@pass_face
def command(face: Face, topic: tuple[str, ...]) -> Result:
    """The guide: what can go wrong, by category and by name; with TOPIC, its page.

    TOPIC is an error, a situation or a section such as checklist. Needs no daemon.
    """
    try:
        return Result(explain.guide(" ".join(topic) or None))
    except UsageError as error:
        return unknown(face, error)
