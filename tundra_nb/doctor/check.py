"""What a check is, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from .place import Subject

State = Literal["ok", "warn", "fail", "skipped"]
Group = Literal["configuration", "authentication", "network", "database", "processes", "performance"]
SYMPTOMS: tuple[str, ...] = (
    "network",
    "database",
    "performance",
    "processes",
    "authentication",
    "configuration",
    "everything",
)


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a checkup."""

    id: str
    group: Group
    title: str
    state: State
    evidence: str = ""
    remedy: str = ""
    """What to do, Markdown; empty where all is well."""
    page: str = ""
    """Page of the guide."""
    seconds: float = 0.0
    fix: str = ""
    """Name of the fix that carries the remedy out; empty where a person must."""


class Checkup(msgspec.Struct, frozen=True, kw_only=True):
    """What all checks found."""

    ok: bool
    """No check fails; warnings are no failures."""
    checks: list[Finding]
    seconds: float
    symptom: str = "everything"
    fixed: list[str] = []
    """What `--fix` has done before this was found."""

    def __repr__(self) -> str:
        counts = {state: sum(c.state == state for c in self.checks) for state in ("ok", "warn", "fail", "skipped")}
        told = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        return f"<checkup: {told}>"


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One check: what it looks at, and the function that looks."""

    id: str
    group: Group
    title: str
    look: Callable[[Subject, Check], Sequence[Finding]]
    also: tuple[Group, ...] = ()
    """Further symptoms it answers."""
    deadline: float = 5.0
    """Seconds after which it is given up."""

    def found(
        self,
        state: State,
        evidence: str = "",
        remedy: str = "",
        *,
        page: str = "",
        fix: str = "",
        part: str = "",
        title: str = "",
        group: Group | None = None,
    ) -> Finding:
        """A line of this check; `part` tells several lines of one check apart."""
        return Finding(
            id=f"{self.id}.{part}" if part else self.id,
            group=group or self.group,
            title=title or self.title,
            state=state,
            evidence=evidence,
            remedy=remedy,
            page=page,
            fix=fix,
        )


def size(count: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
