"""A bundle: where it is, what is in it, what was masked."""

from __future__ import annotations

from collections.abc import Sequence

from tundra_nb.doctor.bundle import Bundle

from .blocks import Block, Facts, Heading, Para, Styled, Table


def blocks(told: Bundle) -> Sequence[Block]:
    made: list[Block] = [
        Heading(Styled(told.file, "good")),
        Facts([("size", f"{told.size_bytes / 1000:,.0f} kB"), ("holds", ", ".join(told.members))]),
    ]
    rows = [
        [member, mask, str(count)] for member, counts in told.masked.items() for mask, count in sorted(counts.items())
    ]
    if rows:
        made.append(Table(["in", "masked", "times"], rows, right=frozenset({2}), title="what was masked"))
    else:
        made.append(Para("Nothing had to be masked."))
    made += [Para(Styled(f"missing: {line}", "warn")) for line in told.missing]
    made.append(Para("Look through it before you send it: what is no key may still be private."))
    return made
