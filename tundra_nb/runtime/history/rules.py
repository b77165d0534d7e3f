"""Rules that hold on both engines: names, refusals, commit messages, and how a frame is read in pieces."""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import math
import re
import urllib.parse
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from tundra_nb.errors import RefNotFound, StoreDamaged, StoreError, StoreUnavailable, TundraError, UsageError
from tundra_nb.nearest import nearest
from tundra_nb.runtime.id_layout import MAX_NODE, NODE_BITS, SEQUENCE_BITS
from tundra_nb.types import KEY_OF, REPLACED_TABLES, TABLES, VERSIONED_TABLES, ErrorEvent, columns

from . import schema
from .contract import WORKING, Stop, Written
from .query import FrameQuery, condition
from .values import TableStat

if TYPE_CHECKING:
    import pyarrow as pa

    from .arrow import ColumnBuilder

log = logging.getLogger("tundra.history")

EVENT_TABLES = tuple(table for table in TABLES if table not in VERSIONED_TABLES)
HASH_START = re.compile(r"[0-9a-v]{4,39}")
REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/~^-]*")
PIECE_BYTES = 6 << 20
"""JSON text of one piece of a frame, roughly."""
PIECE_ROWS = 32_768
KEYS = 500
"""Keys that one statement asks for."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._/-]{0,99}")
_RESERVED = {"HEAD", WORKING, "STAGED", "main", "master"}
_TIMES = {"now", "today", "yesterday", "all", "last"}
"""Words that `--at` and its like read as times, or that mean the newest: a branch of that name could not be meant."""
_ROWS = re.compile(r"\n\nrows: (\d+)\s*\Z")


class Sorted(NamedTuple):
    """Rows to store: those whose key is free, and those that clash with another row; where the key stands in them."""

    fresh: list[tuple[Any, ...]]
    clashing: list[tuple[Any, ...]]
    key_place: int


def parted(changed: Sequence[str]) -> tuple[list[str], list[str]]:
    """Tables with changes: those to commit first, under the worker's name, and those whose change is a person's.

    Events are a person's if nothing else is; who writes to the database (`writer`) never is.
    """
    versioned = [table for table in changed if table not in EVENT_TABLES]
    own = versioned or [table for table in changed if table != "writer"]
    return [table for table in changed if table not in own], own


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
    step_ms: int = 0,
) -> Generator[list[pa.Array], None, None]:
    """Read a frame as one JSON array per column and key range.

    The engine builds these in native code and they are decoded in native code: two to four times as fast as fetching
    rows. While one piece is decoded and sent, a thread of this generator already fetches the next; closing it waits
    for that. `fetch` runs a statement and returns its one row, `source` is the table (at a state), `array` the engine's
    aggregate that makes a JSON array, with `comma` between its values.
    """
    where, values = condition(query, placeholder, step_ms)
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


def rows_statement(query: FrameQuery, source: str, where: str, placeholder: str) -> str:
    """Selects the rows of a query; the limit's value comes last."""
    order = "DESC" if query.newest_first else "ASC"
    limit = "" if query.limit is None else f" LIMIT {placeholder}"
    return f"SELECT {', '.join(query.names)} FROM {source} WHERE {where} ORDER BY {KEY_OF[query.table]} {order}{limit}"  # noqa: S608 - our names


def named(query: FrameQuery, rows: Iterable[Sequence[Any]]) -> list[dict[str, Any]]:
    """Rows as the engines give them, under their columns' names; both keep booleans as numbers."""
    booleans = [column.name for column in columns(query.table) if column.type == "bool" and column.name in query.names]
    made = [dict(zip(query.names, row, strict=True)) for row in rows]
    for name in booleans:
        for row in made:
            if row[name] is not None:
                row[name] = bool(row[name])
    return made


def needs_care(table: str, some: Sequence[tuple[Any, ...]], stored: Mapping[Any, Sequence[Any]]) -> Sorted:
    """Sort rows of an append-only table by what is there: `stored` are the rows that have one of their keys.

    A row that says `interrupted` was written for want of another: it is dropped where there is one.
    """
    names = [column.name for column in columns(table)]
    place = names.index(KEY_OF[table])
    writer = names.index("writer_id") if "writer_id" in names else None
    outcome = names.index("outcome") if "outcome" in names else None
    known: dict[Any, Sequence[Any]] = dict(stored)
    fresh, clashing = [], []
    for row in some:
        there = known.get(row[place])
        if there is None:
            known[row[place]] = row
            fresh.append(row)
        elif outcome is not None and row[outcome] == "interrupted":
            continue
        elif not _is_same(there, row, writer):
            clashing.append(row)
    return Sorted(fresh, clashing, place)


def store_with_care(
    rows: Mapping[str, Sequence[tuple[Any, ...]]],
    insert: Callable[[str, Sequence[Any]], None],
    fetch: Callable[..., Sequence[Sequence[Any]]],
    *,
    placeholder: str,
    bad_row: tuple[type[Exception], ...],
) -> Written:
    """Store rows of which one at least was refused: each by itself, those that are there already not again."""
    refused = moved = 0

    def stored(table: str, keys: Sequence[Any]) -> dict[Any, Sequence[Any]]:
        key, places = KEY_OF[table], ", ".join([placeholder] * len(keys))
        names = ", ".join(column.name for column in columns(table))
        found = fetch(f"SELECT {key}, {names} FROM {table} WHERE {key} IN ({places})", *keys)  # noqa: S608 - our names
        return {row[0]: row[1:] for row in found}

    def free(table: str, key: int) -> int:
        return next(near for near in ids_near(key) if not stored(table, [near]))

    for table, some in rows.items():
        fresh: Sequence[tuple[Any, ...]] = some
        if table not in REPLACED_TABLES:
            place = [column.name for column in columns(table)].index(KEY_OF[table])
            there: dict[Any, Sequence[Any]] = {}
            for start in range(0, len(some), KEYS):
                there |= stored(table, [row[place] for row in some[start : start + KEYS]])
            fresh, clashing, _ = needs_care(table, some, there)
            at = [column.name for column in columns(table)].index("at")
        for row in fresh:
            try:
                insert(table, row)
            except bad_row as exc:
                refused += 1
                log.warning("%s row refused by the database: %s", table, exc)
        if table in REPLACED_TABLES:
            continue
        for row in clashing:
            kept_as = free(table, row[place])
            insert(table, (*row[:place], kept_as, *row[place + 1 :]))
            told = clash_event(table, row[place], kept_as, free("error_event", row[place]), row[at])
            insert("error_event", told)
            log.error("%s", told[6])
            moved += 1
    return Written(refused, moved)


def newest_id(fetch: Callable[[str], Sequence[Sequence[Any]]]) -> int:
    """The highest key of the tables whose keys are ids; one look at the end of each."""
    newest = 0
    for table in TABLES:
        if table not in REPLACED_TABLES and table != "imported_log":
            key = KEY_OF[table]
            for row in fetch(f"SELECT {key} FROM {table} ORDER BY {key} DESC LIMIT 1"):  # noqa: S608 - our names
                newest = max(newest, int(row[0]))
    return newest


def ids_near(key: int) -> Iterator[int]:
    """Ids of the same maker and time, the ones that are made last of all first; then of the milliseconds after."""
    for later in range(1 << 10):
        first = ((key >> SEQUENCE_BITS) + (later << NODE_BITS)) << SEQUENCE_BITS
        yield from range(first + (1 << SEQUENCE_BITS) - 1, first - 1, -1)


def clash_event(table: str, key: int, kept_as: int, error_id: int, at: int) -> tuple[Any, ...]:
    """The row that tells of a clash."""
    return msgspec.structs.astuple(
        ErrorEvent(
            error_id=error_id,
            at=at,
            source="history",
            code="StoreError",
            severity="high",
            retryable=False,
            message=f"two rows of {table} had the id {key}; the later one is kept as {kept_as}",
            reason="id_clash",
        )
    )


def _is_same(there: Sequence[Any], row: Sequence[Any], writer: int | None) -> bool:
    """`writer`: a copied data directory delivers what it holds again, in its own name; that is no other event."""
    return all(
        place == writer
        or one == other
        or (isinstance(one, float) and isinstance(other, int | float) and math.isclose(one, other))
        for place, (one, other) in enumerate(zip(there, row, strict=True))
    )


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
    if (
        not _NAME.fullmatch(name)
        or name in _RESERVED
        or name.lower() in _TIMES
        or re.fullmatch(r"[0-9a-f]{4,40}", name)
    ):
        raise UsageError(
            problem=f"{name!r} cannot be the name of a {what}",
            field="name",
            remedy="Letters, digits, `.`, `_`, `/` and `-`, beginning with a letter; not HEAD, main, a time or a hash.",
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
    raise StoreUnavailable(
        problem=f"{MAX_NODE + 1:,} daemons write to this database, and it has no number for another one",
        remedy="Give some of them a database of their own (`store.database`). A number is free again a day after its"
        " daemon was last seen; what this one records waits in its spool until then.",
        kind="nodes",
    )


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
    """What the engine calls the remote: a path becomes a `file://` URL, a name or URL stays.

    Raises:
        UsageError: it climbs out of its folder, or holds what no path or URL does.
    """
    parts = re.split(r"[/\\]", urllib.parse.unquote(remote))
    if ".." in parts or not remote.isprintable() or not remote.strip():
        raise UsageError(
            problem=f"{remote[:60]!r} is no remote", field="remote", remedy="Give a whole path or a URL, without `..`."
        )
    return f"file://{Path(remote).absolute()}" if "/" in remote and "://" not in remote else remote


def not_a_history(remote: str, why: object) -> UsageError:
    """The error for a remote or backup that is damaged or something else; ours is not touched by that."""
    return UsageError(
        problem=f"{remote} is damaged, or not a history: {why}",
        field="remote",
        remedy="Name another one; your own history is as it was.",
    )


@contextlib.contextmanager
def beside(remote: str, check: Callable[[], list[str]] | None = None) -> Iterator[None]:
    """Tell damage of a remote or backup from damage of our own history, which the engines word alike.

    `check` tells what is wrong with our own; None where only the other one is read.

    Raises:
        StoreDamaged: our own is damaged.
        UsageError: the other one is.
    """
    try:
        yield
    except StoreDamaged as error:
        if check is not None and (error.kind != "corrupt" or _finds_any(check)):
            raise
        cause = error.__cause__
        raise not_a_history(remote, cause.args[-1] if cause and cause.args else error.problem) from error


def _finds_any(check: Callable[[], list[str]]) -> bool:
    try:
        return bool(check())
    except StoreError:
        return True


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
