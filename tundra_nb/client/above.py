"""The rooms above the client, for those of its methods whose work is done there.

A user finds `t.triage(…)` where `t.why(…)` is. The client itself imports nothing above it; such a method names the
function that does its work, and that is imported when it is called. The types of its results live below the client.
"""

from __future__ import annotations

import importlib
from typing import Any


def above(module: str, function: str) -> Any:
    """A function of a room above, by name."""
    return getattr(importlib.import_module(module), function)
