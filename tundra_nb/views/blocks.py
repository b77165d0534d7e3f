"""What views are made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from tundra_nb.terminal import escapes

if TYPE_CHECKING:
    from tundra_nb.terminal.screen import Screen

Tone = Literal["good", "warn", "bad", "dim", "strong"]
"""What a piece of text means; renderers choose the colour, which never stands alone for the meaning."""


@dataclasses.dataclass(frozen=True)
class Action:
    """What a click on a text does in JupyterLab and Notebook 7; elsewhere its tip tells what to do.

    A command of Jupyter's own, which asks before it acts in a notebook that is not trusted.
    """

    tip: str
    command: str
    args: Mapping[str, object]


def give(line: str) -> Action:
    """Give a command in a new cell below."""
    commands = ["notebook:insert-cell-below", "notebook:replace-selection", "notebook:run-cell"]
    return Action(line, "apputils:run-all-enabled", {"commands": commands, "args": {"text": line}})


def open_terminal(pty_id: str) -> Action:
    """Open the tab of a terminal of ours."""
    name = f"tundra-{pty_id}"
    return Action(f"open {name} in a tab", "terminal:open", {"name": name})


@dataclasses.dataclass(frozen=True)
class Styled:
    """Text with a tone; a click on it may do something."""

    text: str
    tone: Tone | None = None
    action: Action | None = None


Cell = str | Styled


@dataclasses.dataclass(frozen=True)
class Heading:
    """The first line of a view, or of a part of it."""

    text: Cell


@dataclasses.dataclass(frozen=True)
class Facts:
    """Names and their values."""

    pairs: Sequence[tuple[str, Cell]]


BESIDE = 40
"""Characters of a sentence that may stand beside the other columns of a notebook's table."""


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows under a head; `right` are the columns of numbers.

    `fits`: where the width is short, columns at the end are left out and named, rather than all of them squeezed; the
    column `long` then takes the room that is left. `below`: its texts are sentences, and stand below their rows where
    they would leave the other columns no room.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    right: frozenset[int] = frozenset()
    title: str = ""
    fits: bool = False
    long: int | None = None
    below: bool = False


@dataclasses.dataclass(frozen=True)
class Para:
    """A sentence or two; newlines are kept."""

    text: Cell


@dataclasses.dataclass(frozen=True)
class Code:
    """Lines to copy, or to read letter by letter."""

    text: str


@dataclasses.dataclass(frozen=True)
class Output:
    """Output of a program for a terminal: its colours stay."""

    text: str


@dataclasses.dataclass(frozen=True)
class Shot:
    """A terminal's screen."""

    screen: Screen


@dataclasses.dataclass(frozen=True)
class Prose:
    """Markdown."""

    text: str


@dataclasses.dataclass(frozen=True)
class Picture:
    """An SVG document; terminals leave it out, so what it shows stands in the blocks beside it too."""

    svg: str
    alt: str
    narrow: str = ""
    """The same for a narrow page; without it the picture is scrolled there."""


@dataclasses.dataclass(frozen=True)
class Details:
    """What is folded away behind a line; terminals leave it out, unless it is to be in text too."""

    summary: str
    blocks: Sequence[Block]
    in_text: bool = False


Block = Details | Heading | Facts | Table | Para | Code | Output | Shot | Prose | Picture


def clean(text: str) -> str:
    """Text without escape sequences and control characters, which could redraw the terminal; tabs and newlines stay."""
    return escapes.IN_TEXT.sub("", text)


def literal(value: bytes) -> str:
    """Bytes that are no text, as SQL has them."""
    return f"x'{value.hex()}'"


def is_below(table: Table) -> bool:
    """Whether its long texts stand below their rows, which then are no wider than a page, also than a narrow one."""
    if table.long is None or not table.below:
        return False
    return max((len(words(row[table.long])) for row in table.rows), default=0) > BESIDE


def words(cell: Cell) -> str:
    return cell.text if isinstance(cell, Styled) else cell


def tone(cell: Cell) -> Tone | None:
    return cell.tone if isinstance(cell, Styled) else None


def number(value: float | None, digits: int = 3) -> str:
    """A number for people: significant digits, no exponent, thousands apart."""
    if value is None or value != value:  # noqa: PLR0124 - NaN
        return ""
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    text = f"{value:.{digits}g}"
    return f"{value:.6f}".rstrip("0").rstrip(".") if "e" in text else text


def duration(seconds: float | None) -> str:
    """A time span for people: `350 ms`, `12 s`, `5 min`, `3 h`."""
    if seconds is None or seconds != seconds:  # noqa: PLR0124 - NaN
        return ""
    for limit, unit, size in ((1, "ms", 0.001), (120, "s", 1), (7200, "min", 60), (172800, "h", 3600)):
        if abs(seconds) < limit:
            return f"{number(seconds / size)} {unit}"
    return f"{number(seconds / 86400)} d"


def money(usd: float | None) -> str:
    """A cost for people."""
    if usd is None or usd != usd:  # noqa: PLR0124 - NaN
        return ""
    return "$0" if usd == 0 else f"${usd:.2f}" if usd >= 1 else f"${number(usd)}"
