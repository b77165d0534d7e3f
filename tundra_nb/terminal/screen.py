"""What a terminal's output looks like on its screen: a pure function from output to lines of styled text.

Rendered on demand, here and never in the daemon: pyte takes one second per megabyte or less, so only the end of an
output is fed to it, from the last time the screen was cleared or switched. A second engine would have to offer
`render` and nothing more.
"""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

TAIL_BYTES = 1 << 16
"""A screen of 24 × 80 with a colour change at each cell has half of this."""
_FRESH = re.compile(rb"\x1b\[[23]J|\x1b\[H\x1b\[J|\x1bc|\x1b\[\?(?:1049|1047|47)[hl]")
_PRIVATE = re.compile(rb"\x1b\[\?([0-9;]+)([hl])")
_STEP = 1024

_log = logging.getLogger("tundra.kernel")


class Style(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a run of characters looks. Colours are names (`red`, `brightred`), RRGGBB, or empty for the default."""

    foreground: str = ""
    background: str = ""
    bold: bool = False
    italic: bool = False
    underline: bool = False
    strike: bool = False
    reverse: bool = False


class StyledRun(msgspec.Struct, frozen=True):
    """Characters of one style."""

    text: str
    style: Style = Style()


class Screen(msgspec.Struct, frozen=True):
    """A terminal's screen at one moment."""

    columns: int
    rows: int
    lines: tuple[tuple[StyledRun, ...], ...]
    """One per row, blanks at the end left out."""
    cursor: tuple[int, int] | None
    """Column and row from 0; None when it is hidden."""
    title: str = ""

    @property
    def text(self) -> str:
        """The characters alone, without empty rows at the end."""
        return "\n".join("".join(run.text for run in line) for line in self.lines).rstrip("\n")


class Modes(msgspec.Struct, frozen=True):
    """What a program has asked of the keyboard."""

    is_application: bool = False
    """DECCKM: arrows and Home, End as ESC O …"""
    is_bracketed: bool = False
    """What is pasted stands between marks."""

    def after(self, output: bytes) -> Modes:
        """The modes after more output; what it does not mention stays."""
        now = {b"1": self.is_application, b"2004": self.is_bracketed}
        for names, what in _PRIVATE.findall(output):
            for name in names.split(b";"):
                if name in now:
                    now[name] = what == b"h"
        return Modes(now[b"1"], now[b"2004"])


class Tail(msgspec.Struct, frozen=True):
    """The end of an output, with the size of its window."""

    output: bytes
    columns: int
    rows: int

    @property
    def screen(self) -> Screen:
        """What the screen shows."""
        return render(self.output, self.columns, self.rows)

    def above(self, rows: int) -> tuple[tuple[StyledRun, ...], ...]:
        """At most so many lines that have left the screen, oldest first."""
        tall = render(self.output, self.columns, rows + self.rows).lines
        used = max((number for number, line in enumerate(tall, 1) if line), default=0)
        return tall[: max(0, used - self.rows)]


def size_and_end(head: Mapping[str, Any], marks: Iterable[Mapping[str, Any]]) -> tuple[int, int, int]:
    """Columns and rows of the screen after the last event, and the offset up to which output came."""
    columns, rows, end = head["columns"], head["rows"], 0
    for mark in marks:
        if "columns" in mark:
            columns, rows = mark["columns"], mark["rows"]
        else:
            end = mark["end"]
    return columns, rows, end


def render(output: bytes, columns: int = 80, rows: int = 24) -> Screen:
    """The screen after `output`, or after its last 64 KiB. Never raises on any bytes."""
    import pyte

    screen = pyte.Screen(columns, rows)
    stream = pyte.ByteStream(screen)
    tail = _relevant(output)
    for at in range(0, len(tail), _STEP):
        try:
            stream.feed(tail[at : at + _STEP])
        except Exception:  # noqa: BLE001 - pyte 0.8.2 raises on rare sequences (TypeError, UnboundLocalError)
            _log.debug("pyte could not read a part of the output", exc_info=True)
            stream = pyte.ByteStream(screen)
    lines = tuple(tuple(_runs(screen.buffer[row], columns)) for row in range(rows))
    cursor = None if screen.cursor.hidden else (min(screen.cursor.x, columns - 1), screen.cursor.y)
    return Screen(columns=columns, rows=rows, lines=lines, cursor=cursor, title=screen.title)


def _relevant(output: bytes) -> bytes:
    """The end of the output from where the screen was last empty, or a line's beginning."""
    tail = output[-TAIL_BYTES:]
    fresh = None
    for fresh in _FRESH.finditer(tail):  # noqa: B007 - the last one is wanted
        pass
    if fresh is not None:
        return tail[fresh.start() :]
    if len(output) > TAIL_BYTES:
        return tail[tail.find(b"\n") + 1 :]
    return tail


def _runs(cells: Any, columns: int) -> Iterator[StyledRun]:
    row = [(_style(cells[column]), cells[column].data) for column in range(columns)]
    while row and row[-1] == (Style(), " "):
        row.pop()
    for style, group in itertools.groupby(row, key=lambda cell: cell[0]):
        yield StyledRun("".join(text for _, text in group), style)


def _style(cell: Any) -> Style:
    if (cell.fg, cell.bg) == ("default", "default") and not (
        cell.bold or cell.italics or cell.underscore or cell.strikethrough or cell.reverse
    ):
        return Style()
    return Style(
        foreground="" if cell.fg == "default" else cell.fg,
        background="" if cell.bg == "default" else cell.bg,
        bold=cell.bold,
        italic=cell.italics,
        underline=cell.underscore,
        strike=cell.strikethrough,
        reverse=cell.reverse,
    )
