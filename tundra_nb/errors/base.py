"""The root of the tree: what every error carries, and its form on the wire."""

from __future__ import annotations

import dataclasses
import time
from typing import Any, ClassVar, Literal

from . import spelling
from .spans import shown

_STEERING = dict.fromkeys((*range(9), *range(11, 32), *range(127, 160)))
"""Characters that steer a terminal: words of a provider or a program must not."""
Severity = Literal["critical", "high", "medium", "low", "info"]


@dataclasses.dataclass(eq=False, kw_only=True)
class TundraError(Exception):
    """Base of all errors raised on purpose.

    The class attributes say how an error is handled; the dataclass fields are its facts, each a JSON value.
    """

    code: ClassVar[str] = "TundraError"
    """Stable word that users look up with `explain`."""
    severity: ClassVar[Severity] = "medium"
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    """The same call on the same profile may succeed after a pause."""
    fails_over: ClassVar[bool] = False
    """Another profile may succeed."""
    trips_breaker: ClassVar[bool] = False
    """Counts as a failure of the profile."""
    parks: ClassVar[bool] = False
    """The profile stays unusable until settings change or it is rechecked."""
    guide: ClassVar[str] = "index"
    """Page of `tundra_nb/guide/errors` that explains it: each class has one of its own name."""

    def __init_subclass__(cls) -> None:
        cls.guide = cls.__name__

    @property
    def message(self) -> str:
        """One sentence of cause."""
        return self.code

    @property
    def hint(self) -> str:
        """One sentence of remedy."""
        return f"`%tundra explain {self.code}` tells more."

    @property
    def commands(self) -> tuple[str, ...]:
        """The commands that the hint names, as every face has them: `("providers recheck NAME",)`."""
        return spelling.commands(self.hint)

    @property
    def reason(self) -> str:
        """The cause in one stable snake_case word, for filters and columns."""
        return "".join("_" + c.lower() if c.isupper() else c for c in type(self).__name__).lstrip("_")

    @property
    def facts(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.facts)

    def _render_traceback_(self) -> list[str]:
        """What IPython shows instead of a traceback: one line, the hint, where to read on."""
        lines = [f"{self.code}: {shown(self.message, time.time_ns() // 1000)}"]
        if self.hint:
            lines.append(f"  → {self.hint}")
        lines.append(f"  %tundra explain {self.code}")
        return [line.translate(_STEERING) for line in lines]

    def to_wire(self) -> dict[str, Any]:
        """The JSON body of an error answer."""
        return {
            "code": self.code,
            "type": type(self).__name__,
            "message": self.message,
            "reason": self.reason,
            "hint": self.hint,
            "retryable": self.retryable,
            "retry_after": getattr(self, "retry_after", None),
            "severity": self.severity,
            "guide": f"errors/{self.guide}",
            "facts": self.facts,
        }


def _rebuild(cls: type[TundraError], facts: dict[str, Any]) -> TundraError:
    return cls(**facts)
