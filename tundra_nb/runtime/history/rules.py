"""Rules that hold on both engines: names, refusals, commit messages, and how a frame is read in pieces."""

from __future__ import annotations

import concurrent.futures
import re
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from tundra_nb.errors import RefNotFound, StoreDamaged, StoreUnavailable, TundraError, UsageError
from tundra_nb.nearest import nearest
from tundra_nb.runtime.clock import MAX_NODE
from tundra_nb.types import KEY_OF, TABLES, VERSIONED_TABLES, columns

from . import schema
from .arrow import ColumnBuilder
from .contract import WORKING, Stop, TableStat
from .query import FrameQuery, condition

EVENT_TABLES = tuple(table for table in TABLES if table not in VERSIONED_TABLES)
HASH_START = re.compile(r"[0-9a-v]{4,39}")
REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/~^-]*")
PIECE_BYTES = 6 << 20
"""JSON text of one piece of a frame, roughly."""
PIECE_ROWS = 32_768

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._/-]{0,99}")
_RESERVED = {"HEAD", WORKING, "STAGED", "main", "master"}
_ROWS = re.compile(r"\n\nrows: (\d+)\s*\Z")


def pieces(
    fetch: Callable[[str, Sequence[Any]], Sequence[Any]],
    query: FrameQuery,
    made: list[ColumnBuilder],
    stop: Stop,
    *,
    source: str,
    array: str,
    comma: str,
    placeholder: str,
) -> Generator[list[pa.Array], None, None]:
    """Read a frame as one JSON array per column and key range.

    The engine builds these in native code and they are decoded in native code: two to four times as fast as fetching
    rows. While one piece is decoded and sent, a thread of this generator already fetches the next; closing it waits
    for that. `fetch` runs a statement and returns its one row, `source` is the table (at a state), `array` the engine's
    aggregate that makes a JSON array, with `comma` between its values.
    """
    where, values = condition(query, placeholder)
    key = KEY_OF[query.table]
    order, beyond, end = ("DESC", "<", "min") if query.newest_first else ("ASC", ">", "max")
    arrays_of = "".join(f", {array}({name})" for name in query.names)

    def statement(beyond_last: str) -> str:
        return (
            f"SELECT count(*), {end}({key}){arrays_of} FROM (SELECT * FROM {source} WHERE {where}{beyond_last}"  # noqa: S608 - our names
            f" ORDER BY {key} {order} LIMIT {placeholder}) AS piece"
        )

    first, further = statement(""), statement(f" AND {key} {beyond} {placeholder}")

    def piece(last: int | None, wanted: int) -> Sequence[Any]:
        stop.renew()
        return fetch(first, [*values, wanted]) if last is None else fetch(further, [*values, last, wanted])

    left = query.limit
    wanted = size = _first_size(query)
    if left is not None:
        wanted = min(size, left)
    with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="history-ahead") as ahead:
        found: Sequence[Any] = piece(None, wanted) if wanted else [0]
        while found[0] > 0:
            count, last, *texts = found
            left = None if left is None else left - count
            is_last = count < wanted or left == 0
            size = max(16, min(PIECE_ROWS, count * PIECE_BYTES // max(1, sum(map(len, texts))), size * 4))
            wanted = size if left is None else min(size, left)
            coming = None if is_last else ahead.submit(piece, last, wanted)
            yield [builder.from_json(text, count, comma) for builder, text in zip(made, texts, strict=True)]
            if coming is None:
                return
            found = coming.result()


def nothing() -> Generator[list[pa.Array], None, None]:
    """The pieces of a table that does not exist (yet)."""
    yield from ()


def _first_size(query: FrameQuery) -> int:
    if query.table == "exchange":  # whole requests and answers
        return 64
    kinds = {column.type for column in columns(query.table) if column.name in query.names}
    return 1_024 if "long_text" in kinds else PIECE_ROWS


def with_rows(message: str, rows: int) -> str:
    """A commit message that also carries the number of rows, so that `log` need not count them."""
    return f"{message}\n\nrows: {rows}"


def split_rows(message: str) -> tuple[str, int | None]:
    """The inverse of `with_rows`."""
    found = _ROWS.search(message)
    return (message[: found.start()], int(found[1])) if found else (message, None)


def summary(stats: Sequence[TableStat]) -> tuple[str, int]:
    """What changed, in one line, and how many rows that are."""
    counts = [(s.table, s.rows_added + s.rows_removed + s.rows_modified) for s in stats]
    return ", ".join(f"{table} {count:,}" for table, count in counts) or "nothing", sum(count for _, count in counts)


def valid_name(name: str, what: str) -> str:
    """The name, if a branch or tag may have it; a name that reads like a hash, a time or `HEAD` is refused."""
    if not _NAME.fullmatch(name) or name in _RESERVED or re.fullmatch(r"[0-9a-f]{4,40}", name):
        raise UsageError(
            problem=f"{name!r} cannot be the name of a {what}",
            field="name",
            remedy="Letters, digits, `.`, `_`, `/` and `-`, beginning with a letter; not HEAD, main or a hash.",
        )
    return name


def refuse_newer(version: int) -> None:
    """Raise if a newer version of this program made the database."""
    if version > schema.SCHEMA_VERSION:
        raise StoreDamaged(
            problem=f"the history has schema {version} of a newer tundra_nb; this one knows {schema.SCHEMA_VERSION}",
            remedy="Upgrade with `pip install -U tundra-nb`, or choose another data directory.",
            kind="newer",
        )


def refuse_revert_of_events(ref: str, tables: set[str]) -> None:
    """Raise if a commit holds more than what people change: settings, profiles, prices and notes."""
    events = sorted(tables - {*VERSIONED_TABLES, "note"})
    if events:
        raise UsageError(
            problem=f"{ref} holds events ({', '.join(events)}), which are facts and stay",
            field="ref",
            remedy="Only commits of settings, profiles, prices and notes can be reverted.",
        )


def free_node(wanted: int, taken: set[int]) -> int:
    """`wanted`, or the next number that no other daemon of the database has."""
    for step in range(MAX_NODE + 1):
        if (wanted + step) % (MAX_NODE + 1) not in taken:
            return (wanted + step) % (MAX_NODE + 1)
    raise StoreUnavailable(problem="1,024 daemons have written to this database already", kind="nodes")


def conflict(table: str, row: dict[str, Any]) -> dict[str, Any]:
    """One row of a `dolt_conflicts_…` table as its three versions."""
    sides = {"base": "base", "ours": "our", "theirs": "their"}
    return {"table": table} | {
        side: {c.name: row[f"{prefix}_{c.name}"] for c in columns(table)} for side, prefix in sides.items()
    }


def known_table(table: str) -> str:
    """The name, if it is a table of the history."""
    if table not in TABLES:
        raise UsageError(
            problem=f"no table {table!r} in the history", field="table", nearest=nearest(table, list(TABLES))
        )
    return table


def remote_url(remote: str) -> str:
    """What the engine calls the remote: a path becomes a `file://` URL, a name or URL stays."""
    return f"file://{Path(remote).absolute()}" if "/" in remote and "://" not in remote else remote


def sql_problem(text: str) -> str:
    """The engine's words about free SQL, with the name that was probably meant."""
    unknown = re.fullmatch(r"no such (table|column): (?:main\.)?(\w+)", text)
    if unknown is None:
        return text
    known = list(TABLES) if unknown[1] == "table" else sorted({c.name for t in TABLES for c in columns(t)})
    close = nearest(unknown[2], known)
    return f"{text}; did you mean {close!r}?" if close else text


def ref_problem(text: str, name: str) -> TundraError:
    """What the engine's words about a branch, tag or remote mean."""
    if "exists" in text:
        return UsageError(problem=f"{name!r} exists already", field="name")
    if "not found" in text or "no such" in text:
        return RefNotFound(ref=name)
    return UsageError(problem=f"{name}: {text}", field="name")
