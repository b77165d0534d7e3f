"""Two states of the history side by side: in which tables they differ, and the rows of one of them."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence

from .blocks import Block, Cell, Code, Facts, Heading, Para, Styled, Table
from .versions import CHANGE, MAX_ROWS, SIGNS


@dataclasses.dataclass(frozen=True)
class Side:
    """One of the two: as it was named, its commit (none for `now`), and what tells it to people."""

    ref: str = ""
    commit: str = ""
    told: str = ""


@dataclasses.dataclass(frozen=True)
class Counts:
    """A table in which something differs, in numbers of rows."""

    table: str
    added: int
    removed: int
    modified: int


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What differs between A and B, or the problem that it could not be found out.

    `rows` are cells as of `versions.changes`, of `table`; `more` is the number of those that are not among them.
    """

    a: Side = Side()
    b: Side = Side()
    tables: Sequence[Counts] = ()
    table: str = ""
    rows: Sequence[Sequence[Cell]] = ()
    more: int = 0
    problem: str = ""

    @property
    def command(self) -> str:
        """What gives the same as a frame; nothing when A or B is unknown."""
        if self.problem or not (self.a.ref and self.b.ref):
            return ""
        words = (self.a.commit or self.a.ref, self.b.commit or self.b.ref, self.table)
        return f"%tundra diff {shlex.join(word for word in words if word)}"


def blocks(found: Comparison) -> Sequence[Block]:
    """The static picture of a comparison."""
    made: list[Block] = [Heading("versions")]
    if found.problem:
        return [*made, Para(Styled(found.problem, "bad"))]
    made.append(Facts([("A", found.a.told), ("B", found.b.told)]))
    if not found.tables:
        return [*made, Para(Styled("nothing differs between A and B", "dim"))]
    head = ["table", *(f"{sign} {kind}" for kind, (sign, _) in SIGNS.items())]
    numbers = [[one.table, *(_number(kind, getattr(one, kind)) for kind in SIGNS)] for one in found.tables]
    made.append(Table(head, numbers, frozenset({1, 2, 3})))
    shown = found.rows[:MAX_ROWS]
    made.append(Table(CHANGE, shown, title=found.table))
    if more := found.more + len(found.rows) - len(shown):
        made.append(Para(Styled(f"and {more:,} more in the frame", "dim")))
    return [*made, Code(found.command)]


def _number(kind: str, count: int) -> Cell:
    return Styled(f"{count:,}", SIGNS[kind][1]) if count else Styled("0", "dim")
