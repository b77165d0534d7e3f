"""Reads the line of a magic: `{{expr}}`, quotes, and free text that needs none."""

from __future__ import annotations

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


def expand(text: str, names: Mapping[str, Any], scope: Mapping[str, Any] | None = None) -> str:
    r"""Replace each `{{expr}}` by the text of its value; `\{{` stands for itself.

    Args:
        text: where.
        names: the global names that expressions see.
        scope: the local ones.

    Raises:
        UsageError: an expression fails; an unknown name names the nearest.
    """
    return _EXPRESSION.sub(lambda found: _value(found, names, scope), text)


def split(
    line: str, root: click.Group, names: Mapping[str, Any] | None = None, scope: Mapping[str, Any] | None = None
) -> list[str]:
    """The arguments of a magic's line, expanded.

    A command that takes free text gets all that follows its options as one argument, as it stands: no quotes needed,
    and an apostrophe is only an apostrophe. One pair of quotes around the whole text is taken off.

    Raises:
        UsageError: a quote is not closed, or an expression fails.
    """
    values: list[str] = []

    def hold(found: re.Match[str]) -> str:
        values.append(_value(found, names or {}, scope))
        return f"\ue000{len(values) - 1}\ue001"

    held = _EXPRESSION.sub(hold, line.strip().removesuffix(";"))
    try:
        words = _split(held, root)
    except ValueError as exc:
        raise UsageError(
            problem="a quote is not closed",
            field="line",
            remedy="Close it, or double the quotes around the whole value.",
        ) from exc
    return [_HELD.sub(lambda found: values[int(found[1])], word) for word in words]


def _value(found: re.Match[str], names: Mapping[str, Any], scope: Mapping[str, Any] | None) -> str:
    escaped, expression = found[1], found[2].strip()
    if escaped:
        return found[0][1:]
    try:
        return str(eval(expression, dict(names), dict(scope or {})))  # noqa: S307 - the user's own code in the user's own cell
    except NameError as exc:
        known = [*names, *(scope or {})]
        raise UsageError(
            problem=f"{{{{{expression}}}}}: {exc}",
            field=expression,
            nearest=nearest(str(exc.name or expression), (name for name in known if not name.startswith("_"))),
            remedy="Define it in a cell above.",
        ) from None
    except Exception as exc:
        raise UsageError(
            problem=f"{{{{{expression}}}}}: {type(exc).__name__}: {exc}",
            field=expression,
            remedy="Correct the expression.",
        ) from exc


def _split(line: str, root: click.Group) -> list[str]:
    tokens = _Tokens(line)
    words: list[str] = []
    command: click.Command | None = None
    while not (command is not None and getattr(command, "takes_text", False)):
        word = tokens.next()
        if word is None:
            return words
        words.append(word)
        if not word.startswith("-"):
            command = _find(command or root, word) or command
    while (rest := line[tokens.place :].strip()).startswith("-") and len(rest) > 1 and not rest[1].isspace():
        word = tokens.next()
        assert word is not None
        if word == "--":
            rest = line[tokens.place :].strip()
            break
        words.append(word)
        for _ in range(_values_of(command, word)):
            value = tokens.next()
            if value is not None:
                words.append(value)
    return [*words, "--", _unquoted(rest)] if rest else words


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


def _values_of(command: click.Command, word: str) -> int:
    """How many words after an option belong to it; an unknown one is left to click to refuse."""
    import click

    for param in command.params:
        if isinstance(param, click.Option) and word in param.opts:
            return 0 if param.is_flag else param.nargs
    return 0


def _unquoted(text: str) -> str:
    if text[:1] in ("'", '"'):
        try:
            words = shlex.split(text)
        except ValueError:
            return text
        if len(words) == 1:
            return words[0]
    return text
