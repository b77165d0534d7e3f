"""`tundra run`: a command in a pseudo-terminal."""

from __future__ import annotations

import click

from tundra_nb.errors import UsageError

from . import options
from .command import Result, ShellCommand
from .command import command as _command
from .face import Face, pass_face


@_command("run", cls=ShellCommand)
@click.argument("text", nargs=-1)
@click.option("--timeout", type=float, metavar="SECONDS", help="End it after so long.")
@click.option("--persistent", is_flag=True, help="Let it go on when the kernel, or this command, ends.")
@options.check
@options.child
@pass_face
def command(
    face: Face,
    text: tuple[str, ...],
    timeout: float | None,
    persistent: bool,
    is_checked: bool | None,
    cwd: str | None,
    env: tuple[str, ...],
    with_keys: tuple[str, ...],
) -> Result:
    """Run a shell command line; its output appears as it comes.

    TEXT is the command, no quotes needed; in a notebook also the cell below `%%tundra run`. An interrupt reaches it
    as Ctrl-C does, then harder. It ends with the kernel (or this command) that asked for it. It inherits no keys,
    unless --with-keys names them.
    """
    line = "\n".join(part for part in (" ".join(text), face.take_body(text) or "") if part.strip())
    if not line:
        raise UsageError(problem="there is no command", field="text", remedy=face.words("`%tundra run make test`."))
    live = face.client.ptys.start(
        line,
        timeout=timeout,
        cwd=cwd,
        env=options.variables(env),
        with_keys=with_keys,
        persistent=persistent,
        on_queue=lambda error: face.write(f"Waiting for a free terminal: {error.message}\n"),
    )
    return options.ended(face, live, is_checked)
