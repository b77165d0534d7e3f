"""Reads the line of a magic: `{{expr}}`, quotes, and free text that needs none."""

from __future__ import annotations

import ast
import builtins
import io
import re
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tundra_nb.errors import UsageError
from tundra_nb.nearest import nearest

if TYPE_CHECKING:
    import click

_EXPRESSION = re.compile(r"(\\?)\{\{(.+?)\}\}", re.DOTALL)
_HELD = re.compile("\ue000(\\d+)\ue001")
"""Private-use characters that stand for an expansion while the line is split, so that its spaces and quotes do not."""
_AS_THEY_ARE = r"Write `\{{` to send the braces as they are"


def expand(text: str, names: Mapping[str, Any], scope: Mapping[str, Any] | None = None) -> str:
    r"""Replace each `{{expr}}` by the text of its value; `\{{` stands for itself.

    Args:
        text: where.
        names: the global names that expressions see.
        scope: the local ones.

    Raises:
        UsageError: an expression fails, or names nothing of the user's own; an unknown name names the nearest.
    """
    return _EXPRESSION.sub(lambda found: _value(found, names, scope), text)


def split(
    line: str, root: click.Group, names: Mapping[str, Any] | None = None, scope: Mapping[str, Any] | None = None
) -> list[str]:
    """The arguments of a magic's line, expanded.

    A command that takes free text gets all that follows its options as one argument, as it stands: no quotes needed,
    and an apostrophe is only an apostrophe. One pair of quotes around the whole text is taken off. A comment is no part
    of it.

    Raises:
        UsageError: a quote is not closed, or an expression fails.
    """
    values: list[str] = []

    def hold(found: re.Match[str]) -> str:
        values.append(_value(found, names or {}, scope))
        return f"\ue000{len(values) - 1}\ue001"

    held = _EXPRESSION.sub(hold, _without_comment(line.strip()).removesuffix(";"))
    try:
        words = _split(held, root)
    except ValueError as exc:
        raise UsageError(
            problem="a quote is not closed",
            field="line",
            remedy="Close it, or double the quotes around the whole value.",
        ) from exc
    return [_HELD.sub(lambda found: values[int(found[1])], word) for word in words]


def asks_for_help(line: str, root: click.Group) -> bool:
    """Whether a line is a question about a command, as `calls?` is; a text that ends in `?` is none."""
    if not (asked := re.fullmatch(r"([\w-]+(?: [\w-]+)?)\?{1,2}", line.strip())):
        return False
    command: click.Command | None = root
    for word in asked[1].split():
        command = _find(command, word) if command is not None else None
    return command is not None


def _value(found: re.Match[str], names: Mapping[str, Any], scope: Mapping[str, Any] | None) -> str:
    escaped, expression = found[1], found[2].strip()
    if escaped:
        return found[0][1:]
    known = {**names, **(scope or {})}
    as_it_stands = f"Write `\\{found[0]}` to send the braces as they are" if len(found[0]) < 40 else _AS_THEY_ARE
    try:
        used = _names_in(expression)
    except (SyntaxError, ValueError) as exc:  # `{{.Names}}`, `{{range .items}}`, `{{#if x}}`
        raise UsageError(
            problem=f"{found[0]} is no Python expression ({exc.args[0]})", field="{{", remedy=f"{as_it_stands}."
        ) from None
    unknown = [name for name in used if name not in known]
    builtin = [name for name in unknown if hasattr(builtins, name)]
    if missing := [name for name in unknown if name not in builtin]:
        raise UsageError(
            problem=rf"{{{{{expression}}}}}: name {missing[0]!r} is not defined (two braces as they are: `\{{{{`)",
            field=expression,
            nearest=nearest(missing[0], (name for name in known if not name.startswith("_"))),
            remedy=f"Define it in a cell above. {as_it_stands}.",
        )
    foreign = UsageError(
        problem=f"{{{{{expression}}}}}: {''.join(builtin[:1])} is Python's own, no variable of yours",
        field=expression,
        remedy=f"{as_it_stands}.",
    )
    if any(name not in _called(expression) for name in builtin):  # `{{range}}`, `{{range .items}}`
        raise foreign
    try:
        value = eval(expression, known)  # noqa: S307 - the user's own code in the user's own cell
    except Exception as exc:
        raise UsageError(
            problem=f"{{{{{expression}}}}}: {type(exc).__name__}: {exc}",
            field=expression,
            remedy=f"Correct the expression. {as_it_stands}.",
        ) from exc
    if builtin and len(builtin) == len(used) and not isinstance(value, str | int | float):  # `{{range(3)}}`
        raise foreign
    return str(value)


def _names_in(expression: str) -> list[str]:
    """The names that an expression takes from outside, in order.

    Raises:
        SyntaxError: it is none.
    """
    tree = ast.walk(ast.parse(expression, mode="eval"))
    nodes = [node for node in tree if isinstance(node, ast.Name | ast.arg)]
    own = {node.arg if isinstance(node, ast.arg) else node.id for node in nodes if not _is_read(node)}
    return list(dict.fromkeys(node.id for node in nodes if isinstance(node, ast.Name) and node.id not in own))


def _called(expression: str) -> set[str]:
    """The names that it uses as functions."""
    calls = [node.func for node in ast.walk(ast.parse(expression, mode="eval")) if isinstance(node, ast.Call)]
    return {function.id for function in calls if isinstance(function, ast.Name)}


def _is_read(node: ast.Name | ast.arg) -> bool:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)


def _without_comment(line: str) -> str:
    """A line as far as a `#` alone with two blanks before it, as in Python: behind one blank it may be text."""
    from tundra_nb.commands.text import PROSE

    for word in PROSE.finditer(line):
        if word[0] == "#" and not line[: word.start()][-2:].strip():
            return line[: word.start()].rstrip()
    return line


def _split(line: str, root: click.Group) -> list[str]:
    from tundra_nb.commands.text import divide, shell_word, unquoted, words_of

    tokens = _Tokens(line)
    words: list[str] = []
    command: click.Command | None = None
    while not (command is not None and getattr(command, "takes_text", False)):
        word = tokens.next()
        if word is None or word == "#":  # here no text has begun, so one blank does
            return words
        words.append(word)
        if not word.startswith("-"):
            command = _find(command or root, word) or command
    rest = line[tokens.place :]
    given = words_of(command, rest)
    parts = divide(command, [one.text for one in given])
    words += map(shell_word, parts.options)
    if not parts.text:
        return words
    text = rest[given[parts.text[0]].start : given[parts.text[-1]].end]
    return [*words, "--", unquoted(text)]


class _Tokens:
    """The words of a line, one by one, and where the next begins."""

    def __init__(self, line: str) -> None:
        self._stream = io.StringIO(line)
        self._lexer = shlex.shlex(self._stream, posix=True, punctuation_chars=False)
        self._lexer.whitespace_split = True
        self._lexer.commenters = ""
        self.place = 0

    def next(self) -> str | None:
        word = self._lexer.get_token()
        self.place = self._stream.tell()
        return word


def _find(group: click.Command, name: str) -> click.Command | None:
    """The command of this name in a group; None in what is no group."""
    import click

    return group.get_command(click.Context(group), name) if isinstance(group, click.Group) else None
