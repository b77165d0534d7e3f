"""`tundra sh`: a cell of a persistent shell."""

from __future__ import annotations

from typing import Literal

import click

from tundra_nb.errors import UsageError

from . import options
from .command import Result, ShellCommand
from .command import command as _command
from .face import Face, pass_face


@_command("sh", cls=ShellCommand)
@click.argument("text", nargs=-1)
@click.option("--fresh", is_flag=True, help="End the shell of before, start a new one.")
@click.option("--zsh", "program", flag_value="zsh", default=None, help="A zsh instead of a bash.")
@click.option("--timeout", type=float, metavar="SECONDS", help="Interrupt the cell after so long.")
@options.check
@options.child
@pass_face
def command(
    face: Face,
    text: tuple[str, ...],
    fresh: bool,
    program: Literal["zsh"] | None,
    timeout: float | None,
    is_checked: bool | None,
    cwd: str | None,
    env: tuple[str, ...],
    with_keys: tuple[str, ...],
) -> Result:
    """Run a cell in this notebook's shell: variables, functions and directory live on from cell to cell.

    TEXT is shell code. In a notebook the cell below `%%tundra sh` is; on the command line standard input is, when there
    is no TEXT. The shell ends a minute after its kernel.
    """
    body = face.take_body(text, waits=not fresh)
    cell = "\n".join(part for part in (" ".join(text), body or "") if part.strip())
    if not cell and body is None and not fresh:
        raise UsageError(problem="there is nothing to run", field="text", remedy=face.words("`%tundra sh cd src`."))
    face.client.attach(face.client.caller)
    live = face.client.ptys.start_cell(
        cell,
        program=program or "bash",
        fresh=fresh,
        timeout=timeout,
        cwd=cwd,
        env=options.variables(env),
        with_keys=with_keys,
    )
    return options.ended(face, live, is_checked)
