"""`tundra history`: what each commit made of a row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from . import options
from .command import command as _command
from .face import Face, pass_face

if TYPE_CHECKING:
    import pandas as pd


@_command("history")
@click.argument("table", type=options.ChangingTable(), default="setting")
@click.argument("row", required=False)
@options.all_
@pass_face
def command(face: Face, table: str, row: str | None, is_all: bool) -> pd.DataFrame:
    """What each commit made of a row that people change.

    TABLE is setting (by default), profile, price or note. ROW is its name (`breaker.failures`) or key; all rows by
    default.
    """
    return face.client.versions.history(table, row, all=is_all)
