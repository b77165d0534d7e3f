"""The pages as data: title, category, sections.

A page of an error or a situation has the sections of `SECTIONS`, each once and in this order; a test says what is
missing. `Provoke it` and `Afterwards` hold command lines that a test runs.
"""

from __future__ import annotations

import functools
import importlib.resources
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from tundra_nb import errors
from tundra_nb.errors import TundraError

SECTIONS = (
    "As seen",
    "Symptoms",
    "Causes",
    "Remedies",
    "Prevention",
    "Handling",
    "Provoke it",
    "Afterwards",
    "In the history",
)
CATEGORIES = (
    "providers",
    "limits and breakers",
    "terminals",
    "history",
    "transport",
    "configuration",
    "use",
    "security",
    "agents",
    "git",
    "integrations",
)
"""In the order in which they are listed; the last three are of the original alone."""
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CASE = re.compile(r"Where it says `[^`]+`(?: or `[^`]+`)*: ")
"""How a remedy begins that is for some of the causes only."""
COMMAND = re.compile(r"(?<![\w/`])`(%{0,2}tundra(?: [^`]*)?)`")

Kind = Literal["error", "situation", "section"]
TROUBLESHOOTING = (
    "checklist",
    "llm-errors",
    "terminals",
    "websocket",
    "database",
    "limits-and-breakers",
    "logging",
)
"""The sections of the troubleshooting guide beside the error index, in order."""


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """One page of an error or a situation."""

    name: str
    """Its file without `.md`: the class of the error, or the situation in kebab-case."""
    kind: Kind
    title: str
    category: str
    intro: str
    sections: dict[str, str]
    text: str
    """All of it, Markdown."""

    @property
    def code(self) -> str:
        """The code of its error; empty for a situation."""
        return self.title.partition(": ")[0] if self.kind == "error" else ""

    @property
    def severity(self) -> str:
        found = re.search(r"[Ss]everity (?:\| )?(\w+)", self.sections.get("Handling", ""))
        return found.group(1) if found else ""

    @property
    def remedies(self) -> list[str]:
        """The remedies in order, Markdown, without their numbers."""
        found = re.split(r"^\d+\. +", self.sections.get("Remedies", ""), flags=re.MULTILINE)
        return [" ".join(part.split()) for part in found if part.strip()]

    def remedies_for(self, message: str) -> list[str]:
        """The remedies of an error whose message is known: those of its case first, without those of other cases.

        An error of one class has several causes. A remedy of one of them begins with `Where it says` and the words of
        the message that tell it.
        """
        found: list[tuple[bool, str]] = []
        for remedy in self.remedies:
            case = CASE.match(remedy)
            if case is None:
                found.append((False, remedy))
            elif any(words in message for words in re.findall(r"`([^`]+)`", case[0])):
                found.append((True, remedy[case.end() :]))
        return [remedy for _, remedy in sorted(found, key=lambda one: not one[0])]

    def case_of(self, message: str) -> str:
        """The words of a message that tell which of the causes it was; empty where no remedy is for it alone."""
        cases = (CASE.match(remedy) for remedy in self.remedies)
        words = (words for case in cases if case for words in re.findall(r"`([^`]+)`", case[0]))
        return next((one for one in words if one in message), "")

    @property
    def seen(self) -> str:
        """The first line of the message as a person sees it."""
        blocks = self.blocks("As seen")
        return blocks[0].strip().splitlines()[0].strip() if blocks else ""

    def blocks(self, section: str) -> list[str]:
        """The fenced blocks of a section."""
        return [body for _, body in FENCE.findall(self.sections.get(section, "") + "\n")]


def folder() -> Path:
    """Where the pages are."""
    return Path(str(importlib.resources.files("tundra_nb.guide")))


@functools.cache
def every_page() -> dict[str, Page]:
    """All pages of errors and situations, by name."""
    found = {}
    for kind, place in (("error", "errors"), ("situation", "situations")):
        for file in sorted((folder() / place).glob("*.md")):
            if file.stem != "index":
                found[file.stem] = read(file.stem, kind, file.read_text(encoding="utf-8"))  # type: ignore[arg-type]
    return found


@functools.cache
def sections() -> dict[str, Page]:
    """The pages for reading, by name: the troubleshooting guide in its order, then the others."""
    files = {file.stem: file for file in sorted(folder().glob("*.md"))}
    order = [name for name in ("troubleshooting", *TROUBLESHOOTING) if name in files]
    names = [*order, *(name for name in files if name not in order)]
    return {name: read(name, "section", files[name].read_text(encoding="utf-8")) for name in names}


def read(name: str, kind: Kind, text: str) -> Page:
    """A page from its Markdown; sections that are missing are missing in it."""
    head, *parts = re.split(r"^## +", text, flags=re.MULTILINE)
    title, _, rest = head.partition("\n")
    category = re.search(r"^Category: (.+)$", rest, re.MULTILINE)
    sections = {}
    for part in parts:
        heading, _, body = part.partition("\n")
        sections[heading.strip()] = body.strip()
    return Page(
        name=name,
        kind=kind,
        title=title.removeprefix("# ").strip(),
        category=category.group(1).strip() if category else "",
        intro=re.sub(r"^Category: .+$", "", rest, flags=re.MULTILINE).strip(),
        sections=sections,
        text=text,
    )


def of_class(cls: type[TundraError]) -> Page | None:
    """The page of an error class, or of the nearest class above it that has one."""
    for above in cls.__mro__:
        if page := every_page().get(above.__name__):
            return page
    return None


@functools.cache
def classes() -> dict[str, type[TundraError]]:
    """Every error class by its name, without those that only group others."""
    return {cls.__name__: cls for cls in errors.every_error() if "code" in _inherited(cls)}


def _inherited(cls: type[TundraError]) -> set[str]:
    """What a class or one above it, but not the root, defines: the root's own code means nothing."""
    return {name for above in cls.__mro__ if above is not TundraError for name in vars(above)} & {"code"}


def handling(cls: type[TundraError]) -> str:
    """The section `Handling`, from the class."""

    def yes(flag: bool) -> str:
        return "yes" if flag else "no"

    return "\n".join(
        [
            "| | |",
            "|---|---|",
            f"| severity | {cls.severity} |",
            f"| repeated on the same profile | {yes(cls.retryable)} |",
            f"| next profile is asked | {yes(cls.fails_over)} |",
            f"| counts for the breaker | {yes(cls.trips_breaker)} |",
            f"| parks the profile | {yes(cls.parks)} |",
            f"| HTTP status | {cls.http_status} |",
        ]
    )


def commands(text: str) -> Iterator[str]:
    """Every command that a text names in backticks or in a fenced block, without `%`."""
    for _, body in FENCE.findall(text):
        for line in body.splitlines():
            if line.strip().startswith(("tundra ", "%tundra ", "%%tundra ", "$ tundra ")):
                yield line.strip().removeprefix("$ ").lstrip("%")
    for found in COMMAND.findall(FENCE.sub("", text)):
        yield found.lstrip("%")
