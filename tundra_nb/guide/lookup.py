"""What a word, or a line of a log, means: pages and rows of the index.

Strict about what it means, lenient about how it is spelled: case, separators and one or two wrong letters do not
matter; a line is searched for the names and the messages that we and the original write.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterable

import msgspec

from . import originals, pages
from .originals import Variant
from .pages import Page

CLOSE = 0.72
"""Similarity above which a misspelt name is taken for the one that is meant."""
NEAR = 0.45
"""Similarity above which a name is offered."""
OFFERED = 3
MIN_WORDS = 3
"""A text of fewer words is a name, not a line of a log."""
MIN_PHRASE = 10
"""Shorter phrases of a message would be found in any line."""


class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """What was found: pages, best first, and rows of the original's index. Both empty: nothing, and `nearest`."""

    asked: str
    pages: tuple[Page, ...] = ()
    originals: tuple[Variant, ...] = ()
    nearest: tuple[str, ...] = ()
    is_guess: bool = False
    """The name was misspelt, or taken from a line."""


def find(text: str) -> Topic:
    """What a code, a class, an enum, a variant, a situation or a pasted line means."""
    asked = text.strip()
    if len(asked.split()) >= MIN_WORDS:
        by_name = _by_name(asked.replace(" ", "-"))
        return by_name or _in_line(asked) or Topic(asked=asked, nearest=_nearest(asked))
    if found := _by_name(asked):
        return found
    if found := _in_line(asked):
        return found
    names = _names()
    close = difflib.get_close_matches(_plain(asked), names, n=1, cutoff=CLOSE)
    if close and (found := _by_name(names[close[0]])):
        return msgspec.structs.replace(found, asked=asked, is_guess=True)
    return Topic(asked=asked, nearest=_nearest(asked))


def for_error(code: str, reason: str | None = None, message: str = "") -> Page | None:
    """The page of an error in the history: classes that share a code are told apart by their reason, else their words.

    Args:
        code: of the error.
        reason: of the error, where its row has one.
        message: of the error, for rows that have no reason, as those of calls.
    """
    known = pages.classes()
    if reason:
        for name in known:
            if _snake(name) == reason and known[name].code == code:
                return pages.every_page().get(name)
    if message and (page := _by_words(code, message)):
        return page
    for cls in known.values():
        if cls.code == code:
            return pages.of_class(cls)
    return None


def _by_words(code: str, message: str) -> Page | None:
    """The page of this code whose words stand in a message; the longest decide."""
    line = " ".join(f"{code}: {message}".lower().split())
    bare = code.lower()
    found = [(len(words), page) for words, page in _phrases() if page.code == code and words != bare and words in line]
    return max(found, key=lambda one: one[0])[1] if found else None


def _by_name(asked: str) -> Topic | None:
    plain = _plain(asked)
    found = [page for page in pages.every_page().values() if plain in _spellings(page)]
    rows = originals.find(asked)
    if not rows and not found and "::" not in asked:
        rows = tuple(v for v in originals.variants() if _plain(v.name) == plain)
    if not found:  # where it is a name of both, ours is meant
        found = _pages_of(rows)
    return Topic(asked=asked, pages=tuple(found), originals=rows) if found or rows else None


def _pages_of(rows: Iterable[Variant]) -> list[Page]:
    known = pages.every_page()
    return [known[name] for name in dict.fromkeys(row.here for row in rows) if name in known]


def _in_line(line: str) -> Topic | None:
    """The names in a line, else the longest phrase of a message in it."""
    rows: list[Variant] = []
    found: list[Page] = []
    for word in re.findall(r"[A-Za-z][\w:]*[A-Za-z]", line):
        if "::" not in word and not re.search(r"[a-z][A-Z]", word):
            continue  # an ordinary word: `Timeout` in a sentence is no name
        if topic := _by_name(word) or _by_name("::".join(word.split("::")[-2:])):
            found += [page for page in topic.pages if page not in found]
            rows += [row for row in topic.originals if row not in rows]
    if not found and not rows:
        lowered = " ".join(line.lower().split())
        scored = [(len(phrase), page) for phrase, page in _phrases() if phrase in lowered]
        best = max((score for score, _ in scored), default=0)
        for score, page in scored:
            if score == best and page not in found:
                found.append(page)
    return Topic(asked=line, pages=tuple(found), originals=tuple(rows), is_guess=True) if found or rows else None


@functools.cache
def _phrases() -> tuple[tuple[str, Page], ...]:
    """What is said in the messages of each page, in lower case, without what changes from case to case.

    Lines of a block that are no message of ours are what other programs say of the same trouble.
    """
    found = []
    for page in pages.every_page().values():
        for block in page.blocks("As seen"):
            for line in block.splitlines():
                told = line.strip()
                if told.startswith(("→", "%tundra", "$")):
                    continue
                for phrase in re.split(r"\{[^}]*\}|\d+(?:\.\d+)?|…|'[^']*'", told):
                    lowered = " ".join(phrase.lower().strip(" :;,.()/").split())
                    if len(lowered) >= MIN_PHRASE:
                        found.append((lowered, page))
    return tuple(found)


@functools.cache
def _names() -> dict[str, str]:
    """Every name that can be asked for, by its plain spelling."""
    found: dict[str, str] = {}
    for page in pages.every_page().values():
        for name in (page.name, page.code):
            if name:
                found.setdefault(_plain(name), name)
    for variant in originals.variants():
        found.setdefault(_plain(variant.enum), variant.enum)
        found.setdefault(_plain(variant.path), variant.path)
        found.setdefault(_plain(variant.name), variant.name)
    return found


def _nearest(asked: str) -> tuple[str, ...]:
    names = _names()
    found = difflib.get_close_matches(_plain(asked), names, n=OFFERED, cutoff=NEAR)
    return tuple(names[name] for name in found)


def _spellings(page: Page) -> set[str]:
    found = {_plain(page.name)}
    if page.kind == "situation":
        return found | {_plain(page.title)}
    own = pages.classes().get(page.name)
    if own is not None and "code" in vars(own):
        found |= {_plain(page.code), _plain(page.code.rpartition("::")[2])}
    return found


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _snake(name: str) -> str:
    return "".join("_" + c.lower() if c.isupper() else c for c in name).lstrip("_")
