"""The errors of Auto-Tundra by name: what each meant, and what it is here."""

from __future__ import annotations

import functools
import tomllib

import msgspec

from . import pages


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """One variant of one enum of the original."""

    enum: str
    """As written; where two enums share a name, with the part before it: `github::OAuthError`."""
    name: str
    crate: str
    file: str
    category: str
    means: str
    severity: str
    here: str
    """Our page for the same trouble; empty when there is none."""
    look: str
    """Where to look here, Markdown."""

    @property
    def path(self) -> str:
        return f"{self.enum}::{self.name}"


@functools.cache
def variants() -> tuple[Variant, ...]:
    """All of them, in the order of the index."""
    told = tomllib.loads((pages.folder() / "originals.toml").read_text(encoding="utf-8"))
    return tuple(
        Variant(
            enum=enum,
            name=name,
            crate=rows["crate"],
            file=rows["file"],
            category=rows["category"],
            means=means,
            severity=severity,
            here=here,
            look=look,
        )
        for enum, rows in told.items()
        for name, means, severity, here, look in rows["variants"]
    )


@functools.cache
def enums() -> dict[str, tuple[Variant, ...]]:
    """The variants of each enum."""
    found: dict[str, list[Variant]] = {}
    for variant in variants():
        found.setdefault(variant.enum, []).append(variant)
    return {enum: tuple(rows) for enum, rows in found.items()}


def find(word: str) -> tuple[Variant, ...]:
    """The variants that a name means, in any case: `Enum`, `Enum::Variant`, with or without what stands before the
    enum. Empty when it is no such name.
    """
    parts = [part.lower() for part in word.strip().split("::") if part]
    if not parts:
        return ()
    return tuple(v for v in variants() if _ends_with(v.enum.lower().split("::"), v.name.lower(), parts))


def _ends_with(enum: list[str], name: str, asked: list[str]) -> bool:
    whole = [*enum, name]
    if asked[-1] == name and len(asked) >= 2 and whole[-2] == asked[-2]:
        return len(asked) <= 2 or len(whole) <= 2 or whole[-3] == asked[-3]
    if asked[-1] != enum[-1]:
        return False
    return len(asked) == 1 or len(enum) == 1 or enum[-2] == asked[-2]
