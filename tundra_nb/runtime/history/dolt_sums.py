"""Exact sums on Dolt, which adds up whole numbers as floats: `sum(output_tokens)` would be 10.0, one of ids wrong.

A selected `sum(COLUMN)` of a whole-number column of ours becomes the sums of its high and its low half, put together as
a decimal. Only in a statement with one SELECT: elsewhere the name may be that of something computed.
"""

from __future__ import annotations

from tundra_nb.types import TABLES, columns

from .sql_guard import DOLT

HALF = 1 << 32
"""Sums of halves stay exact, as floats, for two million rows."""
_WHOLE = {c.name for table in TABLES for c in columns(table) if c.type in ("id", "int")}
_WHOLE -= {c.name for table in TABLES for c in columns(table) if c.type not in ("id", "int")}


def exact(statement: str) -> str:
    """The statement, with what it sums exactly."""
    pieces = [match[0] for match in DOLT.tokens.finditer(statement)]
    words = [(at, piece.lower()) for at, piece in enumerate(pieces) if piece.strip() and not piece.startswith("/*")]
    if "".join(pieces) != statement or sum(word == "select" for _, word in words) != 1:
        return statement
    for here in range(1, len(words) - 4):
        if words[here][1] != "sum" or words[here - 1][1] not in ("select", ","):
            continue
        end = here + 3 if words[here + 3][1] == ")" else here + 5  # `sum ( column )`, `sum ( table . column )`
        if (
            end + 1 >= len(words)
            or words[here + 1][1] != "("
            or words[end][1] != ")"
            or words[end - 1][1] not in _WHOLE
        ):
            continue
        if end == here + 5 and words[here + 3][1] != ".":
            continue
        following = words[end + 1][1]
        if not (following in (",", "from", "as") or following.isidentifier()) or following == "over":
            continue
        column = "".join(pieces[words[here + 2][0] : words[end][0]]).strip()
        name = "" if following not in (",", "from") else f" AS `sum({column})`"
        halves = [f"cast(sum({column} {how} {HALF}) as decimal(65,0))" for how in ("div", "mod")]
        pieces[words[here][0]] = f"({halves[0]} * {HALF} + {halves[1]}){name}"
        for at in range(words[here][0] + 1, words[end][0] + 1):
            pieces[at] = ""
    return "".join(pieces)
