"""Blocks → terminal text, through rich."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table as RichTable
from rich.text import Text

from tundra_nb.terminal.ansi import plain as without_colours

from .blocks import (
    Block,
    Cell,
    Code,
    Details,
    Facts,
    Heading,
    Output,
    Para,
    Picture,
    Prose,
    Shot,
    Styled,
    Table,
    clean,
    tone,
    words,
)

STYLES = {"good": "green", "warn": "yellow", "bad": "red", "dim": "dim", "strong": "bold"}
PLAIN_WIDTH = 110
"""Columns of the plain text that a notebook keeps beside the HTML."""
INDENT = 2
GAP = 2
MIN_COLUMNS = 2
MAX_COLUMN_WIDTH = 44
"""Longer text is wrapped."""
LONG_WIDTH = 24
"""Least room for the column of long texts …"""
LONG_LINES = 5
"""… which is cut after so many lines."""


def show(blocks: Sequence[Block], console: Console) -> None:
    """Write blocks to a terminal or a pipe."""
    for block in blocks:
        if isinstance(block, Details) and block.in_text:
            show(block.blocks, console)
            continue
        hidden: Sequence[str] = ()
        if isinstance(block, Table) and block.fits:
            block, hidden = _fitted(block, console.width - INDENT)  # noqa: PLW2901 - the same block, narrower
        if isinstance(block, Table) and block.long is not None and _widths(block, console.width - INDENT) is None:
            for part in _stacked(block, block.long, console.width - INDENT):
                console.print(part)
            continue
        drawn = _render(block, console.width)
        if drawn is not None:
            console.print(drawn, soft_wrap=isinstance(block, Code | Output))
        if hidden:
            told = f"not shown for want of width: {', '.join(hidden)} (`--tsv` has them)"
            console.print(_indented(_text(Styled(told, "dim"))))


def plain(blocks: Sequence[Block]) -> str:
    """The same without colour, at a fixed width."""
    console = Console(
        file=io.StringIO(),
        width=PLAIN_WIDTH,
        color_system=None,
        force_terminal=False,
        force_jupyter=False,
        legacy_windows=False,
        emoji=False,
        markup=False,
    )
    show(blocks, console)
    file = console.file
    assert isinstance(file, io.StringIO)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def _render(block: Block, width: int) -> RenderableType | None:
    match block:
        case Picture() | Details():
            return None
        case Heading(text):
            found = _text(text)
            found.stylize("bold")
            return found
        case Para(text):
            return _text(text)
        case Code(text):
            return Text("\n".join(f"    {line}" for line in clean(text).splitlines()))
        case Output(text):
            return Text(without_colours(text).removesuffix("\n"))
        case Shot(screen):
            return Panel(Text(clean(screen.text)), width=screen.columns + 4, height=screen.rows + 2, highlight=False)
        case Prose(text):
            from rich.markdown import Markdown  # with a parser and a highlighter: 0.1 s to import

            return Markdown(clean(text), hyperlinks=False)
        case Facts(pairs):
            grid = RichTable.grid(padding=(0, 2))
            grid.add_column(style="dim", no_wrap=True)
            grid.add_column(overflow="fold")
            for name, value in pairs:
                grid.add_row(name, _text(value))
            return _indented(grid)
        case Table():
            return _indented(_drawn(block, _widths(block, width - INDENT)))


def _fitted(table: Table, width: int) -> tuple[Table, Sequence[str]]:
    """The table with as many columns as find room, its long one cut to what is left, and the names of the others."""
    widest = [
        max([cell_len(name), *(cell_len(words(row[index])) for row in table.rows)])
        for index, name in enumerate(table.head)
    ]
    kept: list[int] = []
    left = width
    for index, wide in enumerate(widest):
        need = min(wide, LONG_WIDTH if index == table.long else MAX_COLUMN_WIDTH) + GAP
        if need <= left or len(kept) < MIN_COLUMNS:
            kept.append(index)
            left -= need
    rows = [[row[index] for index in kept] for row in table.rows]
    if table.long in kept:
        room = max(min(widest[table.long], LONG_WIDTH) + left, LONG_WIDTH)
        place = kept.index(table.long)
        for row in rows:
            row[place] = _cut(row[place], room * LONG_LINES - 4)  # words do not fill their lines
    head = [table.head[index] for index in kept]
    right = frozenset(place for place, index in enumerate(kept) if index in table.right)
    hidden = [name for index, name in enumerate(table.head) if index not in kept]
    return Table(head, rows, right, table.title), hidden


def _widths(table: Table, width: int) -> list[int] | None:
    """How wide the columns are so that no code and no other word is broken; None where there is no room for that.

    Very long words, such as addresses, are broken all the same.
    """
    columns = [[name, *(words(row[index]) for row in table.rows)] for index, name in enumerate(table.head)]
    wide = [max(cell_len(line) for cell in column for line in (cell.splitlines() or [""])) for column in columns]
    least = []
    for index, column in enumerate(columns):
        longest = max(cell_len(word) for cell in column for word in (cell.split() or [""]))
        if index == table.long:
            least.append(min(wide[index], LONG_WIDTH))
        else:  # `1.2 s` stays whole, too
            least.append(wide[index] if index in table.right else min(longest, MAX_COLUMN_WIDTH))
    room = width - GAP * len(columns)
    if sum(least) > room:
        return None
    while sum(wide) > room:
        spare = [have - need for have, need in zip(wide, least, strict=True)]
        widest = max(range(len(wide)), key=lambda index: (spare[index] > 0, wide[index]))
        wide[widest] -= min(spare[widest], sum(wide) - room)
    return wide


def _stacked(table: Table, long: int, width: int) -> Iterator[RenderableType]:
    """A table whose long texts stand below their rows; where the others find no room either, one after the other."""
    short = [index for index in range(len(table.head)) if index != long]
    right = frozenset(place for place, index in enumerate(short) if index in table.right)
    rows = [[row[index] for index in short] for row in table.rows]
    head = [table.head[index] for index in short]
    others = Table(head, rows, right)
    if table.title:
        yield _text(Styled(table.title, "strong"))
    wide = _widths(others, width)
    if wide is not None:
        yield _indented(_drawn(Table(head, [], right), wide))
    for cells, row in zip(rows, table.rows, strict=True):
        if wide is not None:
            yield _indented(_drawn(Table(head, [cells], right), wide, show_header=False))
        else:
            yield _indented(Text("  ").join(_text(cell) for cell in cells if words(cell)))
        if words(row[long]):
            yield _indented(_text(row[long]), 2 * INDENT + GAP)


def _drawn(table: Table, widths: Sequence[int] | None, *, show_header: bool = True) -> RichTable:
    drawn = RichTable(
        title=table.title or None,
        title_justify="left",
        title_style="bold",
        box=None,
        padding=(0, GAP, 0, 0),
        show_header=show_header,
    )
    for index, name in enumerate(table.head):
        drawn.add_column(
            name,
            justify="right" if index in table.right else "left",
            header_style="dim",
            overflow="fold",
            width=widths[index] if widths is not None else None,
        )
    for row in table.rows:
        drawn.add_row(*(_text(cell) for cell in row))
    return drawn


def _indented(what: RenderableType, by: int = INDENT) -> Padding:
    return Padding(what, (0, 0, 0, by), expand=False)


def _cut(cell: Cell, room: int) -> Cell:
    """A text without line ends, at most so wide."""
    told = " ".join(words(cell).split())
    if cell_len(told) > room:
        told = set_cell_size(told, room - 1).rstrip() + "…"
    return Styled(told, cell.tone) if isinstance(cell, Styled) else told


def _text(cell: Cell) -> Text:
    style = tone(cell)
    return Text(clean(words(cell)), style=STYLES[style] if style else "")
