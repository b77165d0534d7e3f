"""The providers at one moment: profiles, breakers, and the levels of our buckets beside the provider's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tundra_nb.client import times

from .blocks import Block, Cell, Heading, Para, Styled, Table, duration, number
from .frame import TONES

BAR = 8
"""Characters of a level."""


def blocks(status: Mapping[str, Any], at: str, problem: str = "") -> Sequence[Block]:
    """The picture.

    Args:
        status: of the daemon; its `profiles`, `breakers` and `limits` are shown.
        at: when that was, for people.
        problem: why there is nothing newer.
    """
    made: list[Block] = [Heading(f"providers at {at}")]
    if problem:
        made.append(Para(Styled(f"nothing newer: {problem}", "warn")))
    breakers = {row["profile"]: row for row in status.get("breakers") or ()}
    limits: Sequence[Mapping[str, Any]] = status.get("limits") or ()
    rows: list[list[Cell]] = []
    for row in status.get("profiles") or ():
        name = str(row["profile"])
        state = str(row["state"])
        told = f"{state} until {times.clock(row['cooling_until'])}" if row.get("cooling_until") else state
        rows.append(
            [
                Styled(name, "strong"),
                str(row.get("model") or row.get("kind") or ""),
                Styled(told, TONES.get(state)),
                _breaker(breakers.get(name) or {}),
                _levels(limits, "tundra", name),
                _levels(limits, "provider", name),
            ]
        )
    if rows:
        head = ["profile", "model", "state", "breaker", "our buckets", "the provider's own"]
        if not any(row[-1] for row in rows):
            head, rows = head[:-1], [row[:-1] for row in rows]
        made.append(Table(head, rows))
    elif not problem:
        made.append(Para("no profile yet: `%tundra status` tells how to make one"))
    shared = [
        [f"{row['tier']} {row['limit_key'] if row['limit_key'] != row['tier'] else ''}".strip(), _level(row)]
        for row in limits
        if row.get("owner") == "tundra" and row.get("tier") != "profile"
    ]
    if shared:
        made.append(Table(["shared by all", "level"], shared))
    return made


def _breaker(row: Mapping[str, Any]) -> Cell:
    state = str(row.get("state") or "closed")
    told = f"{state}, probe at {times.clock(row['probe_at'])}" if row.get("probe_at") else state
    if row.get("failures"):
        told += f", {row['failures']} failure{'s' if row['failures'] != 1 else ''}"
    return Styled(told, TONES.get(state))


def _levels(limits: Sequence[Mapping[str, Any]], owner: str, profile: str) -> str:
    return "\n".join(
        _level(row)
        for row in limits
        if (row.get("owner"), row.get("tier"), row.get("limit_key")) == (owner, "profile", profile)
    )


def _level(row: Mapping[str, Any]) -> str:
    remaining, limit = row.get("remaining"), row.get("limit")
    told = f"{row.get('resource')} {number(remaining)}"
    if limit:
        full = round(BAR * min(max((remaining or 0.0) / limit, 0.0), 1.0))
        told = f"{'▰' * full}{'▱' * (BAR - full)} {told} of {number(limit)}"
    if row.get("reset_after_s"):
        told += f", full in {duration(row['reset_after_s'])}"
    return told
