"""`tundra diff`: what differs between two states of the history."""

from __future__ import annotations

from typing import Any

import click

from tundra_nb.types import TABLES

from . import options
from .command import command as _command
from .face import Face, pass_face


@_command("diff")
@click.argument("a", type=options.Ref())
@click.argument("b", default="HEAD", type=options.Ref())
@click.argument("table", required=False, type=options.TableName())
@click.option("--limit", type=click.IntRange(min=1), help="At most so many rows of each table.")
@click.option("--widget", is_flag=True, help="Notebook: the same to look through, with other commits to pick.")
@pass_face
def command(face: Face, a: str, b: str, table: str | None, limit: int | None, widget: bool) -> Any:
    """The rows that differ between the states A and B.

    A and B are commits, branches, tags or times; B is HEAD by default, `now` includes what is not committed yet. TABLE
    is one history table; all that differ by default, what people changed above the events.
    """
    if table is None and b in TABLES:
        b, table = "HEAD", b
    if widget:
        return face.widget("versions", a, b, table or "")
    return face.client.versions.diff(a, b, table, limit=limit)
