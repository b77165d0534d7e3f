"""What an error code means."""

from __future__ import annotations

from collections.abc import Sequence

from tundra_nb.client import times
from tundra_nb.client.explain import Explanation

from .blocks import Block, Cell, Facts, Heading, Para, Prose, Styled, Table


def blocks(explanation: Explanation) -> Sequence[Block]:
    """Meaning, handling, remedy, and what happened here."""
    made: list[Block] = [Heading(explanation.code)]
    made.append(Prose(explanation.page) if explanation.page else Para(explanation.summary))
    made.append(
        Facts(
            [
                ("severity", explanation.severity),
                ("repeats", "the same profile may be asked again" if explanation.retryable else "never by itself"),
                ("fails over", "to the next profile" if explanation.fails_over else "no"),
                ("breaker", "counts as a failure" if explanation.trips_breaker else "does not count"),
                *([("parks", "the profile, until it is rechecked")] if explanation.parks else []),
                ("HTTP", str(explanation.http_status)),
                ("here", f"{explanation.count:,} within 24 h" if explanation.count else "none within 24 h"),
            ]
        )
    )
    if explanation.here:
        rows: list[list[Cell]] = [
            [times.local(row["at"]), _name(row["profile"]), Styled(str(row["message"]), "bad")]
            for row in explanation.here
        ]
        made.append(Table(["at", "profile", "message"], rows, title="lately here"))
    return made


def _name(value: object) -> str:
    return value if isinstance(value, str) else ""
