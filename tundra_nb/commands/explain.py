"""`tundra explain`: what an error means, and what happened here."""

from __future__ import annotations

import click

from tundra_nb.errors import UsageError

from . import options
from .command import NumberCommand, Result
from .command import command as _command
from .face import Face, pass_face


class TopicCommand(NumberCommand):
    """A command whose argument is a name, a number such as `-2`, or a pasted line that needs no quotes."""

    takes_text = True

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # a notebook hands on all that follows as one text, options at its end included
        if args and args[-1].endswith(" --json"):
            args = ["--json", *args[:-1], args[-1].removesuffix(" --json").rstrip()]
        return super().parse_args(ctx, args)


@_command("explain", cls=TopicCommand)
@click.argument("what", nargs=-1, type=options.CodeOrLast())
@options.source
@pass_face
def command(face: Face, what: tuple[str, ...], source: str | None) -> Result:
    """What an error means, what to do, and what happened here.

    WHAT is an error's code or class, a name of Auto-Tundra's (LlmError::Timeout), a situation (disk-full), `last` for
    the latest error, the id of a call, an error or a terminal, or a line pasted from a log. Without it: everything
    that can be explained. Exit code 1 where nothing is known.
    """
    if not what:
        from tundra_nb.client import explain

        return Result(explain.contents())
    try:
        return Result(face.client.explain(" ".join(what), source))
    except UsageError as error:
        return unknown(face, error)


def unknown(face: Face, error: UsageError) -> Result:
    """Nothing is known: an error in a notebook, exit code 1 on the command line, where 2 would mean a wrong option."""
    if face.name == "kernel":
        raise error
    return Result(error, exit_code=1)
