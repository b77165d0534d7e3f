"""Free SQL may read our tables and do nothing else: the check before a statement reaches a database.

The text is split into tokens by the rules of its dialect (comments, strings and quoted names differ), so that nothing
hides in a string and no string looks like a command. Then it must be one statement that begins with SELECT, WITH or
EXPLAIN, name only tables of ours behind FROM and JOIN, call only functions on a list of harmless ones, and hold no
variables, no INTO, no locking clause.

This is the only fence on a Dolt server without a SELECT-only user. On doltlite a read-only connection and the engine's
authorizer stand behind it.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Literal, NamedTuple

from tundra_nb.errors import QueryRefused
from tundra_nb.nearest import nearest
from tundra_nb.types import TABLES

MAX_CHARACTERS = 64 * 1024
MAX_LIMIT = 10_000_000
MAX_TOKENS = 8_000
MAX_DEPTH = 100
MAX_UNIONS = 100
"""Dolt plans a statement in a time that grows with the square of these, and does not look at KILL meanwhile: 800 unions
take 19 s, 3,000 a core for good.
"""

Kind = Literal["word", "name", "string", "number", "sign"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


class SqlToken(NamedTuple):
    kind: Kind
    text: str
    """A word in lower case, a quoted name without its quotes."""


_COMMON_FUNCTIONS = _words(
    # aggregates and windows
    "avg count max min sum group_concat rank dense_rank percent_rank cume_dist ntile lag lead row_number first_value"
    " last_value nth_value"
    # numbers
    " abs ceil ceiling floor round sign sqrt power pow exp ln log log2 log10 mod radians degrees sin cos tan asin acos"
    " atan atan2 pi"
    # text
    " lower upper length substr substring trim ltrim rtrim replace instr char hex concat concat_ws coalesce ifnull"
    " nullif iif if format cast"
    # JSON
    " json_extract json_valid json_type json_array json_object json_array_length json_quote json_unquote json_keys"
    # time
    " date time datetime"
    # versions
    " active_branch dolt_version dolt_hashof dolt_hashof_table dolt_hashof_db dolt_merge_base"
)
_SQLITE_FUNCTIONS = _words(
    "total median percentile percentile_cont percentile_disc string_agg trunc octet_length unicode glob like printf"
    " quote typeof unhex likely unlikely likelihood json json_error_position json_pretty json_group_array"
    " json_group_object json_each json_tree -> ->> strftime julianday unixepoch timediff current_date current_time"
    " current_timestamp doltlite_engine sqlite_version match"
)
# without repeat, space, lpad and rpad: one call of these can ask for more memory than the server has, and it dies
_MYSQL_FUNCTIONS = _words(
    "std stddev stddev_pop stddev_samp variance var_pop var_samp bit_and bit_or bit_xor any_value json_arrayagg"
    " json_objectagg truncate crc32 greatest least left right reverse locate position strcmp char_length"
    " character_length field find_in_set elt ascii ord unhex insert substring_index"
    " now curdate curtime current_timestamp current_date current_time utc_timestamp"
    " utc_date utc_time from_unixtime unix_timestamp date_format date_add date_sub datediff timediff timestampdiff"
    " timestampadd timestamp year month day hour minute second microsecond dayofweek dayofmonth dayofyear week"
    " weekday quarter last_day extract str_to_date convert md5 sha1 sha2 version json_contains json_search json_value"
    " json_length json_depth json_pretty json_table values isnull"
)
# words that may stand before a parenthesis without calling anything
_KEYWORDS = _words(
    "select from where and or not in exists any all some as on using over partition by order group having limit offset"
    " union intersect except distinct case when then else end between like is join inner left right outer cross natural"
    " filter window values recursive explain return interval div mod xor regexp rlike glob match escape collate with"
    " materialized rows range groups of for to"
)
_KEYWORD_TOKENS = frozenset(SqlToken("word", word) for word in _KEYWORDS)
_FORBIDDEN = _words(
    "insert update delete drop alter create attach detach pragma vacuum reindex analyze call set begin commit rollback"
    " savepoint release grant revoke load handler lock unlock rename truncate do execute prepare deallocate kill"
    " shutdown flush reset install uninstall use into outfile dumpfile procedure share returning replace table"
)
# forbidden as commands, and harmless as functions of the same name
_ALSO_FUNCTIONS = frozenset({"insert", "truncate", "replace"})
_VERSION_TABLES = _words(
    "dolt_log dolt_diff dolt_diff_stat dolt_diff_summary dolt_schema_diff dolt_patch dolt_branches dolt_tags"
    " dolt_status dolt_commits dolt_commit_ancestors dolt_conflicts"
)
_VERSION_PREFIXES = _words("dolt_diff_ dolt_history_ dolt_blame_ dolt_commit_diff_ dolt_at_ dolt_conflicts_")
_FROM_ENDS = _words("where group order having limit union intersect except window")


@dataclasses.dataclass(frozen=True)
class Dialect:
    """How one engine reads SQL."""

    name: Literal["doltlite", "dolt"]
    tokens: re.Pattern[str]
    functions: frozenset[str]
    qualifier: re.Pattern[str]
    """What may stand before a table's name and a dot."""


def _pattern(comment: str, string: str, name: str) -> re.Pattern[str]:
    """ASCII outside of strings and quoted names: what is a space, a letter or lower case beyond it, nobody agrees on.

    Two dashes are a comment or nothing: whether they need a space behind them, MySQL and Dolt do not agree on either.
    """
    return re.compile(
        rf"(?P<space>[ \t\r\n\f]+|{comment})|(?P<string>{string})|(?P<name>{name})|(?P<number>\d[\w.]*|\.\d\w*)"
        r"|(?P<word>[A-Za-z_][\w$]*)"
        r"|(?P<sign>->>|->|<=>|<=|>=|<>|!=|:=|\|\||&&|<<|>>|==|-(?!-)|[+*/%=<>(),.;~!&|^?:@#{}\[\]$\\])",
        re.DOTALL | re.ASCII,
    )


DOLTLITE = Dialect(
    name="doltlite",
    tokens=_pattern(
        comment=r"--[^\n]*|/\*(?![!+]).*?\*/",
        string=r"[xX]?'(?:[^']|'')*'",
        name=r'"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\]',
    ),
    functions=_COMMON_FUNCTIONS | _SQLITE_FUNCTIONS,
    qualifier=re.compile(r"main"),
)
DOLT = Dialect(
    name="dolt",
    # `/*!` is run by MySQL and so is not a comment
    tokens=_pattern(
        comment=r"--(?=[ \t\r\n]|\Z)[^\n]*|\#[^\n]*|/\*(?![!+]).*?\*/",
        string=r"[xXbBnN]?'(?:[^'\\]|''|\\.)*'|\"(?:[^\"\\]|\"\"|\\.)*\"",
        name=r"`(?:[^`]|``)*`",
    ),
    functions=_COMMON_FUNCTIONS | _MYSQL_FUNCTIONS,
    qualifier=re.compile(r"(?!)"),
)


def checked(text: str, dialect: Dialect) -> str:
    """The statement without a closing semicolon.

    Raises:
        QueryRefused: it is not one statement that only reads tables of ours; the message says what is in the way.
    """
    if len(text) > MAX_CHARACTERS:
        raise QueryRefused(problem=f"the statement is longer than {MAX_CHARACTERS:,} characters")
    if "\x00" in text:
        raise QueryRefused(problem="the statement holds a NUL character")
    tokens, end = _split(text, dialect)
    if not tokens:
        raise QueryRefused(problem="there is no statement")
    _check_size(tokens)
    first = tokens[0]
    if first.kind != "word" or first.text not in ("select", "with", "explain"):
        raise QueryRefused(problem=f"a statement must begin with SELECT, WITH or EXPLAIN, not {first.text!r}")
    if first.text == "explain":
        _check_explained(tokens)
    _check_words(tokens, dialect)
    _check_tables(tokens, dialect)
    return text[:end]


def may_read(table: str, dialect: Dialect) -> bool:
    """Whether free SQL may read this table, by its plain name."""
    name = table.lower()
    if name in TABLES or name in _VERSION_TABLES or name == "meta":
        return True
    if dialect.name == "doltlite" and name in ("json_each", "json_tree", "sqlite_master", ""):
        return True
    return any(name.startswith(prefix) and name[len(prefix) :] in TABLES for prefix in _VERSION_PREFIXES)


def _split(text: str, dialect: Dialect) -> tuple[list[SqlToken], int]:
    """Tokens of the one statement, and where it ends in the text."""
    tokens: list[SqlToken] = []
    at, end = 0, 0
    finished = False
    while at < len(text):
        found = dialect.tokens.match(text, at)
        if found is None:
            raise QueryRefused(problem=f"cannot read the statement at {text[at : at + 20]!r}")
        at = found.end()
        kind, piece = found.lastgroup, found.group()
        if kind == "space":
            continue
        if piece == ";":
            finished = True
            continue
        if finished:
            raise QueryRefused(problem="only one statement at a time")
        end = at
        if kind == "word":
            tokens.append(SqlToken("word", piece.lower()))
        elif kind == "name":
            tokens.append(SqlToken("name", piece[1:-1]))
        elif kind == "string":
            tokens.append(SqlToken("string", piece))
        elif kind == "number":
            tokens.append(SqlToken("number", piece))
        else:
            if piece in ("@", "#", "\\", "{", "}", "[", "]", ":=", "?", "!", "$") or piece == ":":
                raise QueryRefused(problem=f"{piece!r} is not allowed: no variables, placeholders or escapes")
            tokens.append(SqlToken("sign", piece))
    return tokens, end


def _check_size(tokens: list[SqlToken]) -> None:
    """First of all: the checks, too, go through what stands between each pair of parentheses."""
    depth = deepest = 0
    for token in tokens:
        depth += {("sign", "("): 1, ("sign", ")"): -1}.get(token, 0)
        deepest = max(deepest, depth)
    unions = sum(token.kind == "word" and token.text in ("union", "intersect", "except") for token in tokens)
    for count, most, what in (
        (len(tokens), MAX_TOKENS, "words and signs"),
        (deepest, MAX_DEPTH, "parentheses within each other"),
        (unions, MAX_UNIONS, "UNION, INTERSECT and EXCEPT"),
    ):
        if count > most:
            raise QueryRefused(problem=f"the statement has {count:,} {what}; {most:,} are allowed")


def _check_explained(tokens: list[SqlToken]) -> None:
    at = 1
    while at < len(tokens) and tokens[at].text in ("query", "plan", "format", "=", "tree", "traditional", "json"):
        at += 1
    if at >= len(tokens) or tokens[at].text not in ("select", "with"):
        raise QueryRefused(problem="EXPLAIN must be followed by SELECT or WITH")


def _check_words(tokens: list[SqlToken], dialect: Dialect) -> None:
    definitions = {made.at for made in _made_here(tokens, dialect)}
    for at, token in enumerate(tokens):
        following = tokens[at + 1] if at + 1 < len(tokens) else SqlToken("sign", "")
        preceding = tokens[at - 1] if at else SqlToken("sign", "")
        is_call = following == ("sign", "(")
        if token.kind == "word" and preceding.text != ".":
            if token.text in ("limit", "offset"):
                _check_limit(tokens, at)
            if token.text in _FORBIDDEN and not (is_call and token.text in _ALSO_FUNCTIONS & dialect.functions):
                raise QueryRefused(problem=f"{token.text.upper()} is not allowed: history is only read here")
            if dialect is DOLT and (token.text in ("regexp", "rlike") or token.text.startswith("regexp_")):
                # Dolt does not look at KILL while it matches: a hostile pattern would burn a core for half an hour
                name = token.text.upper()
                raise QueryRefused(problem=f"{name} is not allowed on Dolt, which cannot break it off: LIKE, instr()")
            if token.text == "for" and following.text in ("update", "share"):
                raise QueryRefused(problem="FOR UPDATE is not allowed: history is only read here")
        if not is_call or token.kind not in ("word", "name"):
            continue
        if token.kind == "word" and token.text in _KEYWORDS:
            continue
        name = token.text.lower()
        if at in definitions:
            continue
        if name in dialect.functions or may_read(name, dialect):
            if name == "dolt_diff":
                _check_diffed(tokens, at)
            continue
        close = nearest(name, sorted(dialect.functions))
        raise QueryRefused(
            problem=f"function {name}() is not allowed" + (f"; did you mean {close}()?" if close else "")
        )


def _check_limit(tokens: list[SqlToken], at: int) -> None:
    """Dolt takes memory for all rows that an ordered LIMIT names before it reads the first."""
    for token in (*tokens[at + 1 : at + 2], *tokens[at + 3 : at + 4]):  # `limit n`, `limit n, m`, `limit n offset m`
        if token.kind == "number" and not (token.text.isdecimal() and int(token.text) <= MAX_LIMIT):
            raise QueryRefused(problem=f"LIMIT and OFFSET go to {MAX_LIMIT:,} at most; without them you get all")


def _check_diffed(tokens: list[SqlToken], at: int) -> None:
    """`dolt_diff(from, to, table)` names its table in a string."""
    inside = tokens[at + 2 : _closing(tokens, at + 1)]
    if not inside or inside[-1].kind != "string" or inside[-1].text[1:-1].lower() not in TABLES:
        raise QueryRefused(problem="dolt_diff() must end with the name of a table of the history, in quotes")


class _Made(NamedTuple):
    """A name that a WITH clause defines."""

    name: str
    at: int
    visible: range
    """Where in the statement it hides a table of the same name."""


def _made_here(tokens: list[SqlToken], dialect: Dialect) -> list[_Made]:
    """What the WITH clauses of the statement define.

    A definition is good inside the parentheses around its WITH, from its end on; with RECURSIVE from its beginning on.
    Anywhere else the same name is the database's own table or function.
    """
    made: list[_Made] = []
    ends = [len(tokens)]
    for at, token in enumerate(tokens):
        if token == ("sign", "("):
            ends.append(_closing(tokens, at))
        elif token == ("sign", ")") and len(ends) > 1:
            ends.pop()
        elif token == ("word", "with"):
            made += _made_by(tokens, at + 1, ends[-1], dialect)
    return made


def _made_by(tokens: list[SqlToken], at: int, end: int, dialect: Dialect) -> list[_Made]:
    made: list[_Made] = []
    is_recursive = tokens[at : at + 1] == [SqlToken("word", "recursive")]
    at += is_recursive
    while at < end and tokens[at].kind in ("word", "name") and tokens[at] not in _KEYWORD_TOKENS:
        after = at + 1
        if tokens[after : after + 1] == [SqlToken("sign", "(")]:
            after = _closing(tokens, after) + 1
        opening = after + 1
        while opening < end and tokens[opening] in (("word", "not"), ("word", "materialized")):
            opening += 1
        if tokens[after : after + 1] != [SqlToken("word", "as")] or tokens[opening : opening + 1] != [
            SqlToken("sign", "(")
        ]:
            break
        closing = _closing(tokens, opening)
        # SQLite needs no word for recursion
        begin = at if is_recursive or dialect.name == "doltlite" else closing
        made.append(_Made(tokens[at].text.lower(), at, range(begin, end)))
        if tokens[closing + 1 : closing + 2] != [SqlToken("sign", ",")]:
            break
        at = closing + 2
    return made


def _closing(tokens: list[SqlToken], opening: int) -> int:
    depth = 0
    for at in range(opening, len(tokens)):
        depth += {"(": 1, ")": -1}.get(tokens[at].text, 0) if tokens[at].kind == "sign" else 0
        if depth == 0:
            return at
    return len(tokens)


def _check_tables(tokens: list[SqlToken], dialect: Dialect) -> None:
    """Each name where a table is expected must be one of ours or one that the statement defines."""
    made = _made_here(tokens, dialect)
    expects = [False]
    in_from = [False]
    for at, token in enumerate(tokens):
        if token == ("sign", "("):
            expects.append(expects[-1])
            in_from.append(expects[-1])
            expects[-2] = False
        elif token == ("sign", ")"):
            if len(expects) == 1:
                raise QueryRefused(problem="a closing parenthesis has no opening one")
            expects.pop()
            in_from.pop()
        elif token == ("sign", ","):
            expects[-1] = in_from[-1]
        elif token.kind == "word" and token.text in ("from", "join", "straight_join"):
            is_comparison = at >= 2 and tokens[at - 1].text == "distinct" and tokens[at - 2].text in ("is", "not")
            if not is_comparison:
                expects[-1] = in_from[-1] = True
        elif token.kind == "word" and token.text in ("select", "values", "with"):
            expects[-1] = in_from[-1] = False
        elif token.kind == "word" and token.text in _FROM_ENDS:
            in_from[-1] = False
        elif expects[-1] and token.kind in ("word", "name"):
            if token.text in ("lateral", "only") and token.kind == "word":
                continue
            _check_table(tokens, at, made, dialect)
            expects[-1] = False
        elif expects[-1]:
            raise QueryRefused(problem=f"a table is expected where {token.text!r} stands")


def _check_table(tokens: list[SqlToken], at: int, made: list[_Made], dialect: Dialect) -> None:
    start = at
    path = [tokens[at].text]
    while at + 2 < len(tokens) and tokens[at + 1] == ("sign", ".") and tokens[at + 2].kind in ("word", "name"):
        at += 2
        path.append(tokens[at].text)
    if at + 1 < len(tokens) and tokens[at + 1] == ("sign", "."):
        raise QueryRefused(problem=f"cannot read the table name {'.'.join(path)!r}")
    name = path[-1].lower()
    if len(path) == 1 and any(one.name == name and start in one.visible for one in made):
        return
    is_qualified = len(path) == 2 and dialect.qualifier.fullmatch(path[0].lower()) is not None
    if (len(path) == 1 or is_qualified) and may_read(name, dialect) and not name.startswith("sqlite_"):
        return
    if len(path) == 1 and name == "json_table" and dialect.name == "dolt":
        return
    close = nearest(name, list(TABLES))
    raise QueryRefused(
        problem=f"{'.'.join(path)!r} is not a table of the history" + (f"; did you mean {close!r}?" if close else "")
    )
