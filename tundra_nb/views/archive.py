"""The archive: what it holds, and what a run did."""

from __future__ import annotations

from collections.abc import Sequence

from tundra_nb.client.archive import Archive
from tundra_nb.types import FRAMES

from .blocks import Block, Facts, Heading, Para, Styled, Table

NAMES = {table: name for name, table in FRAMES.items()}


def blocks(archive: Archive) -> Sequence[Block]:
    files = int(archive["files"])
    if not files:
        told = "nothing is archived" if archive["until"] is None else "no rows are older"
        return [
            Heading(Styled(told)),
            Para(
                "`%tundra archive --older-than 30d` copies the days before that as Parquet files; it deletes nothing."
            ),
        ]
    if archive["copied_rows"]:
        told = f"archived {archive['copied_rows']:,} rows in {archive['copied_files']:,} files, read back and compared"
    elif archive["verified_files"]:
        told = f"{archive['verified_files']:,} files are what was written"
    else:
        told = "archive"
    made: list[Block] = [
        Heading(Styled(told, "good")),
        Facts(
            [
                ("days", f"{archive['since']} to before {archive['until']} (UTC)"),
                ("holds", f"{archive['rows']:,} rows in {files:,} files, {int(archive['size_bytes']) / 1e6:,.1f} MB"),
                ("folder", str(archive["folder"])),
                ("copied last", f"{archive['at']} from commit {str(archive['commit'])[:10]}"),
            ]
        ),
        Table(
            ["rows of", "count"],
            [[NAMES.get(table, table), f"{rows:,}"] for table, rows in archive["tables"].items()],
            right=frozenset({1}),
        ),
    ]
    if archive["repaired"]:
        made.append(Para(Styled("were damaged, and copied anew: " + ", ".join(archive["repaired"]), "warn")))
    if archive["late"]:
        late = ", ".join(f"{rows:,} of {NAMES.get(table, table)}" for table, rows in archive["late"].items())
        made.append(
            Para(
                Styled(
                    f"rows came late into archived days ({late}): these tables are read from the history alone ", "warn"
                ),
            )
        )
        made.append(Para("until `%tundra archive --older-than 30d` has copied them."))
    if archive["readable"]:
        made.append(Para('Read it: `%tundra calls --since 1y --by profile,day`, `%tundra sql --archive "SELECT …"`.'))
    else:
        made.append(
            Para(
                Styled(
                    "DuckDB is not installed where the daemon runs, so that only the history is read:"
                    " pip install 'tundra-nb[archive]'",
                    "warn",
                )
            )
        )
    return made
