"""`tundra import`: read a file of another program or machine into a source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from tundra_nb.client.sources import Source

from .command import command as _command
from .face import Face, pass_face


@_command("import")
@click.argument("file", type=click.Path())
@click.option("--name", help="How the source is called.  [default: after the file]")
@click.option("--link", is_flag=True, help="Read a folder of Parquet tables where it is, instead of a copy.")
@pass_face
def command(face: Face, file: str, name: str | None, link: bool) -> Source:
    """Read FILE into a source, which every view of the history shows with `--in NAME`.

    FILE is a log of Auto-Tundra (text or JSON), OTLP as JSON, LiteLLM's JSON records, a bundle of `tundra bundle`, or
    a zip or folder of tables of ours (`tables/TABLE.parquet`); logs may be packed by gzip, bzip2, xz or zstd. Nothing
    of it enters the history, and the same file twice is the same source.
    """
    try:
        return face.client.sources.import_(file, name, link=link, on_progress=lambda told: face.progress(_told(told)))
    finally:
        face.progress("")


def _told(told: Mapping[str, Any]) -> str:
    size = max(1, int(told["size_bytes"]))
    share = min(100, 100 * int(told["done_bytes"]) // size)
    return f"{told['doing']}: {share} %, {told['lines']:,} lines, {told['rows']:,} rows"
