"""Terminal output as styled lines: colours stay, everything else that a terminal would obey is taken out.

A line is what stands in it at the end: a carriage return goes back to its beginning, as progress bars do, a backspace
one character back. Moves of the cursor beyond that need a screen (`screen`).
"""

from __future__ import annotations

import html as _html
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from .escapes import C1, CONTROLS, SEQUENCE, UNFINISHED
from .screen import Style, StyledRun

_TOKEN = re.compile(
    r"\x1b\[(?P<sgr>[\d;:]*)m"
    r"|\x1b\[(?P<erase>[012]?)K"
    r"|(?P<control>[\n\r\x08])"
    rf"|{SEQUENCE}|{CONTROLS}|{C1}"
    r"|(?P<text>[^\x00-\x08\x0a-\x1f\x7f-\x9f]+)"
)
_OBEYED = re.compile(rf"\x1b|{CONTROLS}|{C1}")
_NOT_OF_A_LINE = re.compile(rf"(?!\x1b\[[012]?K|[\r\x08])(?:{SEQUENCE}|{CONTROLS}|{C1})")
"""All but what changes a line that is written already."""
_MAX_HELD = 4096
"""Characters of an escape sequence without an end; then it is text."""

_NAMES = ("black", "red", "green", "brown", "blue", "magenta", "cyan", "white")
"""As pyte calls them, so that screens and lines have the same styles."""
_FLAGS = {1: "bold", 3: "italic", 4: "underline", 7: "reverse", 9: "strike"}
_CUBE = (0, 95, 135, 175, 215, 255)


class Palette(NamedTuple):
    """Colours by name, and those of text without a colour; empty: the page's own."""

    colours: Mapping[str, str]
    foreground: str = ""
    background: str = ""


def _palette(values: str) -> dict[str, str]:
    names = [*_NAMES, *(f"bright{name}" for name in _NAMES)]
    return dict(zip(names, (f"#{value}" for value in values.split()), strict=True))


PAGE = Palette(
    _palette(
        "6b7280 d9534f 2e9e5b a9781a 3d7fd6 b557b5 1f93a0 8a8f98 "
        "7d848f e5605b 38ab67 b98516 5590e2 c46ac4 2aa3b0 9aa0a9"
    )
)
"""Middle lightness: to be read on a light page and on a dark one."""
SCREEN = Palette(
    _palette(
        "4b5563 f0716c 57c784 d7a94b 6ea8f5 d884d8 55c3d0 d6dae0 "
        "7d8794 ff8f8a 7fe0a4 f0c66b 93c0ff ee9fee 7ddce8 ffffff"
    ),
    foreground="#d6dae0",
    background="#1b1f24",
)
"""On a ground of its own."""
_MIDDLE = (0.38, 0.62)
"""Lightness of a colour that a program chose itself, on a page whose ground is not known."""


def lines(text: str) -> list[list[StyledRun]]:
    """The lines of an output, styled."""
    made: list[list[StyledRun]] = []
    chars: list[str] = []
    styles: list[Style] = []
    style, column = Style(), 0
    for token in _TOKEN.finditer(text):
        if (words := token["text"]) is not None:
            if column == len(chars):
                chars.extend(words)
                styles.extend(itertools.repeat(style, len(words)))
            else:
                chars[column : column + len(words)] = words
                styles[column : column + len(words)] = [style] * len(words)
            column += len(words)
        elif token["sgr"] is not None:
            style = _restyled(style, token["sgr"])
        elif (control := token["control"]) is not None:
            if control == "\n":
                made.append(_runs(chars, styles))
                chars, styles, column = [], [], 0
            else:
                column = 0 if control == "\r" else max(0, column - 1)
        elif token["erase"] is not None and token["erase"] in ("", "0"):
            del chars[column:], styles[column:]
    if chars:
        made.append(_runs(chars, styles))
    return made


def plain(text: str) -> str:
    """An output as it was read: no escape sequence, each line as it stood in the end, line ends as they are."""
    if _OBEYED.search(text) is None:
        return text
    text = _NOT_OF_A_LINE.sub("", text.replace("\r\n", "\n"))
    return "\n".join(
        "".join(run.text for run in lines(line)[0]) if line and _OBEYED.search(line) else line
        for line in text.split("\n")
    )


def pieces(
    styled: Iterable[Sequence[StyledRun]], palette: Palette, cursor: tuple[int, int] | None = None
) -> list[list[tuple[str, str]]]:
    """Lines as texts with their CSS. `cursor`: column and row of a block."""
    made = []
    for number, line in enumerate(styled):
        runs = _with_cursor(line, cursor[0]) if cursor is not None and cursor[1] == number else line
        made.append([(run.text, _css(run.style, palette)) for run in runs if run.text])
    return made


def html(styled: Iterable[Sequence[StyledRun]], palette: Palette, cursor: tuple[int, int] | None = None) -> str:
    """Lines as HTML, to be put into a `<pre>`."""
    return "\n".join("".join(_span(text, css) for text, css in line) for line in pieces(styled, palette, cursor))


class Colours:
    """Cleans a stream for a terminal: of escape sequences only colours pass, and the returns of progress bars."""

    def __init__(self, *, are_kept: bool) -> None:
        self._are_kept = are_kept
        self._held = ""

    def feed(self, piece: str) -> str:
        """What may be written of the output so far; half an escape sequence waits for its rest."""
        text = self._held + piece
        found = UNFINISHED.search(text)
        self._held = found[0] if found is not None and len(found[0]) <= _MAX_HELD else ""
        if self._held:
            text = text[: -len(self._held)]
        return "".join(self._allowed(token) for token in _TOKEN.finditer(text))

    def _allowed(self, token: re.Match[str]) -> str:
        if token["text"] is not None or token["control"] is not None:
            return token[0]
        return token[0] if token["sgr"] is not None and self._are_kept else ""


def _runs(chars: Sequence[str], styles: Sequence[Style]) -> list[StyledRun]:
    made, start = [], 0
    for style, group in itertools.groupby(styles):
        end = start + sum(1 for _ in group)
        made.append(StyledRun("".join(chars[start:end]), style))
        start = end
    return made


def _restyled(style: Style, codes: str) -> Style:
    numbers = iter([int(code or 0) for code in re.split("[;:]", codes)])
    for number in numbers:
        if number == 0:
            style = Style()
        elif number in _FLAGS:
            style = msgspec.structs.replace(style, **{_FLAGS[number]: True})
        elif number == 22:
            style = msgspec.structs.replace(style, bold=False)
        elif number - 20 in _FLAGS:
            style = msgspec.structs.replace(style, **{_FLAGS[number - 20]: False})
        elif number in (38, 48):
            field = "foreground" if number == 38 else "background"
            style = msgspec.structs.replace(style, **{field: _extended(numbers)})
        elif (found := _named(number)) is not None:
            style = msgspec.structs.replace(style, **{found[0]: found[1]})
    return style


def _named(number: int) -> tuple[str, str] | None:
    for base, bright in ((30, ""), (90, "bright")):
        for field, offset in (("foreground", base), ("background", base + 10)):
            if 0 <= number - offset < 8:
                return field, bright + _NAMES[number - offset]
    return {39: ("foreground", ""), 49: ("background", "")}.get(number)


def _extended(numbers: Iterator[int]) -> str:
    kind = next(numbers, 0)
    if kind == 2:
        return "".join(f"{min(next(numbers, 0), 255):02x}" for _ in range(3))
    index = min(next(numbers, 0), 255) if kind == 5 else 0
    if index < 16:
        return ("bright" if index > 7 else "") + _NAMES[index % 8]
    if index < 232:
        index -= 16
        return "".join(f"{_CUBE[step]:02x}" for step in (index // 36, index // 6 % 6, index % 6))
    return f"{8 + 10 * (index - 232):02x}" * 3


def _with_cursor(line: Sequence[StyledRun], column: int) -> Iterator[StyledRun]:
    at = 0
    for run in line:
        inside = column - at
        if 0 <= inside < len(run.text):
            yield StyledRun(run.text[:inside], run.style)
            yield StyledRun(run.text[inside], msgspec.structs.replace(run.style, reverse=not run.style.reverse))
            yield StyledRun(run.text[inside + 1 :], run.style)
        else:
            yield run
        at += len(run.text)
    if column >= at:
        yield StyledRun(" " * (column - at))
        yield StyledRun(" ", Style(reverse=True))


def _span(text: str, css: str) -> str:
    escaped = _html.escape(text)
    return f'<span style="{css}">{escaped}</span>' if css else escaped


def _css(style: Style, palette: Palette) -> str:
    if style == Style():
        return ""
    front, back = _colour(style.foreground, palette), _colour(style.background, palette)
    if style.reverse:
        front, back = back or palette.background or "#f4f4f4", front or palette.foreground or "#6b7280"
    elif back and not front and not palette.foreground:
        front = "#ffffff" if _lightness(back) < 0.55 else "#111111"
    elif front and not back and not palette.background:
        front = _middle(front)
    parts = [f"color: {front}" if front else "", f"background-color: {back}" if back else ""]
    parts += ["font-weight: bold" if style.bold else "", "font-style: italic" if style.italic else ""]
    drawn = " ".join(word for word, is_on in (("underline", style.underline), ("line-through", style.strike)) if is_on)
    return "; ".join(filter(None, [*parts, f"text-decoration: {drawn}" if drawn else ""]))


def _colour(name: str, palette: Palette) -> str:
    if name in palette.colours:
        return palette.colours[name]
    return f"#{name}" if re.fullmatch(r"[0-9a-fA-F]{6}", name) else ""


def _channels(colour: str) -> list[float]:
    return [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]


def _lightness(colour: str) -> float:
    red, green, blue = _channels(colour)
    return 0.3 * red + 0.59 * green + 0.11 * blue


def _middle(colour: str) -> str:
    light = _lightness(colour)
    wanted = min(max(light, _MIDDLE[0]), _MIDDLE[1])
    if wanted == light:
        return colour
    ground = 0.0 if wanted < light else 1.0
    share = (wanted - light) / (ground - light)
    mixed = [round(255 * (channel + (ground - channel) * share)) for channel in _channels(colour)]
    return "#" + "".join(f"{channel:02x}" for channel in mixed)
