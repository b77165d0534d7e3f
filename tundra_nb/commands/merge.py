"""`tundra merge`: bring a branch into main."""

from __future__ import annotations

import click

from tundra_nb.errors import UsageError

from . import options
from .command import Result
from .command import command as _command
from .face import Face, pass_face


@_command("merge")
@click.argument("branch", type=options.Ref())
@click.option("--ours", is_flag=True, help="Where both changed the same row, main wins.")
@click.option("--theirs", is_flag=True, help="Where both changed the same row, the branch wins.")
@pass_face
def command(face: Face, branch: str, ours: bool, theirs: bool) -> Result:
    """Merge BRANCH into main; settings on it take effect. Conflicts change nothing, and are shown."""
    if ours and theirs:
        raise UsageError(problem="--ours and --theirs exclude each other", field="--ours")
    merged = face.client.versions.merge(branch, "ours" if ours else "theirs" if theirs else None)
    return Result(merged, exit_code=0 if merged["commit"] else 1)
