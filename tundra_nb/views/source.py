"""A source: what was understood of its file, what was not, and how to look at it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from tundra_nb.client import times
from tundra_nb.client.sources import Source
from tundra_nb.types import FRAMES

from .blocks import Block, Code, Facts, Heading, Para, Styled, Table

NAMES = {table: name for name, table in FRAMES.items()}
SHARE_TOLD = 0.05
"""Share of lines that were not understood above which that is a warning."""


def blocks(source: Source) -> Sequence[Block]:
    name = str(source["name"])
    told = f"source {name} was there already: this file had been imported" if source["again"] else f"source {name}"
    made: list[Block] = [
        Heading(Styled(told, "good")),
        Facts(
            [
                ("file", f"{source['file']} · {int(source['size_bytes']) / 1e6:,.1f} MB · {source['kind']}"),
                ("from", _span(source)),
                ("lines", f"{int(source['lines']):,}, of these {int(source['left']):,} not understood"),
            ]
        ),
    ]
    rows = [[NAMES.get(table, table), f"{count:,}"] for table, count in source["rows"].items()]
    if rows:
        made.append(Table(["rows of", "count"], rows, right=frozenset({1})))
    if source["left"]:
        share = int(source["left"]) / max(1, int(source["lines"]))
        some = f"not understood: {int(source['left']):,} ({share:.1%}), for example"
        made += [Para(Styled(some, "warn" if share > SHARE_TOLD else "dim")), Code("\n".join(source["sample"]))]
    made.append(Para(f"Look at it: `%tundra errors --in {name}`, `%tundra calls --by profile --in {name}`."))
    return made


def _span(source: Source) -> str:
    if not source.get("since"):
        return "no times"
    ends = [times.local(dt.datetime.fromisoformat(str(source[end]))) for end in ("since", "until")]
    return f"{ends[0]} – {ends[1]} ({times.zone()})"
