"""Errors on the wire: every class of the tree, and the way back from the JSON body of an error answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .base import TundraError
from .use import InternalError


def every_error() -> Iterator[type[TundraError]]:
    """All classes of the tree, parents first."""
    todo: list[type[TundraError]] = [TundraError]
    while todo:
        cls = todo.pop(0)
        yield cls
        todo += cls.__subclasses__()


def from_wire(body: dict[str, Any]) -> TundraError:
    """Rebuild the error that `to_wire` described; an unknown type becomes an `InternalError` with the same message."""
    facts = body.get("facts") or {}
    for cls in every_error():
        if cls.__name__ == body.get("type"):
            try:
                return cls(**facts)
            except TypeError:
                break
    return InternalError(problem=str(body.get("message") or "the daemon answered with an error of an unknown form"))
