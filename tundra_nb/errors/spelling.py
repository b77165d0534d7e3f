"""The commands that a hint names: found as data, and spelled as a face spells them.

Hints name commands in backticks, as a notebook spells them: `%tundra providers recheck NAME`.
"""

from __future__ import annotations

import re

_COMMAND = re.compile(r"`%{0,2}tundra ([^`]+)`")
_MAGIC = re.compile(r"%{1,2}tundra ")


def commands(text: str) -> tuple[str, ...]:
    """The commands that a text names, without the word that calls them: `("providers recheck NAME",)`."""
    return tuple(_COMMAND.findall(text))


def as_typed(text: str, prefix: str = "tundra ") -> str:
    """The text with its commands as they are typed in a shell, or behind another prefix."""
    return _MAGIC.sub(prefix, text) if "%tundra " in text else text
