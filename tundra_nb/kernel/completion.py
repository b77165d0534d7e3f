"""Completes `%tundra …` in a line, behind `x =` and in a cell's first line: commands, options, values, profiles."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from IPython.core.completer import SimpleCompletion, context_matcher

if TYPE_CHECKING:
    from .magics import TundraMagics

_MAGIC = re.compile(r"(?:^\s*|=\s*)%%?tundra\s+(.*)$")


def make_matcher(magics: TundraMagics) -> Callable[[Any], dict[str, Any]]:
    """A matcher for `Completer.custom_matchers`."""

    @context_matcher()  # type: ignore[untyped-decorator]
    def tundra_matcher(context: Any) -> dict[str, Any]:
        magic = _MAGIC.search(context.line_with_cursor[: context.cursor_position])
        if magic is None:
            return {"completions": [], "suppress": False}
        *before, word = re.split(r"\s+", magic[1])
        found = [SimpleCompletion(text, type="tundra") for text in candidates(before, word, magics)]
        return {"completions": found, "matched_fragment": word, "suppress": bool(found)}

    matcher: Callable[[Any], dict[str, Any]] = tundra_matcher
    return matcher


def candidates(before: list[str], word: str, magics: TundraMagics) -> list[str]:
    """What may stand at the cursor, after these words; click knows it, as for shells."""
    from click.shell_completion import ShellComplete

    from tundra_nb.commands.table import root

    complete = ShellComplete(root, {"obj": magics.face()}, "%tundra", "_TUNDRA_COMPLETE")
    return [item.value for item in complete.get_completions([part for part in before if part], word)]
