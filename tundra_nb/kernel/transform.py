"""Lines with `%tundra` are read before IPython reads them: a `?` at the end is text, a `;` behind `x =` binds.

IPython takes a line that ends in `?` for a question about an object, also behind a magic: `%tundra ask why?` was never
asked, and in `x = %tundra ask why?` nothing was bound. And it hands a magic its `;` as text, so that the magic cannot
know whether something waits for its value; here the `;` becomes Python's, which IPython knows to keep quiet for.
"""

from __future__ import annotations

import re
import tokenize
from typing import Any

from IPython.core.inputtransformer2 import (
    TokenTransformBase,
    _find_assign_op,
    assemble_continued_line,
    find_end_of_continued_line,
)

_HELP = re.compile(r"%tundra\s*\?{1,2}\s*$")
"""The question about the magic itself stays IPython's."""


class TundraLine(TokenTransformBase):
    """Makes a call of the magic out of `%tundra …` and `x = %tundra …`, before the `?` is looked at."""

    priority = 1

    def __init__(self, start: tuple[int, int], column: int) -> None:
        super().__init__(start)  # type: ignore[no-untyped-call]
        self.column = column

    @classmethod
    def find(cls, tokens_by_line: Any) -> TundraLine | None:
        for line in tokens_by_line:
            first = next(
                (i for i, token in enumerate(line) if token.type not in (tokenize.INDENT, tokenize.DEDENT)), None
            )
            if first is None:
                continue
            assign = _find_assign_op(line)
            for place in (first, *([] if assign is None else [assign + 1])):
                if [token.string for token in line[place : place + 2]] != ["%", "tundra"]:
                    continue
                start = line[place].start
                if start[0] == line[first].start[0] and not _HELP.match(line[place].line[start[1] :]):
                    return cls(line[first].start, start[1])
        return None

    def transform(self, lines: list[str]) -> list[str]:
        end = find_end_of_continued_line(lines, self.start_line)
        before = lines[self.start_line][: self.column]
        text = assemble_continued_line(lines, (self.start_line, self.column), end)
        args = text.partition("tundra")[2].strip()
        quiet = ";" if args.endswith(";") else ""
        call = f"get_ipython().run_line_magic('tundra', {args.removesuffix(';').rstrip()!r}){quiet}\n"
        return [*lines[: self.start_line], before + call, *lines[end + 1 :]]
