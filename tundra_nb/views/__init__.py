"""How results are shown: a view turns a result into *blocks*, two renderers turn blocks into terminal text and HTML.

So each view is written once, and a new renderer or a new result is one file. `show.blocks_of` finds the view of a
result by its type, `data.to_json` gives the same result as JSON. All text from outside (answers, errors, names) is
cleaned of control characters and escaped by the renderers, never by the views.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tundra_nb.client.results import Why


@dataclasses.dataclass(frozen=True)
class Message:
    """A sentence that a command answers with."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclasses.dataclass(frozen=True)
class Lines:
    """Lines of a file."""

    lines: list[str]
    source: str

    def __str__(self) -> str:
        return "\n".join(self.lines)


@dataclasses.dataclass(frozen=True)
class Transcript:
    """All output of a PTY."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclasses.dataclass(frozen=True)
class Compared:
    """Two calls, for their prompts and answers side by side."""

    one: Why
    other: Why
