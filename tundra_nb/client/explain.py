"""`t.explain` and `t.guide`: what an error means, what to do, and what happened here."""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import msgspec

from tundra_nb.errors import TundraError, UsageError
from tundra_nb.errors.spelling import inside
from tundra_nb.guide import lookup, originals, pages
from tundra_nb.guide.lookup import Topic
from tundra_nb.guide.originals import Variant
from tundra_nb.guide.pages import Page

from . import api
from .call import Call, Flow

if TYPE_CHECKING:
    import pandas as pd

    from .results import Why

RECENT = 5
"""Rows of the history that are shown beside an explanation."""
HOURS = 24
LOOK_BACK = 10_000
"""Rows that the last digits of an id are looked for in."""
LATEST = 50
"""Errors among which `last` is looked for."""
MIN_ID_DIGITS = 4


class LastFailure(msgspec.Struct, frozen=True, kw_only=True):
    """The attempt that failed last, which is the cause to begin with."""

    at: Any
    profile: str
    code: str
    message: str
    remedy: str


class SettingInForce(msgspec.Struct, frozen=True, kw_only=True):
    """A setting that this error depends on."""

    path: str
    value: Any
    source: str


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What this installation knows of an error."""

    count: int = 0
    """Errors and failed attempts of this kind within the last 24 h."""
    by_hour: list[int] = []
    """The same by hour; the last number is that of the hour before now."""
    last_at: Any = None
    profiles: list[str] = []
    ptys: list[str] = []
    rows: list[dict[str, Any]] = []
    """The latest, oldest first."""
    failure: LastFailure | None = None
    settings: list[SettingInForce] = []
    source: str = ""
    """In which source it was found: then it counts all of that, and its hours end with the latest error there."""
    missing: str = ""
    """Why there is no evidence, where the history cannot be asked."""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one error, or of one name of the original's."""

    code: str
    """Its code; for a situation or a name of the original's, that name."""
    title: str
    severity: str
    summary: str
    """What it means, in a sentence or two."""
    page: str
    """The whole page, Markdown; empty for a name of the original's that has no counterpart here."""
    name: str = ""
    """Name of the page."""
    kind: str = "error"
    """error, situation or original."""
    is_guess: bool = False
    http_status: int | None = None
    retryable: bool | None = None
    fails_over: bool | None = None
    trips_breaker: bool | None = None
    parks: bool | None = None
    remedies: list[str] = []
    originals: list[Variant] = []
    others: list[str] = []
    """Further pages that were meant."""
    evidence: Evidence = Evidence()
    next_step: str = ""

    @property
    def here(self) -> list[dict[str, Any]]:
        """The latest errors of this kind in the history."""
        return self.evidence.rows

    @property
    def count(self) -> int:
        """How many there were within the last 24 h."""
        return self.evidence.count

    def __str__(self) -> str:
        return f"{self.title}: {self.summary}"


class Contents(msgspec.Struct, frozen=True):
    """Everything that can be explained."""

    pages: list[Page]
    originals: list[Variant]
    sections: list[Page] = []


def codes() -> dict[str, type[TundraError]]:
    """Every code that can reach a user, by name; the first class that carries it stands for it."""
    found: dict[str, type[TundraError]] = {}
    for cls in pages.classes().values():
        if "code" in vars(cls):
            found.setdefault(cls.code, cls)
    return dict(sorted(found.items()))


def contents() -> Contents:
    """Everything that can be explained: our errors, situations, and the names of the original's."""
    return Contents(list(pages.every_page().values()), list(originals.variants()), list(pages.sections().values()))


def guide(topic: str | None = None) -> Contents | Page:
    """The page of an error or a situation as it is written; without a topic, everything there is.

    Args:
        topic: a code, a class, a situation, a section (`checklist`), a name of the original's, or a pasted line.

    Raises:
        UsageError: nothing is known of it; names the nearest.
    """
    if topic is None:
        return contents()
    if section := pages.sections().get(topic.strip().lower().replace(" ", "-")):
        return section
    found = find(topic)
    if is_family(found):
        return Contents(list(found.pages), list(found.originals))
    if not found.pages:
        row = found.originals[0]
        raise nothing(f"{row.path} has no counterpart here: {row.means}", remedy=f"Look here instead: {row.look}.")
    return found.pages[0]


def find(asked: str) -> Topic:
    """What a name or a pasted line means.

    Raises:
        UsageError: nothing is known of it; names the nearest.
    """
    found = lookup.find(asked)
    if not found.pages and not found.originals:
        raise nothing(f"nothing is known of {asked!r}", nearest=found.nearest[0] if found.nearest else None)
    return found


def is_family(found: Topic) -> bool:
    """Whether an enum of the original's was meant, whose variants are different things here."""
    return len(found.pages) > 1 and len({row.enum for row in found.originals}) == 1 < len(found.originals)


def nothing(problem: str, *, nearest: str | None = None, remedy: str = "") -> UsageError:
    return UsageError(
        problem=problem,
        field="code",
        nearest=nearest,
        remedy=remedy or "`%tundra explain` lists everything that can be explained.",
    )


def explain(code: str = "last", source: str | None = None) -> Flow[Explanation]:
    """What an error means, what to do, and what happened here.

    Args:
        code: a code or the end of one (`Open`), a class, an enum or variant of the original's
            (`LlmError::Timeout`), a situation (`disk-full`), `last` for the latest error here, the id of a call, an
            error or a terminal, or a line pasted from a log.
        source: what happened there instead: in what was imported under this name.

    Raises:
        UsageError: nothing is known of it (names the nearest), or nothing has happened yet.
    """
    row = yield from _row(code.strip(), source)
    if row is not None:
        page = lookup.for_error(str(row["code"]), _text(row.get("reason")) or None)
        found = Topic(asked=code, pages=(page,)) if page else find(str(row["code"]))
    else:
        found = find(code)
    if not found.pages or is_family(found):
        return _of_original(found)
    page = found.pages[0]
    evidence = yield from _evidence(page, row, source)
    cls = pages.classes().get(page.name)
    return Explanation(
        code=page.code or page.name,
        title=page.title,
        name=page.name,
        kind=page.kind,
        is_guess=found.is_guess,
        severity=cls.severity if cls else page.severity,
        http_status=cls.http_status if cls else None,
        retryable=cls.retryable if cls else None,
        fails_over=cls.fails_over if cls else None,
        trips_breaker=cls.trips_breaker if cls else None,
        parks=cls.parks if cls else None,
        summary=_plain(page.intro.partition("\n\n")[0]),
        page=page.text,
        remedies=[inside(remedy, source) for remedy in page.remedies],
        originals=list(found.originals),
        others=[other.name for other in found.pages[1:]],
        evidence=evidence,
        next_step=inside(_next_step(page, evidence, row), source),
    )


def remedy(code: str, reason: str | None = None, profile: str | None = None, message: str = "") -> str:
    """The first thing to do about an error of the history, Markdown; empty when nothing is known of it."""
    page = lookup.for_error(code, reason)
    return _first(page, message, profile) if page is not None else ""


def _first(page: Page, message: str, profile: str | None) -> str:
    first = next(iter(page.remedies_for(message)), "")
    return first.replace("NAME", profile) if profile else first


def _of_original(found: Topic) -> Explanation:
    row = found.originals[0]
    severities = ("critical", "high", "medium", "low", "info")
    told = "" if found.pages else "It has no counterpart here. "
    return Explanation(
        code=row.path if len(found.originals) == 1 else row.enum,
        title=row.path if len(found.originals) == 1 else row.enum,
        kind="original",
        is_guess=found.is_guess,
        severity=min((v.severity for v in found.originals), key=severities.index),
        summary=row.means,
        page="",
        originals=list(found.originals),
        next_step=f"{told}{row.look[0].upper()}{row.look[1:]}.",
    )


def _row(asked: str, source: str | None) -> Generator[Call[Any], Any, dict[str, Any] | None]:
    """The error that `last` or an id stands for, as a row with at least code and reason; None for anything else."""
    if asked == "last":
        latest = _records((yield api.errors(since="all", limit=LATEST, source=source)))
        if not latest:
            raise nothing("no error has been recorded yet")
        # a mistyped word takes nothing over: what it means was said at once
        return next((row for row in reversed(latest) if row.get("code") != "UsageError"), latest[-1])
    if not _is_id(asked):
        return None
    digits = asked.lstrip("-")
    recent: pd.DataFrame = yield api.errors(since="all", limit=LOOK_BACK, source=source)
    rows = _records(recent)
    for row in reversed(rows):
        ids = [_text(row.get(name)) for name in ("error_id", "operation_id")]
        if any(found.endswith(digits) for found in ids if asked.isdigit()) or _text(row.get("pty_id")) == asked:
            return dict(row)
    if not asked.lstrip("-").isdigit():
        return None
    try:
        why: Why = yield api.why(asked, source)
    except UsageError as error:
        raise nothing(f"nothing in the history has the id {asked}", remedy=error.hint) from error
    told = why["operation"]
    if not told.get("code"):
        raise nothing(
            f"call {why.operation_id} ended with the outcome {told.get('outcome')}: there is nothing to explain",
            remedy=inside(f"`%tundra why {why.operation_id}` shows what it did.", source),
        )
    failed = [attempt for attempt in why.get("attempts") or () if attempt.get("code") == told["code"]]
    return dict(told) | {"reason": failed[-1].get("reason") if failed else None}


def _is_id(asked: str) -> bool:
    return bool(re.fullmatch(rf"-\d+|\d{{{MIN_ID_DIGITS},}}|(?=.*\d)[a-z0-9]{{4,16}}", asked))


def _evidence(page: Page, row: dict[str, Any] | None, source: str | None) -> Generator[Call[Any], Any, Evidence]:
    """What this installation knows of it; the history may be away, and that is told."""
    cls = pages.classes().get(page.name)
    try:
        told = yield api.settings()
    except TundraError as error:
        return Evidence(missing=f"the daemon cannot be asked: {error}")
    in_force = _settings(page, _records(told))
    if cls is None:
        return Evidence(settings=in_force)
    try:
        errors = yield from _found(api.errors, cls.code, source)
        attempts = yield from _found(api.attempts, cls.code, source)
    except TundraError as error:
        return Evidence(settings=in_force, missing=f"the history cannot be asked: {error}")
    errors, attempts = (_of_page(frame, page) for frame in (errors, attempts))
    happened = errors if len(errors) >= len(attempts) else attempts
    rows = _records(errors if len(errors) else attempts)[-RECENT:]
    if row is not None and not rows:
        rows = [row]
    failure = yield from _failure(row or (rows[-1] if rows else None), source)
    return Evidence(
        count=len(happened),
        by_hour=_by_hour(happened, is_past=source is not None),
        source=source or "",
        last_at=rows[-1]["at"] if rows else None,
        profiles=_values(happened, "profile"),
        ptys=_values(errors, "pty_id"),
        rows=[
            {name: found.get(name) for name in ("at", "severity", "profile", "message", "operation_id")}
            for found in rows
        ],
        failure=failure,
        settings=in_force,
    )


def _found(read: Any, code: str, source: str | None) -> Generator[Call[Any], Any, pd.DataFrame]:
    """The rows with this code: of the last 24 h, or all of a source, which may know none of it."""
    try:
        found: pd.DataFrame = yield read(since="24h" if source is None else "all", code=code, source=source)
    except UsageError:
        if source is None:
            raise
        found = (yield read(since="all", limit=1, source=source)).iloc[:0]
    return found


def _failure(row: dict[str, Any] | None, source: str | None) -> Generator[Call[Any], Any, LastFailure | None]:
    """The failed attempt behind an error that a call ended with."""
    operation = _text(row.get("operation_id")) if row else ""
    if not operation:
        return None
    try:
        why: Why = yield api.why(operation, source)
    except TundraError:
        return None
    failed = [attempt for attempt in why.get("attempts") or () if attempt.get("code")]
    if not failed:
        return None
    last = failed[-1]
    profile = _text(last.get("profile"))
    return LastFailure(
        at=last.get("at"),
        profile=profile,
        code=str(last["code"]),
        message=_text(last.get("message")),
        remedy=inside(
            remedy(str(last["code"]), _text(last.get("reason")), profile, _text(last.get("message"))), source
        ),
    )


def _next_step(page: Page, evidence: Evidence, row: dict[str, Any] | None) -> str:
    """What to do now: the remedy of the last cause, else the first of the page."""
    if evidence.failure is not None and evidence.failure.code != page.code and evidence.failure.remedy:
        return evidence.failure.remedy
    profile = evidence.failure.profile if evidence.failure else (evidence.profiles or [""])[-1]
    latest = row or (evidence.rows[-1] if evidence.rows else {})
    return _first(page, evidence.failure.message if evidence.failure else _text(latest.get("message")), profile)


def _of_page(frame: pd.DataFrame, page: Page) -> pd.DataFrame:
    """The rows of this page's class, where several share the code."""
    shared = [name for name, cls in pages.classes().items() if cls.code == page.code]
    if len(shared) < 2 or "reason" not in frame:
        return frame
    mine = [
        (found.name if (found := lookup.for_error(page.code, _text(reason) or None)) else "") == page.name
        for reason in frame["reason"]
    ]
    return frame[mine]


def _settings(page: Page, rows: list[dict[str, Any]]) -> list[SettingInForce]:
    """The settings that a page names, with their values in force."""
    named = set(re.findall(r"`(?:%tundra settings set )?([a-z_]+(?:\.[a-z_]+)+)[`= ]", page.text))
    return [
        SettingInForce(path=str(row["path"]), value=row["value"], source=str(row["source"]))
        for row in rows
        if row["path"] in named
    ]


def _by_hour(frame: pd.DataFrame, *, is_past: bool) -> list[int]:
    """By hour before now; of a source before its latest."""
    import datetime as dt

    now = max(frame["at"]).to_pydatetime() if is_past and len(frame) else dt.datetime.now(dt.UTC)
    found = [0] * HOURS
    for at in frame["at"]:
        ago = int((now - at.to_pydatetime()).total_seconds() // 3600)
        if 0 <= ago < HOURS:
            found[HOURS - 1 - ago] += 1
    return found


def _values(frame: pd.DataFrame, column: str) -> list[str]:
    if column not in frame:
        return []
    return sorted({_text(value) for value in frame[column]} - {""})


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _text(value: Any) -> str:
    """A value of a frame as text; empty where it is missing."""
    if value is None or value != value:  # noqa: PLR0124 - NaN
        return ""
    text = str(value)
    return "" if text == "<NA>" else text


def _plain(text: str) -> str:
    """A paragraph of a page without its Markdown."""
    text = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", text)
    return " ".join(text.replace("`", "").replace("**", "").split())
