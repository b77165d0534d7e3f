"""The commands that a hint names: found as data, and spelled as a face, or for a source, spells them.

Hints name commands in backticks, as a notebook spells them: `%tundra providers recheck NAME`.
"""

from __future__ import annotations

import re

_COMMAND = re.compile(r"`%{0,2}tundra ([^`]+)`")
_MAGIC = re.compile(r"%{1,2}tundra ")
OF_SOURCES = (
    *("why", "last", "explain", "calls", "attempts", "errors", "limit-history", "breaker-history", "pty-history"),
    *("connections", "notes", "agent-runs", "agent-steps", "sql", "dash", "logs"),
)
"""Commands that take `--in NAME`."""
_OF_SOURCE = re.compile(rf"((?:`|%{{1,2}})tundra (?:{'|'.join(OF_SOURCES)}))(?=[ `])(?! --in )")


def commands(text: str) -> tuple[str, ...]:
    """The commands that a text names, without the word that calls them: `("providers recheck NAME",)`."""
    return tuple(_COMMAND.findall(text))


def inside(text: str, source: str | None) -> str:
    """The text with its commands reading this source, those that can; as it is where there is none."""
    return text if source is None else _OF_SOURCE.sub(lambda found: f"{found[1]} --in {source}", text)


def as_typed(text: str, prefix: str = "tundra ") -> str:
    """The text with its commands as they are typed in a shell, or behind another prefix."""
    return _MAGIC.sub(prefix, text) if "%tundra " in text else text
