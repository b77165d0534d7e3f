"""Completes `%tundra …` in a line, behind `x =` and in a cell's first line: commands, options, values, profiles."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from IPython.core.completer import SimpleCompletion, context_matcher

if TYPE_CHECKING:
    from .magics import TundraMagics

_MAGIC = re.compile(r"(?:^\s*|=\s*)%%?tundra\s+(.*)$")
_SQL_CELL = re.compile(r"\s*%%tundra\s+sql\b[^\n]*\n")
_WORD = re.compile(r"[\w.*]*$")
MAX_TOLD = 60


def make_matcher(magics: TundraMagics) -> Callable[[Any], dict[str, Any]]:
    """A matcher for `Completer.custom_matchers`."""

    @context_matcher()  # type: ignore[untyped-decorator]
    def tundra_matcher(context: Any) -> dict[str, Any]:
        line = context.line_with_cursor[: context.cursor_position]
        magic = _MAGIC.search(line)
        if magic is not None:
            *before, word = re.split(r"\s+", magic[1])
            if "{{" in word:  # an expression is Python's
                return {"completions": [], "suppress": False}
            found = candidates(before, word, magics)
            if not found and word:
                found = [(word, "")]  # nothing is known: Python's keywords would be no help
        elif _SQL_CELL.match(context.full_text):
            matched = _WORD.search(line)
            word = matched[0] if matched else ""
            found = sql_candidates(word)
        else:
            return {"completions": [], "suppress": False}
        completions = [SimpleCompletion(text, type=told[:MAX_TOLD] or "tundra") for text, told in found]
        return {"completions": completions, "matched_fragment": word, "suppress": bool(found)}

    matcher: Callable[[Any], dict[str, Any]] = tundra_matcher
    return matcher


def candidates(before: list[str], word: str, magics: TundraMagics) -> list[tuple[str, str]]:
    """What may stand at the cursor, after these words, with what it is; click knows it, as for shells."""
    from click.shell_completion import ShellComplete

    from tundra_nb.commands.table import root

    complete = ShellComplete(root, {"obj": magics.face()}, "%tundra", "_TUNDRA_COMPLETE")
    words = [part for part in before if part]
    found = complete.get_completions(words, word) or (complete.get_completions(words, "--") if not word else [])
    return [(item.value, " ".join((item.help or "").split())) for item in found]


def sql_candidates(word: str) -> list[tuple[str, str]]:
    """Tables and columns that begin so."""
    from tundra_nb.commands.options import sql_words

    return [pair for pair in sql_words() if pair[0].startswith(word.lower())]
