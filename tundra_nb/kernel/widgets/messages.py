"""What crosses between a widget's Python and its script. All text is set as text there, never as HTML.

Seconds that count down are as of the moment of sending: the script counts on by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import msgspec

from tundra_nb.client import times
from tundra_nb.views.comparison import Counts, Side


class ShownBucket(msgspec.Struct, frozen=True, kw_only=True):
    """The level of one bucket. Of ours `per_second` is known, of the provider's own `reset_s`."""

    resource: str
    remaining: float | None
    limit: float | None
    per_second: float | None = None
    waiting: int = 0
    penalised_s: float = 0.0
    reset_s: float | None = None


class ShownProfile(msgspec.Struct, frozen=True, kw_only=True):
    """One profile, what protects it, and what its provider says of its own limits."""

    name: str
    kind: str
    model: str
    state: str
    reason: str
    cooling_s: float | None
    breaker: str
    probe_s: float
    """Until the next probe of an open breaker."""
    failures: int
    ours: list[ShownBucket]
    theirs: list[ShownBucket]
    told: str = ""
    """What came of the button that was pressed last."""
    is_busy: bool = False
    """A button's work is under way."""
    is_drilled: bool = False
    """Faults may be injected into it, on purpose."""


class Shared(msgspec.Struct, frozen=True, kw_only=True):
    """The buckets of a tier above the profiles."""

    name: str
    buckets: list[ShownBucket]


class Providers(msgspec.Struct, frozen=True, kw_only=True, tag="providers"):
    """The whole state of the provider widget, sent at each change."""

    profiles: list[ShownProfile]
    shared: list[Shared]
    problem: str = ""
    """Why there is nothing newer; the rest is then the last that was known."""
    kinds: list[tuple[str, str]] = []
    """Faults that can be injected: name and what they do."""


class ViewOpened(msgspec.Struct, frozen=True, kw_only=True, tag="opened"):
    """The script says: a view of the widget is on a page."""

    view: str


class ViewClosed(msgspec.Struct, frozen=True, kw_only=True, tag="closed"):
    """The script says: that view is no longer."""

    view: str


FromScript = ViewOpened | ViewClosed


class Pressed(msgspec.Struct, frozen=True, kw_only=True, tag="pressed"):
    """A button of the provider widget was pressed."""

    action: Literal["test", "recheck", "reset", "park", "inject", "end"]
    profile: str
    fault: str = ""
    """Which, to inject."""


FromProviders = ViewOpened | ViewClosed | Pressed


class Terminal(msgspec.Struct, frozen=True, kw_only=True, tag="terminal"):
    """The whole state of the terminal widget, sent at each change."""

    lines: list[list[tuple[str, str]]]
    """Rows of the screen: texts with their CSS."""
    columns: int
    rows: int
    title: str
    state: str
    """running, or how it ended."""
    is_open: bool
    above: list[list[tuple[str, str]]]
    """What has left the screen, when it was asked for."""
    is_application: bool = False
    """The program wants application keys: arrows are other sequences."""
    is_bracketed: bool = False
    """The program wants to know what is pasted."""
    is_secret: bool = False
    """The program does not show what is typed: a password."""
    problem: str = ""
    """Why what was typed did not arrive, or why there is nothing newer."""


class Scrolled(msgspec.Struct, frozen=True, kw_only=True, tag="scrolled"):
    """The script asks: show what has left the screen, or no longer."""

    is_on: bool


class KeysTyped(msgspec.Struct, frozen=True, kw_only=True, tag="typed"):
    """The script sends keys for the program."""

    text: str


class Heard(msgspec.Struct, frozen=True, tag="heard"):
    """To the script: what it typed last is with the program; the next may come."""


class Resized(msgspec.Struct, frozen=True, kw_only=True, tag="resized"):
    """The script says: another size of the screen."""

    columns: int
    rows: int


class Killed(msgspec.Struct, frozen=True, tag="killed"):
    """The script asks: end the terminal with everything in it."""


FromTerminal = ViewOpened | ViewClosed | KeysTyped | Scrolled | Resized | Killed


class GatewayState(msgspec.Struct, frozen=True, kw_only=True, tag="gateway"):
    """The whole state of the gateway's widget, sent at each change."""

    url: str
    """Empty while it does not listen."""
    callers: list[list[str]]
    """For each program: who, client, form, calls, under way, failed, when last."""
    problem: str = ""
    """Why there is nothing newer, or why it does not listen."""


class VersionsAsked(msgspec.Struct, frozen=True, kw_only=True, tag="asked"):
    """What the versions widget is to show, as its script asks."""

    id: str
    """By which the script knows the answer."""
    a: str
    """Commit, branch, tag or time."""
    b: str
    """The same, or `now`."""
    table: str = ""
    """Whose rows; of the first that differs when it is left out, or does not differ."""
    at: str = ""
    """Branch whose commits are listed."""
    limit: int
    """Commits in the list."""


class ShownCommit(msgspec.Struct, frozen=True, kw_only=True):
    """A commit of the list."""

    commit: str
    at: str
    author: str
    message: str
    names: list[str]
    """Branches and tags that stand on it."""


class VersionsState(msgspec.Struct, frozen=True, kw_only=True, tag="versions"):
    """The whole state of the versions widget, sent at each change."""

    asked: VersionsAsked
    """What this answers."""
    is_busy: bool = False
    """The answer is under way; the rest is then the last one."""
    commits: list[ShownCommit] = []
    has_older: bool = False
    branches: list[str] = []
    tags: list[str] = []
    a: Side = Side()
    b: Side = Side()
    tables: Sequence[Counts] = ()
    table: str = ""
    rows: list[list[tuple[str, str]]] = []
    """Cells of the table's rows (sign, row, change): their text and tone."""
    more: int = 0
    """Rows that are not among them."""
    command: str = ""
    """Gives the same as a frame."""
    problem: str = ""


FromVersions = ViewOpened | ViewClosed | VersionsAsked


class ModuleAsked(msgspec.Struct, frozen=True, tag="module"):
    """The loader of the dashboard asks for its script."""


class Picked(msgspec.Struct, frozen=True, kw_only=True, tag="picked"):
    """The dashboard says: a stretch of time was selected, or none any more; with the filters that are on."""

    since: float | None = None
    """Seconds since 1970."""
    until: float | None = None
    profiles: list[str] = []
    """Only these; all when empty."""
    code: str = ""
    caller: str = ""


class Zoomed(msgspec.Struct, frozen=True, kw_only=True, tag="zoomed"):
    """The dashboard says: closer than its groups are; the rows of this stretch are wanted."""

    since: float
    until: float


class WhyAsked(msgspec.Struct, frozen=True, kw_only=True, tag="why"):
    """The dashboard asks: why a call went as it did."""

    id: str


FromDash = ViewOpened | ViewClosed | ModuleAsked | Picked | Zoomed | WhyAsked


def providers(
    status: Mapping[str, Any],
    told: Mapping[str, str] | None = None,
    busy: Collection[str] = (),
    kinds: Sequence[tuple[str, str]] = (),
) -> Providers:
    """The message that tells a status.

    Args:
        status: of the daemon.
        told: by profile, what came of the button that was pressed last.
        busy: profiles whose button's work is under way.
        kinds: faults that can be injected.
    """
    breakers = {row["profile"]: row for row in status.get("breakers") or ()}
    limits: Sequence[Mapping[str, Any]] = status.get("limits") or ()

    def buckets(owner: Literal["tundra", "provider"], tier: str, key: str) -> list[ShownBucket]:
        return [
            _bucket(row)
            for row in limits
            if (row.get("owner"), row.get("tier"), row.get("limit_key")) == (owner, tier, key)
        ]

    drills = {str(drill["profile"]) for drill in status.get("faults") or ()}
    profiles = []
    for row in status.get("profiles") or ():
        name = str(row["profile"])
        breaker = breakers.get(name) or {}
        profiles.append(
            ShownProfile(
                name=name,
                kind=str(row.get("kind") or ""),
                model=str(row.get("model") or ""),
                state=str(row.get("state") or ""),
                reason=times.in_text(str(row.get("reason") or "")),
                cooling_s=_rounded(row.get("cooling_s")),
                breaker=str(breaker.get("state") or "closed"),
                probe_s=_rounded(breaker.get("open_for_s")) or 0.0,
                failures=int(breaker.get("failures") or 0),
                ours=buckets("tundra", "profile", name),
                theirs=buckets("provider", "profile", name),
                told=(told or {}).get(name, ""),
                is_busy=name in busy,
                is_drilled=name in drills,
            )
        )
    tiers = dict.fromkeys(
        (str(row["tier"]), str(row["limit_key"]))
        for row in limits
        if row.get("owner") == "tundra" and row.get("tier") != "profile"
    )
    shared = [
        Shared(name=tier if key == tier else f"{tier} {key}", buckets=buckets("tundra", tier, key))
        for tier, key in tiers
    ]
    return Providers(profiles=profiles, shared=shared, kinds=list(kinds))


def _bucket(row: Mapping[str, Any]) -> ShownBucket:
    return ShownBucket(
        resource=str(row.get("resource")),
        remaining=_rounded(row.get("remaining")),
        limit=row.get("limit"),
        per_second=row.get("per_second"),
        waiting=int(row.get("waiting") or 0),
        penalised_s=_rounded(row.get("penalised_for_s")) or 0.0,
        reset_s=_rounded(row.get("reset_after_s")),
    )


def _rounded(value: Any) -> float | None:
    """One digit is all that is shown; more would make each look a change."""
    return None if value is None else round(float(value), 1)
