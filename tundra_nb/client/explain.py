"""`t.explain`: what an error code means, what to do, and what happened here."""

from __future__ import annotations

import importlib.resources
import inspect
import re
from typing import Any

import msgspec

from tundra_nb.errors import TundraError, UsageError, every_error
from tundra_nb.nearest import nearest

from . import api
from .call import Flow

RECENT = 5
"""Rows of the history that are shown beside an explanation."""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one error code."""

    code: str
    severity: str
    http_status: int
    retryable: bool
    fails_over: bool
    trips_breaker: bool
    parks: bool
    summary: str
    """What it means, in a sentence or two."""
    page: str
    """The guide's section on it, Markdown; empty when there is none."""
    here: list[dict[str, Any]]
    """The latest errors of this code in the history."""
    count: int
    """How many there were within the last 24 h."""

    def __str__(self) -> str:
        return f"{self.code}: {self.summary}"


def codes() -> dict[str, type[TundraError]]:
    """Every code that can reach a user, by name; the first class that carries it stands for it."""
    found: dict[str, type[TundraError]] = {}
    for cls in every_error():
        if "code" in vars(cls) and cls is not TundraError:
            found.setdefault(cls.code, cls)
    return dict(sorted(found.items()))


def explain(code: str = "last") -> Flow[Explanation]:
    """What an error code means, what to do, and what happened here.

    Args:
        code: a code, the end of one (`Open`), the name of an error class, or `last` for the latest error here.

    Raises:
        UsageError: no such code; names the nearest. Or there was no error yet.
    """
    wanted = code
    if code == "last":
        latest = yield api.errors(since="all", limit=1)
        if not len(latest):
            raise UsageError(
                problem="no error has been recorded yet", field="code", remedy=f"Codes: {', '.join(codes())}."
            )
        wanted = str(latest["code"].iloc[-1])
    cls = find(wanted)
    recent = yield api.errors(code=cls.code)
    rows = recent.tail(RECENT)[["at", "severity", "profile", "message"]].to_dict("records")
    return Explanation(
        code=cls.code,
        severity=cls.severity,
        http_status=cls.http_status,
        retryable=cls.retryable,
        fails_over=cls.fails_over,
        trips_breaker=cls.trips_breaker,
        parks=cls.parks,
        summary=" ".join((inspect.getdoc(cls) or cls.code).replace("`", "").split()),
        page=page(cls.guide, cls.code),
        here=[{str(name): value for name, value in row.items()} for row in rows],
        count=len(recent),
    )


def find(word: str) -> type[TundraError]:
    """The error class of a code, the end of a code, or a class name, in any case."""
    known = codes()
    lower = word.lower()
    for name, cls in known.items():
        if lower in (name.lower(), name.lower().rpartition("::")[2]):
            return cls
    for cls in every_error():
        if cls.__name__.lower() == lower and cls is not TundraError:
            return cls
    close = nearest(lower, [name.lower() for name in known])
    raise UsageError(
        problem=f"no error code {word!r}",
        field="code",
        nearest=next((name for name in known if name.lower() == close), None),
        remedy=f"Codes: {', '.join(known)}.",
    )


def page(family: str, code: str) -> str:
    """The guide's section on a code, Markdown, from the page of its family; empty when there is none."""
    file = importlib.resources.files("tundra_nb") / "guide" / "errors" / f"{family}.md"
    if not file.is_file():
        return ""
    sections = re.split(r"^## +", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    for section in sections[1:]:
        heading, _, body = section.partition("\n")
        if heading.strip() == code:
            return body.strip()
    return ""
