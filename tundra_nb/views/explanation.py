"""What an error means and what happened here; and the list of everything that can be explained."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from tundra_nb.client import times
from tundra_nb.client.explain import Contents, Evidence, Explanation
from tundra_nb.errors.spelling import inside
from tundra_nb.guide.originals import Variant
from tundra_nb.guide.pages import CATEGORIES, Page

from . import svg
from .blocks import Block, Cell, Facts, Heading, Para, Picture, Prose, Styled, Table, Tone

TONES: dict[str, Tone] = {"critical": "bad", "high": "bad", "medium": "warn", "low": "dim", "info": "dim"}
BAR_WIDTH, BAR_ROOM = 16.0, 40.0
SENTENCE_ROOM = 32.0
"""About 57 characters: a line of a terminal holds name, severity and this."""
SHOWN = ("Causes", "Remedies", "Prevention", "In the history")
"""Sections of a page that stand beside the evidence; `guide` shows all."""


def blocks(told: Explanation) -> Sequence[Block]:
    """What happened here, what to do now, and the page."""
    made: list[Block] = [Heading(told.title)]
    if told.kind == "original":
        return [*made, _originals(told.originals), *_next(told)]
    if told.is_guess:
        made.append(Para(Styled(f"taken for {told.name}", "dim")))
    made.append(Para(told.summary))
    made.append(Facts(list(_facts(told))))
    made += _evidence(told.evidence)
    made += _next(told)
    sections = _sections(told.page)
    told_of = "\n\n".join(f"**{name}**\n\n{sections[name]}" for name in SHOWN if name in sections)
    made.append(Prose(inside(told_of, told.evidence.source or None)))
    if told.originals:
        made.append(_originals(told.originals))
    if told.others:
        made.append(Para(Styled(f"also meant: {', '.join(told.others)}", "dim")))
    made.append(Para(Styled(f"The whole page, with a way to provoke it: %tundra guide {told.name}", "dim")))
    return made


def contents(told: Contents) -> Sequence[Block]:
    """Everything that can be explained, by category and by name."""
    made: list[Block] = []
    if told.sections:
        rows: list[list[Cell]] = [[Styled(page.name, "strong"), page.title] for page in told.sections]
        made += [Heading("The guide"), Table(["section", "title"], rows)]
    made.append(Heading("What can be explained"))
    for category in CATEGORIES:
        found = [page for page in told.pages if page.category == category]
        rows = [[Styled(page.name, "strong"), _severity(page), _first(page)] for page in found]
        if rows:
            made.append(Table(["name", "severity", "what it is"], rows, title=category))
    by_enum: dict[str, list[str]] = {}
    for variant in told.originals:
        by_enum.setdefault(variant.enum, []).append(variant.name)
    rows = [[Styled(enum, "strong"), ", ".join(names)] for enum, names in sorted(by_enum.items())]
    made.append(Table(["enum", "variants"], rows, title="names of Auto-Tundra, by name"))
    made.append(Para("`%tundra explain NAME` shows one with what happened here; `%tundra explain last` the latest."))
    return made


def page(told: Page) -> Sequence[Block]:
    """A page as it is written."""
    return [Prose(told.text)]


def _facts(told: Explanation) -> Sequence[tuple[str, Cell]]:
    facts: list[tuple[str, Cell]] = [("severity", Styled(told.severity, TONES.get(told.severity)))]
    if told.retryable is not None:
        facts += [
            ("repeats", "the same profile may be asked again" if told.retryable else "never by itself"),
            ("fails over", "to the next profile" if told.fails_over else "no"),
            ("breaker", "counts as a failure" if told.trips_breaker else "does not count"),
            *([("parks", "the profile, until it is rechecked")] if told.parks else []),
            ("HTTP", str(told.http_status)),
        ]
    return facts


def _evidence(told: Evidence) -> list[Block]:
    if told.missing:
        return [Para(Styled(f"what happened here is not known: {told.missing}", "warn"))]
    made: list[Block] = []
    facts: list[tuple[str, Cell]] = [
        ("here", f"{told.count:,} {_where(told)}" if told.count else f"none {_where(told)}")
    ]
    if told.last_at is not None:
        facts.append(("last", times.local(told.last_at)))
    if told.profiles:
        facts.append(("profiles", ", ".join(told.profiles)))
    if told.ptys:
        facts.append(("terminals", ", ".join(told.ptys)))
    made.append(Facts(facts))
    if told.count:
        made.append(Picture(_hours(told.by_hour), f"{told.count} {_where(told)}, by hour"))
    if told.rows:
        head = [f"at ({times.zone()})", "profile", "message"]
        rows: list[list[Cell]] = []
        for _, same in itertools.groupby(told.rows, lambda row: (row["profile"], times.without(row["message"]))):
            *before, latest = same
            count = f" × {len(before) + 1}" if before else ""
            message = Styled(times.in_text(str(latest["message"])) + count, "bad")
            rows.append([times.local(latest["at"]), _name(latest["profile"]), message])
        if not any(profile for _, profile, _ in rows):
            head, rows = [head[0], head[2]], [[at, message] for at, _, message in rows]
        made.append(Table(head, rows, title="lately here", long=len(head) - 1, below=True))
    if told.failure is not None:
        last = told.failure
        made.append(Heading("the attempt that failed last"))
        made.append(
            Facts(
                [
                    ("profile", last.profile),
                    ("cause", Styled(times.in_text(f"{last.code}: {last.message}"), "bad")),
                    *([("remedy", last.remedy)] if last.remedy else []),
                ]
            )
        )
    if told.settings:
        rows = [[item.path, str(item.value), item.source] for item in told.settings]
        made.append(Table(["setting", "in force", "from"], rows, title="settings it depends on"))
    return made


def _next(told: Explanation) -> list[Block]:
    return [Heading("next"), Prose(told.next_step)] if told.next_step else []


def _originals(rows: Sequence[Variant]) -> Table:
    return Table(
        ["in Auto-Tundra", "severity", "what it was", "here", "where to look"],
        [
            [
                Styled(row.path, "strong"),
                Styled(row.severity, TONES.get(row.severity)),
                f"{row.means} ({row.crate}, {row.file})",
                row.here or "no counterpart",
                row.look.replace("`", ""),
            ]
            for row in rows
        ],
    )


def _where(told: Evidence) -> str:
    return f"in source {told.source}" if told.source else "within 24 h"


def _hours(counts: Sequence[int]) -> str:
    """One bar per hour, the newest at the right."""
    highest = max([1, *counts])
    width = len(counts) * BAR_WIDTH + 16
    parts = []
    for index, count in enumerate(counts):
        left = 8 + index * BAR_WIDTH
        if count:
            height = max(3.0, BAR_ROOM * count / highest)
            ago = len(counts) - index
            tip = f"{count} in the hour that began {ago} h ago"
            parts.append(svg.bar(left + 2, 8 + BAR_ROOM - height, BAR_WIDTH - 4, height, "bad", tip))
    parts.append(svg.line(8, 8 + BAR_ROOM, width - 8, 8 + BAR_ROOM))
    parts.append(svg.text(8, 22 + BAR_ROOM, f"{len(counts)} h ago", "dim", size=11))
    parts.append(
        svg.text(width - 8, 22 + BAR_ROOM, f"now · highest {highest} in an hour", "dim", anchor="end", size=11)
    )
    return svg.picture(width, 32 + BAR_ROOM, parts, title=f"{sum(counts)} within {len(counts)} h")


def _sections(text: str) -> dict[str, str]:
    from tundra_nb.guide.pages import read

    return read("", "error", text).sections


def _severity(page: Page) -> Cell:
    from tundra_nb.guide.pages import classes

    cls = classes().get(page.name)
    severity = cls.severity if cls else page.severity
    return Styled(severity, TONES.get(severity))


def _first(page: Page) -> str:
    sentence = " ".join(page.intro.partition("\n\n")[0].split()).partition(". ")[0]
    return svg.cut(sentence.replace("`", "").replace("**", "").partition(":")[0].rstrip("."), SENTENCE_ROOM, 1)


def _name(value: object) -> str:
    return value if isinstance(value, str) else ""
