"""Blocks → HTML that works in untrusted notebooks: no script, no style sheet, nothing loaded, all text escaped.

Untrusted HTML is cleaned by Jupyter, which leaves inline styles of plain values and images, but no `<svg>`. Colours are
of middle lightness, so that they can be read on light and on dark ground alike, at 4.1 to 1 or more; everything else
inherits the notebook's own.
"""

from __future__ import annotations

import functools
import html
import json
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tundra_nb.terminal import ansi

from .blocks import (
    Action,
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
    Tone,
    clean,
    is_below,
    tone,
    words,
)

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

    from tundra_nb.terminal.screen import Screen

STYLES = {
    "good": "color: #278b4f",
    "warn": "color: #a96d0c",
    "bad": "color: #d94d49",
    "dim": "opacity: 0.65",
    "strong": "font-weight: bold",
}
_LINE = "border-bottom: 1px solid rgba(128, 128, 128, 0.35)"
_MONO = "font-family: monospace; font-size: 13px; line-height: 1.3; white-space: pre"
_LINK = "border: none; background: none; padding: 0; font: inherit; text-decoration: underline; cursor: pointer"
_SCROLLED = 'role="group" tabindex="0" data-lm-suppress-shortcuts="true"'
"""What is scrolled must be reached by keys, which are then none of the notebook's."""
PICTURE_WIDTH = 640
"""Pixels below which a wide picture is scrolled: its words would be too small to read. A smaller one is never drawn
larger than it is."""
MAX_WORD = 44
"""Characters of a word that is never broken."""
NARROW_PAGE = "840px"
"""Pages up to it get a picture's narrow form: beside the prompts of its cells a wider one has `PICTURE_WIDTH` left."""
# Pictures are as light or dark as the page, not as the desktop: pages of nbconvert are light on a dark one, too, and
# neither they nor JupyterLab say so by themselves. Where a browser has no `if()` the desktop decides.
_SCHEME = "color-scheme: if(style(--jp-layout-color0: white): light; style(--jp-inverse-layout-color0: white): dark)"
_SIZE = re.compile(r'<svg[^>]*? width="([\d.]+)"')
_CODE = re.compile(r"`([^`\n]+)`")
_ENCODED = {"%": "%25", "#": "%23", "<": "%3C", ">": "%3E", "\n": "%0A", "&": "%26"}
_CELL = "padding: 2px 14px 2px 0; vertical-align: top"
# never wider than what the table stands in; where a notebook is cleaned the last value goes
_BELOW = (
    "position: sticky; left: 14px; white-space: pre-wrap; width: 0; min-width: 20em; "
    "min-width: min(44em, 100cqi - 48px)"
)
NARROW_EM = 30
"""Width in which a table that finds no room flows over several lines, rather than be scrolled: a page for a phone."""
_LETTER_EM, _GAP_EM = 0.46, 1.0
"""Width of a letter, on the average, and of what is between two columns."""


def render(blocks: Sequence[Block]) -> str:
    """One HTML fragment."""
    return f'<div style="line-height: 1.45; {_SCHEME}">{"".join(_render(block) for block in blocks)}</div>'


def prose(text: str) -> str:
    """Markdown as HTML: raw HTML in it is escaped, images are not loaded, links only to http, https and mailto."""
    return str(_markdown().render(clean(text)))


def shot(screen: Screen) -> str:
    """A terminal's screen on a ground of its own."""
    drawn = ansi.html(screen.lines, ansi.SCREEN, screen.cursor)
    style = (
        f"background-color: {ansi.SCREEN.background}; color: {ansi.SCREEN.foreground}; padding: 8px 10px; "
        f"margin: 4px 0; border-radius: 4px; width: {screen.columns}ch; overflow-x: auto; {_MONO}"
    )
    return f'<pre style="{style}">{drawn}</pre>'


def escape(text: str) -> str:
    return html.escape(clean(text))


def data_url(svg: str) -> str:
    """A picture as an address, safe within double quotes.

    As text, for base64 adds a third; only what an address cannot hold is encoded.
    """
    told = svg.replace('"', "'")  # within values and text both are escaped already
    return "data:image/svg+xml," + "".join(_ENCODED.get(character, character) for character in told)


def _render(block: Block) -> str:
    match block:
        case Heading(text):
            return f'<div style="font-weight: bold; margin: 4px 0">{_cell(text)}</div>'
        case Para(text):
            return f'<div style="white-space: pre-wrap; margin: 2px 0">{_cell(text)}</div>'
        case Code(text):
            style = f"margin: 4px 0; padding: 4px 8px; white-space: pre; overflow-x: auto; {_LINE}"
            return f'<pre {_SCROLLED} aria-label="code" style="{style}">{escape(text)}</pre>'
        case Output(text):
            return f'<pre style="margin: 4px 0; {_MONO}">{ansi.html(ansi.lines(text), ansi.PAGE)}</pre>'
        case Shot(screen):
            return shot(screen)
        case Prose(text):
            return prose(text)
        case Facts(pairs):
            rows = "".join(
                f'<tr><td style="{_CELL}; text-align: left; white-space: nowrap; opacity: 0.65">{escape(name)}</td>'
                f'<td style="{_CELL}; text-align: left; white-space: pre-wrap">{_cell(value)}</td></tr>'
                for name, value in pairs
            )
            return f'<table style="margin: 0 0 4px 0; border: none">{rows}</table>'
        case Table():
            return _table(block)
        case Details(summary, inner):
            folded = "".join(_render(block) for block in inner)
            return (
                f'<details style="margin: 2px 0"><summary style="opacity: 0.75">{escape(summary)}</summary>'
                f"{folded}</details>"
            )
        case Picture(svg, alt, narrow):
            image = f'<img alt="{escape(alt)}" src="{data_url(svg)}" style="max-width: 100%; {_least(svg, narrow)}">'
            if narrow:
                url = data_url(narrow).replace(" ", "%20")  # a blank would end it there
                image = f'<picture><source media="(max-width: {NARROW_PAGE})" srcset="{url}">{image}</picture>'
            return f'<div {_SCROLLED} aria-label="picture" style="overflow-x: auto; margin: 4px 0">{image}</div>'


def _table(table: Table) -> str:
    long = table.long
    below = long if is_below(table) else None
    places = [place for place in range(len(table.head)) if place != below]
    aligned = {place: "text-align: right" if place in table.right else "text-align: left" for place in places}
    spaces = {place: _space(table, place) for place in places}
    top = "".join(
        f'<th style="{_CELL}; {align}; {_LINE}; white-space: nowrap; opacity: 0.65">{escape(table.head[place])}</th>'
        for place, align in aligned.items()
    )
    rows = []
    for row in table.rows:
        cells = "".join(
            f'<td style="{_CELL}; {align}; white-space: {spaces[place]}">{_cell(row[place])}</td>'
            for place, align in aligned.items()
        )
        rows.append(f"<tr>{cells}</tr>")
        if below is not None and words(row[below]):
            text = f'<div style="{_BELOW}">{_cell(row[below])}</div>'
            style = f"{_CELL}; text-align: left; padding-left: 14px"
            rows[-1] += f'<tr><td colspan="{len(places) + 1}" style="{style}">{text}</td></tr>'
    # pages shade every second row of a body: each call has its own, so that only what stands below is shaded
    body = ("" if below is None else "</tbody><tbody>").join(rows)
    # texts that stand below may be wider than the columns: what is left of their width is behind the last one
    columns = "" if below is None else f'<colgroup><col span="{len(places)}"><col style="width: 100%"></colgroup>'
    caption = f'<div style="font-weight: bold; margin-top: 6px">{escape(table.title)}</div>' if table.title else ""
    least = _least_em(table, places)
    name = f"tundra-rows-{least}"
    flows = f"<style>@container (max-width: {least}em) {{ .{name} tr {{ display: flex; flex-wrap: wrap }} }}</style>"
    return (
        f'{caption}<div {_SCROLLED} aria-label="table" style="overflow-x: auto; container-type: inline-size">{flows}'
        f'<table class="{name}" style="margin: 0 0 4px 0; border: none">{columns}'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _least_em(table: Table, places: Sequence[int]) -> int:
    """The width that these columns need, as far as anybody would look at them in one with less."""
    columns = [[table.head[place], *(words(row[place]) for row in table.rows)] for place in places]
    needed = sum(max(map(len, column)) * _LETTER_EM + _GAP_EM for column in columns)
    return min(math.ceil(needed), NARROW_EM)


def _least(svg: str, narrow: str) -> str:
    """The least width of a picture; none on a narrow page if it has a form for that.

    Where an untrusted notebook is cleaned, the second value goes, and with it the narrow form.
    """
    size = _SIZE.search(svg)
    width = f"{min(PICTURE_WIDTH, float(size[1])) if size else PICTURE_WIDTH:g}px"
    least = f"min-width: {width}"
    return f"{least}; min-width: clamp(0px, (100vw - {NARROW_PAGE}) * 999, {width})" if narrow else least


def _space(table: Table, place: int) -> str:
    """How the texts of a column are wrapped."""
    if place == table.long:
        widest = max((len(words(row[place])) for row in table.rows), default=0)
        return f"pre-wrap; min-width: {min(16, math.ceil(widest * 0.6))}em; max-width: 44em"
    texts = [words(row[place]) for row in table.rows]
    is_of_words = all(len(text) <= MAX_WORD and len(text.split()) < 2 for text in texts)  # an id, a model's name
    return "nowrap" if place in table.right or table.long is not None or is_of_words else "pre-wrap"


def _cell(cell: Cell) -> str:
    style = tone(cell)
    text = _CODE.sub(r"<code>\1</code>", escape(words(cell)))
    if isinstance(cell, Styled) and cell.action is not None:
        return _button(text, cell.action, style)
    return f'<span style="{STYLES[style]}">{text}</span>' if style else text


def _button(text: str, action: Action, style: Tone | None) -> str:
    args = html.escape(json.dumps(action.args))
    colour = STYLES[style] if style else "color: inherit"
    return (
        f'<button type="button" title="{escape(action.tip)}" data-commandlinker-command="{action.command}" '
        f'data-commandlinker-args="{args}" style="{_LINK}; {colour}">{text}</button>'
    )


@functools.cache
def _markdown() -> MarkdownIt:
    from markdown_it import MarkdownIt

    made = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    made.validateLink = lambda url: url.lower().startswith(("http://", "https://", "mailto:", "#"))  # type: ignore[method-assign]
    return made
