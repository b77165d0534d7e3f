"""The table of checks: to add one, write its function in the module of its group and name it in that module's list."""

from __future__ import annotations

from . import configuration, daemon, database, interpreters, processes, providers
from .check import Check

CHECKS: tuple[Check, ...] = (
    *daemon.CHECKS,
    *configuration.CHECKS,
    *interpreters.CHECKS,
    *providers.CHECKS,
    *database.CHECKS,
    *processes.CHECKS,
)


def for_symptom(symptom: str) -> tuple[Check, ...]:
    """The checks that answer a symptom."""
    if symptom == "everything":
        return CHECKS
    return tuple(check for check in CHECKS if symptom in (check.group, *check.also))
