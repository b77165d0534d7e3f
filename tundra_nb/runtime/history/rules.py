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
from .query import FrameQuery, condition, key_bounds
from .values import TableStat

if TYPE_CHECKING:
    import pyarrow as pa

    from .arrow import ColumnBuilder

log = logging.getLogger("tundra.history")

Fetch = Callable[[str, Sequence[Any]], Sequence[Any]]
"""Runs a statement and returns its first row; an empty sequence where it has none."""

EVENT_TABLES = tuple(table for table in TABLES if table not in VERSIONED_TABLES)
HASH_START = re.compile(r"[0-9a-v]{4,39}")
REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/~^-]*")
PIECE_BYTES = 6 << 20
"""JSON text of one piece of a frame, roughly."""
PIECE_ROWS = 16_384
KEYS = 500
"""Keys that one statement asks for."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._/-]{0,99}")
_RESERVED = {"HEAD", WORKING, "STAGED", "main", "master"}
_TIMES = {"now", "today", "yesterday", "all", "last"}
"""Words that `--at` and its like read as times, or that mean the newest: a branch of that name could not be meant."""
_ROWS = re.compile(r"\n\nrows: (\d+)\s*\Z")

_UNKNOWN = re.compile(r"no such (table|column): (?:main\.)?(\w+)")


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


class EngineWords(NamedTuple):
    """Words of an engine: what stands for a value, the aggregate that makes a JSON array, what parts its values."""

    placeholder: str
    array: str
    comma: str


class Selected(NamedTuple):
    """The rows that a frame's query selects, as SQL: what is asked of them, and between which keys they lie.

    There is one bound a side: an engine goes by the first that it reads, and with a second one beside it would pass
    all rows between the two, for each piece anew.
    """

    query: FrameQuery
    source: str
    dialect: EngineWords
    asked: str
    values: list[Any]
    low: tuple[str, Any] | None
    high: tuple[str, Any] | None
    """A bound: how keys compare, and with what."""

    def beside(self, compare: str, key: Any) -> Selected:
        """Of these rows those whose key compares so with `key`, which is one of theirs."""
        bound = (compare, key)
        return self._replace(low=bound) if compare.startswith(">") else self._replace(high=bound)

    @property
    def where(self) -> tuple[str, list[Any]]:
        """The WHERE clause, without the word, and its values."""
        bounds = [bound for bound in (self.low, self.high) if bound is not None]
        keys = [f"{KEY_OF[self.query.table]} {compare} {self.dialect.placeholder}" for compare, _ in bounds]
        return " AND ".join([*keys, self.asked]), [*(key for _, key in bounds), *self.values]

    def key_at(self, fetch: Fetch, place: int) -> Any:
        """The key of the row at a place, counted from 0 in the query's order; None where there are not so many."""
        key, order = KEY_OF[self.query.table], "DESC" if self.query.newest_first else "ASC"
        where, values = self.where
        row = fetch(
            f"SELECT {key} FROM {self.source} WHERE {where} ORDER BY {key} {order} LIMIT 1"  # noqa: S608 - our names
            f" OFFSET {self.dialect.placeholder}",
            [*values, place],
        )
        return row[0] if row else None

    def limited(self, fetch: Fetch) -> tuple[Selected, bool]:
        """No more of these rows than the query's limit, and whether some are left out by that."""
        beyond = None if self.query.limit is None else self.key_at(fetch, self.query.limit)
        if beyond is None:
            return self, False
        return self.beside(">" if self.query.newest_first else "<", beyond), True


def selection(query: FrameQuery, source: str, dialect: EngineWords, step_ms: int = 0) -> Selected:
    """`source`: the query's table, at its state; `step_ms`: see `query.key_bounds`."""
    low, high = key_bounds(query, step_ms)
    return Selected(
        query,
        source,
        dialect,
        *condition(query, dialect.placeholder),
        low=None if low is None else (">=", low),
        high=None if high is None else ("<", high),
    )


def pieces(
    fetch: Fetch, selected: Selected, made: list[ColumnBuilder], stop: Stop
) -> Generator[list[pa.Array], None, None]:
    """Read a frame as one JSON array per column and key range.

    The engine builds these in native code and they are decoded in native code: two to four times as fast as fetching
    rows. The end of a range is looked up first, as it takes the engine half as long again to pass rows through a
    subquery with a limit. A range is read by ascending key, and turned round where the newest come first. While one
    piece is decoded and sent, a thread of this generator already fetches the next; closing it waits for that.
    """
    query, dialect = selected.query, selected.dialect
    within, beyond = (">=", "<") if query.newest_first else ("<=", ">")
    arrays_of = "".join(f", {dialect.array}({name})" for name in query.names)

    def piece(rows: Selected, size: int) -> tuple[Any, Sequence[Any]]:
        stop.renew()
        last = rows.key_at(fetch, size - 1)
        where, values = (rows if last is None else rows.beside(within, last)).where
        return last, fetch(f"SELECT count(*){arrays_of} FROM {rows.source} WHERE {where}", values)  # noqa: S608

    size = _first_size(query)
    with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="history-ahead") as ahead:
        last, (count, *texts) = piece(selected, size)
        while count > 0:
            size = max(16, min(PIECE_ROWS, count * PIECE_BYTES // max(1, sum(map(len, texts))), size * 4))
            coming = None if last is None else ahead.submit(piece, selected.beside(beyond, last), size)
            yield [
                builder.from_json(text, count, dialect.comma, turned=query.newest_first)
                for builder, text in zip(made, texts, strict=True)
            ]
            if coming is None:
                return
            last, (count, *texts) = coming.result()


def rows_statement(selected: Selected) -> tuple[str, list[Any]]:
    """Selects the rows of a query, with its values."""
    query, (where, values) = selected.query, selected.where
    order = f"{KEY_OF[query.table]} {'DESC' if query.newest_first else 'ASC'}"
    text = f"SELECT {', '.join(query.names)} FROM {selected.source} WHERE {where} ORDER BY {order}"  # noqa: S608 - our names
    if query.limit is None:
        return text, values
    return f"{text} LIMIT {selected.dialect.placeholder}", [*values, query.limit]


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
    return 1_024 if "long_text" in kinds else PIECE_ROWS // 4


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


def unknown_table(text: str) -> str | None:
    """The table that the embedded engine does not find, by its words."""
    unknown = _UNKNOWN.fullmatch(text)
    return unknown[2].lower() if unknown is not None and unknown[1] == "table" else None


def sql_problem(text: str) -> str:
    """The engine's words about free SQL, with the name that was probably meant."""
    unknown = _UNKNOWN.fullmatch(text)
    if unknown is None:
        return text
    known = list(TABLES) if unknown[1] == "table" else sorted({c.name for t in TABLES for c in columns(t)})
    close = nearest(unknown[2], known)
    return f"{text}; did you mean {close!r}?" if close else text


def no_common_commit(remote: str) -> UsageError:
    """The error for a history that was not begun from the same one."""
    return UsageError(
        problem=f"{remote} and this history have no commit in common",
        field="remote",
        remedy="They were begun apart and cannot be joined: name another remote, or an empty place.",
    )


def apart_problem(text: str, remote: str) -> UsageError | None:
    """What the engine's words about two histories that went apart mean; None where they are about something else."""
    if "no common ancestor" in text:
        return no_common_commit(remote)
    if "fast-forward" in text:
        return UsageError(
            problem=f"{remote} has commits that this history lacks",
            field="remote",
            remedy="Take them in by `tundra pull`, then do it again; or name an empty place.",
        )
    return None


def ref_problem(text: str, name: str) -> TundraError:
    """What the engine's words about a branch, tag or remote mean."""
    if "exists" in text:
        return UsageError(problem=f"{name!r} exists already", field="name")
    if "nothing to commit" in text:
        return UsageError(
            problem=f"nothing to revert: {name} changed nothing that is still there",
            field="ref",
            remedy="`tundra commits` lists the commits, `tundra diff COMMIT~1 COMMIT` what one changed.",
        )
    if "not found" in text or "no such" in text:
        return RefNotFound(ref=name)
    return UsageError(problem=f"{name}: {text}", field="name")
