"""The rooms above the client, for those of its methods whose work is done there.

A user finds `t.triage(…)` where `t.why(…)` is. The client itself imports nothing above it; such a method names the
function that does its work, and that is imported when it is called. The types of its results live below the client.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, TypedDict

from tundra_nb.types.triage import TriageStep

from .times import When


class TriageOptions(TypedDict, total=False):
    """Keyword arguments of `triage`; see `Client.triage`."""

    profile: str | None
    since: When | None
    at: str | None
    budget_usd: float | None
    deadline: float
    calls: int
    act: bool
    model: bool
    on_step: Callable[[TriageStep], None] | None
    approve: Callable[[str], bool] | None


class DashboardOptions(TypedDict, total=False):
    """Keyword arguments of `dashboard`; see `Client.dashboard`."""

    between: tuple[When, When] | None
    at: str | None
    incident: str | None
    source: str | None
    profile: str | None
    code: str | None
    caller: str | None


class RehearsalOptions(TypedDict, total=False):
    """Which calls a rehearsal begins with, and what is other in it."""

    since: When | None
    between: tuple[When, When] | None
    at: str | None
    settings: Sequence[str]
    on_progress: Callable[[str], None] | None


class SimulateOptions(RehearsalOptions, total=False):
    """Keyword arguments of `simulate`; see `Client.simulate`."""

    propose: str | None
    workers: int | None


class ReplayOptions(RehearsalOptions, total=False):
    """Keyword arguments of `replay`; see `Client.replay`."""

    speed: float | None


def above(module: str, function: str) -> Any:
    """A function of a room above, by name."""
    return getattr(importlib.import_module(module), function)
