"""`tundra archive`: old days of the history as Parquet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from tundra_nb.client.archive import Archive

from . import options
from .command import command as _command
from .face import Face, pass_face


@_command("archive")
@click.option(
    "--older-than",
    type=options.Time(),
    metavar="AGE",
    help="Copy the UTC days that ended so long ago: 30d, 12w, a date.",
)
@click.option("--verify", is_flag=True, help="Read every file and compare it; what is damaged is copied anew.")
@pass_face
def command(face: Face, older_than: str | None, verify: bool) -> Archive:
    """Copy old days of the history as Parquet files and prove them; without options: tell what is archived.

    Nothing is deleted, and a run that is cut short goes on where it was. `calls --by` and its like read archived days
    from there, and `sql --archive` runs over both.
    """
    try:
        return face.client.archive(older_than, verify=verify, on_progress=lambda told: face.progress(_told(told)))
    finally:
        face.progress("")


def _told(told: Mapping[str, Any]) -> str:
    rows, done = int(told["rows"]), int(told["done_rows"])
    share = f", {100 * done // rows} % of {rows:,} rows" if rows else ""
    return f"{told['doing']}: {told['table']} {told['day']}".rstrip() + share
