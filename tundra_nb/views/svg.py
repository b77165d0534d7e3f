"""Small pictures made by hand: SVG text with no library, no script, nothing loaded.

Jupyter drops inline `<svg>` from untrusted HTML but keeps `<img>`, so pictures travel as images with a data URL
(`html` does that). An image inherits nothing from the page around it, neither colours nor theme. So each picture
brings its own ground: light by default, dark where the browser says that dark is wanted, readable on either page.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

from .blocks import clean

_NOT_XML = re.compile("[\ud800-\udfff\ufffe\uffff]")
"""What XML cannot hold beyond the control characters that `clean` takes out."""

LIGHT = {
    "ground": "#ffffff", "ink": "#24292f", "dim": "#636c76", "line": "#d8dee4", "good": "#1f7a43", "bad": "#c22c2c",
    "warn": "#8f5d0e", "void": "#636c76", "lost": "#7a48bd", "pause": "#c9d1d9", "slate": "#7188a0", "on": "#ffffff",
}  # fmt: skip
DARK = {
    "ground": "#1c2128", "ink": "#e2e8ee", "dim": "#9aa5b1", "line": "#3a424c", "good": "#3fb566", "bad": "#f0605a",
    "warn": "#d9a13a", "void": "#8b949e", "lost": "#a98bf0", "pause": "#4b5561", "slate": "#7f97b0", "on": "#1c2128",
}  # fmt: skip


def picture(width: float, height: float, parts: Iterable[str], *, title: str) -> str:
    """A whole SVG document of parts; `title` is what a screen reader says."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_n(width)}" height="{_n(height)}" '
        f'viewBox="0 0 {_n(width)} {_n(height)}" role="img"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style>"
        '<defs><pattern id="waits" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        '<rect class="pause" width="6" height="6" opacity="0.35"/><rect class="pause" width="3" height="6"/>'
        "</pattern></defs>"
        f'<rect class="ground" width="{_n(width)}" height="{_n(height)}" rx="6"/>{"".join(parts)}</svg>'
    )


def text(
    x: float, y: float, told: str, style: str = "ink", *, anchor: str = "start", size: float = 12, room: float = 0
) -> str:
    """Text at its base line; with `room`, cut to about so many pixels, the whole of it in a tooltip."""
    told = flat(told)
    shown = cut(told, room, size) if room else told
    tip = f"<title>{escape(told)}</title>" if shown != told else ""
    attributes = f'x="{_n(x)}" y="{_n(y)}" font-size="{_n(size)}"'
    if anchor != "start":
        attributes += f' text-anchor="{anchor}"'
    return f'<text class="{style}" {attributes}>{escape(shown)}{tip}</text>'


def bar(x: float, y: float, width: float, height: float, style: str, tip: str = "") -> str:
    """A bar, never thinner than can be seen."""
    fill = ' fill="url(#waits)"' if style == "waits" else f' class="{style}"'
    box = f'x="{_n(x)}" y="{_n(y)}" width="{_n(max(width, MIN_BAR))}" height="{_n(height)}" rx="2"'
    if not tip:
        return f"<rect{fill} {box}/>"
    return f"<rect{fill} {box}><title>{escape(flat(tip))}</title></rect>"


def line(x1: float, y1: float, x2: float, y2: float, style: str = "rule") -> str:
    return f'<path class="{style}" d="M{_n(x1)} {_n(y1)}L{_n(x2)} {_n(y2)}"/>'


def diamond(x: float, y: float, style: str, tip: str, radius: float = 6) -> str:
    """A mark for a moment."""
    r = _n(radius)
    return (
        f'<path class="{style}" d="M{_n(x)} {_n(y - radius)}l{r} {r}l-{r} {r}l-{r} -{r}z">'
        f"<title>{escape(flat(tip))}</title></path>"
    )


MIN_BAR = 3.0
"""Pixels."""
CHARACTER = 0.52
"""Width of an average character, in font sizes. Nothing here can measure text, so it is a cautious guess."""


def cut(told: str, room: float, size: float) -> str:
    """As much of a text as finds room; characters of East Asian width count twice."""
    left = room / (size * CHARACTER)
    for index, character in enumerate(told):
        left -= 1 if ord(character) < 0x1100 else 2
        if left < 0:
            return told[: max(index - 1, 1)].rstrip() + "…"
    return told


def flat(told: str) -> str:
    """Text on one line."""
    return " ".join(told.split())


def escape(told: str) -> str:
    """Text that is only text in XML, whatever it was."""
    return html.escape(_NOT_XML.sub("\ufffd", clean(told)))


def _n(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")


def _rules(colours: dict[str, str]) -> str:
    fills = "".join(f".{name}{{fill:{value}}}" for name, value in colours.items() if name != "line")
    curves = "".join(f".curve-{name}{{stroke:{colours[name]}}}" for name in ("ink", "dim", "bad"))
    return f"{fills}{curves}.rule{{stroke:{colours['line']}}}.path{{stroke:{colours['dim']}}}"


_STYLE = (
    "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif}"
    ".curve{fill:none;stroke-width:1.5}.rule,.path{fill:none;stroke-width:1}.path{stroke-dasharray:3 3}"
    f"{_rules(LIGHT)}@media (prefers-color-scheme:dark){{{_rules(DARK)}}}"
)
