"""`tundra sql`: read-only SQL over the history."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from . import options
from .command import CodeCommand
from .command import command as _command
from .face import Face, pass_face

if TYPE_CHECKING:
    import pandas as pd


@_command("sql", cls=CodeCommand)
@click.argument("text", nargs=-1, type=options.SqlWord())
@click.option("--at", type=options.Ref(), metavar="REF", help="The history as of a commit, branch, tag or time.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many rows.")
@click.option("--archive", is_flag=True, help="Over history and archive together, by DuckDB: one SELECT in its SQL.")
@options.wait
@options.source
@pass_face
def command(
    face: Face,
    text: tuple[str, ...],
    at: str | None,
    limit: int | None,
    archive: bool,
    wait: float | None,
    source: str | None,
) -> pd.DataFrame:
    """Run one read-only statement over the history.

    TEXT is the statement. In a notebook the cell below `%%tundra sql` is; on the command line standard input is, when
    there is no TEXT.
    """
    statement = "\n".join(part for part in (" ".join(text), face.take_body(text) or "") if part.strip())
    return face.client.sql(statement, at=at, limit=limit, wait=wait, source=source, archive=archive)
