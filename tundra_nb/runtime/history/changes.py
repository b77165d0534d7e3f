"""The history of single rows: what each commit made of them, along the line of first parents.

Both engines have tables that tell this (`dolt_diff_…`, `dolt_history_…`, `dolt_blame_…`), but they disagree about
merges, and blame reads the whole history for one row. So only commits that touched the table are compared with the
state before them; a merge counts as one step, because that is when its changes came into force.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tundra_nb.errors import UsageError
from tundra_nb.types import KEY_OF, VERSIONED_TABLES, columns

from .contract import WORKING, Frame
from .values import Commit

if TYPE_CHECKING:
    import pyarrow as pa

TABLES_WITH_HISTORY = (*VERSIONED_TABLES, "note")
"""Tables that people change; rows of events never change, so there is nothing to tell."""


class CommitStep(NamedTuple):
    """One commit, and the one that it follows."""

    parent: str
    commit: str
    is_merge: bool


Fetch = Callable[[str, str], Sequence[Sequence[Any]]]
"""Rows that differ between two commits: diff_type, the row's columns before, its columns after."""


def check_table(table: str) -> str:
    """The name, if the table's rows have a history.

    Raises:
        UsageError: they have none.
    """
    if table not in TABLES_WITH_HISTORY:
        raise UsageError(
            problem=f"rows of {table!r} never change",
            field="table",
            remedy=f"There is a history of rows in: {', '.join(TABLES_WITH_HISTORY)}.",
        )
    return table


def first_parents(head: str, ancestors: Iterable[tuple[str, str | None, int]]) -> list[CommitStep]:
    """The line that leads to `head`, oldest step first; `ancestors`: commit, parent, number of the parent."""
    parents: dict[str, str] = {}
    merges = set()
    for commit, parent, index in ancestors:
        if index == 0 and parent:
            parents[commit] = parent
        elif index > 0:
            merges.add(commit)
    steps = []
    while head in parents:
        steps.append(CommitStep(parents[head], head, head in merges))
        head = parents[head]
    return steps[::-1]


def row_history(
    table: str,
    key: int | None,
    steps: Sequence[CommitStep],
    touched: set[str],
    log: Mapping[str, Commit],
    fetch: Fetch,
    writer: str | None = None,
) -> Frame:
    """One row per change of a row (of all rows when `key` is None), oldest first; `WORKING` is not committed yet.

    `writer`: only rows of this daemon, or that nobody has signed.
    """
    import pyarrow as pa

    from . import arrow

    made_schema = _schema(table)
    made = arrow.builders(made_schema, table)
    names = [column.name for column in columns(table)]
    place = names.index(KEY_OF[table])
    signed = names.index("writer_id")

    def rows() -> Iterator[tuple[Any, ...]]:
        last = steps[-1].commit if steps else WORKING
        for parent, commit, is_merge in [*steps, CommitStep(last, WORKING, is_merge=False)]:
            if not (is_merge or commit in touched or commit == WORKING):
                continue
            known = log.get(commit)
            told = (
                commit,
                known.at if known else None,
                known.author if known else None,
                known.message if known else None,
            )
            for diff_type, *sides in fetch(parent, commit):
                before, after = sides[: len(names)], sides[len(names) :]
                row = before if diff_type == "removed" else after
                is_wanted = key is None or row[place] == key
                if is_wanted and (writer is None or row[signed] in (None, writer)):
                    yield (*told, diff_type, *row)

    found = list(rows())
    by_column = zip(*found, strict=True) if found else ([] for _ in made)
    arrays = [builder.from_values(list(values)) for builder, values in zip(made, by_column, strict=True)]
    batch = pa.record_batch(arrays, schema=made_schema)
    return Frame(made_schema, (one for one in [batch]), {"commit": last_of(steps), "truncated": False})


def last_of(steps: Sequence[CommitStep]) -> str | None:
    return steps[-1].commit if steps else None


def diff_names(table: str) -> list[str]:
    """The columns that a `Fetch` gives."""
    names = [column.name for column in columns(table)]
    return ["diff_type", *(f"from_{name}" for name in names), *(f"to_{name}" for name in names)]


def diff_columns(table: str) -> str:
    """What a `Fetch` selects of doltlite's `dolt_diff_TABLE(?, ?)`."""
    return ", ".join(map(in_doltlite, diff_names(table)))


def in_doltlite(name: str) -> str:
    """What a column of a diff is called in doltlite's `dolt_diff_TABLE(?, ?)`.

    Its own two arguments are hidden columns called `from_ref` and `to_ref`; a column `ref` of the table stands beside
    them with a number behind its name.
    """
    return f"{name}_1" if name in ("from_ref", "to_ref") else name


def _schema(table: str) -> pa.Schema:
    import pyarrow as pa

    from . import arrow

    text = pa.dictionary(pa.int32(), pa.string())
    return pa.schema(
        [
            pa.field("commit", pa.string(), nullable=False),
            pa.field("committed_at", pa.timestamp("us", "UTC")),
            pa.field("committer", text),
            pa.field("message", pa.string()),
            pa.field("diff_type", text, nullable=False),
            *(pa.field(field.name, field.type) for field in arrow.table_schema(table)),
        ]
    )
