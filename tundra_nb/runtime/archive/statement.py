"""Free SQL for DuckDB: the check before a statement runs.

DuckDB parses it itself, and hands out the tree: there must be one statement, a SELECT, whose tables are the history's
or its own WITH, whose table functions are on a list of harmless ones. A SELECT can hold a COPY, an INSERT or a DELETE
inside its WITH, and `query()` runs text: both are refused here, because the path of a file of the archive is one that
DuckDB may open, and could write.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import duckdb

from tundra_nb.errors import QueryRefused
from tundra_nb.nearest import nearest
from tundra_nb.runtime.history.sql_guard import MAX_CHARACTERS
from tundra_nb.types import TABLES

_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
_TABLE_FUNCTIONS = frozenset({"unnest", "range", "generate_series", "json_each", "json_tree"})
_REFUSED = frozenset(
    {
        "current_setting",
        "getenv",
        "getvariable",
        "write_log",
        "nextval",
        "currval",
        "set_config",
        "json_execute_serialized_sql",
    }
)
_SELF = "main"


def checked(text: str, db: duckdb.DuckDBPyConnection) -> tuple[str, list[str]]:
    """The statement as DuckDB takes it, and the tables of the history that it reads.

    A column called `at`, which is a word of DuckDB's own, is put into quotes.

    Args:
        text: the statement.
        db: a connection, which is only asked to parse.

    Raises:
        QueryRefused: it is not one SELECT over our tables; the message says what is in the way.
    """
    if len(text) > MAX_CHARACTERS:
        raise QueryRefused(problem=f"the statement is longer than {MAX_CHARACTERS:,} characters")
    if "\x00" in text:
        raise QueryRefused(problem="the statement holds a NUL character")
    try:
        text = _with_quotes(text)
        kinds = [str(one.type).rpartition(".")[2] for one in db.extract_statements(text)]
    except duckdb.Error as exc:
        raise QueryRefused(problem=told(exc)) from exc
    except UnicodeError as exc:
        raise QueryRefused(problem="the statement holds half a character") from exc
    if not kinds:
        raise QueryRefused(problem="there is no statement")
    if len(kinds) > 1 and "MULTI" not in kinds:
        raise QueryRefused(problem="only one statement at a time")
    if kinds != ["SELECT"]:
        raise QueryRefused(problem=f"{kinds[0]} is not allowed: the archive is only read, by SELECT")
    ((said,),) = db.execute("SELECT json_serialize_sql(?)", [text]).fetchall()
    tree = json.loads(said)
    if tree.get("error"):
        raise QueryRefused(problem=str(tree.get("error_message") or "the statement cannot be read"))
    parts = list(_parts(tree))
    own = {str(entry["key"]).lower() for part in parts for entry in (part.get("cte_map") or {}).get("map", [])}
    tables: dict[str, None] = {}
    for part in parts:
        _check(part, own, tables)
    return text, list(tables)


def _check(part: dict[str, Any], own: set[str], tables: dict[str, None]) -> None:
    kind = part.get("type")
    if isinstance(kind, str) and kind.endswith("_NODE") and kind not in _NODES:
        raise QueryRefused(problem=f"{kind.split('_')[0]} is not allowed inside a SELECT: the archive is only read")
    if kind == "BASE_TABLE":
        path = [str(name) for name in part["qualified_name"]["path"]]
        name = path[-1].lower()
        if len(path) == 1 and name in own and name not in TABLES:
            return
        if name not in TABLES or (len(path) > 1 and [one.lower() for one in path[:-1]] != [_SELF]):
            close = nearest(name, list(TABLES))
            raise QueryRefused(
                problem=f"{'.'.join(path)!r} is not a table of the history"
                + (f"; did you mean {close!r}?" if close else "")
            )
        tables[name] = None
    elif kind == "SHOW_REF" and part.get("show_type") == "SHOW_SPECIAL":
        tables_there = ", ".join(sorted(TABLES))
        raise QueryRefused(problem=f"SHOW would tell of DuckDB and not of the history, whose tables are {tables_there}")
    elif kind == "TABLE_FUNCTION":
        name = _name_of(part["function"])
        if name not in _TABLE_FUNCTIONS:
            raise QueryRefused(problem=f"{name}() is not allowed behind FROM: only tables of the history")
    if "function_name" in part and (name := _name_of(part)) in _REFUSED:
        raise QueryRefused(problem=f"function {name}() is not allowed")


def _name_of(function: dict[str, Any]) -> str:
    return str(function.get("function_name", "")).lower()


def _parts(tree: Any) -> Iterator[dict[str, Any]]:
    """Every object of the tree; without recursion, because a statement may be nested deeply."""
    waiting = [tree]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield one
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one


def _with_quotes(text: str) -> str:
    """`at` is a column of every table of ours, and a reserved word of DuckDB but in AT TIME ZONE and AT (VERSION …)."""
    whole = text.encode()
    words = [(begin, kind) for begin, kind in duckdb.tokenize(text) if kind != duckdb.token_type.comment]
    made, last = bytearray(), 0
    for place, (begin, _) in enumerate(words):
        if whole[begin : begin + 2].lower() != b"at" or _is_letter(whole, begin + 2):
            continue
        after = whole[words[place + 1][0] :].lower() if place + 1 < len(words) else b""
        if after.startswith((b"time", b"(")) and not after.startswith(b"time_"):
            continue
        made += whole[last:begin] + b'"at"'
        last = begin + 2
    return (made + whole[last:]).decode()


def _is_letter(text: bytes, place: int) -> bool:
    return place < len(text) and (text[place : place + 1].isalnum() or text[place] == ord("_") or text[place] > 127)


def told(exc: Exception) -> str:
    """What DuckDB says, without its picture of the statement."""
    return str(exc).split("\n\n")[0].strip().replace("\n", " ")[:500]
