"""`tundra versions`: where the history stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tundra_nb.client.results import Document

from .command import Command, Group, Result
from .face import Face, pass_face

if TYPE_CHECKING:
    import pandas as pd


@click.group("versions", cls=Group)
@click.option("--widget", is_flag=True, help="Notebook: pick two commits, and see what changed between them.")
@click.pass_context
@pass_face
def command(face: Face, ctx: click.Context, widget: bool) -> Any:
    """Where the history stands: engine, last commit, what is not committed, branches and tags."""
    if ctx.invoked_subcommand is not None:
        return None
    return face.widget("versions") if widget else _status(face)


@command.command("status", cls=Command)
@pass_face
def status(face: Face) -> Document:
    """Where the history stands: engine, last commit, what is not committed, branches and tags."""
    return _status(face)


@command.command("check", cls=Command)
@pass_face
def check(face: Face) -> Result:
    """Test the integrity of the database; no rows means that it is sound."""
    problems: pd.DataFrame = face.client.versions.check()
    return Result(problems, exit_code=1 if len(problems) else 0)


@command.command("create", cls=Command)
@pass_face
def create(face: Face) -> Document:
    """Create the database on a Dolt server that has none of the configured name."""
    return face.client.versions.create()


def _status(face: Face) -> Document:
    versions = face.client.versions
    found = dict(versions.status())
    return Document(found | ({"checked_out": versions.checked_out} if versions.checked_out else {}))
