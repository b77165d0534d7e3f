"""Blocks → terminal text, through rich."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group, RenderableType
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
FACT_WIDTH = 12
"""Least room for a fact beside its name; otherwise it stands below it."""
LONG_WIDTH = 24
"""Least room for the column of long texts …"""
LONG_LINES = 5
"""… which is cut after so many lines."""
MOST_LINES_BESIDE = 2
"""A text that needs more lines beside the other columns stands below its row."""
BELOW = 2 * INDENT + GAP
"""How far it is indented there."""


def show(blocks: Sequence[Block], console: Console) -> None:
    """Write blocks to a terminal or a pipe."""
    for block in blocks:
        if isinstance(block, Details) and block.in_text:
            show(block.blocks, console)
            continue
        hidden: Sequence[str] = ()
        if isinstance(block, Table) and block.fits:
            block, hidden = _fitted(block, console.width - INDENT)  # noqa: PLW2901 - the same block, narrower
        if isinstance(block, Table) and _widths(block, console.width - INDENT) is None:
            long, width = block.long, console.width - INDENT
            for part in _named(block) if long is None else _stacked(block, long, width):
                console.print(part)
        elif (drawn := _render(block, console.width)) is not None:
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
            if width - INDENT - max((cell_len(name) for name, _ in pairs), default=0) - GAP < FACT_WIDTH:
                return Group(*(part for name, value in pairs for part in (Text(name, "dim"), _indented(_text(value)))))
            grid = RichTable.grid(padding=(0, 2))
            grid.add_column(style="dim", no_wrap=True)
            grid.add_column(overflow="fold")
            for name, value in pairs:
                grid.add_row(name, _text(value))
            return _indented(grid)
        case Table():
            return _indented(_drawn(block, _widths(block, width - INDENT)))


def _fitted(table: Table, width: int) -> tuple[Table, Sequence[str]]:
    """The table with as many columns as find room, and the names of the others.

    A column of sentences is never left out: where it finds no room, or where it would need more lines beside the others
    than below them, they stand below their rows.
    """
    columns = [[name, *(words(row[index]) for row in table.rows)] for index, name in enumerate(table.head)]
    widest = [max(map(cell_len, column)) for column in columns]
    least = [min(wide, MAX_COLUMN_WIDTH) for wide in widest]
    if table.long is not None:
        least[table.long] = min(least[table.long], max(LONG_WIDTH, _longest_word(columns[table.long])))
    kept, left = _that_fit(least, width)
    is_below = False
    room = 0
    if table.long is not None:
        room = least[table.long] + left
        is_below = table.below and (table.long not in kept or widest[table.long] > MOST_LINES_BESIDE * room)
        if is_below:
            least[table.long] = -GAP
            kept, _ = _that_fit(least, width)
            room = width - BELOW
    rows = [[row[index] for index in kept] for row in table.rows]
    place = kept.index(table.long) if table.long in kept else None
    if place is not None:
        for row in rows:
            row[place] = _cut(row[place], room * LONG_LINES - 4)  # words do not fill their lines
    head = [table.head[index] for index in kept]
    right = frozenset(place for place, index in enumerate(kept) if index in table.right)
    hidden = [name for index, name in enumerate(table.head) if index not in kept]
    return Table(head, rows, right, table.title, long=place if is_below else None), hidden


def _that_fit(least: Sequence[int], width: int) -> tuple[list[int], int]:
    """Which columns find room, the first ones first, and how much is left."""
    kept: list[int] = []
    for index, need in enumerate(least):
        if need + GAP <= width or len(kept) < MIN_COLUMNS:
            kept.append(index)
            width -= need + GAP
    return kept, width


def _longest_word(column: Sequence[str]) -> int:
    return max(cell_len(word) for cell in column for word in (cell.split() or [""]))


def _widths(table: Table, width: int) -> list[int] | None:
    """How wide the columns are so that no code and no other word is broken; None where there is no room for that.

    Very long words, such as addresses, are broken all the same.
    """
    columns = [[name, *(words(row[index]) for row in table.rows)] for index, name in enumerate(table.head)]
    wide = [max(cell_len(line) for cell in column for line in (cell.splitlines() or [""])) for column in columns]
    least = []
    for index, column in enumerate(columns):
        longest = _longest_word(column)
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
    waiting: list[Sequence[Cell]] = []
    for cells, row in zip(rows, table.rows, strict=True):
        waiting.append(cells)
        if words(row[long]):
            yield from _in_line(head, waiting, right, wide)
            yield _indented(_text(row[long]), BELOW)
            waiting = []
    yield from _in_line(head, waiting, right, wide)


def _named(table: Table) -> Iterator[RenderableType]:
    """A table whose columns find no room beside each other: a text for each row, with the names of its values."""
    if table.title:
        yield _text(Styled(table.title, "strong"))
    for row in table.rows:
        cells = [(name, cell) for name, cell in zip(table.head, row, strict=True) if words(cell)]
        named = (Text(f"{name} ", "dim").append_text(_text(cell)) if name else _text(cell) for name, cell in cells)
        yield _indented(Text("  ").join(named))


def _in_line(
    head: Sequence[str], rows: Sequence[Sequence[Cell]], right: frozenset[int], wide: Sequence[int] | None
) -> Iterator[RenderableType]:
    """Rows under each other without their head; where they find no room, each as one line of text."""
    if wide is None:
        yield from (_indented(Text("  ").join(_text(cell) for cell in cells if words(cell))) for cells in rows)
    elif rows:
        yield _indented(_drawn(Table(head, rows, right), wide, show_header=False))


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
